//! Index arithmetic that command buffer and event log share: no wrap bit, one entry always unused.

use crate::spec::registers::{RingBase, RingPointer};

/// Where a ring is, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    mask: u16,
}

impl Ring {
    /// The ring of a base register. A reserved length counts as the least that is not.
    pub(crate) fn new(base: RingBase) -> Self {
        let length = base.length().max(RingBase::LENGTH_LEAST);
        Self { base: base.address(), mask: ((1u32 << length) - 1) as u16 }
    }

    /// The index of a head or tail register, cut to the ring.
    pub(crate) fn index(&self, pointer: RingPointer) -> u16 {
        pointer.index() & self.mask
    }
    /// The index after `index`.
    pub(crate) fn next(&self, index: u16) -> u16 {
        index.wrapping_add(1) & self.mask
    }
    /// Address of the entry at `index`.
    pub(crate) fn entry(&self, index: u16) -> u64 {
        self.base + (u64::from(index & self.mask) << RingBase::ENTRY_LOG2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_by_its_own_size() {
        let ring = Ring::new(RingBase::new().with_base(0x10).with_length(9));
        assert_eq!((ring.next(510), ring.next(511)), (511, 0));
        assert_eq!(ring.entry(511), 0x1_0000 + 511 * 16);
        assert_eq!(ring.index(RingPointer::from(0x7fff0)), 511);
        let largest = Ring::new(RingBase::new().with_length(15));
        assert_eq!((largest.next(32767), largest.index(RingPointer::from(0x7fff0))), (0, 32767));
        assert_eq!(Ring::new(RingBase::new().with_length(0)).next(255), 0, "reserved: 256 entries");
    }
}
