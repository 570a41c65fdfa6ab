//! Invalidation descriptors (§6.5.2): 16 bytes, or 32 of which the second half is zero. One type a descriptor.

use bitfield_struct::bitfield;

/// Words of 8 bytes in a descriptor of a 256-bit queue (IQA.DW 1).
pub const WIDE_WORDS: usize = 4;
/// Words of 8 bytes in a descriptor of a 128-bit queue (IQA.DW 0), and words that hold anything in a wide one.
pub const NARROW_WORDS: usize = 2;

/// The type of a descriptor: bits 3:0, and as type\[6:4\] bits 11:9. An open set: a guest may write any value.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DescriptorType(pub u8);

impl DescriptorType {
    /// Context-cache invalidate, §6.5.2.1.
    pub const CONTEXT_CACHE: Self = Self(0x1);
    /// IOTLB invalidate, §6.5.2.3.
    pub const IOTLB: Self = Self(0x2);
    /// Device-TLB invalidate, §6.5.2.5. Needs ECAP.DT.
    pub const DEVICE_TLB: Self = Self(0x3);
    /// Interrupt entry cache invalidate, §6.5.2.7.
    pub const INTERRUPT_ENTRY_CACHE: Self = Self(0x4);
    /// Invalidation wait, §6.5.2.8.
    pub const WAIT: Self = Self(0x5);
    /// PASID-based IOTLB invalidate, §6.5.2.4. Needs ECAP.SMTS.
    pub const PASID_IOTLB: Self = Self(0x6);
    /// PASID-cache invalidate, §6.5.2.2. Needs ECAP.SMTS.
    pub const PASID_CACHE: Self = Self(0x7);
    /// PASID-based device-TLB invalidate, §6.5.2.6. Needs ECAP.SMTS and ECAP.DT.
    pub const PASID_DEVICE_TLB: Self = Self(0x8);
    /// Page group response, §7.7.1. Needs ECAP.PRS.
    pub const PAGE_GROUP_RESPONSE: Self = Self(0x9);

    /// The type of a descriptor's first word.
    #[inline]
    pub const fn of(word0: u64) -> Self {
        Self((word0 & 0xf) as u8 | ((word0 >> 9 & 7) as u8) << 4)
    }

    /// A short name; `None` if the manual has no such type.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::CONTEXT_CACHE => "CONTEXT",
            Self::IOTLB => "IOTLB",
            Self::DEVICE_TLB => "DEV_TLB",
            Self::INTERRUPT_ENTRY_CACHE => "IEC",
            Self::WAIT => "WAIT",
            Self::PASID_IOTLB => "PIOTLB",
            Self::PASID_CACHE => "PASID_CACHE",
            Self::PASID_DEVICE_TLB => "PASID_DEV_TLB",
            Self::PAGE_GROUP_RESPONSE => "PAGE_GROUP_RESPONSE",
            _ => return None,
        })
    }

    /// The bits of the two words that the manual reserves for this type; `None` as [`DescriptorType::name`].
    pub const fn reserved(self) -> Option<[u64; NARROW_WORDS]> {
        Some(match self {
            Self::CONTEXT_CACHE => ContextCacheInv::RESERVED,
            Self::IOTLB => IotlbInv::RESERVED,
            Self::DEVICE_TLB => DeviceTlbInv::RESERVED,
            Self::INTERRUPT_ENTRY_CACHE => InterruptEntryCacheInv::RESERVED,
            Self::WAIT => Wait::RESERVED,
            Self::PASID_IOTLB => PasidIotlbInv::RESERVED,
            Self::PASID_CACHE => PasidCacheInv::RESERVED,
            Self::PASID_DEVICE_TLB => PasidDeviceTlbInv::RESERVED,
            Self::PAGE_GROUP_RESPONSE => PageGroupResponse::RESERVED,
            _ => return None,
        })
    }
}

