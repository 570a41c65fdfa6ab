//! Scalable mode: PASID directory entries (§9.5) and PASID table entries (§9.6).

use bitfield_struct::bitfield;

/// Bytes in a PASID directory entry.
pub const DIRECTORY_BYTES: u64 = 8;
/// log2 of the entries of a PASID table: PASID\[5:0\] is the index in the table, PASID\[19:6\] in the directory.
pub const TABLE_LOG2: u32 = 6;
/// Words of 8 bytes in a PASID table entry.
pub const ENTRY_WORDS: usize = 8;
/// Bytes in a PASID table entry.
pub const ENTRY_BYTES: u64 = 64;

/// PASID directory entry, §9.5.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DirectoryEntry {
    /// P.
    pub present: bool,
    /// FPD: faults of these PASIDs are not recorded.
    pub fault_disable: bool,
    #[bits(10)]
    pub reserved: u16,
    /// SMPTBLPTR\[63:12\].
    #[bits(52)]
    pub table: u64,
}

impl DirectoryEntry {
    /// Address of the PASID table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.table() << 12
    }
}

/// PGTT of a PASID table entry.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TranslationKind(pub u8);

impl TranslationKind {
    /// First stage only. Needs ECAP.FSTS.
    pub const FIRST_STAGE: Self = Self(1);
    /// Second stage only. Needs ECAP.SSTS.
    pub const SECOND_STAGE: Self = Self(2);
    /// First stage over second stage. Needs ECAP.NEST.
    pub const NESTED: Self = Self(3);
    /// Pass-through. Needs ECAP.PT.
    pub const PASS_THROUGH: Self = Self(4);
}

/// Word 0 of a PASID table entry, §9.6.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry0 {
    /// P.
    pub present: bool,
    /// FPD: faults of this PASID are not recorded.
    pub fault_disable: bool,
    /// AW: levels of the second-stage table less two.
    #[bits(3)]
    pub address_width: u8,
    #[bits(1)]
    pub reserved: u8,
    /// PGTT, see [`TranslationKind`].
    #[bits(3)]
    pub translation_kind: u8,
    /// SSADE: accessed and dirty bits of the second stage. Needs ECAP.SSADS.
    pub second_stage_ad: bool,
    #[bits(2)]
    pub reserved_high: u8,
    /// SSPTPTR\[63:12\].
    #[bits(52)]
    pub second_stage_table: u64,
}

impl PasidEntry0 {
    /// Address of the second-stage table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.second_stage_table() << 12
    }
}

/// Word 1 of a PASID table entry, §9.6.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry1 {
    /// DID.
    pub domain_id: u16,
    #[bits(7)]
    pub reserved: u8,
    /// PWSNP: page walks are snooped. Needs ECAP.SMPWCS.
    pub page_walk_snoop: bool,
    /// PGSNP: the pages' accesses are snooped. Needs ECAP.SC.
    pub page_snoop: bool,
    /// CD, EMTE, PAT and EMT: memory types.
    #[bits(39)]
    pub memory_type: u64,
}

/// Word 2 of a PASID table entry, §9.6. Words 3 to 7 are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntry2 {
    /// SRE: privileged requests are allowed. Needs ECAP.SRS.
    pub supervisor_enable: bool,
    /// ERE: execute requests are allowed. Needs ECAP.ERS.
    pub execute_enable: bool,
    /// FSPM: 0 four levels, 1 five levels (needs CAP.FS5LP).
    #[bits(2)]
    pub paging_mode: u8,
    /// WPE: privileged requests obey R/W.
    pub write_protect: bool,
    /// NXE: the execute-disable bit counts.
    pub no_execute: bool,
    /// SMEP.
    pub smep: bool,
    /// EAFE: extended accessed flag. Needs ECAP.EAFS.
    pub extended_accessed: bool,
    #[bits(4)]
    pub reserved: u8,
    /// FSPTPTR\[63:12\].
    #[bits(52)]
    pub first_stage_table: u64,
}

impl PasidEntry2 {
    /// Address of the first-stage table: guest-physical when nested.
    #[inline]
    pub const fn address(self) -> u64 {
        self.first_stage_table() << 12
    }
}
