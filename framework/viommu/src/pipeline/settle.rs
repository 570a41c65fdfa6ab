//! Whether a guest's queue may run, and waiting for it to come to rest.

use crate::seams::{Clock, Wait, lock};
use crate::simulation;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A configuration command waits for the control plane.
const PAUSED: u32 = 1;
/// Out of service for good.
const QUARANTINED: u32 = 2;
/// The state was saved, or is about to be: it may be another host's from there on.
const SAVING: u32 = 4;

/// Shared between the threads that run the queue, those that answer, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Settle {
    flags: AtomicU32,
    /// Mode changes asked for and not answered.
    asked: AtomicUsize,
    waiters: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Settle {
    pub(super) fn pause(&self) {
        self.flags.fetch_or(PAUSED, Ordering::SeqCst);
    }

    pub(super) fn resume(&self) {
        self.flags.fetch_and(!PAUSED, Ordering::SeqCst);
    }

    pub(super) fn begin_saving(&self) {
        self.flags.fetch_or(SAVING, Ordering::SeqCst);
    }

    pub(super) fn end_saving(&self) {
        self.flags.fetch_and(!SAVING, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn answered(&self) {
        // An answer nobody asked for (a retry of the control plane) must not count for a later question.
        let _ = self.asked.try_update(Ordering::SeqCst, Ordering::SeqCst, |asked| asked.checked_sub(1));
        self.notify();
    }

    /// Whether this call was the one that did it.
    pub(super) fn quarantine(&self) -> bool {
        let before = self.flags.fetch_or(QUARANTINED, Ordering::SeqCst);
        self.notify();
        before & QUARANTINED == 0
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & QUARANTINED != 0
    }

    /// The control plane owes an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & PAUSED != 0 || self.asked.load(Ordering::SeqCst) > 0
    }

    /// The queue must not be touched now.
    pub(super) fn is_held(&self) -> bool {
        self.flags.load(Ordering::SeqCst) != 0
    }

    /// Wakes waiters; costs one load when there are none.
    pub(super) fn notify(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.gate));
            self.changed.notify_all();
        }
    }

    pub(super) fn wait_answered(&self, limit: Duration, clock: &dyn Clock) -> bool {
        self.wait(limit, clock, || self.asked.load(Ordering::SeqCst) == 0 || self.is_quarantined())
    }

    /// Waits until `settled` says so; `false` if `limit` ran out. `settled` may take the other locks, so it is not asked
    /// under the gate: a change in between is caught by the short interval.
    pub(super) fn wait(&self, limit: Duration, clock: &dyn Clock, settled: impl Fn() -> bool) -> bool {
        const RECHECK: Duration = Duration::from_micros(200);
        if settled() {
            return true;
        }
        let end = clock.now() + limit;
        let mut waiting = Wait::new();
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut done = settled();
        while !done && clock.now() < end {
            if simulation::is_here() {
                waiting.pause();
            } else {
                let gate = lock(&self.gate);
                drop(self.changed.wait_timeout(gate, RECHECK).unwrap_or_else(PoisonError::into_inner));
            }
            done = settled();
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        done
    }
}
