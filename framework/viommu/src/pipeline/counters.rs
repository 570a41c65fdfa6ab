//! What one guest did, counted.

use super::guest_queue::Fetch;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one guest since it was made.
#[derive(Debug, Default)]
pub struct GuestCounters {
    /// Doorbells that found commands.
    pub doorbells: AtomicU64,
    /// Guest commands consumed, SYNCs and configuration included.
    pub commands: AtomicU64,
    /// Guest SYNCs completed.
    pub syncs: AtomicU64,
    /// SYNCs put on the hardware queue for this guest.
    pub hardware_syncs: AtomicU64,
    /// Commands for streams without a vdevice.
    pub local_stream: AtomicU64,
    /// Prefetch hints.
    pub hints: AtomicU64,
    /// Commands for domains without a nested HWPT.
    pub local_domain: AtomicU64,
    /// Event records delivered.
    pub events: AtomicU64,
    /// Faults by [`viommu_plugin::GuestFault`] number; the last slot takes unknown ones.
    pub faults: [AtomicU64; 9],
}

impl GuestCounters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// For counters that only change under the queue's lock: `_fetch` shows that the caller has it.
    pub(super) fn add_alone(counter: &AtomicU64, n: u64, _fetch: &Fetch) {
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}
