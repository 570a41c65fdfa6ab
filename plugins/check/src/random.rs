//! Seeded random words of the kinds that find mistakes: sparse, dense, small, all ones.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A seeded source.
pub(crate) struct Random(Pcg64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A word with few bits set.
    pub(crate) fn sparse(&mut self) -> u64 {
        (0..=self.below(3)).fold(0, |word, _| word | 1 << self.below(64))
    }

    pub(crate) fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => self.below(64) as u64,
            3 => self.sparse(),
            4 => self.0.next_u64() & 0x0000_7fff_ffff_f01f,
            _ => self.0.next_u64(),
        }
    }
}
