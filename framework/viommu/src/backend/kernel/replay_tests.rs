//! Replay against a model of the kernel's own function, with its bug.

use super::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Linux 7.3.4's invalidation on an Arm vIOMMU: converts one by one, issues in blocks of 63, and on an error counts what it
/// converted and not what it issued.
#[derive(Default)]
struct Kernel {
    illegal: BTreeSet<usize>,
    executed: Vec<usize>,
    /// Calls (from 0) that find no memory.
    starved: BTreeSet<u64>,
    /// The call (from 0) whose SYNC times out.
    late: Option<u64>,
    calls: u64,
    pauses: u32,
}

impl Issue for Kernel {
    fn issue(&mut self, entries: Range<usize>) -> Answer {
        let call = self.calls;
        self.calls += 1;
        let length = entries.len();
        if self.starved.contains(&call) {
            return Answer { reported: length, result: Err(Errno::NOMEM) };
        }
        let (mut converted, mut issued) = (entries.start, entries.start);
        while converted < entries.end {
            if self.illegal.contains(&converted) {
                return Answer { reported: converted - entries.start, result: Err(Errno::IO) };
            }
            converted += 1;
            if converted == entries.end || converted - issued == 63 {
                if self.late == Some(call) {
                    return Answer { reported: converted - entries.start - 1, result: Err(Errno::TIMEDOUT) };
                }
                self.executed.extend(issued..converted);
                issued = converted;
            }
        }
        Answer { reported: length, result: Ok(()) }
    }

    fn pause(&mut self, _: u32) {
        self.pauses += 1;
    }
}

impl Kernel {
    fn with(illegal: impl IntoIterator<Item = usize>) -> Self {
        Self { illegal: illegal.into_iter().collect(), ..Self::default() }
    }

    /// Good commands that no call executed.
    fn lost(&self, total: usize) -> Vec<usize> {
        let executed: BTreeSet<_> = self.executed.iter().copied().collect();
        (0..total).filter(|entry| !self.illegal.contains(entry) && !executed.contains(entry)).collect()
    }
}

const PLACES: [usize; 6] = [0, 1, 62, 63, 64, 70];
const SIZES: [usize; 5] = [1, 63, 64, 65, 4096];

#[test]
fn every_good_command_is_executed_and_every_offender_found() {
    for total in SIZES {
        for place in PLACES.into_iter().filter(|place| *place < total) {
            let mut kernel = Kernel::with([place]);
            let outcome = run(0..total, &mut kernel);
            assert_eq!(kernel.lost(total), [0; 0], "{total} commands, {place} illegal");
            assert_eq!(outcome.refused, [(place, Errno::IO)], "{total} commands");
            assert_eq!((outcome.done, outcome.stopped), (total, None));
            assert!(!kernel.executed.contains(&place));
        }
    }
}

#[test]
fn a_sink_that_trusts_the_count_loses_commands() {
    for (total, place, lost) in [(63, 62, 62), (64, 1, 1), (4096, 70, 7), (65, 64, 1), (4096, 62, 62)] {
        let mut kernel = Kernel::with([place]);
        run_trusting(0..total, &mut kernel);
        assert_eq!(kernel.lost(total).len(), lost, "{total} commands, {place} illegal");
    }
    let mut kernel = Kernel { starved: [0].into(), ..Kernel::default() };
    run_trusting(0..63, &mut kernel);
    assert_eq!(kernel.lost(63).len(), 63, "out of memory reads as done");
}

#[test]
fn no_call_has_more_entries_than_one_block() {
    struct Longest(usize);
    impl Issue for Longest {
        fn issue(&mut self, entries: Range<usize>) -> Answer {
            self.0 = self.0.max(entries.len());
            Answer { reported: entries.len(), result: Ok(()) }
        }
        fn pause(&mut self, _: u32) {}
    }
    let mut longest = Longest(0);
    let outcome = run(0..4096, &mut longest);
    assert_eq!((longest.0, outcome.calls), (CHUNK, 4096u64.div_ceil(63)));
}

#[test]
fn without_memory_for_a_moment_nothing_is_lost() {
    let mut kernel = Kernel { starved: (0..12).collect(), ..Kernel::with([5]) };
    let outcome = run(0..200, &mut kernel);
    assert_eq!((outcome.done, outcome.stopped), (200, None));
    assert_eq!(kernel.lost(200), [0; 0]);
    assert!(kernel.pauses > 0);
}

#[test]
fn without_memory_for_good_it_stops_where_it_is_certain() {
    let mut kernel = Kernel { starved: (1..1000).collect(), ..Kernel::default() };
    let outcome = run(0..200, &mut kernel);
    assert_eq!((outcome.done, outcome.stopped), (63, Some(Errno::NOMEM)));
    assert!(kernel.lost(outcome.done).is_empty());
    assert!(outcome.calls < 50, "bounded: {}", outcome.calls);
}

#[test]
fn a_timeout_proves_nothing_and_is_not_tried_again() {
    let mut kernel = Kernel { late: Some(1), ..Kernel::default() };
    let outcome = run(0..200, &mut kernel);
    assert_eq!((outcome.done, outcome.stopped, outcome.calls), (63, Some(Errno::TIMEDOUT), 2));
    assert_eq!(run(outcome.done..200, &mut kernel).stopped, None, "from there on, later");
    assert_eq!(kernel.lost(200), [0; 0]);
}

#[test]
fn a_target_that_is_gone_blames_no_command() {
    struct Gone;
    impl Issue for Gone {
        fn issue(&mut self, _: Range<usize>) -> Answer {
            Answer { reported: 0, result: Err(Errno::NOENT) }
        }
        fn pause(&mut self, _: u32) {}
    }
    let outcome = run(0..64, &mut Gone);
    assert_eq!(outcome, Outcome { done: 0, refused: vec![], stopped: Some(Errno::NOENT), calls: 1, bisections: 0 });
}

#[test]
fn random_batches_with_any_number_of_offenders() {
    let seed: u64 = std::env::var("VIOMMU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("seed {seed}");
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut below = |limit: u64| (random.next_u64() % limit) as usize;
    for round in 0..400 {
        let total = 1 + below(400);
        let offenders = below([2, 8, 400][round % 3]);
        let illegal: BTreeSet<_> = (0..offenders).map(|_| below(total as u64)).collect();
        let starved = (0..below(4)).map(|_| below(40) as u64).collect();
        let mut kernel = Kernel { starved, ..Kernel::with(illegal.clone()) };
        let outcome = run(0..total, &mut kernel);
        assert_eq!(outcome.stopped, None, "seed {seed}, round {round}");
        assert_eq!(outcome.done, total);
        assert_eq!(kernel.lost(total), [0; 0], "seed {seed}, round {round}");
        assert_eq!(outcome.refused.iter().map(|(at, _)| *at).collect::<BTreeSet<_>>(), illegal);
        assert!(outcome.calls <= 2 * total as u64 + 200, "bounded: {} calls for {total}", outcome.calls);
    }
}
