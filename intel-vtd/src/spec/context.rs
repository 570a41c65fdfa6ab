//! Root and context entries, legacy (§9.1, §9.3) and scalable mode (§9.2, §9.4).

use bitfield_struct::bitfield;

/// Bytes in a root entry of either mode.
pub const ROOT_BYTES: u64 = 16;
/// Bytes in a legacy-mode context entry.
pub const LEGACY_CONTEXT_BYTES: u64 = 16;
/// Bytes in a scalable-mode context entry.
pub const SCALABLE_CONTEXT_BYTES: u64 = 32;

/// Word 0 of a legacy root entry (§9.1; word 1 is reserved), and either word of a scalable-mode root entry (§9.2:
/// word 0 for devices 0 to 15, LP and LCTP; word 1 for devices 16 to 31, UP and UCTP).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootEntry {
    /// P: there is a context table.
    pub present: bool,
    #[bits(11)]
    pub reserved: u16,
    /// CTP\[63:12\].
    #[bits(52)]
    pub context_table: u64,
}

impl RootEntry {
    /// Address of the context table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.context_table() << 12
    }
}

/// TT of a legacy context entry.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TranslationType(pub u8);

impl TranslationType {
    /// Untranslated requests go through the second stage; the device may not use ATS.
    pub const UNTRANSLATED: Self = Self(0);
    /// As 0, and the device may use ATS. Needs ECAP.DT.
    pub const ATS: Self = Self(1);
    /// Pass-through. Needs ECAP.PT.
    pub const PASS_THROUGH: Self = Self(2);
    /// Reserved.
    pub const RESERVED: Self = Self(3);
}

/// Word 0 of a legacy context entry, §9.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct LegacyContext0 {
    /// P.
    pub present: bool,
    /// FPD: faults of this device are not recorded.
    pub fault_disable: bool,
    /// TT, see [`TranslationType`].
    #[bits(2)]
    pub translation_type: u8,
    #[bits(8)]
    pub reserved: u8,
    /// SSPTPTR\[63:12\]: the second-stage table.
    #[bits(52)]
    pub second_stage_table: u64,
}

impl LegacyContext0 {
    /// Address of the second-stage table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.second_stage_table() << 12
    }
}

/// Word 1 of a legacy context entry, §9.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct LegacyContext1 {
    /// AW: levels of the second-stage table less two (1 three levels, 2 four, 3 five).
    #[bits(3)]
    pub address_width: u8,
    /// Left to software.
    #[bits(4)]
    pub ignored: u8,
    #[bits(1)]
    pub reserved: u8,
    /// DID.
    pub domain_id: u16,
    #[bits(40)]
    pub reserved_high: u64,
}

/// Word 0 of a scalable-mode context entry, §9.4.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ScalableContext0 {
    /// P.
    pub present: bool,
    /// FPD: faults of this device are not recorded.
    pub fault_disable: bool,
    /// DTE: the device may use ATS. Needs ECAP.DT.
    pub device_tlb_enable: bool,
    /// PASIDE: requests with PASID are allowed.
    pub pasid_enable: bool,
    /// PRE: page requests are allowed.
    pub page_request_enable: bool,
    #[bits(4)]
    pub reserved: u8,
    /// PDTS: the directory has 2^(PDTS + 7) entries.
    #[bits(3)]
    pub directory_size: u8,
    /// PASIDDIRPTR\[63:12\].
    #[bits(52)]
    pub directory: u64,
}

impl ScalableContext0 {
    /// Address of the PASID directory.
    #[inline]
    pub const fn address(self) -> u64 {
        self.directory() << 12
    }
}

/// Word 1 of a scalable-mode context entry, §9.4. Words 2 and 3 are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ScalableContext1 {
    /// RID_PASID: the PASID of requests without one.
    #[bits(20)]
    pub rid_pasid: u32,
    /// RID_PRIV: requests without PASID are privileged. Needs ECAP.RPRIVS.
    pub rid_privileged: bool,
    #[bits(43)]
    pub reserved: u64,
}
