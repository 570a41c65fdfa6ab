//! What the host tells its subscribers.

use crate::backend::{ObjectKind, PageRequest};
use crate::metrics::{ACTOR_RESTARTS, HOST_EVENTS_LOST, HOST_FAULTS, QUARANTINES};
use metrics::counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Something that whoever runs the host should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostEvent {
    /// An actor panicked. The change was rolled back; invalidations flow.
    Degraded {
        /// Kind of the object.
        kind: ObjectKind,
        /// Its ID.
        id: u32,
        /// The panic's words.
        reason: String,
    },
    /// A degraded object was to change its configuration: its devices' DMA is blocked until the restart.
    Blocked {
        /// Kind of the object.
        kind: ObjectKind,
        /// Its ID.
        id: u32,
    },
    /// An actor started over from what the backend has.
    Restarted {
        /// Kind of the object.
        kind: ObjectKind,
        /// Its ID.
        id: u32,
    },
    /// An object is out of service: too many panics, or its guest broke the hardware queue.
    Quarantined {
        /// Kind of the object.
        kind: ObjectKind,
        /// Its ID.
        id: u32,
        /// Why.
        reason: String,
    },
    /// A device of this vIOMMU did not answer an ATC invalidation; the guest sees the error its IOMMU gives.
    DeviceTimedOut {
        /// The vIOMMU.
        viommu: u32,
    },
    /// A fault that is the host's affair: stage 2, or a physical table.
    HostFault {
        /// Host stream.
        stream: u32,
        /// Vendor's event number.
        code: u32,
    },
    /// Hardware lost event records; every guest was told.
    EventsLost,
    /// Event records of this vIOMMU's guest were lost; it was told.
    GuestEventsLost {
        /// The vIOMMU.
        viommu: u32,
        /// How many.
        records: u64,
    },
    /// A device waits for a page: [`crate::objects::FaultQueue::respond`] answers. One that reaches nobody is answered with a
    /// failure at once, so that no device waits for ever.
    PageRequest(PageRequest),
}

impl HostEvent {
    fn count(&self) {
        match self {
            Self::Restarted { kind, .. } => counter!(ACTOR_RESTARTS, "kind" => kind.uapi_name()).increment(1),
            Self::Quarantined { kind, .. } => counter!(QUARANTINES, "kind" => kind.uapi_name()).increment(1),
            Self::HostFault { .. } => counter!(HOST_FAULTS).increment(1),
            _ => {}
        }
    }
}

/// Events that a subscriber may be behind before it loses some.
const BACKLOG: usize = 1024;

/// Who wants to know.
#[derive(Default)]
pub(crate) struct Subscribers {
    senders: Mutex<Vec<flume::Sender<HostEvent>>>,
    lost: AtomicU64,
}

impl Subscribers {
    pub(crate) fn subscribe(&self) -> flume::Receiver<HostEvent> {
        let (sender, receiver) = flume::bounded(BACKLOG);
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Whether somebody has it now.
    pub(crate) fn tell(&self, event: &HostEvent) -> bool {
        event.count();
        let mut told = false;
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| match sender.try_send(event.clone()) {
            Ok(()) => {
                told = true;
                true
            }
            Err(flume::TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                counter!(HOST_EVENTS_LOST).increment(1);
                true
            }
            Err(flume::TrySendError::Disconnected(_)) => false,
        });
        told
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
