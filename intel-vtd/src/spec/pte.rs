//! Paging entries of the first stage (§9.7, as x86-64) and of the second stage (§9.8), of any level.

use bitfield_struct::bitfield;

/// Bytes in a paging entry.
pub const PTE_BYTES: u64 = 8;
/// Entries in a paging structure: 9 bits of an address at each level.
pub const INDEX_BITS: u32 = 9;
/// ADDR\[51:12\] in place.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// A first-stage paging entry, §9.7.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FirstStageEntry {
    /// P.
    pub present: bool,
    /// R/W: writable.
    pub write: bool,
    /// U/S: user requests are allowed.
    pub user: bool,
    /// PWT.
    pub write_through: bool,
    /// PCD.
    pub cache_disable: bool,
    /// A: accessed.
    pub accessed: bool,
    /// D: dirty (leaves).
    pub dirty: bool,
    /// PS at levels 2 and 3: a leaf. PAT at level 1.
    pub page_size: bool,
    /// G: global (leaves).
    pub global: bool,
    #[bits(1)]
    pub ignored_low: u8,
    /// EA: extended accessed flag.
    pub extended_accessed: bool,
    #[bits(1)]
    pub ignored: u8,
    /// ADDR\[51:12\].
    #[bits(40)]
    pub address: u64,
    #[bits(11)]
    pub ignored_high: u16,
    /// XD: execute-disable.
    pub execute_disable: bool,
}

/// A second-stage paging entry, §9.8.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SecondStageEntry {
    /// R. An entry with neither R nor W is not present.
    pub read: bool,
    /// W.
    pub write: bool,
    /// X. Needs ECAP.ERS; ignored otherwise.
    pub execute: bool,
    /// EMT (leaves).
    #[bits(3)]
    pub memory_type: u8,
    /// IPAT (leaves).
    pub ignore_pat: bool,
    /// PS at levels 2 and 3: a leaf.
    pub page_size: bool,
    /// A. Needs ECAP.SSADS.
    pub accessed: bool,
    /// D (leaves). Needs ECAP.SSADS.
    pub dirty: bool,
    #[bits(1)]
    pub ignored: u8,
    /// SNP (leaves): accesses are snooped. Needs ECAP.SC.
    pub snoop: bool,
    /// ADDR\[51:12\].
    #[bits(40)]
    pub address: u64,
    #[bits(10)]
    pub ignored_high: u16,
    /// TM: transient mapping (legacy mode, leaves, ECAP.DT).
    pub transient: bool,
    #[bits(1)]
    pub ignored_top: u8,
}
