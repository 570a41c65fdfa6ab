//! The invalidation queue: address, completion status, error record.

use bitfield_struct::bitfield;

/// IQA, §11.4.9.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueAddress {
    /// QS: 2^QS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    #[bits(8)]
    __: u8,
    /// DW: descriptors have 256 bits. Needs ECAP.SMTS.
    pub wide: bool,
    /// IQA\[63:12\].
    #[bits(52)]
    pub base: u64,
}

impl QueueAddress {
    /// Address of the first descriptor.
    #[inline]
    pub const fn address(self) -> u64 {
        self.base() << 12
    }

    /// Bytes of the queue.
    #[inline]
    pub const fn bytes(self) -> u64 {
        4096 << self.size()
    }

    /// log2 of the bytes of a descriptor.
    #[inline]
    pub const fn descriptor_log2(self) -> u32 {
        if self.wide() { 5 } else { 4 }
    }
}

/// ICS, §11.4.9.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CompletionStatus {
    /// IWC: a wait descriptor with IF is complete; cleared by writing 1.
    pub wait_complete: bool,
    #[bits(31)]
    __: u32,
}

/// IQERCD, §11.4.9.9: why FSTS has an error of the queue. Read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueError {
    /// IQEI, see [`QueueErrorInfo`].
    #[bits(4)]
    pub info: u8,
    #[bits(28)]
    __: u32,
    /// ITESID: device that did not answer (FSTS.ITE).
    pub time_out_source: u16,
    /// ICESID: device that answered wrongly (FSTS.ICE).
    pub completion_source: u16,
}

/// IQERCD.IQEI.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueErrorInfo(pub u8);

impl QueueErrorInfo {
    /// No information.
    pub const NONE: Self = Self(0);
    /// The tail is beyond the queue.
    pub const TAIL: Self = Self(1);
    /// A descriptor could not be read.
    pub const FETCH: Self = Self(2);
    /// No such descriptor type.
    pub const TYPE: Self = Self(3);
    /// A reserved bit or a reserved value.
    pub const RESERVED: Self = Self(4);
    /// A descriptor that needs 256 bits in a queue of 128.
    pub const WIDTH: Self = Self(5);
    /// The tail is not a multiple of 256 bits.
    pub const TAIL_UNALIGNED: Self = Self(6);
    /// RTADDR.TTM does not fit the descriptor.
    pub const TABLE_MODE: Self = Self(7);
}
