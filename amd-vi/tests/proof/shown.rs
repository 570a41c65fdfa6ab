//! What a guest is shown, as far as its commands and entries depend on it.

use amd_vi::codec::AmdCodec;
use viommu_plugin::Register;

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// GTSup, GIoSup and GCR3TRPMode: nested. Else shadowed, with NpCache.
    pub(crate) nested: bool,
    /// GTSup, where that is not said yet: the guest may name PASIDs.
    pub(crate) gt: bool,
    /// IotlbSup.
    pub(crate) ats: bool,
    /// PreFSup.
    pub(crate) hints: bool,
    /// PPRSup.
    pub(crate) requests: bool,
    /// IASup.
    pub(crate) all: bool,
    /// Bits of a PASID.
    pub(crate) pasid_bits: u32,
    /// Levels of v1 tables.
    pub(crate) host_levels: u64,
    /// Levels of GCR3 tables less one.
    pub(crate) glx: u64,
    /// Five-level guest tables.
    pub(crate) five: bool,
}

impl Shown {
    /// The sets that a command's legality depends on, by number below 32.
    pub(crate) fn of_commands(set: u32) -> Self {
        let bit = |at: u32| set >> at & 1 != 0;
        Self {
            nested: bit(0),
            gt: bit(0) || bit(1),
            ats: bit(2),
            hints: bit(3),
            requests: bit(4),
            all: bit(3) == bit(4),
            pasid_bits: [16, 9, 1, 20][(set / 4 % 4) as usize],
            host_levels: 6,
            glx: 1,
            five: false,
        }
    }

    /// The registers, bit by bit.
    pub(crate) fn registers(self) -> [Register; 3] {
        let bit = |on: bool, at: u32| u64::from(on) << at;
        let efr = bit(self.hints, 0)
            | bit(self.requests, 1)
            | bit(self.gt, 4)
            | bit(self.all, 6)
            | (self.host_levels - 4) << 10
            | bit(self.five, 12)
            | self.glx << 14
            | u64::from(self.pasid_bits - 1) << 32
            | bit(self.nested, 48);
        let header = 0x080b_000f | bit(self.ats, 24) | bit(!self.nested, 26);
        let register = |offset, value| Register { offset, value };
        [register(0x30, efr), register(0x1a0, bit(self.nested, 3)), register(0x1_0000_0000, header)]
    }

    pub(crate) fn codec(self) -> AmdCodec {
        AmdCodec::new(&self.registers()).expect("such a guest is served")
    }
}
