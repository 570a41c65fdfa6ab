//! Percentiles of durations in a table of fixed size.

use std::time::Duration;

/// Buckets a power of two: a percentile is right to one part in 16.
const SUB: u32 = 16;
const SUB_LOG2: u32 = SUB.ilog2();

/// A log-linear histogram of nanoseconds: exact up to 16 ns, then 16 buckets for each power of two.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Box<[u64; (SUB * (64 - SUB_LOG2 + 1)) as usize]>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; (SUB * (64 - SUB_LOG2 + 1)) as usize]), count: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// Counts everything that `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets.iter()).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
    }

    /// The smallest bucket's lower end in nanoseconds that `percent` of the durations do not exceed; 0 if there are
    /// none.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return lower_end(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < u64::from(SUB) {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_LOG2;
    let position = (value >> shift) as u32 - SUB;
    ((shift + 1) * SUB + position) as usize
}

fn lower_end(bucket: usize) -> u64 {
    let (power, position) = (bucket as u32 / SUB, bucket as u32 % SUB);
    if power == 0 { position.into() } else { u64::from(SUB + position) << (power - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]) {
            let index = bucket(value);
            assert!(lower_end(index) <= value, "{value}");
            assert!(value - lower_end(index) <= value / u64::from(SUB), "{value} is not near {}", lower_end(index));
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut durations = Histogram::default();
        assert_eq!(durations.percentile(50), 0);
        (1..=50).for_each(|_| durations.record(Duration::from_nanos(10)));
        (1..=50).for_each(|_| durations.record(Duration::from_nanos(1 << 20)));
        let percentiles = [50, 51, 99].map(|percent| durations.percentile(percent));
        assert_eq!(percentiles, [10, 1 << 20, 1 << 20]);
    }
}
