//! Event log entries: 16 bytes, two words (manual: event log).

use bitfield_struct::bitfield;

/// Words of 8 bytes in an entry.
pub const EVENT_WORDS: usize = 2;
/// Bytes in an entry.
pub const EVENT_BYTES: u64 = 16;

/// Event code, bits 63:60 of the first word. An open set.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventCode(pub u8);

impl EventCode {
    /// ILLEGAL_DEV_TABLE_ENTRY: reserved values or missing features.
    pub const ILLEGAL_DEV_TABLE_ENTRY: Self = Self(0x1);
    /// IO_PAGE_FAULT: no translation, or no permission.
    pub const IO_PAGE_FAULT: Self = Self(0x2);
    /// DEV_TAB_HARDWARE_ERROR: the entry could not be read.
    pub const DEV_TAB_HARDWARE_ERROR: Self = Self(0x3);
    /// PAGE_TAB_HARDWARE_ERROR: a page table could not be read.
    pub const PAGE_TAB_HARDWARE_ERROR: Self = Self(0x4);
    /// ILLEGAL_COMMAND_ERROR: the command buffer stops.
    pub const ILLEGAL_COMMAND_ERROR: Self = Self(0x5);
    /// COMMAND_HARDWARE_ERROR: a command could not be read, or its data not stored.
    pub const COMMAND_HARDWARE_ERROR: Self = Self(0x6);
    /// IOTLB_INV_TIMEOUT: a device did not answer an invalidation.
    pub const IOTLB_INV_TIMEOUT: Self = Self(0x7);
    /// INVALID_DEVICE_REQUEST: a request that the entry does not allow.
    pub const INVALID_DEVICE_REQUEST: Self = Self(0x8);
    /// INVALID_PPR_REQUEST.
    pub const INVALID_PPR_REQUEST: Self = Self(0x9);

    /// EVENT_COUNTER_ZERO (public headers).
    pub const EVENT_COUNTER_ZERO: Self = Self(0xa);
    /// GUEST_EVENT_FAULT of the hardware vIOMMU (out-of-tree drivers).
    pub const GUEST_EVENT_FAULT: Self = Self(0xb);
    /// VIOMMU_HARDWARE_ERROR of the hardware vIOMMU (out-of-tree drivers): the DeviceID's field is a GuestID.
    pub const VIOMMU_HARDWARE_ERROR: Self = Self(0xc);

    /// The manual's name.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ILLEGAL_DEV_TABLE_ENTRY => "ILLEGAL_DEV_TABLE_ENTRY",
            Self::IO_PAGE_FAULT => "IO_PAGE_FAULT",
            Self::DEV_TAB_HARDWARE_ERROR => "DEV_TAB_HARDWARE_ERROR",
            Self::PAGE_TAB_HARDWARE_ERROR => "PAGE_TAB_HARDWARE_ERROR",
            Self::ILLEGAL_COMMAND_ERROR => "ILLEGAL_COMMAND_ERROR",
            Self::COMMAND_HARDWARE_ERROR => "COMMAND_HARDWARE_ERROR",
            Self::IOTLB_INV_TIMEOUT => "IOTLB_INV_TIMEOUT",
            Self::INVALID_DEVICE_REQUEST => "INVALID_DEVICE_REQUEST",
            Self::INVALID_PPR_REQUEST => "INVALID_PPR_REQUEST",
            Self::EVENT_COUNTER_ZERO => "EVENT_COUNTER_ZERO",
            Self::GUEST_EVENT_FAULT => "GUEST_EVENT_FAULT",
            Self::VIOMMU_HARDWARE_ERROR => "VIOMMU_HARDWARE_ERROR",
            _ => return None,
        })
    }
}

/// First word of an entry. The second is the address.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventWord0 {
    /// DeviceID.
    pub device_id: u16,
    /// PASID\[19:16\].
    #[bits(4)]
    pub pasid_high: u8,
    #[bits(12)]
    __: u16,
    /// DomainID; with GN (and in events that name no domain) PASID\[15:0\].
    pub domain_id: u16,
    /// Flags, see [`flags`].
    #[bits(12)]
    pub flags: u16,
    /// Event code, see [`EventCode`].
    #[bits(4)]
    pub code: u8,
}

/// Flags of an entry, inside [`EventWord0::flags`].
///
/// Linux decodes I and RW; the others are named as public models of the hardware name them.
pub mod flags {
    /// GN: the request had a PASID, which stands in the entry.
    pub const GN: u16 = 0x001;
    /// I: an interrupt.
    pub const I: u16 = 0x008;
    /// PR: the entry was present, so a permission is missing.
    pub const PR: u16 = 0x010;
    /// RW: a write.
    pub const RW: u16 = 0x020;
    /// PE: permission missing.
    pub const PE: u16 = 0x040;
    /// RZ: a reserved bit is not zero; without it in ILLEGAL_DEV_TABLE_ENTRY: a level or mode that is not offered.
    pub const RZ: u16 = 0x080;
    /// TR: a translation (ATS) request.
    pub const TR: u16 = 0x100;
}
