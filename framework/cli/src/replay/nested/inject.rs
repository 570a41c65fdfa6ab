//! `--inject`: a sink around the real one that breaks it on purpose, so that a replay can show that it would notice.
//!
//! What a command is, and how it would look with another guest's tag, the vendor's own codec says: host words are
//! rewritten once more, with every stream and every domain mapped to itself, or every domain to that tag.

use crate::replay::args::Injection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use viommu::backend::direct::ModelHardware;
use viommu::backend::{Batch, Host, Owner, Position, Sink, SinkError, Words};
use viommu_plugin::{Classes, HostIds, Rewritten};
use viommu_plugin_host::Codec;

/// Batches of the first machine before its illegal command: the guest is up by then.
const ILLEGAL_AFTER: u64 = 32;
/// Commands of a machine that `reorder-atc` holds back at most: one without an ATC invalidation would wait for ever.
const HELD: usize = 1024;
/// Commands handed on at once: what a sink takes in one batch is bounded by its ring.
const CHUNK: usize = 64;

/// Which machine has which number and tag; filled when the machines exist.
#[derive(Debug, Default)]
pub(super) struct Roster {
    machines: RwLock<BTreeMap<Owner, u32>>,
    /// Tags of the guests' own domains, as their commands named them.
    domains: RwLock<BTreeSet<u32>>,
}

impl Roster {
    /// Enters a machine's number at the sink, and its tag. In the order of the machines.
    pub(super) fn enter(&self, owner: Owner, tag: u32) {
        if let Ok(mut machines) = self.machines.write() {
            machines.insert(owner, tag);
        }
    }

    fn first(&self) -> Option<Owner> {
        self.machines.read().ok()?.keys().next().copied()
    }

    /// The tag of the machine after `owner`, the first after the last.
    fn next_tag(&self, owner: Owner) -> Option<u32> {
        let machines = self.machines.read().ok()?;
        let later = machines.range((std::ops::Bound::Excluded(owner), std::ops::Bound::Unbounded)).next();
        later.or_else(|| machines.iter().next()).map(|(_, &tag)| tag)
    }

    /// A command named this domain.
    fn name_domain(&self, tag: u32) {
        let known = self.domains.read().is_ok_and(|domains| domains.contains(&tag));
        if !known && let Ok(mut domains) = self.domains.write() {
            domains.insert(tag);
        }
    }

    /// Every tag under which a command of this kind may hit something.
    fn tags(&self, of_domains: bool) -> Vec<u32> {
        if of_domains {
            return self.domains.read().map(|domains| domains.iter().copied().collect()).unwrap_or_default();
        }
        self.machines.read().map(|machines| machines.values().copied().collect()).unwrap_or_default()
    }
}

/// Devices that `atc-timeout` makes silent.
pub(super) struct Silent {
    pub(super) hardware: Arc<ModelHardware>,
    pub(super) streams: Vec<u32>,
}

/// The sink that breaks things.
pub(super) struct Injector {
    pub(super) inner: Arc<dyn Sink<Accepts = Host>>,
    pub(super) what: Injection,
    pub(super) codec: Arc<Codec>,
    pub(super) command_words: usize,
    /// Every number is itself: streams, and domains.
    pub(super) itself: Vec<u32>,
    pub(super) roster: Arc<Roster>,
    pub(super) invalidations: AtomicU64,
    pub(super) batches: AtomicU64,
    /// TLB invalidations of each machine that wait for its next ATC invalidation.
    pub(super) held: Mutex<BTreeMap<Owner, Vec<u64>>>,
    /// The devices of the first machine.
    pub(super) silent: Arc<Silent>,
    /// What happens once has happened.
    pub(super) done: AtomicBool,
}

impl Injector {
    /// The command with another guest's numbers, and what it is.
    fn rewritten(&self, command: &[u64], tag: u32, domains: &[u32]) -> Option<(Vec<u64>, Rewritten)> {
        let mut out = vec![0; self.command_words];
        let ids = HostIds { tag, streams: &self.itself, domains };
        let rewritten = self.codec.rewrite(command, Classes::NONE, ids, &mut out).ok()?;
        (rewritten.written == 1).then_some((out, rewritten))
    }

