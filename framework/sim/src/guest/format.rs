//! Formats of page tables, by hand from the manuals: trees of 4 KiB tables with 512 entries, leaves of 4 KiB and 2 MiB.

/// How entries are written. Levels are counted from the leaves: 1 is the lowest table.
#[derive(Clone, Copy)]
pub(super) struct Format {
    pub(super) levels: u32,
    /// The entry that leads to the table of `level` at an address.
    pub(super) table: fn(address: u64, level: u32) -> u64,
    /// A leaf in a table of `level`.
    pub(super) leaf: fn(address: u64, level: u32, writable: bool) -> u64,
    /// Whether an entry above the lowest level leads to a table.
    pub(super) leads: fn(entry: u64) -> bool,
}

/// VMSAv8-64 stage 1, 4 KiB granule, 39 bits: access flag, unprivileged, inner shareable, not global.
pub(super) const VMSA: Format = Format {
    levels: 3,
    table: |address, _| address | 3,
    leaf: |address, level, writable| {
        address | 1 | u64::from(level == 1) << 1 | 1 << 6 | u64::from(!writable) << 7 | 3 << 8 | 1 << 10 | 1 << 11
    },
    leads: |entry| entry & 3 == 3,
};

/// x86 long mode, four levels: AMD's guest tables (v2) and Intel's first stage. Accessed and dirty are set already.
pub(super) const LONG_MODE: Format = Format {
    levels: 4,
    table: |address, _| address | 0x27,
    leaf: |address, level, writable| address | 0x65 | u64::from(writable) << 1 | u64::from(level > 1) << 7,
    leads: |entry| entry & 0x81 == 1,
};

/// AMD's host tables (v1), three levels: PR 0, Next Level 11:9, IR 61, IW 62.
pub(super) const AMD_V1: Format = Format {
    levels: 3,
    table: |address, level| address | 1 | u64::from(level) << 9 | 3 << 61,
    leaf: |address, _, writable| address | 1 | 1 << 61 | u64::from(writable) << 62,
    leads: |entry| entry & 1 != 0 && entry >> 9 & 7 != 0,
};

/// Intel's second stage, four levels: R 0, W 1, PS 7.
pub(super) const SECOND_STAGE: Format = Format {
    levels: 4,
    table: |address, _| address | 3,
    leaf: |address, level, writable| address | 1 | u64::from(writable) << 1 | u64::from(level > 1) << 7,
    leads: |entry| entry & 3 != 0 && entry & 0x80 == 0,
};
