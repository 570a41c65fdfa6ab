//! Commands: 16 bytes, two words (manual: command buffer commands). One type a command, over both words.

use super::size;
use bitfield_struct::bitfield;

/// Words of 8 bytes in a command.
pub const COMMAND_WORDS: usize = 2;
/// Bytes in a command.
pub const COMMAND_BYTES: u64 = 16;

/// Bits 63:60 of a command's first word. An open set: a guest may write any value.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opcode(pub u8);

impl Opcode {
    /// COMPLETION_WAIT: everything before it is complete.
    pub const COMPLETION_WAIT: Self = Self(0x1);
    /// INVALIDATE_DEVTAB_ENTRY: a device table entry may have changed.
    pub const INVALIDATE_DEVTAB_ENTRY: Self = Self(0x2);
    /// INVALIDATE_IOMMU_PAGES: page tables of a domain may have changed.
    pub const INVALIDATE_IOMMU_PAGES: Self = Self(0x3);
    /// INVALIDATE_IOTLB_PAGES: a device's own cache (ATC) forgets. Needs IotlbSup.
    pub const INVALIDATE_IOTLB_PAGES: Self = Self(0x4);
    /// INVALIDATE_INTERRUPT_TABLE: interrupt remapping entries of a device may have changed.
    pub const INVALIDATE_INTERRUPT_TABLE: Self = Self(0x5);
    /// PREFETCH_IOMMU_PAGES: a hint. Needs EFR.PreFSup; Linux never sends it.
    pub const PREFETCH_IOMMU_PAGES: Self = Self(0x6);
    /// COMPLETE_PPR_REQUEST: answers a page request. Needs EFR.PPRSup.
    pub const COMPLETE_PPR_REQUEST: Self = Self(0x7);
    /// INVALIDATE_IOMMU_ALL: everything the IOMMU caches. Needs EFR.IASup.
    pub const INVALIDATE_IOMMU_ALL: Self = Self(0x8);
    /// INSERT_GUEST_EVENT of the hardware vIOMMU (not in Linux 7.3.4; out-of-tree drivers).
    pub const INSERT_GUEST_EVENT: Self = Self(0x9);
    /// RESET_VMMIO of the hardware vIOMMU (not in Linux 7.3.4; out-of-tree drivers).
    pub const RESET_VMMIO: Self = Self(0xa);

    /// The opcode of a command's first word.
    #[inline]
    pub const fn of(word0: u64) -> Self {
        Self((word0 >> 60) as u8)
    }

    /// The manual's name; `None` where it has none.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::COMPLETION_WAIT => "COMPLETION_WAIT",
            Self::INVALIDATE_DEVTAB_ENTRY => "INVALIDATE_DEVTAB_ENTRY",
            Self::INVALIDATE_IOMMU_PAGES => "INVALIDATE_IOMMU_PAGES",
            Self::INVALIDATE_IOTLB_PAGES => "INVALIDATE_IOTLB_PAGES",
            Self::INVALIDATE_INTERRUPT_TABLE => "INVALIDATE_INTERRUPT_TABLE",
            Self::PREFETCH_IOMMU_PAGES => "PREFETCH_IOMMU_PAGES",
            Self::COMPLETE_PPR_REQUEST => "COMPLETE_PPR_REQUEST",
            Self::INVALIDATE_IOMMU_ALL => "INVALIDATE_IOMMU_ALL",
            Self::INSERT_GUEST_EVENT => "INSERT_GUEST_EVENT",
            Self::RESET_VMMIO => "RESET_VMMIO",
            _ => return None,
        })
    }
}