/// Defines a descriptor over both words, with its conversions from and to words of the ring.
macro_rules! descriptor {
    ($(#[$meta:meta])* $name:ident reserved $reserved:tt { $($body:tt)* }) => {
        $(#[$meta])*
        #[bitfield(u128)]
        #[derive(PartialEq, Eq)]
        pub struct $name { $($body)* }

        impl $name {
            /// Bits that the manual reserves: hardware takes a descriptor with any of them for invalid.
            pub const RESERVED: [u64; NARROW_WORDS] = $reserved;

            /// From the two words of the ring.
            #[inline]
            pub const fn from_words(words: [u64; NARROW_WORDS]) -> Self {
                Self::from_bits((words[1] as u128) << 64 | words[0] as u128)
            }
            /// The two words of the ring.
            #[inline]
            pub const fn words(self) -> [u64; NARROW_WORDS] {
                [self.into_bits() as u64, (self.into_bits() >> 64) as u64]
            }
        }
    };
}

/// Granularity of context-cache and IOTLB invalidations (bits 5:4), and of CCMD and IOTLB_REG.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Granularity(pub u8);

impl Granularity {
    /// Reserved.
    pub const RESERVED: Self = Self(0);
    /// Everything.
    pub const GLOBAL: Self = Self(1);
    /// One domain-id.
    pub const DOMAIN: Self = Self(2);
    /// One source-id (context cache), pages of one domain-id (IOTLB).
    pub const SELECTIVE: Self = Self(3);
}

descriptor! {
    /// Context-cache invalidate, §6.5.2.1.
    ContextCacheInv reserved [0xfffc_0000_0000_f1c0, u64::MAX] {
        /// Type\[3:0\]: [`DescriptorType::CONTEXT_CACHE`].
        #[bits(4, default = 1)] pub kind: u8,
        /// G, see [`Granularity`].
        #[bits(2)] pub granularity: u8,
        #[bits(3)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(4)] __: u8,
        /// DID (domain and source selective).
        pub domain_id: u16,
        /// SID (source selective).
        pub source_id: u16,
        /// FM: low bits of the function that SID leaves open, 0 none, 1 bit 2, 2 bits 2:1, 3 bits 2:0.
        #[bits(2)] pub function_mask: u8,
        #[bits(78)] __: u128,
    }
}

descriptor! {
    /// IOTLB invalidate, §6.5.2.3.
    IotlbInv reserved [0xffff_ffff_0000_f100, 0xf80] {
        /// Type\[3:0\]: [`DescriptorType::IOTLB`].
        #[bits(4, default = 2)] pub kind: u8,
        /// G, see [`Granularity`].
        #[bits(2)] pub granularity: u8,
        /// DW: drain writes.
        pub drain_writes: bool,
        /// DR: drain reads.
        pub drain_reads: bool,
        __: bool,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(4)] __: u8,
        /// DID (domain and page selective).
        pub domain_id: u16,
        __: u32,
        /// AM: log2 of the pages of 4 KiB (page selective).
        #[bits(6)] pub address_mask: u8,
        /// IH: the paging-structure caches may be kept.
        pub hint: bool,
        #[bits(5)] __: u8,
        /// ADDR\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

descriptor! {
    /// Device-TLB invalidate, §6.5.2.5.
    DeviceTlbInv reserved [0x000f_0000_ffe0_01f0, 0xffe] {
        /// Type\[3:0\]: [`DescriptorType::DEVICE_TLB`].
        #[bits(4, default = 3)] pub kind: u8,
        #[bits(5)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        /// PFSID\[3:0\].
        #[bits(4)] pub pfsid_low: u8,
        /// MaxInvsPend (Linux: QDEP).
        #[bits(5)] pub max_pending: u8,
        #[bits(11)] __: u16,
        /// SID.
        pub source_id: u16,
        #[bits(4)] __: u8,
        /// PFSID\[15:4\].
        #[bits(12)] pub pfsid_high: u16,
        /// S: more than one page; the size is in the address, see [`sized_range_log2`].
        pub size: bool,
        #[bits(11)] __: u16,
        /// ADDR\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

descriptor! {
    /// Interrupt entry cache invalidate, §6.5.2.7.
    InterruptEntryCacheInv reserved [0xffff_0000_07ff_f1e0, u64::MAX] {
        /// Type\[3:0\]: [`DescriptorType::INTERRUPT_ENTRY_CACHE`].
        #[bits(4, default = 4)] pub kind: u8,
        /// G: by index; else all.
        pub selective: bool,
        #[bits(4)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(15)] __: u16,
        /// IM: log2 of the entries.
        #[bits(5)] pub index_mask: u8,
        /// IIDX: first entry.
        pub index: u16,
        #[bits(80)] __: u128,
    }
}

descriptor! {
    /// Invalidation wait, §6.5.2.8: complete when every descriptor before it is.
    Wait reserved [0xffff_f100, 0x3] {
        /// Type\[3:0\]: [`DescriptorType::WAIT`].
        #[bits(4, default = 5)] pub kind: u8,
        /// IF: ICS.IWC is set, which raises the completion event.
        pub interrupt: bool,
        /// SW: the status data is written.
        pub status_write: bool,
        /// FN: descriptors after it start only when it is complete.
        pub fence: bool,
        /// PD: page requests are drained.
        pub page_request_drain: bool,
        __: bool,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(20)] __: u32,
        /// Status data.
        pub status_data: u32,
        #[bits(2)] __: u8,
        /// Status address\[63:2\].
        #[bits(62)] pub status_address: u64,
    }
}

/// Granularity of a PASID-based IOTLB invalidation (bits 5:4); 0 and 1 are reserved.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasidIotlbGranularity(pub u8);

impl PasidIotlbGranularity {
    /// Everything of the PASID in the domain.
    pub const PASID: Self = Self(2);
    /// Pages.
    pub const PAGES: Self = Self(3);
}

descriptor! {
    /// PASID-based IOTLB invalidate, §6.5.2.4.
    PasidIotlbInv reserved [0xfff0_0000_0000_f1c0, 0xf80] {
        /// Type\[3:0\]: [`DescriptorType::PASID_IOTLB`].
        #[bits(4, default = 6)] pub kind: u8,
        /// G, see [`PasidIotlbGranularity`].
        #[bits(2)] pub granularity: u8,
        #[bits(3)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(4)] __: u8,
        /// DID.
        pub domain_id: u16,
        /// PASID.
        #[bits(20)] pub pasid: u32,
        #[bits(12)] __: u16,
        /// AM: log2 of the pages of 4 KiB.
        #[bits(6)] pub address_mask: u8,
        /// IH: the paging-structure caches may be kept.
        pub hint: bool,
        #[bits(5)] __: u8,
        /// ADDR\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

/// Granularity of a PASID-cache invalidation (bits 5:4); 2 is reserved.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasidCacheGranularity(pub u8);

impl PasidCacheGranularity {
    /// All PASIDs of a domain-id.
    pub const DOMAIN: Self = Self(0);
    /// One PASID of a domain-id.
    pub const PASID: Self = Self(1);
    /// Everything.
    pub const GLOBAL: Self = Self(3);
}

descriptor! {
    /// PASID-cache invalidate, §6.5.2.2.
    PasidCacheInv reserved [0xfff0_0000_0000_f1c0, u64::MAX] {
        /// Type\[3:0\]: [`DescriptorType::PASID_CACHE`].
        #[bits(4, default = 7)] pub kind: u8,
        /// G, see [`PasidCacheGranularity`].
        #[bits(2)] pub granularity: u8,
        #[bits(3)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        #[bits(4)] __: u8,
        /// DID.
        pub domain_id: u16,
        /// PASID.
        #[bits(20)] pub pasid: u32,
        #[bits(76)] __: u128,
    }
}

descriptor! {
    /// PASID-based device-TLB invalidate, §6.5.2.6.
    PasidDeviceTlbInv reserved [0, 0x7fe] {
        /// Type\[3:0\]: [`DescriptorType::PASID_DEVICE_TLB`].
        #[bits(4, default = 8)] pub kind: u8,
        /// MaxInvsPend (Linux: QDEP).
        #[bits(5)] pub max_pending: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        /// PFSID\[3:0\].
        #[bits(4)] pub pfsid_low: u8,
        /// SID.
        pub source_id: u16,
        /// PASID.
        #[bits(20)] pub pasid: u32,
        /// PFSID\[15:4\].
        #[bits(12)] pub pfsid_high: u16,
        /// G: of every PASID.
        pub global: bool,
        #[bits(10)] __: u16,
        /// S: more than one page; the size is in the address, see [`sized_range_log2`].
        pub size: bool,
        /// ADDR\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

descriptor! {
    /// Page group response, §7.7.1.
    PageGroupResponse reserved [0xfff0_0000_0000_01e0, 0xffff_ffff_ffff_f007] {
        /// Type\[3:0\]: [`DescriptorType::PAGE_GROUP_RESPONSE`].
        #[bits(4, default = 9)] pub kind: u8,
        /// PP: there is a PASID.
        pub pasid_present: bool,
        #[bits(4)] __: u8,
        /// Type\[6:4\].
        #[bits(3)] pub kind_high: u8,
        /// Response code: 0 success, 1 invalid request, 15 failure.
        #[bits(4)] pub response_code: u8,
        /// Requester-id.
        pub requester_id: u16,
        /// PASID.
        #[bits(20)] pub pasid: u32,
        #[bits(15)] __: u16,
        /// Page request group index.
        #[bits(9)] pub group_index: u16,
        #[bits(52)] __: u64,
    }
}

/// log2 of the bytes that a device-TLB invalidation's address field names when S is 1: the lowest zero bit of
/// ADDR\[63:12\] is the highest bit of the offset (§6.5.2.5). 64 if there is none: everything.
///
/// `address` is the field, the address without its low 12 bits.
#[inline]
pub const fn sized_range_log2(address: u64) -> u8 {
    let ones = (address & 0x000f_ffff_ffff_ffff).trailing_ones();
    // ADDR[63] is 0 in what the manual calls the largest range; Linux sets every bit below it.
    if ones >= 51 { 64 } else { 13 + ones as u8 }
}
