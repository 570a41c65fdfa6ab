//! The caches of the devices themselves: filled by answers, emptied only by INVALIDATE_IOTLB_PAGES.

use super::tlb::NO_PASID;
use viommu_cache::{Devices, Range, Translation};

/// Tag of what a device asked for without PASID and a guest table answered (GIOV).
const OF_GUEST: u32 = NO_PASID - 1;

/// One cache a device. It knows its PASID by each entry; what it asked for without one it finds whoever answered.
#[derive(Default)]
pub(crate) struct Atc(Devices);

impl Atc {
    /// The entry of `device` that translates `input` of `pasid`.
    #[inline]
    pub(crate) fn find(&self, device: u32, pasid: u32, input: u64) -> Option<&Translation> {
        let found = self.0.find(device, pasid, input);
        if pasid == NO_PASID { found.or_else(|| self.0.find(device, OF_GUEST, input)) } else { found }
    }

    /// A device remembers what it was told. `guest`: a guest table was walked for it.
    pub(crate) fn insert(&mut self, device: u32, pasid: u32, guest: bool, input: u64, found: Translation) {
        let tag = if pasid == NO_PASID && guest { OF_GUEST } else { pasid };
        self.0.insert(device, tag, input, found);
    }

    /// INVALIDATE_IOTLB_PAGES. Without PASID ([`NO_PASID`]) the entries of all PASIDs go too. PASID 0 is also what was
    /// asked for without PASID under GIOV: Linux invalidates it so, and has no other command for it.
    pub(crate) fn invalidate(&mut self, device: u32, pasid: u32, range: Range) {
        if let Some(cache) = self.0.get_mut(device) {
            cache.remove(pasid, range);
            if pasid == NO_PASID || pasid == 0 {
                cache.remove(OF_GUEST, range);
            }
            if pasid == NO_PASID {
                cache.clear_where(|tag| tag != NO_PASID && tag != OF_GUEST);
            }
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
