//! Base registers of the device table and the rings, and the rings' pointers.

use bitfield_struct::bitfield;

/// Device table base register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceTableBase {
    /// Size: pages of 4 KiB (128 entries each) less one.
    #[bits(9)]
    pub size: u16,
    #[bits(3)]
    __: u8,
    /// Base\[51:12\].
    #[bits(40)]
    pub base: u64,
    #[bits(12)]
    __: u16,
}

impl DeviceTableBase {
    /// Address of the table.
    #[inline]
    pub const fn address(self) -> u64 {
        self.base() << 12
    }
    /// Bytes of the table.
    #[inline]
    pub const fn bytes(self) -> u64 {
        (self.size() as u64 + 1) << 12
    }
}

/// Base register of command buffer, event log and PPR log.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RingBase {
    #[bits(12)]
    __: u16,
    /// Base\[51:12\].
    #[bits(40)]
    pub base: u64,
    #[bits(4)]
    __: u8,
    /// Length: log2 of the entries, 8 (256) to 15 (32768); below 8 reserved.
    #[bits(4)]
    pub length: u8,
    #[bits(4)]
    __: u8,
}

impl RingBase {
    /// The least length that is not reserved.
    pub const LENGTH_LEAST: u8 = 8;
    /// log2 of the bytes of an entry.
    pub const ENTRY_LOG2: u8 = 4;

    /// Address of the ring.
    #[inline]
    pub const fn address(self) -> u64 {
        self.base() << 12
    }
}

/// A head or tail: a byte offset in the ring, a multiple of 16. There is no wrap bit: a ring is empty when both are
/// equal, and one entry always stays unused.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RingPointer {
    #[bits(4)]
    __: u8,
    /// Pointer\[18:4\]: the entry's index.
    #[bits(15)]
    pub index: u16,
    #[bits(45)]
    __: u64,
}
