//! Tagged caches of translations of several sizes, bounded, oldest out first: what the TLB and the device caches of a
//! vendor's model are made of. A building block beside the contract: a plugin may use it or bring its own.
//!
//! ```text
//!   TLB:            Spaces ─► owner (VMID, domain) ─► Cache ─► tag (ASID, PASID) ─► size ─► address
//!   device caches:  Devices ─► stream ──────────────► Cache ─► tag (PASID) ───────► size ─► address
//! ```
//!
//! Which tag an entry has, and which entries a command names, is the vendor's; how they are found and go is here.

#![forbid(unsafe_code)]

mod cache;
mod devices;
mod spaces;
mod table;

pub use cache::Cache;
pub use devices::Devices;
pub use spaces::{Hint, Spaces};

/// A translation as a walk found it, for any input address inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Output address of its first byte.
    pub output: u64,
    /// log2 of its size.
    pub log2: u8,
    /// log2 of the leaf of the stage that invalidations name; larger than `log2` where the other stage cut it.
    pub leaf_log2: u8,
    /// Bit 0 read, bit 1 write.
    pub permissions: u8,
}

impl Translation {
    /// The output address of `input`, which lies in the translation.
    #[inline]
    pub fn apply(&self, input: u64) -> u64 {
        self.output | input & low_bits(self.log2)
    }
}

/// A mask of the low `log2` bits.
#[inline]
pub fn low_bits(log2: u8) -> u64 {
    1u64.checked_shl(u32::from(log2)).map_or(u64::MAX, |size| size - 1)
}

/// Addresses that an invalidation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last, inclusive.
    pub last: u64,
}

impl Range {
    /// The naturally aligned block of 2^`log2` bytes (64 or more: everything) that holds `address`.
    pub fn block(address: u64, log2: u8) -> Self {
        let offset = low_bits(log2);
        Self { first: address & !offset, last: address | offset }
    }
    /// `units` blocks of 2^`log2` bytes from `address`, one byte at least, cut at the end of the address space.
    pub fn units(address: u64, units: u64, log2: u8) -> Self {
        let bytes = u128::from(units) << log2;
        let last = (u128::from(address) + bytes.max(1) - 1).min(u128::from(u64::MAX));
        Self { first: address, last: last as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_the_address_space() {
        assert_eq!(Range::block(0x1234_5678, 12), Range { first: 0x1234_5000, last: 0x1234_5fff });
        assert_eq!(Range::block(0x1234_5678, 64), Range { first: 0, last: u64::MAX });
        assert_eq!(Range::units(0x1000, 3, 12), Range { first: 0x1000, last: 0x3fff });
        assert_eq!(Range::units(0x1000, 0, 12), Range { first: 0x1000, last: 0x1000 });
        assert_eq!(Range::units(u64::MAX - 1, 32, 60), Range { first: u64::MAX - 1, last: u64::MAX });
    }
}
