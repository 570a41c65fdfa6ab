//! Queue and interrupt message registers.

use bitfield_struct::bitfield;

/// SMMU_CMDQ_BASE, SMMU_EVENTQ_BASE, SMMU_PRIQ_BASE (§6.3), 64 bits.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    /// LOG2SIZE: log2 of the entries.
    #[bits(5)]
    pub log2size: u8,
    /// ADDR\[51:5\]; bits below the queue's size are ignored.
    #[bits(47)]
    pub addr: u64,
    #[bits(10)]
    __: u16,
    /// RA (CMDQ) or WA: allocation hint.
    pub alloc_hint: bool,
    #[bits(1)]
    __: u8,
}

impl QueueBase {
    /// Address bits as written, before alignment to the queue's size.
    #[inline]
    pub const fn address(self) -> u64 {
        self.addr() << 5
    }
}

/// SMMU_CMDQ_CONS (§6.3). SMMU_CMDQ_PROD is the same without `err`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmdqCons {
    /// RD: index with wrap bit.
    #[bits(20)]
    pub rd: u32,
    #[bits(4)]
    __: u8,
    /// ERR, see [`CommandError`].
    #[bits(7)]
    pub err: u8,
    #[bits(1)]
    __: u8,
}

/// Why the command queue stopped: SMMU_CMDQ_CONS.ERR (§7.1).
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandError(pub u8);

impl CommandError {
    /// CERROR_NONE.
    pub const NONE: Self = Self(0);
    /// CERROR_ILL: illegal command.
    pub const ILL: Self = Self(1);
    /// CERROR_ABT: abort on command fetch.
    pub const ABT: Self = Self(2);
    /// CERROR_ATC_INV_SYNC: an ATC_INV before this SYNC failed.
    pub const ATC_INV_SYNC: Self = Self(3);
}

/// SMMU_EVENTQ_PROD, SMMU_EVENTQ_CONS, SMMU_PRIQ_PROD, SMMU_PRIQ_CONS (§6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct OutputIndex {
    /// WR or RD: index with wrap bit.
    #[bits(20)]
    pub index: u32,
    #[bits(11)]
    __: u16,
    /// OVFLG (PROD) or OVACKFLG (CONS): records were lost where the two differ.
    pub overflow: bool,
}

/// SMMU_*_IRQ_CFG0 (§6.3), 64 bits.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrqCfg0 {
    #[bits(2)]
    __: u8,
    /// ADDR\[51:2\]; 0: no MSI, the wired interrupt is used.
    #[bits(50)]
    pub addr: u64,
    #[bits(12)]
    __: u16,
}

impl IrqCfg0 {
    /// Address of the MSI's doorbell.
    #[inline]
    pub const fn address(self) -> u64 {
        self.addr() << 2
    }
}
