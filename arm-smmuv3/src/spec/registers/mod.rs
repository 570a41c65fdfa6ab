//! Register frame: two pages of 64 KiB (§6.1), register formats (§6.3).

mod control;
mod id;
mod queues;

pub use control::*;
pub use id::*;
pub use queues::*;

/// Bytes of the register frame.
pub const FRAME_BYTES: u64 = 0x2_0000;
/// Where page 1 starts.
pub const PAGE1: u64 = 0x1_0000;

/// Byte offsets of the registers (§6.2). `EVENTQ_PROD`, `EVENTQ_CONS`, `PRIQ_PROD` and `PRIQ_CONS` live in page 1.
pub mod offset {
    /// SMMU_IDR0.
    pub const IDR0: u64 = 0x00;
    /// SMMU_IDR1.
    pub const IDR1: u64 = 0x04;
    /// SMMU_IDR2.
    pub const IDR2: u64 = 0x08;
    /// SMMU_IDR3.
    pub const IDR3: u64 = 0x0c;
    /// SMMU_IDR4.
    pub const IDR4: u64 = 0x10;
    /// SMMU_IDR5.
    pub const IDR5: u64 = 0x14;
    /// SMMU_IIDR.
    pub const IIDR: u64 = 0x18;
    /// SMMU_AIDR.
    pub const AIDR: u64 = 0x1c;
    /// SMMU_CR0.
    pub const CR0: u64 = 0x20;
    /// SMMU_CR0ACK.
    pub const CR0ACK: u64 = 0x24;
    /// SMMU_CR1.
    pub const CR1: u64 = 0x28;
    /// SMMU_CR2.
    pub const CR2: u64 = 0x2c;
    /// SMMU_STATUSR.
    pub const STATUSR: u64 = 0x40;
    /// SMMU_GBPA.
    pub const GBPA: u64 = 0x44;
    /// SMMU_AGBPA.
    pub const AGBPA: u64 = 0x48;
    /// SMMU_IRQ_CTRL.
    pub const IRQ_CTRL: u64 = 0x50;
    /// SMMU_IRQ_CTRLACK.
    pub const IRQ_CTRLACK: u64 = 0x54;
    /// SMMU_GERROR.
    pub const GERROR: u64 = 0x60;
    /// SMMU_GERRORN.
    pub const GERRORN: u64 = 0x64;
    /// SMMU_GERROR_IRQ_CFG0, 64 bits.
    pub const GERROR_IRQ_CFG0: u64 = 0x68;
    /// SMMU_GERROR_IRQ_CFG1.
    pub const GERROR_IRQ_CFG1: u64 = 0x70;
    /// SMMU_GERROR_IRQ_CFG2.
    pub const GERROR_IRQ_CFG2: u64 = 0x74;
    /// SMMU_STRTAB_BASE, 64 bits.
    pub const STRTAB_BASE: u64 = 0x80;
    /// SMMU_STRTAB_BASE_CFG.
    pub const STRTAB_BASE_CFG: u64 = 0x88;
    /// SMMU_CMDQ_BASE, 64 bits.
    pub const CMDQ_BASE: u64 = 0x90;
    /// SMMU_CMDQ_PROD.
    pub const CMDQ_PROD: u64 = 0x98;
    /// SMMU_CMDQ_CONS.
    pub const CMDQ_CONS: u64 = 0x9c;
    /// SMMU_EVENTQ_BASE, 64 bits.
    pub const EVENTQ_BASE: u64 = 0xa0;
    /// SMMU_EVENTQ_IRQ_CFG0, 64 bits.
    pub const EVENTQ_IRQ_CFG0: u64 = 0xb0;
    /// SMMU_EVENTQ_IRQ_CFG1.
    pub const EVENTQ_IRQ_CFG1: u64 = 0xb8;
    /// SMMU_EVENTQ_IRQ_CFG2.
    pub const EVENTQ_IRQ_CFG2: u64 = 0xbc;
    /// SMMU_PRIQ_BASE, 64 bits.
    pub const PRIQ_BASE: u64 = 0xc0;
    /// SMMU_PRIQ_IRQ_CFG0, 64 bits.
    pub const PRIQ_IRQ_CFG0: u64 = 0xd0;
    /// SMMU_PRIQ_IRQ_CFG1.
    pub const PRIQ_IRQ_CFG1: u64 = 0xd8;
    /// SMMU_PRIQ_IRQ_CFG2.
    pub const PRIQ_IRQ_CFG2: u64 = 0xdc;
    /// SMMU_EVENTQ_PROD (page 1).
    pub const EVENTQ_PROD: u64 = super::PAGE1 + 0xa8;
    /// SMMU_EVENTQ_CONS (page 1).
    pub const EVENTQ_CONS: u64 = super::PAGE1 + 0xac;
    /// SMMU_PRIQ_PROD (page 1).
    pub const PRIQ_PROD: u64 = super::PAGE1 + 0xc8;
    /// SMMU_PRIQ_CONS (page 1).
    pub const PRIQ_CONS: u64 = super::PAGE1 + 0xcc;
}

