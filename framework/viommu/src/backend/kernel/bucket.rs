//! A token bucket: how many commands a guest may send to a queue that all guests share.

use std::time::Duration;

/// How fast a guest's invalidations may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Commands a second in the long run; at least 1.
    pub per_second: u64,
    /// Commands that may go out at once after a pause.
    pub burst: u64,
}

/// One guest's bucket. Takes no time of its own: whoever asks says what time it is.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When all that was taken so far will have been earned, if it was not full before.
    earned: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, earned: Duration::ZERO }
    }

    /// Takes `commands` at time `now`; how long to wait before they may go out. They are taken whatever the answer: who
    /// takes more than the burst waits longer, and nobody starves.
    pub(super) fn take(&mut self, commands: u64, now: Duration) -> Duration {
        let full = now.saturating_sub(self.time_of(self.rate.burst));
        self.earned = self.earned.max(full) + self.time_of(commands);
        self.earned.saturating_sub(now)
    }

    fn time_of(&self, commands: u64) -> Duration {
        let nanos = u128::from(commands) * 1_000_000_000 / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_free_and_the_rest_waits() {
        let mut bucket = Bucket::new(Rate { per_second: 1000, burst: 100 });
        let start = SECOND * 10;
        assert_eq!(bucket.take(100, start), Duration::ZERO);
        assert_eq!(bucket.take(50, start), SECOND / 20);
        assert_eq!(bucket.take(0, start + SECOND / 20), Duration::ZERO, "earned by then");
        assert_eq!(bucket.take(100, start + SECOND), Duration::ZERO, "full again");
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept_whatever_the_batches() {
        let mut bucket = Bucket::new(Rate { per_second: 10_000, burst: 63 });
        let (mut now, mut sent) = (SECOND, 0);
        for batch in (1..64).cycle().take(2000) {
            now += bucket.take(batch, now);
            sent += batch;
        }
        let least = SECOND * (sent - 63) as u32 / 10_000;
        assert!(now - SECOND >= least && now - SECOND < least + SECOND / 100, "{sent} commands in {:?}", now - SECOND);
    }

    #[test]
    fn absurd_rates_do_not_overflow() {
        let mut bucket = Bucket::new(Rate { per_second: 0, burst: u64::MAX });
        assert_eq!(bucket.take(u64::MAX, Duration::ZERO), Duration::from_nanos(u64::MAX / 2));
    }
}