    /// The domain that the command names, if it does: it can be rewritten only if that domain has a host number.
    fn domain_of(&self, command: &[u64]) -> Option<usize> {
        let fits = |domains: usize| self.rewritten(command, 0, &self.itself[..domains]).is_some();
        if fits(0) || !fits(self.itself.len()) {
            return None;
        }
        let (mut none, mut named) = (0, self.itself.len());
        while named - none > 1 {
            let middle = none + (named - none) / 2;
            if fits(middle) { named = middle } else { none = middle }
        }
        Some(none)
    }

    /// The command with another tag: in place of its domain's, if it names one.
    fn with_tag(&self, command: &[u64], domain: Option<usize>, tag: u32) -> Vec<u64> {
        let domains = vec![tag; domain.map_or(0, |domain| domain + 1)];
        self.rewritten(command, tag, &domains).map(|(words, _)| words).unwrap_or_default()
    }

    /// Appends what becomes of one command.
    fn tamper(&self, owner: Owner, command: &[u64], out: &mut Vec<u64>) {
        let Some((_, is)) = self.rewritten(command, 0, &self.itself) else {
            out.extend_from_slice(command);
            return;
        };
        match self.what {
            Injection::DropInvalidation { every } if is.tlb > 0 => {
                let count = self.invalidations.fetch_add(1, Ordering::Relaxed) + 1;
                if !count.is_multiple_of(every.get()) {
                    out.extend_from_slice(command);
                }
            }
            Injection::DropAtc if is.atc > 0 => {}
            Injection::WrongVmid if is.tlb > 0 => {
                let wrong = self.roster.next_tag(owner).map(|tag| self.with_tag(command, self.domain_of(command), tag));
                out.extend(wrong.unwrap_or_default());
            }
            Injection::Widen if is.tlb > 0 => {
                let domain = self.domain_of(command);
                domain.into_iter().for_each(|domain| self.roster.name_domain(domain as u32));
                for tag in self.roster.tags(domain.is_some()) {
                    out.extend(self.with_tag(command, domain, tag));
                }
            }
            Injection::ReorderAtc if is.tlb > 0 || is.atc > 0 => self.reorder(owner, command, is.atc > 0, out),
            _ => out.extend_from_slice(command),
        }
    }

    /// Holds a TLB invalidation back; an ATC invalidation has those held behind it.
    fn reorder(&self, owner: Owner, command: &[u64], atc: bool, out: &mut Vec<u64>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.entry(owner).or_default();
        (if atc { &mut *out } else { &mut *held }).extend_from_slice(command);
        if atc || held.len() >= HELD * self.command_words {
            out.append(held);
        }
    }

    fn is_time_for_illegal(&self, owner: Owner) -> bool {
        self.what == Injection::IllegalCommand
            && self.roster.first() == Some(owner)
            && self.batches.fetch_add(1, Ordering::Relaxed) >= ILLEGAL_AFTER
            && !self.done.swap(true, Ordering::Relaxed)
    }

    /// From the first machine's first invalidation of a device cache on, its devices answer none. Not earlier: the
    /// framework's own, when a device is attached, is not the guest's.
    fn silence(&self, batch: &Batch<'_, Host>) {
        let is_time = self.what == Injection::AtcTimeout
            && batch.classes.any(Classes::ATC)
            && self.roster.first() == Some(batch.owner)
            && !self.done.swap(true, Ordering::Relaxed);
        for &stream in self.silent.streams.iter().filter(|_| is_time) {
            if let Err(error) = self.silent.hardware.atc_unresponsive(stream, true) {
                tracing::error!(stream, %error, "the device answers all the same");
            }
        }
    }
}

impl Sink for Injector {
    type Accepts = Host;

    fn submit(&self, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        if batch.owner == Owner::HOST {
            return self.inner.submit(batch);
        }
        self.silence(&batch);
        let mut words = Vec::with_capacity(batch.words.as_slice().len());
        if self.is_time_for_illegal(batch.owner) {
            words.extend(std::iter::repeat_n(u64::MAX, self.command_words));
        }
        for command in batch.words.as_slice().chunks_exact(self.command_words) {
            self.tamper(batch.owner, command, &mut words);
        }
        let mut rest = words.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(CHUNK * self.command_words));
            let sync = batch.sync && later.is_empty();
            let position = self.inner.submit(Batch { words: Words::injected(now), sync, ..batch })?;
            if later.is_empty() {
                return Ok(position);
            }
            rest = later;
        }
    }

    fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        if self.what == Injection::CompleteEarly && owner != Owner::HOST {
            return Ok(());
        }
        self.inner.wait(owner, position)
    }

    fn is_done(&self, position: Position) -> bool {
        self.inner.is_done(position)
    }
}
