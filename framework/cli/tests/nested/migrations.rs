//! `--migrate-every`: a guest does not notice that it moves, and a broken move is noticed.

use crate::run::{Line, replay};

/// What the guest sent is the same wherever it was taken: nothing lost, nothing taken twice.
fn takes_the_same(moved: &Line, stayed: &Line) {
    for part in ["commands", "guest_faults", "mismatched_by_vm"] {
        assert_eq!(moved.0[part], stayed.0[part], "{part}");
    }
    assert_eq!(moved.count("/syncs/guest"), stayed.count("/syncs/guest"));
    assert_eq!(moved.0["translations"], stayed.0["translations"]);
}

#[test]
fn guests_that_move_do_what_guests_that_stay_do() {
    const RARELY: &[&str] = &["--migrate-every", "50"];
    const OFTEN: &[&str] = &["--migrate-every", "3", "--migrate-seed", "99", "--atc"];
    for (options, traces) in [
        (RARELY, ["arm73-boot", "arm73-reboot", "arm73-smallq-noril"]),
        (OFTEN, ["arm73-boot", "arm73-passthrough", "arm73-churn"]),
        (RARELY, ["amd73-boot", "amd73-passthrough", "amd73-churn"]),
        (OFTEN, ["vtd73-boot", "vtd73-passthrough", "vtd73-churn"]),
    ] {
        let (moved, stayed) = (replay(options, &traces), replay(&[], &traces));
        moved.is_clean();
        for (moved, stayed) in moved.lines.iter().zip(&stayed.lines) {
            assert!(moved.count("/migrations") > 0, "{moved:?}");
            takes_the_same(moved, stayed);
        }
    }
}

#[test]
fn a_guest_may_move_at_every_doorbell() {
    let (moved, stayed) = (replay(&["--migrate-every", "1"], &["arm73-boot"]), replay(&[], &["arm73-boot"]));
    moved.is_clean();
    let (migrations, doorbells) = (moved.line().count("/migrations"), moved.line().count("/doorbells"));
    assert!(migrations > 0 && migrations.abs_diff(doorbells) <= 2, "{migrations} migrations, {doorbells} doorbells");
    takes_the_same(moved.line(), stayed.line());
}

#[test]
fn several_guests_move_together_whatever_each_is_at() {
    let traces = ["arm73-boot", "arm73-churn"];
    let options = ["--vms", "3", "--migrate-every", "50", "--device-delay", "7", "--shards", "2"];
    let moved = replay(&options, &traces);
    moved.is_clean();
    let stayed = replay(&["--vms", "3"], &traces);
    for (moved, stayed) in moved.lines.iter().zip(&stayed.lines) {
        takes_the_same(moved, stayed);
    }
}

#[test]
fn when_they_move_is_the_seeds_to_say() {
    let count = |seed| {
        let run = replay(&["--migrate-every", "5", "--migrate-seed", seed], &["arm73-boot"]);
        run.is_clean();
        run.line().count("/migrations")
    };
    assert_eq!(count("1"), count("1"));
    let counts: std::collections::BTreeSet<_> = ["1", "2", "3", "4", "5", "6"].map(count).into();
    assert!(counts.len() > 1, "{counts:?}");
}

#[test]
fn a_device_that_arrives_without_its_entry_is_noticed() {
    for (trace, got) in [("arm73-churn", "ABORT"), ("amd73-churn", "ABORT"), ("vtd73-churn", "FAULT 0x59")] {
        let broken = replay(&["--migrate-every", "50", "--inject", "forget-entry", "--vms", "2"], &[trace]);
        assert_eq!(broken.status, 1, "{}", broken.stderr);
        let by_vm = broken.line().mismatched_by_vm();
        assert!(by_vm[0] > 0 && by_vm[1] == 0, "only the first VM's device arrives without: {by_vm:?}");
        assert!(broken.stderr.contains(&format!("got      {got}")), "{}", broken.stderr);
    }
}
