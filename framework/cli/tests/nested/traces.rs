//! Every recorded guest as one virtual machine.

use crate::run::{OTHERS, REFUSED, all, replay};

#[test]
fn every_recorded_guest_replays_without_a_mismatch() {
    let run = replay(&[], &all());
    run.is_clean();
    for line in &run.lines {
        assert!(line.count("/doorbells") > 0 && line.count("/syncs/guest") > 0, "{line:?}");
        let hits = line.count(if line.is_of("amd73-") { "/tlb/s2_hits" } else { "/tlb/hits" });
        assert!(line.is_idle() || line.count("/nested_hwpts/created") > 0 && hits > 0, "{line:?}");
        // Intel's guests were shown no Caching Mode: devices that come later are not announced.
        assert_eq!(line.count("/late_attaches") > 0, line.is_of("vtd73-churn"), "{line:?}");
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
fn a_guest_that_cannot_be_served_is_refused_by_name_and_the_others_run() {
    for ((name, field), vendor) in REFUSED.into_iter().zip(["arm-smmuv3", "amd-vi", "intel-vtd"]) {
        let run = replay(&[], &["arm73-boot", name, "arm73-passthrough"]);
        assert_eq!(run.status, 2);
        let refused = run.lines[1].0.as_object().unwrap();
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["refused", "trace", "vendor"]);
        assert_eq!(refused["vendor"], vendor);
        assert!(refused["refused"].as_str().unwrap().contains(field), "{refused:?}");
        assert!(run.stderr.contains(name) && run.stderr.contains(field), "{}", run.stderr);
        for line in [&run.lines[0], &run.lines[2]] {
            assert_eq!(line.count("/translations/mismatched"), 0);
        }
    }

    // It wins over a mismatch.
    let run = replay(&["--inject", "drop-invalidation:1"], &["arm73-churn", REFUSED[0].0]);
    assert!(run.lines[0].count("/translations/mismatched") > 0);
    assert_eq!(run.status, 2);
}

/// What happens on the physical queue alone is not there to be broken for guests in shadow mode.
#[test]
fn a_fault_that_a_guest_cannot_meet_is_refused_by_name() {
    for (arguments, fault) in [
        (&["--inject", "wrong-vmid", "--vms", "2"][..], "wrong-vmid"),
        (&["--inject", "widen", "--vms", "2"], "widen"),
        (&["--inject", "reorder-atc"], "reorder-atc"),
        (&["--inject", "complete-early", "--device-delay", "7"], "complete-early"),
        (&["--inject", "illegal-command"], "illegal-command"),
    ] {
        let run = replay(arguments, &["amd73-boot"]);
        assert_eq!(run.status, 2, "{arguments:?}");
        let refused = run.line().0["refused"].as_str().unwrap();
        assert!(refused.contains(fault) && refused.contains("shadow mode"), "{refused}");
    }
}

#[test]
fn several_guests_of_every_vendor_share_an_iommu() {
    let run = replay(&["--vms", "8", "--threads", "2"], &OTHERS);
    run.is_clean();
    assert!(run.lines.iter().all(|line| line.count("/vm_switches") > 0), "{:?}", run.lines);
    replay(&["--vms", "3", "--device-delay", "7"], &OTHERS).is_clean();
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
