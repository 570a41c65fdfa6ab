//! What an IOMMU can do: EFR, EFR2, and the PCI capability header.

use bitfield_struct::bitfield;

/// Extended feature register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Efr {
    /// PreFSup: PREFETCH_IOMMU_PAGES.
    pub pref_sup: bool,
    /// PPRSup: page requests.
    pub ppr_sup: bool,
    /// XTSup: x2APIC.
    pub xt_sup: bool,
    /// NXSup.
    pub nx_sup: bool,
    /// GTSup: guest translation, two stages.
    pub gt_sup: bool,
    __: bool,
    /// IASup: INVALIDATE_IOMMU_ALL.
    pub ia_sup: bool,
    /// GASup.
    pub ga_sup: bool,
    /// HESup.
    pub he_sup: bool,
    /// PCSup: performance counters.
    pub pc_sup: bool,
    /// HATS: levels of host tables, 0 four, 1 five, 2 six.
    #[bits(2)]
    pub hats: u8,
    /// GATS: levels of guest tables, 0 four, 1 five.
    #[bits(2)]
    pub gats: u8,
    /// GLXSup: levels of GCR3 tables less one.
    #[bits(2)]
    pub glx_sup: u8,
    #[bits(5)]
    __: u8,
    /// GAMSup.
    #[bits(3)]
    pub gam_sup: u8,
    #[bits(8)]
    __: u8,
    /// PASmax: bits of a PASID less one.
    #[bits(5)]
    pub pas_max: u8,
    #[bits(11)]
    __: u16,
    /// GIoSup: DTE.GIOV.
    pub gio_sup: bool,
    /// HASup: accessed bits.
    pub ha_sup: bool,
    /// EPHSup.
    pub eph_sup: bool,
    __: bool,
    /// HDSup: dirty bits.
    pub hd_sup: bool,
    #[bits(2)]
    __: u8,
    /// vIommuSup (out-of-tree drivers).
    pub viommu_sup: bool,
    #[bits(7)]
    __: u8,
    /// SNPSup.
    pub snp_sup: bool,
}

/// Extended feature register 2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Efr2 {
    __: bool,
    /// SEVSNPIOSup.
    pub sev_snp_io_sup: bool,
    __: bool,
    /// GCR3TRPMode: CONTROL.GCR3TRPMode can be set.
    pub gcr3_trp_mode: bool,
    __: bool,
    /// SNPAVICSup.
    #[bits(3)]
    pub snp_avic_sup: u8,
    /// NumIntRemapSup.
    #[bits(2)]
    pub num_int_remap_sup: u8,
    __: bool,
    /// HTRangeIgnore.
    pub ht_range_ignore: bool,
    #[bits(52)]
    __: u64,
}

/// First word of the IOMMU's PCI capability.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CapabilityHeader {
    /// CapId: 0x0f.
    pub cap_id: u8,
    /// CapPtr: next capability.
    pub cap_ptr: u8,
    /// CapType: 3 IOMMU.
    #[bits(3)]
    pub cap_type: u8,
    /// CapRev.
    #[bits(5)]
    pub cap_rev: u8,
    /// IotlbSup: devices may have caches (ATS).
    pub iotlb_sup: bool,
    /// HtTunnel.
    pub ht_tunnel: bool,
    /// NpCache: entries that are not present are cached, so software announces new ones too.
    pub np_cache: bool,
    /// EFRSup: there is an EFR.
    pub efr_sup: bool,
    /// CapExt.
    pub cap_ext: bool,
    #[bits(3)]
    __: u8,
}
