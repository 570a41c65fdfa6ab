//! Every recorded guest as one virtual machine.

use crate::run::{REFUSED, all, replay};

#[test]
fn every_recorded_guest_replays_without_a_mismatch() {
    let run = replay(&[], &all());
    run.is_clean();
    for line in &run.lines {
        assert!(line.count("/doorbells") > 0 && line.count("/syncs/guest") > 0, "{line:?}");
        assert!(line.count("/nested_hwpts/created") > 0 && line.count("/tlb/hits") > 0, "{line:?}");
        assert_eq!(line.count("/vm_switches"), 0, "{line:?}");
    }
    // As counted by the recordings' own tools.
    let boot = run.lines.iter().find(|line| line.0["trace"].as_str().unwrap().contains("arm73-boot")).unwrap();
    assert_eq!((boot.count("/commands/total"), boot.count("/doorbells"), boot.count("/syncs/guest")), (145, 78, 67));
}

/// A device that takes its time: what the guest relies on is what it waited for, and nothing else.
#[test]
fn every_recorded_guest_replays_on_a_slow_device() {
    replay(&["--device-delay", "7"], &all()).is_clean();
}

#[test]
fn a_guest_that_owns_stage_2_is_refused_by_name_and_the_others_run() {
    let run = replay(&[], &["arm73-boot", REFUSED, "arm73-passthrough"]);
    assert_eq!(run.status, 2);
    let refused = run.lines[1].0.as_object().unwrap();
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["refused", "trace", "vendor"]);
    assert_eq!(refused["vendor"], "arm-smmuv3");
    assert!(refused["refused"].as_str().unwrap().contains("IDR0.S1P"), "{refused:?}");
    assert!(run.stderr.contains(REFUSED) && run.stderr.contains("IDR0.S1P"), "{}", run.stderr);
    for line in [&run.lines[0], &run.lines[2]] {
        assert_eq!(line.count("/translations/mismatched"), 0);
    }

    // It wins over a mismatch.
    let run = replay(&["--inject", "drop-invalidation:1"], &["arm73-churn", REFUSED]);
    assert!(run.lines[0].count("/translations/mismatched") > 0);
    assert_eq!(run.status, 2);
}

#[test]
fn options_that_contradict_each_other_exit_with_2_and_replay_nothing() {
    for (arguments, says) in [
        (&["--vms", "0"][..], "--vms"),
        (&["--threads", "0"], "--threads"),
        (&["--shards", "0"], "--shards"),
        (&["--inject", "wrong-vmid"], "--vms 2"),
        (&["--inject", "wrong-vmid", "--vms", "1"], "--vms 2"),
        (&["--inject", "widen", "--vms", "1"], "--vms 2"),
        (&["--inject", "complete-early"], "--device-delay"),
        (&["--inject", "complete-early", "--model", "thread"], "--device-delay"),
        (&["--inject", "drop-invalidation:0"], "from 1"),
        (&["--device-delay", "7", "--model", "thread"], "--model inline"),
        (&["--bare", "--hostile-hardware", "1"], "--hostile-hardware"),
        (&["--hostile-hardware", "x"], "--hostile-hardware"),
    ] {
        let run = replay(arguments, &["arm73-boot"]);
        assert_eq!(run.status, 2, "{arguments:?}");
        assert!(run.stderr.contains(says), "{arguments:?}: {}", run.stderr);
        assert!(run.lines.is_empty(), "{arguments:?}");
    }
}
