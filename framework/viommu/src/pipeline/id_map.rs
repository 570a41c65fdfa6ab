//! Step 2: which host stream each guest ID is, and under which tag the guest's translations are cached.

use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use viommu_plugin::{HostIds, NO_STREAM};

/// One guest's IDs. Read once a batch without a lock; replaced as a whole.
#[derive(Debug)]
pub struct IdMap {
    tag: u32,
    streams: ArcSwap<Vec<u32>>,
}

/// The map as it is for one batch.
pub struct IdMapGuard {
    tag: u32,
    streams: Guard<Arc<Vec<u32>>>,
}

impl IdMap {
    /// A map with no streams.
    pub fn new(tag: u32) -> Self {
        Self { tag, streams: ArcSwap::from_pointee(Vec::new()) }
    }

    /// Replaces the map: index is the guest's ID, value the host stream or [`NO_STREAM`].
    pub fn publish(&self, streams: Vec<u32>) {
        self.streams.store(Arc::new(streams));
    }

    /// The map for one batch.
    pub fn load(&self) -> IdMapGuard {
        IdMapGuard { tag: self.tag, streams: self.streams.load() }
    }

    /// Guest IDs that have a device, with their host stream.
    pub fn bound(&self) -> Vec<(u32, u32)> {
        let streams = self.streams.load();
        (0u32..).zip(streams.iter().copied()).filter(|&(_, stream)| stream != NO_STREAM).collect()
    }
}

impl IdMapGuard {
    /// What a rewrite may use.
    pub fn host_ids(&self) -> HostIds<'_> {
        HostIds { tag: self.tag, streams: &self.streams }
    }
}
