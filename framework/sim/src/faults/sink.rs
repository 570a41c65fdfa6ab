//! The hardware queue, watched: what each machine's data path puts on it is told to the oracle, and broken on purpose
//! before or behind it.

use crate::inject::Injection;
use crate::oracle::{Clause, Inner, Language, Oracle, Violation, commands};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use viommu::backend::{Batch, Host, Owner, Position, Sink, SinkError, Words};
use viommu::simulation;

/// A sink around another.
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn Sink<Accepts = Host>>,
    pub(crate) oracle: Oracle,
    pub(crate) language: Language,
    pub(crate) injection: Option<Injection>,
    pub(crate) invalidations: AtomicU64,
}

impl Watched {
    fn breaks(&self, injection: Injection) -> bool {
        self.injection == Some(injection)
    }

    /// What an injection leaves of the commands before the oracle sees them.
    fn before(&self, words: &mut Vec<u64>) {
        let nth = self.invalidations.fetch_add(1, Ordering::Relaxed);
        if self.breaks(Injection::LoseCommand) && nth % 3 == 1 {
            words.truncate(words.len().saturating_sub(self.language.words));
        }
        if self.breaks(Injection::SwapCommands) && words.len() >= 2 * self.language.words {
            words.rotate_left(self.language.words);
        }
    }

    /// What an injection leaves of the commands that the oracle has seen.
    fn behind(&self, words: &mut Vec<u64>) {
        let given = std::mem::take(words);
        for command in commands(&given, self.language.words) {
            let invalidates = (self.language.invalidation)(command).is_some();
            let count = || self.invalidations.fetch_add(1, Ordering::Relaxed);
            let lost = match self.injection {
                Some(Injection::DropInvalidation) => invalidates && count() % 3 == 0,
                Some(Injection::DropConfiguration) => !invalidates,
                _ => false,
            };
            if lost {
                simulation::note(|| format!("lost on its way to the hardware: {command:x?}"));
                continue;
            }
            let command = match self.injection {
                Some(Injection::WrongTag) if invalidates => (self.language.with_other_tag)(command),
                _ => command,
            };
            words.extend(&command[..self.language.words]);
        }
    }
}

impl Sink for Watched {
    type Accepts = Host;

    fn submit(&self, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        if batch.owner == Owner::HOST {
            return self.inner.submit(batch);
        }
        let mut words = batch.words.as_slice().to_vec();
        self.before(&mut words);
        let seen = words.clone();
        self.behind(&mut words);
        let position = self.inner.submit(Batch { words: Words::injected(&words), ..batch });
        if position.is_ok() {
            let mut inner = self.oracle.lock();
            inner.counters.add("batch.placed", 1);
            let Inner { owners, orders, domains, .. } = &mut *inner;
            match owners.get(&batch.owner).copied() {
                Some(vm) => {
                    if let Some(order) = orders.get_mut(&vm) {
                        let domain_of = |tag| domains.domain_of(vm, tag);
                        commands(&seen, self.language.words).for_each(|command| order.placed(command, domain_of));
                    }
                }
                None => inner.violated(Violation::new(Clause::Order, format!("commands of nobody: {:?}", batch.owner))),
            }
        }
        position
    }

    fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        if self.breaks(Injection::CompleteEarly) && owner != Owner::HOST {
            return Ok(());
        }
        while self.breaks(Injection::Hang) && owner != Owner::HOST {
            simulation::sleep(Duration::from_micros(100));
        }
        let done = self.inner.wait(owner, position);
        if matches!(done, Err(SinkError::TimedOut(_))) {
            self.oracle.count("sync.timed-out");
        }
        done
    }

    fn is_done(&self, position: Position) -> bool {
        !self.breaks(Injection::Hang) && self.inner.is_done(position)
    }
}
