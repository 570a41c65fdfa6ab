//! Event records: 32 bytes, four words (§7.3).

use bitfield_struct::bitfield;

/// Words of 8 bytes in an event record.
pub const EVENT_WORDS: usize = 4;
/// Bytes in an event record.
pub const EVENT_BYTES: u64 = 32;

/// Event number (§7.3). An open set.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub u8);

impl EventId {
    /// F_UUT: unsupported upstream transaction.
    pub const F_UUT: Self = Self(0x01);
    /// C_BAD_STREAMID: the StreamID is beyond the stream table.
    pub const C_BAD_STREAMID: Self = Self(0x02);
    /// F_STE_FETCH: the STE could not be read.
    pub const F_STE_FETCH: Self = Self(0x03);
    /// C_BAD_STE: the STE is invalid or illegal.
    pub const C_BAD_STE: Self = Self(0x04);
    /// F_BAD_ATS_TREQ: ATS request not allowed.
    pub const F_BAD_ATS_TREQ: Self = Self(0x05);
    /// F_STREAM_DISABLED: no SubstreamID where S1DSS terminates.
    pub const F_STREAM_DISABLED: Self = Self(0x06);
    /// F_TRANSL_FORBIDDEN: translated request not allowed.
    pub const F_TRANSL_FORBIDDEN: Self = Self(0x07);
    /// C_BAD_SUBSTREAMID: SubstreamID beyond the CD table.
    pub const C_BAD_SUBSTREAMID: Self = Self(0x08);
    /// F_CD_FETCH: the CD could not be read.
    pub const F_CD_FETCH: Self = Self(0x09);
    /// C_BAD_CD: the CD is invalid or illegal.
    pub const C_BAD_CD: Self = Self(0x0a);
    /// F_WALK_EABT: external abort on a translation table walk.
    pub const F_WALK_EABT: Self = Self(0x0b);
    /// F_TRANSLATION: no valid descriptor.
    pub const F_TRANSLATION: Self = Self(0x10);
    /// F_ADDR_SIZE: output address too large.
    pub const F_ADDR_SIZE: Self = Self(0x11);
    /// F_ACCESS: access flag clear.
    pub const F_ACCESS: Self = Self(0x12);
    /// F_PERMISSION: permission missing.
    pub const F_PERMISSION: Self = Self(0x13);
    /// F_TLB_CONFLICT.
    pub const F_TLB_CONFLICT: Self = Self(0x20);
    /// F_CFG_CONFLICT.
    pub const F_CFG_CONFLICT: Self = Self(0x21);
    /// E_PAGE_REQUEST: speculative page request hint.
    pub const E_PAGE_REQUEST: Self = Self(0x24);
    /// F_VMS_FETCH: the VMS could not be read.
    pub const F_VMS_FETCH: Self = Self(0x25);

    /// The manual's name.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::F_UUT => "F_UUT",
            Self::C_BAD_STREAMID => "C_BAD_STREAMID",
            Self::F_STE_FETCH => "F_STE_FETCH",
            Self::C_BAD_STE => "C_BAD_STE",
            Self::F_BAD_ATS_TREQ => "F_BAD_ATS_TREQ",
            Self::F_STREAM_DISABLED => "F_STREAM_DISABLED",
            Self::F_TRANSL_FORBIDDEN => "F_TRANSL_FORBIDDEN",
            Self::C_BAD_SUBSTREAMID => "C_BAD_SUBSTREAMID",
            Self::F_CD_FETCH => "F_CD_FETCH",
            Self::C_BAD_CD => "C_BAD_CD",
            Self::F_WALK_EABT => "F_WALK_EABT",
            Self::F_TRANSLATION => "F_TRANSLATION",
            Self::F_ADDR_SIZE => "F_ADDR_SIZE",
            Self::F_ACCESS => "F_ACCESS",
            Self::F_PERMISSION => "F_PERMISSION",
            Self::F_TLB_CONFLICT => "F_TLB_CONFLICT",
            Self::F_CFG_CONFLICT => "F_CFG_CONFLICT",
            Self::E_PAGE_REQUEST => "E_PAGE_REQUEST",
            Self::F_VMS_FETCH => "F_VMS_FETCH",
            _ => return None,
        })
    }
}

/// Event record word 0.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventWord0 {
    /// Event number, see [`EventId`].
    pub id: u8,
    #[bits(3)]
    __: u8,
    /// SSV: SubstreamID valid.
    pub ssv: bool,
    /// SubstreamID.
    #[bits(20)]
    pub substream_id: u32,
    /// StreamID.
    pub stream_id: u32,
}

/// Event record word 1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventWord1 {
    /// STAG: names a stalled transaction.
    pub stag: u16,
    #[bits(15)]
    __: u16,
    /// Stall: the transaction waits for CMD_RESUME.
    pub stall: bool,
    #[bits(1)]
    __: u8,
    /// PnU: privileged.
    pub pnu: bool,
    /// InD: instruction.
    pub ind: bool,
    /// RnW: read.
    pub rnw: bool,
    #[bits(3)]
    __: u8,
    /// S2: the fault is stage 2's.
    pub s2: bool,
    /// CLASS, see [`FaultClass`].
    #[bits(2)]
    pub class: u8,
    #[bits(2)]
    __: u8,
    /// TTRnW: the table access was a read.
    pub ttrnw: bool,
    #[bits(19)]
    __: u32,
}

/// What access faulted: CLASS of an event record.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultClass(pub u8);

impl FaultClass {
    /// CD fetch.
    pub const CD: Self = Self(0);
    /// Translation table descriptor fetch.
    pub const TTD: Self = Self(1);
    /// The device's own access.
    pub const IN: Self = Self(2);
}
