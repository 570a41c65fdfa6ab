//! Index arithmetic that command and event queue share (§3.5.1): an index of n bits, and a wrap bit above it.

use crate::spec::registers::QueueBase;

/// Where a queue is, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    base: u64,
    log2: u32,
    entry_bytes: u64,
}

impl Queue {
    /// The largest queue that an index field of 20 bits can run through.
    const LOG2_MOST: u8 = 19;

    /// The queue of a BASE register; `log2_most` is the ID register's limit, which a larger LOG2SIZE is cut to.
    pub fn new(base: QueueBase, log2_most: u8, entry_bytes: u64) -> Self {
        let log2 = u32::from(base.log2size().min(log2_most).min(Self::LOG2_MOST));
        let bytes = (entry_bytes << log2).max(32);
        Self { base: base.address() & !(bytes - 1), log2, entry_bytes }
    }

    /// `index` without bits that this queue does not have.
    pub fn cut(&self, index: u32) -> u32 {
        index & ((2 << self.log2) - 1)
    }
    /// The index after `index`.
    pub fn next(&self, index: u32) -> u32 {
        self.cut(index.wrapping_add(1))
    }
    /// Address of the entry at `index`.
    pub fn entry(&self, index: u32) -> u64 {
        self.base + self.entry_bytes * u64::from(index & ((1 << self.log2) - 1))
    }
    /// Whether nothing is between `cons` and `prod`.
    pub fn is_empty(&self, prod: u32, cons: u32) -> bool {
        self.cut(prod) == self.cut(cons)
    }
    /// Whether there is no room: same entry, other lap.
    pub fn is_full(&self, prod: u32, cons: u32) -> bool {
        self.cut(prod) ^ self.cut(cons) == 1 << self.log2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_by_its_own_size() {
        let queue = Queue::new(QueueBase::new().with_addr(0x1_0000 >> 5).with_log2size(2), 19, 16);
        let walk = std::iter::successors(Some(0), |&index| Some(queue.next(index)));
        let offsets: Vec<u64> = walk.take(9).map(|index| queue.entry(index) - 0x1_0000).collect();
        assert_eq!(offsets, [0, 16, 32, 48, 0, 16, 32, 48, 0]);
        assert!(queue.is_full(4, 0) && queue.is_full(1, 5) && !queue.is_full(3, 0));
        assert!(queue.is_empty(5, 5) && queue.is_empty(8, 0) && !queue.is_empty(4, 0));
    }

    #[test]
    fn size_is_cut_to_what_the_hardware_has_and_base_to_the_size() {
        let queue = Queue::new(QueueBase::new().with_addr(0x1_0040 >> 5).with_log2size(31), 3, 16);
        assert_eq!(queue.entry(7), 0x1_0000 + 7 * 16);
        assert_eq!(queue.entry(8), 0x1_0000);
        assert_eq!(Queue::new(QueueBase::new().with_log2size(31), 31, 16).log2, 19);
    }
}
