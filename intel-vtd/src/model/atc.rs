//! The device-TLBs: filled by answers to ATS requests, emptied only by device-TLB invalidations.

use super::tlb::Range;
use crate::spec::descriptors::{DeviceTlbInv, PasidDeviceTlbInv, sized_range_log2};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

/// Tag of requests without a PASID; PASIDs have 20 bits.
const NO_PASID: u32 = u32::MAX;

/// One cache a source-id.
#[derive(Default)]
pub(crate) struct Atc {
    devices: FxHashMap<u32, Cache>,
}

/// The addresses of a device-TLB invalidation; `page` is ADDR\[63:12\].
fn range(page: u64, size: bool) -> Range {
    Range::block(page << 12, if size { sized_range_log2(page) } else { 12 })
}

impl Atc {
    /// Entries a device keeps.
    const CAPACITY: usize = 1 << 16;

    /// The entry of `stream`'s device that translates `input`.
    #[inline]
    pub(crate) fn find(&self, stream: u32, pasid: u32, input: u64) -> Option<&Translation> {
        self.devices.get(&stream)?.find(pasid, &Cell::new(0), input)
    }

    /// Remembers a translation in `stream`'s device.
    pub(crate) fn insert(&mut self, stream: u32, pasid: u32, input: u64, translation: Translation) {
        // A device knows what the unit told it: one size, and invalidations by that size.
        let told = Translation { leaf_log2: translation.log2, ..translation };
        self.devices.entry(stream).or_default().insert(pasid, input, told, Self::CAPACITY);
    }

    /// Device-TLB invalidation, §6.5.2.5: translations of requests without PASID.
    pub(crate) fn invalidate(&mut self, command: DeviceTlbInv) {
        if let Some(device) = self.devices.get_mut(&u32::from(command.source_id())) {
            let Range { first, last } = range(command.address(), command.size());
            device.remove(NO_PASID, first, last);
        }
    }

    /// PASID-based device-TLB invalidation, §6.5.2.6: of one PASID, or (G) of every PASID.
    pub(crate) fn invalidate_pasid(&mut self, command: PasidDeviceTlbInv) {
        let Some(device) = self.devices.get_mut(&u32::from(command.source_id())) else { return };
        let Range { first, last } = range(command.address(), command.size());
        if command.global() {
            device.remove_where(|tag| tag != NO_PASID, first, last);
        } else {
            device.remove(command.pasid(), first, last);
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
    }
}
