//! Page tables: the host's format (v1), the guest's (v2, as x86 long mode), and GCR3 tables (manual: page tables).
//!
//! Every table is a page of 512 entries of 8 bytes.

use super::size;
use bitfield_struct::bitfield;

/// Address bits that one level of any of the tables resolves.
pub const LEVEL_BITS: u8 = 9;
/// log2 of a page.
pub const PAGE_LOG2: u8 = 12;
/// Bytes of an entry.
pub const PTE_BYTES: u64 = 8;

/// An entry of a host table (v1). An entry of level n covers 2^(12 + 9 * (n - 1)) bytes.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct HostPte {
    /// PR: present.
    pub pr: bool,
    #[bits(4)]
    __: u8,
    /// A: accessed.
    pub a: bool,
    /// D: dirty.
    pub d: bool,
    #[bits(2)]
    __: u8,
    /// Next Level: 0 a page of this level's size, 7 a page whose size the address says, else the level it points to.
    #[bits(3)]
    pub next_level: u8,
    /// Address\[51:12\].
    #[bits(40)]
    pub address: u64,
    #[bits(7)]
    __: u8,
    /// U.
    pub u: bool,
    /// FC: coherent accesses forced.
    pub fc: bool,
    /// IR: reads allowed.
    pub ir: bool,
    /// IW: writes allowed.
    pub iw: bool,
    __: bool,
}

impl HostPte {
    /// Next Level of a page of this level's own size.
    pub const PAGE: u8 = 0;
    /// Next Level of a page whose size the address says, see [`size`].
    pub const SIZED_PAGE: u8 = 7;

    /// The address field in place.
    #[inline]
    pub const fn pointer(self) -> u64 {
        self.address() << 12
    }
    /// First byte and log2 of the size of a [`Self::SIZED_PAGE`]; a field of ones only says 2^53.
    #[inline]
    pub const fn sized_page(self) -> (u64, u8) {
        size::decode(self.pointer())
    }
}

/// log2 of what one entry of `level` (1 to 6) covers, in a host or guest table.
#[inline]
pub const fn span_log2(level: u8) -> u8 {
    PAGE_LOG2 + LEVEL_BITS * (level - 1)
}

/// An entry of a guest table (v2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestPte {
    /// P: present.
    pub p: bool,
    /// RW: writes allowed.
    pub rw: bool,
    /// US: user accesses allowed.
    pub us: bool,
    /// PWT.
    pub pwt: bool,
    /// PCD.
    pub pcd: bool,
    /// A: accessed.
    pub a: bool,
    /// D: dirty.
    pub d: bool,
    /// PS: a page of this level's size (2 MiB, 1 GiB). At level 1 the bit is PAT.
    pub ps: bool,
    /// G: global.
    pub g: bool,
    #[bits(3)]
    __: u8,
    /// Address\[51:12\].
    #[bits(40)]
    pub address: u64,
    #[bits(11)]
    __: u16,
    /// NX.
    pub nx: bool,
}

impl GuestPte {
    /// The address field in place.
    #[inline]
    pub const fn pointer(self) -> u64 {
        self.address() << 12
    }
}

/// An entry of a GCR3 table, of any of its levels: the next level's table, or at the last the root of the PASID's
/// guest table.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Gcr3Entry {
    /// V: valid.
    pub v: bool,
    #[bits(11)]
    __: u16,
    /// Address\[51:12\].
    #[bits(40)]
    pub address: u64,
    #[bits(12)]
    __: u16,
}

impl Gcr3Entry {
    /// The address field in place.
    #[inline]
    pub const fn pointer(self) -> u64 {
        self.address() << 12
    }
}
