//! One queue's registers: page0 is its user's, page1 its owner's. The formats are those of the SMMU's command queue.

use bitfield_struct::bitfield;

/// Offsets in a queue's part of page0.
pub mod page0 {
    /// CONS: [`arm_smmuv3::spec::registers::CmdqCons`].
    pub const CONS: u64 = 0x00;
    /// PROD.
    pub const PROD: u64 = 0x04;
    /// CONFIG: EN.
    pub const CONFIG: u64 = 0x08;
    /// STATUS: ENABLED.
    pub const STATUS: u64 = 0x0c;
    /// GERROR: bit 0 CMDQ_ERR.
    pub const GERROR: u64 = 0x10;
    /// GERRORN: where it differs from GERROR, an error is active.
    pub const GERRORN: u64 = 0x14;
}

/// Offsets in a queue's part of page1.
pub mod page1 {
    /// BASE, 64 bits.
    pub const BASE: u64 = 0x00;
    /// CONS_INDX_BASE, 64 bits: where hardware would keep a copy of CONS. Not used.
    pub const CONS_INDX_BASE: u64 = 0x08;
}

/// CMDQ_ERR of GERROR and GERRORN, the only error of a queue.
pub const CMDQ_ERR: u32 = 1;

/// BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct VcmdqBase {
    /// LOG2SIZE: log2 of the commands.
    #[bits(5)]
    pub log2size: u8,
    /// ADDR\[47:5\].
    #[bits(43)]
    pub addr: u64,
    #[bits(16)]
    __: u16,
}

impl VcmdqBase {
    /// Bits of an address that BASE can hold.
    pub const ADDRESS: u64 = 0x0000_ffff_ffff_ffe0;

    /// The address.
    pub const fn address(self) -> u64 {
        self.addr() << 5
    }
    /// Bytes of the queue.
    pub const fn bytes(self) -> u64 {
        16 << self.log2size()
    }
}
