//! Many virtual machines, threads, shards, and devices of several kinds: the answers are the same.

use crate::run::{Line, replay};

const SMALL: [&str; 5] = ["arm73-boot", "arm73-churn", "arm73-passthrough", "arm73-16k-strict", "arm73-reboot"];

#[test]
fn sixteen_guests_on_two_threads_have_no_mismatch() {
    let run = replay(&["--vms", "16", "--threads", "2"], &SMALL);
    run.is_clean();
    for line in &run.lines {
        assert_eq!(line.count("/vms"), 16);
        assert!(line.count("/vm_switches") > 100, "{line:?}");
    }
}

/// If any guest's invalidation reached another guest's entries, that guest would miss them.
#[test]
fn sixteen_guests_have_exactly_sixteen_times_the_hits_of_one() {
    let (one, sixteen) = (replay(&[], &SMALL), replay(&["--vms", "16"], &SMALL));
    one.is_clean();
    sixteen.is_clean();
    for (one, sixteen) in one.lines.iter().zip(&sixteen.lines) {
        for counter in ["/tlb/hits", "/tlb/misses", "/tlb/s2_hits", "/translations/stage2_faults", "/syncs/guest"] {
            assert_eq!(sixteen.count(counter), 16 * one.count(counter), "{counter} of {one:?}\n{sixteen:?}");
        }
        assert_eq!(one.count("/vm_switches"), 0);
        assert!(sixteen.count("/vm_switches") > one.count("/doorbells"), "{sixteen:?}");
    }
}

#[test]
fn the_same_delays_give_the_same_result() {
    let objects = |arguments: &[&str]| {
        let run = replay(arguments, &["arm73-churn", "arm73-16k-strict"]);
        run.lines.iter().map(Line::without_times).collect::<Vec<_>>()
    };
    for more in [&[][..], &["--vms", "4"], &["--inject", "complete-early"]] {
        let arguments = [&["--device-delay", "7"], more].concat();
        assert_eq!(objects(&arguments), objects(&arguments), "{arguments:?}");
    }
    // Only a guest that is not made to wait sees them at all.
    let early = |seed| objects(&["--inject", "complete-early", "--device-delay", seed]);
    assert_ne!(early("7"), early("8"));
}

#[test]
fn no_seed_makes_a_mismatch() {
    for seed in ["0", "1", "99", "18446744073709551615"] {
        replay(&["--device-delay", seed, "--vms", "2"], &["arm73-churn", "arm73-passthrough"]).is_clean();
    }
}

#[test]
fn a_device_with_a_thread_of_its_own_gives_the_same_answers() {
    replay(&["--model", "thread"], &["arm73-churn", "arm73-reboot"]).is_clean();
}

#[test]
fn shards_share_one_queue() {
    let run = replay(&["--vms", "4", "--shards", "2"], &["arm73-churn", "arm73-reboot"]);
    run.is_clean();
    let run = replay(&["--vms", "4", "--threads", "2", "--shards", "2", "--model", "thread"], &["arm73-churn"]);
    run.is_clean();
    // More shards than guests, more threads than guests.
    replay(&["--shards", "7", "--threads", "5", "--vms", "2"], &["arm73-boot"]).is_clean();
}

#[test]
fn devices_with_caches_of_their_own_have_no_mismatch() {
    let run = replay(&["--atc", "--vms", "2"], &["arm73-ats-strict"]);
    run.is_clean();
    assert!(run.line().0["commands"]["by_opcode"]["ATC_INV"].as_u64() > Some(10_000));
}
