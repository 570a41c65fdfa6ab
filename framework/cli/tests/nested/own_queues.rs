//! Recorded guests whose driver has command queues of its own, which hardware reads: `--vcpus`.

use crate::run::{Line, arm, replay};

const TEGRA: [&str; 4] = ["--plugin", "tegra-vcmdq", "--vcpus", "4"];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    TEGRA.iter().chain(more).copied().collect()
}

/// Commands in the guests' own queues, without SYNCs.
fn direct(line: &Line) -> u64 {
    line.0["direct"]["by_queue"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn every_recorded_guest_replays_past_the_framework_without_a_mismatch() {
    let (traces, plain) = (arm(), replay(&[], &arm()));
    let run = replay(&with(&[]), &traces);
    run.is_clean();
    for (line, before) in run.lines.iter().zip(&plain.lines) {
        // Each command once, here or there; the direct ones cost the framework nothing.
        let syncs = line.count("/direct/syncs");
        assert_eq!(line.count("/commands/total") + direct(line) + syncs, before.count("/commands/total"), "{line:?}");
        assert_eq!(line.count("/syncs/guest") + syncs, before.count("/syncs/guest"), "{line:?}");
        assert_eq!(line.count("/tlb/hits"), before.count("/tlb/hits"), "as precise as the framework: {line:?}");
    }
    let churn = run.lines.iter().find(|line| line.0["trace"].as_str().unwrap().contains("arm73-churn")).unwrap();
    let queues = churn.0["direct"]["by_queue"].as_array().unwrap();
    assert!(queues.len() == 2 && queues.iter().all(|count| count.as_u64().unwrap() > 0), "{churn:?}");
}

#[test]
fn so_do_slow_and_hostile_hardware_and_many_machines() {
    replay(&with(&["--device-delay", "7"]), &arm()).is_clean();
    replay(&with(&["--hostile-hardware", "7", "--atc"]), &["arm73-churn", "arm73-ats-strict"]).is_clean();
    replay(&with(&["--vms", "8", "--threads", "2"]), &["arm73-churn", "arm73-reboot", "arm73-ats-strict"]).is_clean();
    replay(&with(&["--model", "thread"]), &["arm73-churn"]).is_clean();
}

#[test]
fn what_is_lost_on_the_way_is_seen() {
    let run = replay(&with(&["--inject", "drop-invalidation:1"]), &["arm73-churn"]);
    assert_eq!(run.status, 1);
    assert!(run.line().count("/translations/mismatched") > 0);
    let run = replay(&with(&["--atc", "--inject", "drop-atc"]), &["arm73-ats-strict"]);
    assert!(run.line().count("/translations/mismatched") > 0);
}

#[test]
fn a_plugin_without_such_queues_is_refused_by_name() {
    let run = replay(&["--vcpus", "2"], &["arm73-boot"]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("arm-smmuv3 lends guests no queues of their own"), "{}", run.stderr);
}
