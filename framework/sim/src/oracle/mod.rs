//! The oracle: knows what each guest may get, judges every answer, every command and the end of the world.

mod allowed;
mod domains;
mod lately;
mod order;
mod shadow;
mod violation;

pub(crate) use domains::Owned;
pub(crate) use order::{Command, Language, Order, commands};
pub(crate) use shadow::{Context, Effect, Entry, History, Leaf, Mode, Shadow, Window};
pub use violation::{Clause, Violation};

use crate::{Counters, Opinion};
use domains::Domains;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use viommu::HostEvent;
use viommu::backend::{ObjectKind, Owner};
use viommu::simulation::Simulation;
use viommu_plugin::{Answer, Request, Status};

/// Shared by everybody in a world. One thread runs them all, and nobody gives way with it locked.
#[derive(Clone, Default)]
pub(crate) struct Oracle(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) vms: BTreeMap<u32, Shadow>,
    pub(crate) orders: BTreeMap<u32, Order>,
    /// Machines by the number that the hardware queue knows.
    pub(crate) owners: BTreeMap<Owner, u32>,
    /// Machines by their vIOMMU's ID.
    viommus: BTreeMap<u32, u32>,
    events: Option<flume::Receiver<HostEvent>>,
    pub(crate) counters: Counters,
    violation: Option<Violation>,
    patience: Duration,
    /// Faults of stage 1 that devices had, by machine, device and address.
    faulted: BTreeSet<(u32, u32, u64)>,
    /// Tags of the hardware.
    pub(crate) domains: Domains,
}

impl Oracle {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of a machine's shadow.
    pub(crate) fn vm<R>(&self, vm: u32, change: impl FnOnce(&mut Shadow) -> R) -> Option<R> {
        self.lock().vms.get_mut(&vm).map(change)
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.lock().counters.add(what, 1);
    }

    /// Where the host tells what happens to it.
    pub(crate) fn listen(&self, events: flume::Receiver<HostEvent>) {
        self.lock().events = Some(events);
    }

    /// A machine's vIOMMU exists.
    pub(crate) fn enter(&self, vm: u32, viommu: u32, owner: u32) {
        let mut inner = self.lock();
        inner.viommus.insert(viommu, vm);
        inner.owners.insert(Owner(owner), vm);
    }

    /// How long a correct guest may wait.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.lock().patience = patience;
    }

    /// The guest of a machine waits for the host, or no longer.
    pub(crate) fn waits(&self, vm: u32, waits: bool) {
        let now = Simulation::current().map(|simulation| simulation.now()).filter(|_| waits);
        self.vm(vm, |shadow| shadow.waits_since = now);
    }

    pub(crate) fn violated(&self) -> bool {
        self.lock().violation.is_some()
    }

    pub(crate) fn take_violation(&self) -> Option<Violation> {
        self.lock().violation.take()
    }

    /// Something must not be. The first one counts.
    pub(crate) fn violation(&self, violation: Violation) {
        self.lock().violated(violation);
    }

    /// A device of `vm` got this answer, at this very moment.
    pub(crate) fn judge(&self, vm: u32, virt_id: u32, request: &Request, answer: &Answer) {
        let mut inner = self.lock();
        inner.hear();
        inner.judge(vm, virt_id, request, answer);
    }

    /// A device of `vm` got this answer to the same request from the second IOMMU, where it got `model` from the model.
    pub(crate) fn judge_second(&self, vm: u32, virt_id: u32, request: &Request, model: &Answer, opinion: &Opinion) {
        let mut inner = self.lock();
        if let Some(wrong) = &opinion.wrong {
            return inner.violated(Violation::of_vm(Clause::Differs, vm, wrong.clone()));
        }
        let violated = inner.violation.is_some();
        inner.counters.add("second.judged", 1);
        inner.counters.add("second.differs-by-cache", opinion.differs.into());
        inner.judge(vm, virt_id, request, &opinion.answer);
        if let Some(violation) = inner.violation.as_mut().filter(|_| !violated) {
            let words = format!("; the model answered {}", words(model));
            violation.what.insert_str(0, "the second IOMMU: ");
            violation.what.push_str(&words);
        }
    }

    /// Pages that changed lately for a device, the newest first: first address and log2 of the size.
    pub(crate) fn changed_lately(&self, vm: u32, virt_id: u32) -> Vec<(u64, u8)> {
        self.lock().vms.get(&vm).map(|shadow| shadow.changed_lately(virt_id)).unwrap_or_default()
    }

    /// Where a device should try now whether it gets what it may: each change once.
    pub(crate) fn take_untried(&self, vm: u32, virt_id: u32) -> Option<(u64, u8)> {
        self.vm(vm, |shadow| shadow.take_untried(virt_id)).flatten()
    }

    /// The guest of `vm` has seen the SYNC at this place of its queue.
    pub(crate) fn synced(&self, vm: u32, at: u64) {
        let mut inner = self.lock();
        inner.counters.add("sync.seen", 1);
        if let Some(shadow) = inner.vms.get_mut(&vm) {
            shadow.synced(at);
        }
        if let Some(found) = inner.orders.get_mut(&vm).and_then(|order| order.synced(at)) {
            inner.violated(Violation::of_vm(Clause::Order, vm, found));
        }
    }
}