/// Defines a command over both words, with its conversions from and to words of the ring.
macro_rules! command {
    ($(#[$meta:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[bitfield(u128)]
        #[derive(PartialEq, Eq)]
        pub struct $name { $($body)* }

        impl $name {
            /// From the two words of the ring.
            #[inline]
            pub const fn from_words(words: [u64; COMMAND_WORDS]) -> Self {
                Self::from_bits((words[1] as u128) << 64 | words[0] as u128)
            }
            /// The two words of the ring.
            #[inline]
            pub const fn words(self) -> [u64; COMMAND_WORDS] {
                [self.into_bits() as u64, (self.into_bits() >> 64) as u64]
            }
        }
    };
}

command! {
    /// COMPLETION_WAIT.
    CompletionWait {
        /// S: store the data at the store address.
        pub s: bool,
        /// I: raise the completion wait interrupt.
        pub i: bool,
        /// F: flush the queue of commands before this one first (manual only, Linux never sets it).
        pub f: bool,
        /// Store address\[51:3\].
        #[bits(49)] pub store: u64,
        #[bits(8)] __: u8,
        /// [`Opcode::COMPLETION_WAIT`].
        #[bits(4)] pub opcode: u8,
        /// Store data.
        pub data: u64,
    }
}

impl CompletionWait {
    /// The address that is written when S=1, a multiple of 8.
    #[inline]
    pub const fn store_address(self) -> u64 {
        self.store() << 3
    }
    /// The same command storing at `address`.
    pub const fn with_store_address(self, address: u64) -> Self {
        self.with_store(address >> 3 & ((1 << 49) - 1))
    }
}

command! {
    /// INVALIDATE_DEVTAB_ENTRY and INVALIDATE_INTERRUPT_TABLE.
    InvalidateDevice {
        /// DeviceID.
        pub device_id: u16,
        #[bits(44)] __: u64,
        /// [`Opcode::INVALIDATE_DEVTAB_ENTRY`] or [`Opcode::INVALIDATE_INTERRUPT_TABLE`].
        #[bits(4)] pub opcode: u8,
        __: u64,
    }
}

command! {
    /// INVALIDATE_IOMMU_PAGES.
    InvalidateIommuPages {
        /// PASID, with GN.
        #[bits(20)] pub pasid: u32,
        #[bits(12)] __: u16,
        /// DomainID.
        pub domain_id: u16,
        #[bits(12)] __: u16,
        /// [`Opcode::INVALIDATE_IOMMU_PAGES`].
        #[bits(4)] pub opcode: u8,
        /// S: the address says a size, see [`size`].
        pub s: bool,
        /// PDE: cached page directory entries too, not only leaves.
        pub pde: bool,
        /// GN: a guest (stage-1) address of the PASID; else the domain's host addresses.
        pub gn: bool,
        #[bits(9)] __: u16,
        /// Address\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

command! {
    /// INVALIDATE_IOTLB_PAGES.
    InvalidateIotlbPages {
        /// DeviceID.
        pub device_id: u16,
        /// PASID\[15:8\], with GN.
        pub pasid_high: u8,
        /// MaxPend: invalidations the device queues.
        pub max_pend: u8,
        /// QueueID: whose limit MaxPend is (Linux: the DeviceID).
        pub queue_id: u16,
        /// PASID\[7:0\], with GN.
        pub pasid_low: u8,
        #[bits(4)] __: u8,
        /// [`Opcode::INVALIDATE_IOTLB_PAGES`].
        #[bits(4)] pub opcode: u8,
        /// S: the address says a size, see [`size`].
        pub s: bool,
        __: bool,
        /// GN: an address of the PASID; else one without PASID.
        pub gn: bool,
        #[bits(9)] __: u16,
        /// Address\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

impl InvalidateIotlbPages {
    /// PASID\[15:0\]: the bits that Linux fills.
    #[inline]
    pub const fn pasid(self) -> u32 {
        (self.pasid_high() as u32) << 8 | self.pasid_low() as u32
    }
    /// The same command for `pasid`.
    pub const fn with_pasid(self, pasid: u16) -> Self {
        self.with_pasid_high((pasid >> 8) as u8).with_pasid_low(pasid as u8)
    }
}

/// First byte and log2 of the size that S and the address\[63:12\] of an invalidation name.
#[inline]
pub const fn span(s: bool, address: u64) -> (u64, u8) {
    if s { size::decode(address << 12) } else { (address << 12, 12) }
}

/// S and address\[63:12\] of the invalidation that names 2^`log2` bytes (12 to 64) at `address`.
#[inline]
pub const fn encode_span(address: u64, log2: u8) -> (bool, u64) {
    if log2 < size::SMALLEST_LOG2 { (false, address >> 12) } else { (true, size::encode(address, log2) >> 12) }
}

command! {
    /// COMPLETE_PPR_REQUEST.
    CompletePprRequest {
        /// DeviceID.
        pub device_id: u16,
        __: u16,
        /// PASID, with GN.
        #[bits(20)] pub pasid: u32,
        __: u8,
        /// [`Opcode::COMPLETE_PPR_REQUEST`].
        #[bits(4)] pub opcode: u8,
        #[bits(2)] __: u8,
        /// GN: the request had a PASID.
        pub gn: bool,
        #[bits(29)] __: u32,
        /// Tag of the request group.
        #[bits(9)] pub tag: u16,
        #[bits(3)] __: u8,
        /// Status: 0 success, 1 invalid, 15 failure.
        #[bits(4)] pub status: u8,
        __: u16,
    }
}

command! {
    /// RESET_VMMIO (out-of-tree drivers).
    ResetVmmio {
        /// GuestID.
        pub guest_id: u16,
        #[bits(12)] __: u16,
        /// All: all registers of the guest. A public header has it one bit lower.
        pub all: bool,
        #[bits(2)] __: u8,
        /// vCmd: the state of its command buffer too.
        pub vcmd: bool,
        #[bits(28)] __: u32,
        /// [`Opcode::RESET_VMMIO`].
        #[bits(4)] pub opcode: u8,
        __: u64,
    }
}

command! {
    /// INVALIDATE_IOMMU_ALL.
    InvalidateIommuAll {
        #[bits(60)] __: u64,
        /// [`Opcode::INVALIDATE_IOMMU_ALL`].
        #[bits(4)] pub opcode: u8,
        __: u64,
    }
}
