//! The caches of the devices themselves: filled by answers to ATS requests, emptied only by CMD_ATC_INV.

use crate::spec::commands::AtcInv;
use viommu_cache::{Devices, Range, Translation};

/// Tag of accesses without a PASID; PASIDs have 20 bits.
const NO_PASID: u32 = u32::MAX;

/// One cache a stream.
#[derive(Default)]
pub(crate) struct Atc(Devices);

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

    /// CMD_ATC_INV, §4.5.1: 2^Size pages of 4 KiB, naturally aligned, without PASID, of one, or (Global) of all.
    pub(crate) fn invalidate(&mut self, command: AtcInv) {
        let Some(device) = self.0.get_mut(command.stream_id()) else { return };
        let range = Range::block(command.address() << 12, 12 + command.size().min(AtcInv::SIZE_ALL));
        if !command.ssv() {
            device.remove(NO_PASID, range);
        } else if command.global() {
            device.remove_where(|tag| tag != NO_PASID, range);
        } else {
            device.remove(command.substream_id(), range);
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
