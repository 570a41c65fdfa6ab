//! Seeded draws. Each part of a plan has a generator of its own, so that leaving one part out changes no other.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A generator.
pub(crate) struct Draw(Pcg32);

impl Draw {
    /// The generator of one part of what `seed` tells.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        Self(Pcg32::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xbf58_476d_1ce4_e5b9)))
    }

    /// A number below `bound` (0 if that is 0).
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    pub(crate) fn range(&mut self, from: u32, to: u32) -> u32 {
        from + self.below(to - from + 1)
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    /// One of these, each as often as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let mut at = self.below(of.iter().map(|(weight, _)| weight).sum());
        for &(weight, what) in of {
            if at < weight {
                return what;
            }
            at -= weight;
        }
        of[0].1
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }
}
