//! The caches of the devices themselves: filled by answers, emptied only by INVALIDATE_IOTLB_PAGES.

use super::tlb::{NO_PASID, Range};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

/// Tag of what a device asked for without PASID and a guest table answered (GIOV).
const OF_GUEST: u32 = NO_PASID - 1;

/// One cache a device. It knows its PASID by each entry; what it asked for without one it finds whoever answered.
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
        let cache = self.devices.get(&device)?;
        let found = cache.find(pasid, &Cell::new(0), input);
        if pasid == NO_PASID { found.or_else(|| cache.find(OF_GUEST, &Cell::new(0), input)) } else { found }
    }

    /// A device remembers what it was told: one size. `guest`: a guest table was walked for it.
    pub(crate) fn insert(&mut self, device: u32, pasid: u32, guest: bool, input: u64, found: Translation) {
        let told = Translation { leaf_log2: found.log2, ..found };
        let tag = if pasid == NO_PASID && guest { OF_GUEST } else { pasid };
        self.devices.entry(device).or_default().insert(tag, input, told, Self::CAPACITY);
    }

    /// INVALIDATE_IOTLB_PAGES. Without PASID ([`NO_PASID`]) the entries of all PASIDs go too. PASID 0 is also what was
    /// asked for without PASID under GIOV: Linux invalidates it so, and has no other command for it.
    pub(crate) fn invalidate(&mut self, device: u32, pasid: u32, range: Range) {
        if let Some(cache) = self.devices.get_mut(&device) {
            cache.remove(pasid, range.first, range.last);
            if pasid == NO_PASID || pasid == 0 {
                cache.remove(OF_GUEST, range.first, range.last);
            }
            if pasid == NO_PASID {
                cache.clear_where(|tag| tag != NO_PASID && tag != OF_GUEST);
            }
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
    }
}
