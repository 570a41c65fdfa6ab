//! Control, bypass, interrupt enable, error and stream table registers.

use bitfield_struct::bitfield;

/// SMMU_CR0 and SMMU_CR0ACK (§6.3.9).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr0 {
    /// SMMUEN: translation.
    pub smmuen: bool,
    /// PRIQEN.
    pub priqen: bool,
    /// EVENTQEN.
    pub eventqen: bool,
    /// CMDQEN.
    pub cmdqen: bool,
    /// ATSCHK: translated requests are checked.
    pub atschk: bool,
    #[bits(1)]
    __: u8,
    /// VMW.
    #[bits(3)]
    pub vmw: u8,
    #[bits(23)]
    __: u32,
}

/// SMMU_CR1 (§6.3.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr1 {
    /// QUEUE_IC: inner cacheability of queues.
    #[bits(2)]
    pub queue_ic: u8,
    /// QUEUE_OC: outer cacheability of queues.
    #[bits(2)]
    pub queue_oc: u8,
    /// QUEUE_SH: shareability of queues.
    #[bits(2)]
    pub queue_sh: u8,
    /// TABLE_IC: inner cacheability of the stream table.
    #[bits(2)]
    pub table_ic: u8,
    /// TABLE_OC: outer cacheability of the stream table.
    #[bits(2)]
    pub table_oc: u8,
    /// TABLE_SH: shareability of the stream table.
    #[bits(2)]
    pub table_sh: u8,
    #[bits(20)]
    __: u32,
}

/// SMMU_CR2 (§6.3.12).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr2 {
    /// E2H.
    pub e2h: bool,
    /// RECINVSID: C_BAD_STREAMID is recorded.
    pub recinvsid: bool,
    /// PTM: broadcast TLB maintenance is ignored.
    pub ptm: bool,
    #[bits(29)]
    __: u32,
}

/// SMMU_GBPA (§6.3): what happens to traffic while SMMUEN is 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gbpa {
    /// MemAttr.
    #[bits(4)]
    pub mem_attr: u8,
    /// MTCFG.
    pub mtcfg: bool,
    #[bits(3)]
    __: u8,
    /// ALLOCCFG.
    #[bits(4)]
    pub alloccfg: u8,
    /// SHCFG.
    #[bits(2)]
    pub shcfg: u8,
    #[bits(2)]
    __: u8,
    /// PRIVCFG.
    #[bits(2)]
    pub privcfg: u8,
    /// INSTCFG.
    #[bits(2)]
    pub instcfg: u8,
    /// ABORT: traffic aborts.
    pub abort: bool,
    #[bits(10)]
    __: u16,
    /// UPDATE: the write takes effect; reads 1 until it has.
    pub update: bool,
}

/// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK (§6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqCtrl {
    /// GERROR_IRQEN.
    pub gerror_irqen: bool,
    /// PRIQ_IRQEN.
    pub priq_irqen: bool,
    /// EVENTQ_IRQEN.
    pub eventq_irqen: bool,
    #[bits(29)]
    __: u32,
}

/// SMMU_GERROR and SMMU_GERRORN (§6.3, §7.5): an error is active where they differ.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gerror {
    /// CMDQ_ERR: the command queue stopped.
    pub cmdq_err: bool,
    #[bits(1)]
    __: u8,
    /// EVENTQ_ABT_ERR: an event record could not be written.
    pub eventq_abt_err: bool,
    /// PRIQ_ABT_ERR.
    pub priq_abt_err: bool,
    /// MSI_CMDQ_ABT_ERR.
    pub msi_cmdq_abt_err: bool,
    /// MSI_EVENTQ_ABT_ERR.
    pub msi_eventq_abt_err: bool,
    /// MSI_PRIQ_ABT_ERR.
    pub msi_priq_abt_err: bool,
    /// MSI_GERROR_ABT_ERR.
    pub msi_gerror_abt_err: bool,
    /// SFM_ERR: service failure mode.
    pub sfm_err: bool,
    #[bits(23)]
    __: u32,
}

impl Gerror {
    /// Every defined bit.
    pub const MASK: u32 = 0x1fd;
}

/// SMMU_STRTAB_BASE (§6.3), 64 bits.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StrtabBase {
    #[bits(6)]
    __: u8,
    /// ADDR\[51:6\].
    #[bits(46)]
    pub addr: u64,
    #[bits(10)]
    __: u16,
    /// RA: read-allocate hint.
    pub ra: bool,
    #[bits(1)]
    __: u8,
}

impl StrtabBase {
    /// Physical address of the stream table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.addr() << 6
    }
}

/// SMMU_STRTAB_BASE_CFG (§6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StrtabBaseCfg {
    /// LOG2SIZE: StreamID bits that the table covers.
    #[bits(6)]
    pub log2size: u8,
    /// SPLIT: StreamID bits that index a level-2 array (6, 8 or 10).
    #[bits(5)]
    pub split: u8,
    #[bits(5)]
    __: u8,
    /// FMT: 0 linear, 1 two-level.
    #[bits(2)]
    pub fmt: u8,
    #[bits(14)]
    __: u16,
}

impl StrtabBaseCfg {
    /// FMT: linear.
    pub const LINEAR: u8 = 0;
    /// FMT: two-level.
    pub const TWO_LEVEL: u8 = 1;
}
