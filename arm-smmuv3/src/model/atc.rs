//! The caches of the devices themselves: filled by answers to ATS requests, emptied only by CMD_ATC_INV.

use super::tlb::Range;
use crate::spec::commands::AtcInv;
use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

/// Tag of accesses without a PASID; PASIDs have 20 bits.
const NO_PASID: u32 = u32::MAX;

/// One cache a stream.
#[derive(Default)]
pub(crate) struct Atc {
    devices: FxHashMap<u32, Cache>,
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
        // A device knows what the SMMU told it: one size, and invalidations by that size.
        let told = Translation { leaf_log2: translation.log2, ..translation };
        self.devices.entry(stream).or_default().insert(pasid, input, told, Self::CAPACITY);
    }

    /// CMD_ATC_INV, §4.5.1: 2^Size pages of 4 KiB, naturally aligned, without PASID, of one, or (Global) of all.
    pub(crate) fn invalidate(&mut self, command: AtcInv) {
        let Some(device) = self.devices.get_mut(&command.stream_id()) else { return };
        let size = u32::from(command.size().min(AtcInv::SIZE_ALL));
        let Range { first, last } = Range::block(command.address() << 12, 12 + size);
        if !command.ssv() {
            device.remove(NO_PASID, first, last);
        } else if command.global() {
            device.remove_where(|tag| tag != NO_PASID, first, last);
        } else {
            device.remove(command.substream_id(), first, last);
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
    }
}
