//! VT-d's invalidation descriptors: type in bits 3:0, the rest by type.

use super::size::Size;

/// Context cache, one device: DID 31:16, source-id 47:32.
pub(super) fn context_of(did: u16, source: u32) -> [u64; 2] {
    [1 | 3 << 4 | u64::from(did) << 16 | u64::from(source) << 32, 0]
}

/// Context cache, everything.
pub(super) const CONTEXT_ALL: [u64; 2] = [1 | 1 << 4, 0];

/// IOTLB, everything: drains reads 7 and writes 6.
pub(super) const IOTLB_ALL: [u64; 2] = [2 | 1 << 4 | 3 << 6, 0];

/// IOTLB, one domain.
pub(super) fn iotlb_of(did: u16) -> [u64; 2] {
    [2 | 2 << 4 | 3 << 6 | u64::from(did) << 16, 0]
}

/// IOTLB, 2^`am` pages of one domain: AM 5:0, IH 6 (tables are as they were), address 63:12.
pub(super) fn iotlb_pages(did: u16, address: u64, am: u8, hint: bool) -> [u64; 2] {
    [2 | 3 << 4 | 3 << 6 | u64::from(did) << 16, address | u64::from(hint) << 6 | u64::from(am)]
}

/// PASID-based IOTLB, one PASID.
pub(super) fn piotlb_of(did: u16, pasid: u32) -> [u64; 2] {
    [6 | 2 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32, 0]
}

/// PASID-based IOTLB, 2^`am` pages of one PASID.
pub(super) fn piotlb_pages(did: u16, pasid: u32, address: u64, am: u8, hint: bool) -> [u64; 2] {
    let word0 = 6 | 3 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32;
    [word0, address | u64::from(hint) << 6 | u64::from(am)]
}

/// PASID cache, one PASID of a domain.
pub(super) fn pasid_cache_of(did: u16, pasid: u32) -> [u64; 2] {
    [7 | 1 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32, 0]
}

/// PASID cache, all PASIDs of a domain.
pub(super) fn pasid_cache_domain(did: u16) -> [u64; 2] {
    [7 | u64::from(did) << 16, 0]
}

/// PASID cache, everything.
pub(super) const PASID_CACHE_ALL: [u64; 2] = [7 | 3 << 4, 0];

/// Device-TLB: source-id 47:32, most pending 20:16; S and address as in ATS.
pub(super) fn device_tlb(source: u32, size: Size) -> [u64; 2] {
    [3 | 4 << 16 | u64::from(source) << 32, size.word()]
}

/// Wait that stores the 32 bits of `value` at `address`.
pub(super) fn wait(address: u64, value: u32) -> [u64; 2] {
    [5 | 1 << 5 | u64::from(value) << 32, address]
}