impl Inner {
    pub(crate) fn violated(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Whether a device had a fault at one of these addresses.
    pub(crate) fn has_faulted(&self, vm: u32, virt_id: u32, first: u64, last: u64) -> bool {
        self.faulted.range((vm, virt_id, first)..=(vm, virt_id, last)).next().is_some()
    }

    /// What the host told since the last time.
    fn hear(&mut self) {
        let events: Vec<_> = self.events.iter().flat_map(flume::Receiver::try_iter).collect();
        for event in events {
            let (what, concerned, why) = match &event {
                HostEvent::Degraded { kind, id, reason } => ("event.degraded", Some((*kind, *id)), reason.clone()),
                HostEvent::Blocked { kind, id } => ("event.blocked", Some((*kind, *id)), "blocked".into()),
                HostEvent::Restarted { .. } => ("event.restarted", None, String::new()),
                HostEvent::Quarantined { kind, id, reason } => {
                    ("event.quarantined", Some((*kind, *id)), reason.clone())
                }
                HostEvent::HostFault { .. } => ("event.host-fault", None, String::new()),
                HostEvent::EventsLost => ("event.lost", None, String::new()),
                _ => ("event.other", None, String::new()),
            };
            self.counters.add(what, 1);
            let Some((ObjectKind::Viommu, id)) = concerned else { continue };
            if let Some(shadow) = self.viommus.get(&id).and_then(|vm| self.vms.get_mut(vm)) {
                shadow.forgiven.get_or_insert(why);
            }
        }
    }

    fn judge(&mut self, vm: u32, virt_id: u32, request: &Request, answer: &Answer) {
        let passed = passes(answer);
        if !passed && request.flags & Request::SPECULATIVE == 0 {
            self.faulted.insert((vm, virt_id, request.iova));
        }
        let Some(shadow) = self.vms.get(&vm) else { return };
        if let (true, Some(since)) = (shadow.correct, shadow.waits_since) {
            let waited = Simulation::current().map_or(since, |simulation| simulation.now()) - since;
            if waited > self.patience {
                let what = format!("a register write has not returned for {waited:?}");
                return self.violated(Violation::of_vm(Clause::Liveness, vm, what));
            }
        }
        let allowed = shadow.allowed(virt_id, request.iova, request.access & 2 != 0);
        self.counters.add("dma.judged", 1);
        self.counters.add(if passed { "dma.translated" } else { "dma.refused" }, 1);
        if allowed.outputs.len() + usize::from(allowed.refusal) > 1 {
            self.counters.add("dma.freedom", 1);
        }
        let interrupt = shadow.interrupts.is_some_and(|(first, last)| (first..=last).contains(&request.iova));
        let clause = match passed {
            true if interrupt && answer.output == request.iova => return,
            true if shadow.is_absent(virt_id) => Clause::Removed,
            true if shadow.quarantined => Clause::Quarantine,
            true if !shadow.owns(answer.output) => Clause::Isolation,
            true if shadow.correct && !allowed.outputs.contains(&answer.output) => Clause::Stale,
            false if shadow.correct && !allowed.refusal => Clause::Denied,
            _ => return,
        };
        let kind = ["asks", "reads", "writes", "reads and writes"][(request.access & 3) as usize];
        let what = format!(
            "device {virt_id:#x} (stream {:#x}) {kind} {:#x}: expected one of {allowed}, got {}",
            request.stream,
            request.iova,
            words(answer)
        );
        self.violated(Violation::of_vm(clause, vm, what));
    }
}

fn passes(answer: &Answer) -> bool {
    matches!(answer.status, Status::OK | Status::BYPASS | Status::DISABLED)
}

fn words(answer: &Answer) -> String {
    if passes(answer) {
        return format!("{:#x}", answer.output);
    }
    format!("status {}, stage {}, fault {:#x}", answer.status.0, answer.stage, answer.fault)
}
