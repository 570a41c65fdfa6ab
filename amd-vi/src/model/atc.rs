//! The caches of the devices themselves: filled by answers, emptied only by INVALIDATE_IOTLB_PAGES.

use super::tlb::{NO_PASID, Range};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

/// One cache a device.
#[derive(Default)]
pub(crate) struct Atc {
    devices: FxHashMap<u32, Cache>,
}

impl Atc {
    /// Entries a device keeps.
    const CAPACITY: usize = 1 << 16;

    /// The entry of `device` that translates `input` of `pasid`.
    #[inline]
    pub(crate) fn find(&self, device: u32, pasid: u32, input: u64) -> Option<&Translation> {
        self.devices.get(&device)?.find(pasid, &Cell::new(0), input)
    }

    /// A device remembers what it was told: one size.
    pub(crate) fn insert(&mut self, device: u32, pasid: u32, input: u64, found: Translation) {
        let told = Translation { leaf_log2: found.log2, ..found };
        self.devices.entry(device).or_default().insert(pasid, input, told, Self::CAPACITY);
    }

    /// INVALIDATE_IOTLB_PAGES. Without PASID ([`NO_PASID`]) the entries of all PASIDs go too.
    pub(crate) fn invalidate(&mut self, device: u32, pasid: u32, range: Range) {
        if let Some(cache) = self.devices.get_mut(&device) {
            cache.remove(pasid, range.first, range.last);
            if pasid == NO_PASID {
                cache.clear_where(|tag| tag != NO_PASID);
            }
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
    }
}
