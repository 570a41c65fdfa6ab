//! Stream table: level-1 descriptors (§5.1) and stream table entries (§5.2).

use bitfield_struct::bitfield;

/// Words of 8 bytes in an STE.
pub const STE_WORDS: usize = 8;
/// Bytes in an STE.
pub const STE_BYTES: u64 = 64;
/// Bytes in a level-1 stream table descriptor.
pub const L1_DESCRIPTOR_BYTES: u64 = 8;

/// Level-1 stream table descriptor, §5.1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1StreamTable {
    /// Span: the level-2 array has 2^(Span-1) STEs; 0 none.
    #[bits(5)]
    pub span: u8,
    #[bits(1)]
    __: u8,
    /// L2Ptr\[51:6\].
    #[bits(46)]
    pub l2_ptr: u64,
    #[bits(12)]
    __: u16,
}

impl L1StreamTable {
    /// Physical address of the level-2 array.
    #[inline]
    pub const fn l2_address(self) -> u64 {
        self.l2_ptr() << 6
    }
}

/// STE.Config (word 0, bits 3:1).
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Config(pub u8);

impl Config {
    /// All traffic aborts, no event. Every value below 4 means the same.
    pub const ABORT: Self = Self(0);
    /// Both stages bypassed.
    pub const BYPASS: Self = Self(4);
    /// Stage 1 translates.
    pub const S1_TRANSLATE: Self = Self(5);
    /// Stage 2 translates.
    pub const S2_TRANSLATE: Self = Self(6);
    /// Stage 1 translates, nested in stage 2.
    pub const NESTED: Self = Self(7);

    /// Whether traffic aborts without an event.
    #[inline]
    pub const fn aborts(self) -> bool {
        self.0 & 4 == 0
    }
    /// Whether stage 1 translates.
    #[inline]
    pub const fn stage1(self) -> bool {
        self.0 & 5 == 5
    }
    /// Whether stage 2 translates.
    #[inline]
    pub const fn stage2(self) -> bool {
        self.0 & 6 == 6
    }
}

/// STE word 0, §5.2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteWord0 {
    /// V: the entry is valid.
    pub v: bool,
    /// Config, see [`Config`].
    #[bits(3)]
    pub config: u8,
    /// S1Fmt: 0 linear, 1 two-level with 4 KiB leaves, 2 two-level with 64 KiB leaves.
    #[bits(2)]
    pub s1_fmt: u8,
    /// S1ContextPtr\[51:6\].
    #[bits(46)]
    pub s1_context_ptr: u64,
    #[bits(7)]
    __: u8,
    /// S1CDMax: log2 of the number of CDs; 0: no substreams.
    #[bits(5)]
    pub s1_cd_max: u8,
}

impl SteWord0 {
    /// Address of the CD table (an IPA when nested).
    #[inline]
    pub const fn cd_table(self) -> u64 {
        self.s1_context_ptr() << 6
    }
}

/// STE word 1, §5.2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteWord1 {
    /// S1DSS: traffic without SubstreamID: 0 terminate, 1 bypass, 2 CD of SSID 0.
    #[bits(2)]
    pub s1_dss: u8,
    /// S1CIR: inner cacheability of CD fetches.
    #[bits(2)]
    pub s1_cir: u8,
    /// S1COR: outer cacheability of CD fetches.
    #[bits(2)]
    pub s1_cor: u8,
    /// S1CSH: shareability of CD fetches.
    #[bits(2)]
    pub s1_csh: u8,
    #[bits(4)]
    __: u8,
    /// DRE: destructive read enable.
    pub dre: bool,
    /// CONT: contiguity hint.
    #[bits(4)]
    pub cont: u8,
    /// DCP: directed cache prefetch.
    pub dcp: bool,
    /// PPAR.
    pub ppar: bool,
    /// MEV: events may be merged.
    pub mev: bool,
    #[bits(5)]
    __: u8,
    /// S2FWB: forced write-back stage-2 attributes.
    pub s2_fwb: bool,
    /// S1MPAM.
    pub s1_mpam: bool,
    /// S1STALLD: stage-1 faults may not stall.
    pub s1_stalld: bool,
    /// EATS: 0 ATS refused, 1 full ATS, 2 split-stage ATS.
    #[bits(2)]
    pub eats: u8,
    /// STRW: exception level of stage 1, 0 NS-EL1, 2 NS-EL2.
    #[bits(2)]
    pub strw: u8,
    /// MemAttr.
    #[bits(4)]
    pub mem_attr: u8,
    /// MTCFG.
    pub mtcfg: bool,
    /// ALLOCCFG.
    #[bits(4)]
    pub alloccfg: u8,
    #[bits(3)]
    __: u8,
    /// SHCFG: 1 use the incoming shareability.
    #[bits(2)]
    pub shcfg: u8,
    /// NSCFG.
    #[bits(2)]
    pub nscfg: u8,
    /// PRIVCFG.
    #[bits(2)]
    pub privcfg: u8,
    /// INSTCFG.
    #[bits(2)]
    pub instcfg: u8,
    #[bits(12)]
    __: u16,
}

impl SteWord1 {
    /// SHCFG: use the incoming shareability.
    pub const SHCFG_INCOMING: u8 = 1;
}

/// STE word 2, §5.2: stage 2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteWord2 {
    /// S2VMID.
    pub s2_vmid: u16,
    #[bits(16)]
    __: u16,
    /// S2T0SZ: 64 - log2 of the IPA size.
    #[bits(6)]
    pub s2_t0sz: u8,
    /// S2SL0: start level (4 KiB: 0 level 2, 1 level 1, 2 level 0).
    #[bits(2)]
    pub s2_sl0: u8,
    /// S2IR0: inner cacheability of walks.
    #[bits(2)]
    pub s2_ir0: u8,
    /// S2OR0: outer cacheability of walks.
    #[bits(2)]
    pub s2_or0: u8,
    /// S2SH0: shareability of walks.
    #[bits(2)]
    pub s2_sh0: u8,
    /// S2TG: 0 4 KiB, 1 64 KiB, 2 16 KiB.
    #[bits(2)]
    pub s2_tg: u8,
    /// S2PS: output size, coded as IDR5.OAS.
    #[bits(3)]
    pub s2_ps: u8,
    /// S2AA64: VMSAv8-64 tables.
    pub s2_aa64: bool,
    /// S2ENDI: big-endian tables.
    pub s2_endi: bool,
    /// S2AFFD: access flag faults disabled.
    pub s2_affd: bool,
    /// S2PTW: protected table walk.
    pub s2_ptw: bool,
    /// S2HD: hardware dirty state.
    pub s2_hd: bool,
    /// S2HA: hardware access flag.
    pub s2_ha: bool,
    /// S2S: stage-2 faults stall.
    pub s2_s: bool,
    /// S2R: stage-2 faults are recorded.
    pub s2_r: bool,
    #[bits(5)]
    __: u8,
}

/// STE word 3, §5.2: stage-2 table base.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteWord3 {
    #[bits(4)]
    __: u8,
    /// S2TTB\[51:4\].
    #[bits(48)]
    pub s2_ttb: u64,
    #[bits(12)]
    __: u16,
}

impl SteWord3 {
    /// Physical address of the stage-2 table.
    #[inline]
    pub const fn table(self) -> u64 {
        self.s2_ttb() << 4
    }
}
