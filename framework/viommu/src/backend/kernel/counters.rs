//! What the backend counts: for its own readers, and as metrics.

use crate::metrics::{self, Count};

/// What a kernel backend did so far, for all its guests.
#[derive(Debug)]
pub struct KernelCounters {
    /// HWPT_INVALIDATE calls.
    pub calls: Count,
    /// Entries in calls that succeeded.
    pub entries: Count,
    /// Calls that failed.
    pub replays: Count,
    /// Times the entries of a failed call were sent again in two halves.
    pub bisections: Count,
    /// Entries that the kernel refused.
    pub refused: Count,
    /// Entries sent a second time, for the erratum REPEAT_TLBI_CFGI.
    pub repeats: Count,
    /// Times a guest waited for its share.
    pub throttled: Count,
    /// Attachments tried again because the kernel said EBUSY.
    pub busy: Count,
    /// Records of guests' event queues that the kernel or this process lost.
    pub events_lost: Count,
}

impl KernelCounters {
    pub(super) fn new(vendor: &str) -> Self {
        let of = |name| Count::new(name, vendor);
        Self {
            calls: of(metrics::KERNEL_CALLS),
            entries: of(metrics::KERNEL_ENTRIES),
            replays: of(metrics::KERNEL_REPLAYS),
            bisections: of(metrics::KERNEL_BISECTIONS),
            refused: of(metrics::KERNEL_REFUSED),
            repeats: of(metrics::KERNEL_REPEATS),
            throttled: of(metrics::KERNEL_THROTTLED),
            busy: of(metrics::KERNEL_BUSY),
            events_lost: of(metrics::KERNEL_EVENTS_LOST),
        }
    }
}
