//! Step 2: which host stream each guest ID is, and under which tag the guest's translations are cached.

use crate::seams::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use viommu_plugin::{HostIds, NO_STREAM};

/// One guest's IDs, replaced as a whole. The data path keeps a copy and looks at one number a batch to see whether
/// it is still the latest.
#[derive(Debug)]
pub struct IdMap {
    tag: u32,
    published: AtomicU64,
    streams: Mutex<Arc<[u32]>>,
}

/// The map as the data path last saw it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    published: u64,
    streams: Arc<[u32]>,
}

impl IdMap {
    /// A map with no streams.
    pub fn new(tag: u32) -> Self {
        Self { tag, published: AtomicU64::new(0), streams: Mutex::default() }
    }

    /// Replaces the map: index is the guest's ID, value the host stream or [`NO_STREAM`].
    pub fn publish(&self, streams: Vec<u32>) {
        let mut current = lock(&self.streams);
        *current = streams.into();
        self.published.fetch_add(1, Ordering::Release);
    }

    /// What a rewrite may use now.
    pub(super) fn host_ids<'a>(&self, snapshot: &'a mut Snapshot) -> HostIds<'a> {
        let published = self.published.load(Ordering::Acquire);
        if snapshot.published != published {
            // The number is read again under the lock: map and number belong together.
            let current = lock(&self.streams);
            *snapshot = Snapshot { published: self.published.load(Ordering::Acquire), streams: current.clone() };
        }
        HostIds { tag: self.tag, streams: &snapshot.streams }
    }

    /// Guest IDs that have a device, with their host stream.
    pub fn bound(&self) -> Vec<(u32, u32)> {
        let streams = lock(&self.streams).clone();
        (0u32..).zip(streams.iter().copied()).filter(|&(_, stream)| stream != NO_STREAM).collect()
    }
}
