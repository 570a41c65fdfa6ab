//! Repair of a stopped command queue, and who is told.
//!
//! ```text
//!   stopped at index i ─► owner of slot i ─► illegal: slot becomes a SYNC, owner is out ──┐
//!                                        ├─► device cache: owner's next wait says so ─────┼─► resume
//!                                        └─► fetch: try again, a few times ───────────────┘
//! ```
//!
//! The repair runs on whichever thread waits for the queue and finds the driver free: the driver's lock is what makes
//! one of them do it. It is only ever tried, never waited for. While the driver itself is in a call that issues
//! commands, nobody can repair, and nobody needs to: the ring was emptied and closed to guests before
//! ([`RingSink::exclusive`]), so that only the host's own commands are on it, and the call ends with an error.

use super::ring::RingSink;
use crate::backend::{BackendEvent, Owner, SinkError};
use crate::seams::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use viommu_plugin::{GuestFault, QueueFault, QueueFaultKind};

/// Stops at one place before the queue is given up.
const PATIENCE: u32 = 8;

/// Who can tell why a queue stopped and make it go on: the driver.
pub trait QueueControl: Send + Sync {
    /// Hands the reason of the stop, if the queue is stopped, to `repair`, and resumes if that returns `true`. Does
    /// nothing, without waiting, if the driver is busy: with another repair, for example.
    fn attend(&self, repair: &mut dyn FnMut(QueueFault) -> bool);
}

/// What went wrong with whose commands.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    any: AtomicBool,
    owners: Mutex<HashMap<Owner, Trouble>>,
    /// Position and number of the stops since the queue last moved.
    last: Mutex<(u64, u32)>,
    /// Error bits that were left in the consumer register when the queue ran.
    stale: AtomicU32,
}

#[derive(Debug)]
struct Trouble {
    fault: GuestFault,
    /// The command at this position caused it.
    at: u64,
    /// Positions up to here were given out before it was found.
    horizon: u64,
    /// Whether a wait returned it.
    told: bool,
    /// Takes no more commands.
    out: bool,
}

impl Troubles {
    /// Whether this owner may put commands on the ring.
    #[inline]
    pub(super) fn admit(&self, owner: Owner) -> Result<(), SinkError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        match lock(&self.owners).get(&owner) {
            Some(trouble) if trouble.out => Err(SinkError::Quarantined),
            _ => Ok(()),
        }
    }

    /// What `owner` is to be told when the queue passed `position`. A fault is told to every wait for a position that
    /// was given out before the fault was found, and in any case to one wait.
    #[inline]
    pub(super) fn check(&self, owner: Owner, position: u64) -> Result<(), SinkError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut owners = lock(&self.owners);
        let Some(trouble) = owners.get_mut(&owner) else { return Ok(()) };
        if position <= trouble.at {
            return Ok(());
        }
        let (fault, told) = (trouble.fault, trouble.told);
        if trouble.out || position <= trouble.horizon {
            trouble.told = true;
            return Err(SinkError::Fault(fault));
        }
        owners.remove(&owner);
        self.any.store(!owners.is_empty(), Ordering::Release);
        if told { Ok(()) } else { Err(SinkError::Fault(fault)) }
    }

    fn record(&self, owner: Owner, new: Trouble) {
        let mut owners = lock(&self.owners);
        match owners.get_mut(&owner) {
            Some(old) if old.out => {}
            Some(old) => {
                let at = if old.told { new.at } else { old.at.min(new.at) };
                *old = Trouble { at, ..new };
            }
            None => {
                owners.insert(owner, new);
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// Forgets what `owner` was to be told: it knows.
    pub(super) fn forgive(&self, owner: Owner) {
        let mut owners = lock(&self.owners);
        owners.remove(&owner);
        self.any.store(!owners.is_empty(), Ordering::Release);
    }

    /// How often the queue stopped at this position without moving.
    fn stops_at(&self, position: u64) -> u32 {
        let mut last = lock(&self.last);
        *last = if last.0 == position { (position, last.1 + 1) } else { (position, 1) };
        last.1
    }

    pub(super) fn stale(&self) -> u32 {
        self.stale.load(Ordering::Acquire)
    }

    pub(super) fn set_stale(&self, error: u32) {
        self.stale.store(error, Ordering::Release);
    }
}

impl RingSink {
    /// Repairs the queue if it is stopped and nobody else is at it.
    ///
    /// # Errors
    /// If it is beyond repair.
    #[cold]
    pub(super) fn recover(&self) -> Result<(), SinkError> {
        self.control.attend(&mut |fault| self.repair(fault));
        match self.dead.get() {
            Some(why) => Err(SinkError::Gone(why.clone())),
            None => Ok(()),
        }
    }

    /// Does what `fault` asks for; whether the queue may resume.
    fn repair(&self, fault: QueueFault) -> bool {
        let at = self.forward(self.consumed.load(Ordering::Acquire), fault.index);
        let owner = self.owner_of(at);
        let Some(owner) = owner.filter(|_| at < self.head.load(Ordering::Acquire)) else {
            self.died("it stopped on a command that is not on the ring");
            return false;
        };
        let stops = self.troubles.stops_at(at);
        if stops > PATIENCE {
            self.died("it stops at the same command again and again");
            return false;
        }
        tracing::warn!(kind = fault.kind.0, position = at, owner = owner.0, stops, "the command queue stopped");
        match fault.kind {
            QueueFaultKind::ILLEGAL => {
                self.copy(at, &self.sync);
                // A host that is out could free nothing any more: it is told, and goes on.
                self.blame(owner, at, GuestFault::HOST_ERROR, owner != Owner::HOST);
            }
            QueueFaultKind::ATC_TIMEOUT => self.blame(owner, at, GuestFault::ATC_TIMEOUT, false),
            _ => {}
        }
        true
    }

    fn blame(&self, owner: Owner, at: u64, fault: GuestFault, out: bool) {
        let horizon = self.head.load(Ordering::Acquire);
        self.troubles.record(owner, Trouble { fault, at, horizon, told: false, out });
        if out && self.events.try_send(BackendEvent::QueueError { owner, fault }).is_err() {
            tracing::error!(owner = owner.0, "nobody takes events: the owner finds out by itself");
        }
    }
}
