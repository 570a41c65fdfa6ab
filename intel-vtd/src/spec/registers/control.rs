//! Global command and status, table addresses, and the commands that are given by register.

use bitfield_struct::bitfield;

/// GCMD (§11.4.4) and GSTS (§11.4.5): a bit of the status follows the command of the same place.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Global {
    #[bits(23)]
    __: u32,
    /// CFI: compatibility format interrupts pass.
    pub compatibility_interrupts: bool,
    /// SIRTP (one-shot), IRTPS: the interrupt table address is taken.
    pub interrupt_table: bool,
    /// IRE, IRES: interrupt remapping.
    pub interrupt_remapping: bool,
    /// QIE, QIES: queued invalidation.
    pub queued_invalidation: bool,
    /// WBF (one-shot), WBFS: the write buffer is flushed.
    pub write_buffer_flush: bool,
    /// EAFL, AFLS: advanced fault logging.
    pub advanced_fault_log: bool,
    /// SFL (one-shot), FLS: the fault log address is taken.
    pub fault_log: bool,
    /// SRTP (one-shot), RTPS: the root table address is taken.
    pub root_table: bool,
    /// TE, TES: DMA remapping.
    pub translation: bool,
}

/// RTADDR.TTM.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableMode(pub u8);

impl TableMode {
    /// Legacy root and context entries.
    pub const LEGACY: Self = Self(0);
    /// Scalable-mode entries. Needs ECAP.SMTS.
    pub const SCALABLE: Self = Self(1);
    /// Reserved.
    pub const RESERVED: Self = Self(2);
    /// Every request aborts. Needs ECAP.ADMS.
    pub const ABORT: Self = Self(3);
}

/// RTADDR, §11.4.6. Taken when GCMD.SRTP is written.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTable {
    #[bits(10)]
    pub reserved: u16,
    /// TTM, see [`TableMode`].
    #[bits(2)]
    pub mode: u8,
    /// RTA\[63:12\].
    #[bits(52)]
    pub root_table: u64,
}

impl RootTable {
    /// Address of the root table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.root_table() << 12
    }
}

/// CCMD, §11.4.7.1: invalidation of the context cache by register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    /// DID.
    pub domain_id: u16,
    /// SID.
    pub source_id: u16,
    /// FM.
    #[bits(2)]
    pub function_mask: u8,
    #[bits(25)]
    __: u32,
    /// CAIG: granularity that was done, see [`Granularity`](crate::spec::descriptors::Granularity).
    #[bits(2)]
    pub actual: u8,
    /// CIRG: granularity that is asked for.
    #[bits(2)]
    pub granularity: u8,
    /// ICC: invalidate; 0 again when done.
    pub invalidate: bool,
}

/// IVA, §11.4.8.2: the address of a page-selective invalidation by register. Write-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidateAddress {
    /// AM.
    #[bits(6)]
    pub address_mask: u8,
    /// IH.
    pub hint: bool,
    #[bits(5)]
    __: u8,
    /// ADDR\[63:12\].
    #[bits(52)]
    pub address: u64,
}

/// IOTLB, §11.4.8.1: invalidation of the IOTLB by register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbCommand {
    __: u32,
    /// DID.
    pub domain_id: u16,
    /// DW: drain writes.
    pub drain_writes: bool,
    /// DR: drain reads.
    pub drain_reads: bool,
    #[bits(7)]
    __: u8,
    /// IAIG: granularity that was done.
    #[bits(2)]
    pub actual: u8,
    #[bits(1)]
    __: u8,
    /// IIRG: granularity that is asked for.
    #[bits(2)]
    pub granularity: u8,
    #[bits(1)]
    __: u8,
    /// IVT: invalidate; 0 again when done.
    pub invalidate: bool,
}

/// PMEN, §11.4.10.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ProtectedMemory {
    /// PRS: protection is on.
    pub status: bool,
    #[bits(30)]
    __: u32,
    /// EPM: switches protection.
    pub enable: bool,
}

/// IRTA, §11.4.11.1. Taken when GCMD.SIRTP is written.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptTable {
    /// S: 2^(S+1) entries.
    #[bits(4)]
    pub size: u8,
    #[bits(7)]
    __: u8,
    /// EIME: x2APIC.
    pub extended: bool,
    /// IRTA\[63:12\].
    #[bits(52)]
    pub table: u64,
}
