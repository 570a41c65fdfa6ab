//! Sets of ID registers that a guest may be shown.

use arm_smmuv3::codec::ArmCodec;
use viommu_plugin::Register;

/// What a guest is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// IDR0.ATS.
    pub(crate) ats: bool,
    /// IDR0.ASID16.
    pub(crate) asid16: bool,
    /// IDR3.RIL.
    pub(crate) ril: bool,
    /// IDR5.DS.
    pub(crate) ds: bool,
    /// IDR1.SSIDSIZE.
    pub(crate) ssidsize: u8,
    /// IDR0.CD2L.
    pub(crate) cd2l: bool,
    /// IDR0.STALL_MODEL = 0: a device may stall. Otherwise it says that none does.
    pub(crate) stalls: bool,
}

const IDR0: u64 = 0x00;
const IDR1: u64 = 0x04;
const IDR3: u64 = 0x0c;
const IDR5: u64 = 0x14;

impl Shown {
    /// The sets that a command's legality depends on, all of them, by number below 32.
    pub(crate) fn of_commands(number: u32) -> Self {
        let bit = |at: u32| number >> at & 1 != 0;
        let ssidsize = if bit(4) { 20 } else { 0 };
        Self { ats: bit(0), asid16: bit(1), ril: bit(2), ds: bit(3), ssidsize, cd2l: true, stalls: false }
    }

    /// The ID registers that say so.
    pub(crate) fn registers(self) -> [Register; 4] {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        let register = |offset, value| Register { offset, value };
        [
            register(
                IDR0,
                0x0c40_000a | bit(self.ats, 10) | bit(self.asid16, 12) | bit(self.cd2l, 19) | bit(!self.stalls, 24),
            ),
            register(IDR1, 0x0273_0010 | u64::from(self.ssidsize) << 6),
            register(IDR3, bit(self.ril, 10)),
            register(IDR5, 0x74 | bit(self.ds, 7)),
        ]
    }

    /// A codec whose guest is shown this.
    pub(crate) fn codec(self) -> ArmCodec {
        ArmCodec::new(&self.registers()).expect("a set of ID registers that a vIOMMU can be")
    }
}
