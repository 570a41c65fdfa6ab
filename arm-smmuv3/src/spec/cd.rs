//! Context descriptors: level-1 descriptors (§5.3) and CDs (§5.4).

use bitfield_struct::bitfield;

/// Words of 8 bytes in a CD.
pub const CD_WORDS: usize = 8;
/// Bytes in a CD.
pub const CD_BYTES: u64 = 64;
/// Bytes in a level-1 CD table descriptor.
pub const L1_DESCRIPTOR_BYTES: u64 = 8;
/// log2 of the CDs in a level-2 table of 64 KiB (STE.S1Fmt 2).
pub const L2_LOG2_64K: u32 = 10;
/// log2 of the CDs in a level-2 table of 4 KiB (STE.S1Fmt 1).
pub const L2_LOG2_4K: u32 = 6;

/// Level-1 context descriptor, §5.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1Cd {
    /// V: the level-2 table exists.
    pub v: bool,
    #[bits(11)]
    __: u16,
    /// L2Ptr\[51:12\].
    #[bits(40)]
    pub l2_ptr: u64,
    #[bits(12)]
    __: u16,
}

impl L1Cd {
    /// Address of the level-2 table.
    #[inline]
    pub const fn l2_address(self) -> u64 {
        self.l2_ptr() << 12
    }
}

/// CD word 0, §5.4.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CdWord0 {
    /// T0SZ: 64 - log2 of the TTB0 region.
    #[bits(6)]
    pub t0sz: u8,
    /// TG0: 0 4 KiB, 1 64 KiB, 2 16 KiB.
    #[bits(2)]
    pub tg0: u8,
    /// IR0: inner cacheability of TTB0 walks.
    #[bits(2)]
    pub ir0: u8,
    /// OR0: outer cacheability of TTB0 walks.
    #[bits(2)]
    pub or0: u8,
    /// SH0: shareability of TTB0 walks.
    #[bits(2)]
    pub sh0: u8,
    /// EPD0: no walks through TTB0.
    pub epd0: bool,
    /// ENDI: big-endian tables.
    pub endi: bool,
    /// T1SZ: 64 - log2 of the TTB1 region.
    #[bits(6)]
    pub t1sz: u8,
    /// TG1: 1 16 KiB, 2 4 KiB, 3 64 KiB.
    #[bits(2)]
    pub tg1: u8,
    /// IR1.
    #[bits(2)]
    pub ir1: u8,
    /// OR1.
    #[bits(2)]
    pub or1: u8,
    /// SH1.
    #[bits(2)]
    pub sh1: u8,
    /// EPD1: no walks through TTB1.
    pub epd1: bool,
    /// V: the descriptor is valid.
    pub v: bool,
    /// IPS: output size of stage 1, coded as IDR5.OAS.
    #[bits(3)]
    pub ips: u8,
    /// AFFD: access flag faults disabled.
    pub affd: bool,
    /// WXN.
    pub wxn: bool,
    /// UWXN.
    pub uwxn: bool,
    /// TBI0: top byte ignored in the TTB0 region.
    pub tbi0: bool,
    /// TBI1: top byte ignored in the TTB1 region.
    pub tbi1: bool,
    /// PAN.
    pub pan: bool,
    /// AA64: VMSAv8-64 tables.
    pub aa64: bool,
    /// HD: hardware dirty state.
    pub hd: bool,
    /// HA: hardware access flag.
    pub ha: bool,
    /// S: faults stall.
    pub s: bool,
    /// R: faults are recorded.
    pub r: bool,
    /// A: faults abort (else RAZ/WI).
    pub a: bool,
    /// ASET: ASID set not shared with the PEs.
    pub aset: bool,
    /// ASID.
    pub asid: u16,
}

/// CD words 1 (TTB0) and 2 (TTB1), §5.4.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CdTtb {
    /// NSCFG.
    pub nscfg: bool,
    /// HAD: hierarchical attributes (APTable) disabled.
    pub had: bool,
    /// E0PD.
    pub e0pd: bool,
    /// HAFT (word 1).
    pub haft: bool,
    /// TTB\[51:4\].
    #[bits(48)]
    pub ttb: u64,
    #[bits(12)]
    __: u16,
}

impl CdTtb {
    /// Address of the translation table.
    #[inline]
    pub const fn table(self) -> u64 {
        self.ttb() << 4
    }
}
