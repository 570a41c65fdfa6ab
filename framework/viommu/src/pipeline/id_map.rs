//! Step 2: which host stream each guest ID is, and under which tags the guest's translations are cached.

use crate::seams::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use viommu_plugin::{HostIds, NO_STREAM, NO_TAG};

/// One guest's IDs, replaced as a whole. The data path keeps a copy and looks at one number a batch to see whether
/// it is still the latest.
#[derive(Debug)]
pub struct IdMap {
    tag: u32,
    published: AtomicU64,
    current: Mutex<Arc<GuestIds>>,
}

/// Host numbers by the guest's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestIds {
    /// Host stream by the guest's ID, or [`NO_STREAM`] (vRID to pRID).
    pub streams: Vec<u32>,
    /// Host tag by the guest's domain number, or [`viommu_plugin::NO_TAG`] (vDomain-ID to pDomain-ID). Empty where guests
    /// number none.
    pub domains: Vec<u32>,
}

impl GuestIds {
    /// The same guest IDs and domains, each its own number: for a sink that replaces numbers itself.
    pub(super) fn identity(self) -> Self {
        let own = |numbers: Vec<u32>, none: u32| {
            let own = (0u32..).zip(numbers).map(|(own, host)| if host == none { none } else { own });
            own.collect()
        };
        Self { streams: own(self.streams, NO_STREAM), domains: own(self.domains, NO_TAG) }
    }
}

/// The map as the data path last saw it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    published: u64,
    ids: Arc<GuestIds>,
}

impl IdMap {
    /// A map with no streams.
    pub fn new(tag: u32) -> Self {
        Self { tag, published: AtomicU64::new(0), current: Mutex::default() }
    }

    /// Replaces the map.
    pub fn publish(&self, ids: GuestIds) {
        let mut current = lock(&self.current);
        *current = Arc::new(ids);
        self.published.fetch_add(1, Ordering::Release);
    }

    /// What a rewrite may use now.
    pub(super) fn host_ids<'a>(&self, snapshot: &'a mut Snapshot) -> HostIds<'a> {
        let published = self.published.load(Ordering::Acquire);
        if snapshot.published != published {
            // The number is read again under the lock: map and number belong together.
            let current = lock(&self.current);
            *snapshot = Snapshot { published: self.published.load(Ordering::Acquire), ids: current.clone() };
        }
        HostIds { tag: self.tag, streams: &snapshot.ids.streams, domains: &snapshot.ids.domains }
    }

    /// Guest IDs that have a device, with their host stream.
    pub fn bound(&self) -> Vec<(u32, u32)> {
        let ids = lock(&self.current).clone();
        (0u32..).zip(ids.streams.iter().copied()).filter(|&(_, stream)| stream != NO_STREAM).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_map_has_the_same_holes() {
        let ids = GuestIds { streams: vec![NO_STREAM, 0x40, 0x41], domains: vec![7, NO_TAG, 9] };
        let own = ids.identity();
        assert_eq!(own, GuestIds { streams: vec![NO_STREAM, 1, 2], domains: vec![0, NO_TAG, 2] });
    }
}
