//! Seeded random words of the kinds that find mistakes: sparse, dense, small, all ones.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A seeded source, the same on every machine: a seed in a message is enough to see a failure again.
#[derive(Debug, Clone)]
pub struct Random(Pcg64);

impl Random {
    /// The source of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Any word.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 0 to `bound` - 1; 0 if `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A place in something of `length`.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// A word with few bits set.
    pub fn sparse(&mut self) -> u64 {
        (0..=self.below(3)).fold(0, |word, _| word | 1 << self.below(64))
    }

    /// A word of any kind.
    pub fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => self.below(64),
            3 => self.sparse(),
            4 => self.next() & 0x0000_7fff_ffff_f01f,
            _ => self.next(),
        }
    }
}
