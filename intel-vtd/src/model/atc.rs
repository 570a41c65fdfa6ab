//! The device-TLBs: filled by answers to ATS requests, emptied only by device-TLB invalidations.

use crate::spec::descriptors::{DeviceTlbInv, PasidDeviceTlbInv, sized_range_log2};
use viommu_cache::{Devices, Range, Translation};

/// Tag of requests without a PASID; PASIDs have 20 bits.
const NO_PASID: u32 = u32::MAX;

/// One cache a source-id.
#[derive(Default)]
pub(crate) struct Atc(Devices);

/// The addresses of a device-TLB invalidation; `page` is ADDR\[63:12\].
fn range(page: u64, size: bool) -> Range {
    Range::block(page << 12, if size { sized_range_log2(page) } else { 12 })
}

impl Atc {
    /// The entry of `stream`'s device that translates `input`.
    #[inline]
    pub(crate) fn find(&self, stream: u32, pasid: u32, input: u64) -> Option<&Translation> {
        self.0.find(stream, pasid, input)
    }

    /// Remembers a translation in `stream`'s device.
    pub(crate) fn insert(&mut self, stream: u32, pasid: u32, input: u64, translation: Translation) {
        self.0.insert(stream, pasid, input, translation);
    }

    /// Device-TLB invalidation, §6.5.2.5: translations of requests without PASID.
    pub(crate) fn invalidate(&mut self, command: DeviceTlbInv) {
        if let Some(device) = self.0.get_mut(command.source_id().into()) {
            device.remove(NO_PASID, range(command.address(), command.size()));
        }
    }

    /// PASID-based device-TLB invalidation, §6.5.2.6: of one PASID, or (G) of every PASID.
    pub(crate) fn invalidate_pasid(&mut self, command: PasidDeviceTlbInv) {
        let Some(device) = self.0.get_mut(command.source_id().into()) else { return };
        let range = range(command.address(), command.size());
        if command.global() {
            device.remove_where(|tag| tag != NO_PASID, range);
        } else {
            device.remove(command.pasid(), range);
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
