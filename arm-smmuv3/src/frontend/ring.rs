//! Queue arithmetic (§3.5.1): an index has one bit more than the queue needs, the wrap bit.

use crate::spec::registers::QueueBase;

/// log2 of the largest queue that the index registers can describe.
const LOG2_MAX: u8 = 19;

/// A queue's place and size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    /// Address of entry 0: the bits below the queue's size count as zero.
    pub(super) base: u64,
    log2: u8,
}

impl Ring {
    /// The queue that `base` describes; a size above `log2_max` (IDR1) counts as that.
    pub(super) fn new(base: QueueBase, log2_max: u8, entry_bytes: u64) -> Self {
        let log2 = base.log2size().min(log2_max).min(LOG2_MAX);
        // Bases have no bits below 32 bytes, even if the queue is smaller.
        Self { base: base.address() & !((entry_bytes << log2) - 1), log2 }
    }

    pub(super) fn entries(self) -> u32 {
        1 << self.log2
    }

    fn index_mask(self) -> u32 {
        (2 << self.log2) - 1
    }

    /// The slot that an index names.
    pub(super) fn slot(self, index: u32) -> u32 {
        index & (self.entries() - 1)
    }

    /// Entries from `cons` to `prod`; more than [`Ring::entries`] if the two contradict each other.
    pub(super) fn used(self, prod: u32, cons: u32) -> u32 {
        prod.wrapping_sub(cons) & self.index_mask()
    }

    /// The index `by` entries on.
    pub(super) fn advanced(self, index: u32, by: u32) -> u32 {
        index.wrapping_add(by) & self.index_mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(log2: u8) -> Ring {
        Ring::new(QueueBase::new().with_addr(0x1234_5678).with_log2size(log2), 19, 16)
    }

    #[test]
    fn empty_and_full_differ_by_the_wrap_bit() {
        for log2 in [0, 1, 7, 19] {
            let ring = ring(log2);
            let full = ring.advanced(5, ring.entries());
            assert_eq!(ring.used(full, ring.advanced(5, 0)), ring.entries());
            assert_eq!(ring.used(full, full), 0);
            assert_eq!(ring.slot(full), ring.slot(5));
            assert!(ring.used(ring.advanced(full, 1), ring.advanced(5, 0)) != 1 || log2 == 0);
        }
    }

    #[test]
    fn base_is_aligned_to_the_size_and_the_size_capped() {
        assert_eq!(ring(10).base % (16 << 10), 0);
        assert_eq!(ring(0).base, 0x1234_5678 << 5);
        assert_eq!(Ring::new(QueueBase::new().with_log2size(31), 31, 16).entries(), 1 << 19);
        assert_eq!(Ring::new(QueueBase::new().with_log2size(9), 8, 16).entries(), 1 << 8);
    }
}
