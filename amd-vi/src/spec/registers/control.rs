//! CONTROL and STATUS.

use bitfield_struct::bitfield;

/// IOMMU control register. Bits that Linux 7.3.4 does not name are those of public out-of-tree drivers, or reserved here.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// IommuEn: requests are translated.
    pub iommu_en: bool,
    /// HtTunEn.
    pub ht_tun_en: bool,
    /// EventLogEn.
    pub event_log_en: bool,
    /// EventIntEn.
    pub event_int_en: bool,
    /// ComWaitIntEn: COMPLETION_WAIT with I interrupts.
    pub com_wait_int_en: bool,
    /// InvTimeOut: 0 none, 1 to 6: 1 ms to 100 s.
    #[bits(3)]
    pub inv_timeout: u8,
    /// PassPW.
    pub pass_pw: bool,
    /// ResPassPW.
    pub res_pass_pw: bool,
    /// Coherent.
    pub coherent: bool,
    /// Isoc.
    pub isoc: bool,
    /// CmdBufEn: commands are executed.
    pub cmd_buf_en: bool,
    /// PprLogEn.
    pub ppr_log_en: bool,
    /// PprIntEn.
    pub ppr_int_en: bool,
    /// PprEn.
    pub ppr_en: bool,
    /// GTEn: guest translation (DTE.GV).
    pub gt_en: bool,
    /// GAEn.
    pub ga_en: bool,
    #[bits(7)]
    __: u8,
    /// GAMEn.
    #[bits(3)]
    pub gam_en: u8,
    /// GALogEn.
    pub ga_log_en: bool,
    /// GAIntEn.
    pub ga_int_en: bool,
    #[bits(13)]
    __: u16,
    /// NumIntRemapMode.
    #[bits(2)]
    pub num_int_remap_mode: u8,
    /// EPHEn.
    pub eph_en: bool,
    #[bits(4)]
    __: u8,
    /// XTEn.
    pub xt_en: bool,
    /// IntCapXTEn.
    pub int_cap_xt_en: bool,
    /// vCmdEn (out-of-tree drivers).
    pub vcmd_en: bool,
    /// vIommuEn (out-of-tree drivers).
    pub viommu_en: bool,
    #[bits(4)]
    __: u8,
    /// GCR3TRPMode: the GCR3 table's root pointer is a guest physical address.
    pub gcr3_trp_mode: bool,
    /// IRTCacheDis.
    pub irt_cache_dis: bool,
    /// GstBufferTRPMode (out-of-tree drivers).
    pub gst_buffer_trp_mode: bool,
    /// SNPAVICEn.
    #[bits(3)]
    pub snp_avic_en: u8,
}

/// IOMMU status register. Interrupt and overflow bits are cleared by writing 1; the Run bits are read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// EventOverflow: the event log was full.
    pub event_overflow: bool,
    /// EventLogInt: an entry was written.
    pub event_log_int: bool,
    /// ComWaitInt: a COMPLETION_WAIT with I completed.
    pub com_wait_int: bool,
    /// EventLogRun: the event log takes entries.
    pub event_log_run: bool,
    /// CmdBufRun: commands are executed.
    pub cmd_buf_run: bool,
    /// PprOverflow.
    pub ppr_overflow: bool,
    /// PprInt.
    pub ppr_int: bool,
    /// PprRun.
    pub ppr_run: bool,
    /// GALogRun.
    pub ga_log_run: bool,
    /// GALogOverflow.
    pub ga_log_overflow: bool,
    /// GAInt.
    pub ga_int: bool,
    #[bits(53)]
    __: u64,
}

impl Status {
    /// Bits that writing 1 clears.
    pub const WRITE_1_TO_CLEAR: u64 = 0x667;
}
