//! Sizes inside addresses: how a command with S=1, and a page table leaf with Next Level 7, say how much they cover.
//!
//! 2^n bytes (n > 12) is an address with bits 12 to n-2 set and bit n-1 clear: the lowest zero bit from bit 12 up tells n.

/// log2 of the smallest size that can be said.
pub const SMALLEST_LOG2: u8 = 13;
/// log2 that means the whole address space.
pub const ALL_LOG2: u8 = 64;
/// Address field that covers everything, with S=1.
pub const ALL: u64 = 0x7fff_ffff_ffff_f000;

/// The address field that says 2^`log2` bytes (13 to 64) at `address`, which is aligned to that size.
#[inline]
pub const fn encode(address: u64, log2: u8) -> u64 {
    if log2 >= ALL_LOG2 {
        return ALL;
    }
    let size = 1u64 << log2;
    (address & !(size - 1)) | ((size >> 1) - 1) & !0xfff
}

/// First byte and log2 of the size that an address field says; bits 11:0 are ignored.
#[inline]
pub const fn decode(field: u64) -> (u64, u8) {
    let log2 = (field | 0xfff).trailing_ones() as u8 + 1;
    if log2 >= ALL_LOG2 {
        return (0, ALL_LOG2);
    }
    (field & !((1u64 << log2) - 1), log2)
}
