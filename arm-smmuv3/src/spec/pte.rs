//! VMSAv8-64 translation table descriptors (Arm ARM D8.3), as far as an SMMU reads them.

use bitfield_struct::bitfield;

/// A stage-1 or stage-2 descriptor with 48-bit output addresses.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Descriptor {
    /// Valid.
    pub valid: bool,
    /// Table (levels 0 to 2) or page (level 3); else block.
    pub table: bool,
    /// Stage 1: AttrIndx (2:0) and NS. Stage 2: MemAttr.
    #[bits(4)]
    pub attr: u8,
    /// Stage 1: AP\[2:1\] (bit 0 unprivileged, bit 1 read-only). Stage 2: S2AP (bit 0 read, bit 1 write).
    #[bits(2)]
    pub ap: u8,
    /// SH: shareability.
    #[bits(2)]
    pub sh: u8,
    /// AF: access flag.
    pub af: bool,
    /// nG (stage 1): tagged with the ASID.
    pub ng: bool,
    /// Output address\[47:12\]; larger granules have zeros (or, with 64 KiB, address bits 51:48) at the low end.
    #[bits(36)]
    pub address: u64,
    #[bits(3)]
    __: u8,
    /// DBM: dirty bit modifier.
    pub dbm: bool,
    /// Contiguous.
    pub contiguous: bool,
    /// PXN (stage 1), XN low bit (stage 2).
    pub pxn: bool,
    /// UXN (stage 1), XN high bit (stage 2).
    pub uxn: bool,
    #[bits(4)]
    __: u8,
    /// PXNTable (tables of stage 1).
    pub pxn_table: bool,
    /// XNTable (tables of stage 1).
    pub xn_table: bool,
    /// APTable (tables of stage 1): bit 0 no unprivileged access, bit 1 no write.
    #[bits(2)]
    pub ap_table: u8,
    /// NSTable (tables of stage 1).
    pub ns_table: bool,
}

impl Descriptor {
    /// Bits 47:12 in place: the output address for 48-bit, 4 KiB granule tables.
    pub const ADDRESS_MASK: u64 = 0x0000_ffff_ffff_f000;
    /// Stage-2 MemAttr: normal memory, inner and outer write-back.
    pub const MEM_ATTR_NORMAL_WB: u8 = 0xf;
    /// Stage-2 MemAttr with STE.S2FWB: normal write-back, whatever stage 1 says.
    pub const MEM_ATTR_FWB_WB: u8 = 0x6;
    /// S2AP: readable.
    pub const S2AP_READ: u8 = 1;
    /// S2AP: writable.
    pub const S2AP_WRITE: u8 = 2;
    /// SH: inner shareable.
    pub const SH_INNER: u8 = 3;
}
