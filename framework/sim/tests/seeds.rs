//! Seeds pass, tell the same story twice, and tell of everything there is.

use std::thread;
use viommu_sim::{Counters, Options, Outcome, Plan, Vendor, run};

/// A few dozen: a thousand are run by `.ci/run`.
const SEEDS: u64 = 48;

#[test]
fn seeds_on_arm_smmuv3_pass_and_everything_happens() {
    pass_and_happen(Vendor::ArmSmmuv3, &["event.read", "invalidate.range", "sync.line", "sync.message"]);
}

#[test]
fn seeds_on_amd_vi_pass_and_everything_happens() {
    pass_and_happen(Vendor::AmdVi, &["event.read", "invalidate.mapped", "sync.line", "sync.message"]);
}

#[test]
fn seeds_on_intel_vtd_pass_and_everything_happens() {
    pass_and_happen(Vendor::IntelVtd, &["event.read", "invalidate.mapped", "sync.line", "sync.message"]);
}

fn pass_and_happen(vendor: Vendor, own: &[&str]) {
    let mut happened = Counters::default();
    for seed in 0..SEEDS {
        let Outcome { violation, counters, .. } = run(&Plan::of(vendor, seed), Options::default());
        assert!(violation.is_none(), "seed {seed}: {}", violation.unwrap());
        happened.merge(&counters);
    }
    for name in own {
        assert!(happened.get(name) > 0, "{name} never happened in {SEEDS} seeds");
    }
    for name in [
        "action.map",
        "action.map-block",
        "action.unmap",
        "action.remap",
        "action.protect",
        "action.replace-table",
        "action.replace-tree",
        "action.assign",
        "action.change-context",
        "action.switch",
        "action.reset",
        "action.remove",
        "action.add",
        "action.give-memory",
        "action.take-memory",
        "action.two-doorbells",
        "action.illegal",
        "action.attack",
        "dma.translated",
        "dma.refused",
        "dma.freedom",
        "dma.speculative",
        "error.illegal",
        "error.other",
        "event.degraded",
        "fault.backend.ebusy",
        "fault.backend.enomem",
        "fault.backend.etimedout",
        "fault.plugin",
        "fault.stall",
        "machine.quarantined",
        "sync.polled",
        "sync.timed-out",
    ] {
        assert!(happened.get(name) > 0, "{name} never happened in {SEEDS} seeds");
    }
}

#[test]
fn a_seed_tells_the_same_story_whoever_runs_it_and_in_whatever_order() {
    let log = Options { log: true, ..Options::default() };
    let tell = move |seeds: Vec<u64>| -> Vec<(u64, Outcome)> {
        let tell = |seed| (seed, run(&Plan::of(Vendor::of(seed), seed), log));
        let mut told: Vec<_> = seeds.into_iter().map(tell).collect();
        told.sort_by_key(|(seed, _)| *seed);
        told
    };
    let forwards = tell((0..8).collect());
    let others = [thread::spawn(move || tell((0..8).rev().collect())), thread::spawn(move || tell((0..8).collect()))];
    for other in others {
        let told = other.join().unwrap();
        for ((seed, one), (_, two)) in forwards.iter().zip(&told) {
            assert!(one.log.len() > 100, "a log that says something");
            let differs = one.log.iter().zip(&two.log).find(|(one, two)| one != two);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(one, two, "seed {seed}");
        }
    }
}