/// The registers' name at `offset`, `None` where there is none.
pub const fn register_name(offset: u64) -> Option<&'static str> {
    Some(match offset {
        offset::IDR0 => "IDR0",
        offset::IDR1 => "IDR1",
        offset::IDR2 => "IDR2",
        offset::IDR3 => "IDR3",
        offset::IDR4 => "IDR4",
        offset::IDR5 => "IDR5",
        offset::IIDR => "IIDR",
        offset::AIDR => "AIDR",
        offset::CR0 => "CR0",
        offset::CR0ACK => "CR0ACK",
        offset::CR1 => "CR1",
        offset::CR2 => "CR2",
        offset::STATUSR => "STATUSR",
        offset::GBPA => "GBPA",
        offset::AGBPA => "AGBPA",
        offset::IRQ_CTRL => "IRQ_CTRL",
        offset::IRQ_CTRLACK => "IRQ_CTRLACK",
        offset::GERROR => "GERROR",
        offset::GERRORN => "GERRORN",
        offset::GERROR_IRQ_CFG0 => "GERROR_IRQ_CFG0",
        offset::GERROR_IRQ_CFG1 => "GERROR_IRQ_CFG1",
        offset::GERROR_IRQ_CFG2 => "GERROR_IRQ_CFG2",
        offset::STRTAB_BASE => "STRTAB_BASE",
        offset::STRTAB_BASE_CFG => "STRTAB_BASE_CFG",
        offset::CMDQ_BASE => "CMDQ_BASE",
        offset::CMDQ_PROD => "CMDQ_PROD",
        offset::CMDQ_CONS => "CMDQ_CONS",
        offset::EVENTQ_BASE => "EVENTQ_BASE",
        offset::EVENTQ_IRQ_CFG0 => "EVENTQ_IRQ_CFG0",
        offset::EVENTQ_IRQ_CFG1 => "EVENTQ_IRQ_CFG1",
        offset::EVENTQ_IRQ_CFG2 => "EVENTQ_IRQ_CFG2",
        offset::PRIQ_BASE => "PRIQ_BASE",
        offset::PRIQ_IRQ_CFG0 => "PRIQ_IRQ_CFG0",
        offset::PRIQ_IRQ_CFG1 => "PRIQ_IRQ_CFG1",
        offset::PRIQ_IRQ_CFG2 => "PRIQ_IRQ_CFG2",
        offset::EVENTQ_PROD => "EVENTQ_PROD",
        offset::EVENTQ_CONS => "EVENTQ_CONS",
        offset::PRIQ_PROD => "PRIQ_PROD",
        offset::PRIQ_CONS => "PRIQ_CONS",
        _ => return None,
    })
}
