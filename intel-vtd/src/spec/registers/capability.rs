//! What the hardware can do: CAP (§11.4.2) and ECAP (§11.4.3).

use bitfield_struct::bitfield;

/// CAP, §11.4.2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// ND: domain-ids have 2 ND + 4 bits.
    #[bits(3)]
    pub domains: u8,
    /// AFL: advanced fault logging.
    pub advanced_fault_log: bool,
    /// RWBF: the write buffer has to be flushed.
    pub write_buffer_flush: bool,
    /// PLMR.
    pub protected_low_memory: bool,
    /// PHMR.
    pub protected_high_memory: bool,
    /// CM: caching mode: entries that are not present may be cached.
    pub caching_mode: bool,
    /// SAGAW: second-stage tables of three (bit 1), four (bit 2), five (bit 3) levels.
    #[bits(5)]
    pub second_stage_levels: u8,
    #[bits(3)]
    pub reserved: u8,
    /// MGAW: bits of an address that is translated, less one.
    #[bits(6)]
    pub address_width: u8,
    /// ZLR: zero-length reads of write-only pages.
    pub zero_length_read: bool,
    #[bits(1)]
    pub reserved_23: u8,
    /// FRO: where the fault recording registers are, in 16 bytes.
    #[bits(10)]
    pub fault_offset: u16,
    /// SSLPS: second-stage leaves of 2 MiB (bit 0) and 1 GiB (bit 1).
    #[bits(4)]
    pub second_stage_leaves: u8,
    #[bits(1)]
    pub reserved_38: u8,
    /// PSI: page-selective invalidation of the second stage.
    pub page_selective: bool,
    /// NFR: fault recording registers less one.
    pub fault_registers: u8,
    /// MAMV: largest address mask of a page-selective invalidation.
    #[bits(6)]
    pub max_address_mask: u8,
    /// DWD: write draining.
    pub drain_writes: bool,
    /// DRD: read draining.
    pub drain_reads: bool,
    /// FS1GP: first-stage leaves of 1 GiB.
    pub first_stage_1g: bool,
    #[bits(2)]
    pub reserved_57: u8,
    /// PI: posted interrupts.
    pub posted_interrupts: bool,
    /// FS5LP: first-stage tables of five levels.
    pub first_stage_5_levels: bool,
    /// ECMDS: enhanced commands.
    pub enhanced_commands: bool,
    /// ESIRTPS: SIRTP invalidates by itself.
    pub set_interrupt_table_invalidates: bool,
    /// ESRTPS: SRTP invalidates by itself.
    pub set_root_table_invalidates: bool,
}

/// ECAP, §11.4.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ecap {
    /// C: page walks are coherent.
    pub coherent: bool,
    /// QI: queued invalidation.
    pub queued_invalidation: bool,
    /// DT: device-TLBs (ATS).
    pub device_tlb: bool,
    /// IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// EIM: x2APIC.
    pub extended_interrupt_mode: bool,
    #[bits(1)]
    pub reserved_5: u8,
    /// PT: pass-through.
    pub pass_through: bool,
    /// SC: snoop control.
    pub snoop_control: bool,
    /// IRO: where the IOTLB registers are, in 16 bytes.
    #[bits(10)]
    pub iotlb_offset: u16,
    #[bits(2)]
    pub reserved_18: u8,
    /// MHMV: largest mask of an interrupt entry invalidation.
    #[bits(4)]
    pub max_handle_mask: u8,
    #[bits(1)]
    pub reserved_24: u8,
    /// MTS: memory types.
    pub memory_type: bool,
    /// NEST: nested translation.
    pub nested: bool,
    #[bits(2)]
    pub reserved_27: u8,
    /// PRS: page requests.
    pub page_request: bool,
    /// ERS: execute requests.
    pub execute_request: bool,
    /// SRS: privileged requests.
    pub supervisor_request: bool,
    #[bits(1)]
    pub reserved_32: u8,
    /// NWFS: no-write flag.
    pub no_write_flag: bool,
    /// EAFS: extended accessed flag.
    pub extended_accessed: bool,
    /// PSS: PASIDs have PSS + 1 bits.
    #[bits(5)]
    pub pasid_size: u8,
    /// PASID: requests with PASID.
    pub pasid: bool,
    /// DIT: device-TLB invalidation throttling.
    pub device_tlb_throttle: bool,
    /// PDS: page request draining.
    pub page_request_drain: bool,
    /// SMTS: scalable mode.
    pub scalable_mode: bool,
    /// VCS: virtual commands.
    pub virtual_command: bool,
    /// SSADS: accessed and dirty bits of the second stage.
    pub second_stage_ad: bool,
    /// SSTS: second-stage translation in scalable mode.
    pub second_stage: bool,
    /// FSTS: first-stage translation in scalable mode.
    pub first_stage: bool,
    /// SMPWCS: coherent page walks in scalable mode.
    pub scalable_coherent: bool,
    /// RPS: RID_PASID of the context entry counts.
    pub rid_pasid: bool,
    #[bits(1)]
    pub reserved_50: u8,
    /// PMS: performance monitoring.
    pub performance: bool,
    /// ADMS: abort mode (RTADDR.TTM 3).
    pub abort_mode: bool,
    /// RPRIVS: RID_PRIV of the context entry counts.
    pub rid_privileged: bool,
    #[bits(10)]
    pub reserved_54: u16,
}

impl Cap {
    /// Byte offset of fault recording register `index`.
    #[inline]
    pub const fn fault_register(self, index: u32) -> u64 {
        self.fault_offset() as u64 * 16 + index as u64 * 16
    }
}

impl Ecap {
    /// Byte offset of IVA; IOTLB follows it.
    #[inline]
    pub const fn iva(self) -> u64 {
        self.iotlb_offset() as u64 * 16
    }

    /// Byte offset of IOTLB.
    #[inline]
    pub const fn iotlb(self) -> u64 {
        self.iva() + 8
    }
}
