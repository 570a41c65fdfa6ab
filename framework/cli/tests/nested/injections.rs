//! `--inject`: what is broken on purpose is noticed where the recording depends on it, and nowhere else.

use crate::run::{Run, replay};
use Expect::*;
use std::collections::BTreeSet;

/// What a replay has to find.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// Nothing: no mismatch, exit status 0.
    Nothing,
    /// Mismatches, exit status 1.
    Mismatches,
    /// No mismatch, but fewer TLB hits than without the injection.
    FewerHits,
    /// Mismatches in VM 0 only, which sees this guest fault.
    FirstGuest(&'static str),
}

/// Injection, further options, recording, expectation, and why.
type Row = (&'static str, &'static [&'static str], &'static str, Expect, &'static str);

const TWO: &[&str] = &["--vms", "2"];
const SLOW: &[&str] = &["--device-delay", "7"];
const HOSTILE: [&[&str]; 3] = [
    &["--atc", "--hostile-hardware", "1"],
    &["--atc", "--hostile-hardware", "2"],
    &["--atc", "--hostile-hardware", "99"],
];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("drop-invalidation:1", &[], "arm73-boot", Mismatches, "even a boot reuses the IOVAs of its first transfers"),
    ("drop-invalidation:1", &[], "arm73-churn", Mismatches, "devices come and go, and their IOVAs with them"),
    ("drop-invalidation:1", &[], "arm73-lazy-blk", Mismatches, "a lazy guest flushes a whole ASID before it reuses IOVAs"),
    ("drop-invalidation:3", &[], "arm73-churn", Mismatches, "two of three are not enough"),
    ("drop-invalidation:3", &[], "arm73-lazy-blk", Mismatches, "two of three are not enough"),
    ("drop-invalidation:3", &[], "arm73-passthrough", Mismatches, "the few streams that translate reuse IOVAs"),
    ("drop-invalidation:1", TWO, "arm73-churn", Mismatches, "each of two guests loses its own"),
    ("drop-invalidation:1000", &[], "arm73-boot", Nothing, "a boot sends 22 TLBIs: the thousandth never comes"),
    ("drop-atc", &[], "arm73-ats-strict", Nothing, "without --atc no device has a cache"),
    ("drop-atc", &["--atc"], "arm73-ats-strict", Mismatches, "devices go on using what they have cached"),
    ("drop-atc", &["--atc"], "arm73-churn", Nothing, "this guest has no ATS: it sends no ATC_INV"),
    ("swap-stream", &[], "arm73-churn", Mismatches, "each of two busy devices is given the other's tables"),
    ("swap-stream", &[], "arm73-passthrough", Mismatches, "two of its devices translate"),
    ("swap-stream", TWO, "arm73-churn", Mismatches, "in each of two guests"),
    ("swap-stream", &[], "arm73-boot", Nothing, "only one device makes more than 100 stage-1 translations"),
    ("wrong-vmid", TWO, "arm73-churn", Mismatches, "each guest's stale entries stay when the other invalidates"),
    ("wrong-vmid", TWO, "arm73-lazy-blk", Mismatches, "a flush of an ASID hits the other guest's"),
    ("wrong-vmid", &["--vms", "3"], "arm73-churn", Mismatches, "the last guest's carry the tag of the first"),
    ("widen", TWO, "arm73-churn", FewerHits, "more is invalidated than was asked: right, but slow"),
    ("widen", TWO, "arm73-lazy-blk", FewerHits, "every flush of an ASID empties the same ASID of the other guest"),
    ("widen", &["--vms", "4"], "arm73-reboot", FewerHits, "the more guests, the more is lost"),
    ("wrong-vmid", &["--vms", "2", "--hostile-hardware", "1"], "arm73-churn", Mismatches, "refills make it no better"),
    ("wrong-vmid", &["--vms", "2", "--hostile-hardware", "2"], "arm73-strict-blk", Mismatches, "refills make it no better"),
    ("widen", &["--vms", "2", "--hostile-hardware", "1"], "arm73-strict-blk", FewerHits, "what is lost is not all refilled"),
    ("reorder-atc", HOSTILE[0], "arm73-ats-strict", Mismatches, "devices ask again before the TLB has forgotten"),
    ("reorder-atc", HOSTILE[1], "arm73-ats-strict", Mismatches, "devices ask again before the TLB has forgotten"),
    ("reorder-atc", HOSTILE[2], "arm73-ats-strict", Mismatches, "devices ask again before the TLB has forgotten"),
    ("reorder-atc", &[], "arm73-churn", Mismatches, "without ATS there is no ATC_INV to wait for: TLBIs come far too late"),
    ("complete-early", &["--device-delay", "7", "--hostile-hardware", "1"], "arm73-churn", Mismatches, "refills make it no better"),
    ("complete-early", &["--device-delay", "7", "--hostile-hardware", "2"], "arm73-lazy-blk", Mismatches, "refills make it no better"),
    ("complete-early", &["--device-delay", "7", "--hostile-hardware", "3"], "arm73-strict-blk", Mismatches, "refills make it no better"),
    ("complete-early", SLOW, "arm73-churn", Mismatches, "the guest reuses what the device has not forgotten yet"),
    ("complete-early", SLOW, "arm73-lazy-blk", Mismatches, "a whole flush queue is reused at once"),
    ("complete-early", SLOW, "arm73-boot", Mismatches, "even a boot relies on its SYNCs"),
    ("atc-timeout", TWO, "arm73-ats-strict", FirstGuest("atc_timeout"), "CERROR_ATC_INV_SYNC is for who sent the ATC_INV"),
    ("atc-timeout", &["--vms", "2", "--atc"], "arm73-ats-strict", FirstGuest("atc_timeout"), "and so with caches"),
    ("atc-timeout", TWO, "arm73-churn", Nothing, "no ATC_INV is sent: nobody finds out that no device would answer"),
    ("forget-entry", &["--migrate-every", "20"], "arm73-churn", Mismatches, "a device arrives without its table entry"),
    ("unwatched", &[], "arm73-churn", Nothing, "Arm guests announce every entry: no page is watched"),
    ("illegal-command", TWO, "arm73-churn", FirstGuest("host_error"), "the sender is out of service, the queue goes on"),
    ("illegal-command", TWO, "arm73-ats-strict", FirstGuest("host_error"), "the sender is out of service, the queue goes on"),
    ("illegal-command", &["--vms", "3", "--shards", "2"], "arm73-reboot", FirstGuest("host_error"), "on whatever shard"),
    // AMD: shadow mode.
    ("drop-invalidation:1", &[], "amd73-boot", Mismatches, "nothing is in the shadow if no new mapping is announced"),
    ("drop-invalidation:3", &[], "amd73-churn", Mismatches, "two of three are not enough"),
    ("drop-invalidation:3", TWO, "amd73-churn", Mismatches, "each of two guests loses its own"),
    ("drop-invalidation:1000", &[], "amd73-boot", Nothing, "a boot sends 127: the thousandth never comes"),
    ("drop-atc", &["--atc"], "amd73-churn", Nothing, "this guest has no ATS: no device caches"),
    ("swap-stream", &[], "amd73-churn", Mismatches, "each of two busy devices is given the other's shadow"),
    ("atc-timeout", TWO, "amd73-churn", Nothing, "nothing is sent that a device could leave unanswered"),
    ("unwatched", &[], "amd73-churn", Nothing, "AMD guests announce every entry: no page is watched"),
    // Intel.
    ("drop-invalidation:1", &[], "vtd73-boot", Mismatches, "even a boot reuses the IOVAs of its first transfers"),
    ("drop-invalidation:3", &[], "vtd73-churn", Mismatches, "two of three are not enough"),
    ("drop-atc", &[], "vtd73-ats-strict", Nothing, "without --atc no device has a cache"),
    ("drop-atc", &["--atc"], "vtd73-ats-strict", Mismatches, "devices go on using what they have cached"),
    ("reorder-atc", HOSTILE[0], "vtd73-ats-strict", Mismatches, "devices ask again before the TLB has forgotten"),
    ("atc-timeout", TWO, "vtd73-ats-strict", FirstGuest("atc_timeout"), "ITE is for who sent the DEV_TLB"),
    ("swap-stream", &[], "vtd73-churn", Mismatches, "each of two busy devices is given the other's tables"),
    ("wrong-vmid", TWO, "vtd73-churn", Mismatches, "each guest's stale entries stay when the other invalidates"),
    ("widen", TWO, "vtd73-churn", FewerHits, "every domain of both guests is invalidated"),
    ("complete-early", SLOW, "vtd73-churn", Mismatches, "the guest reuses what the device has not forgotten yet"),
    ("illegal-command", TWO, "vtd73-churn", FirstGuest("host_error"), "the sender is out of service, the queue goes on"),
    ("unwatched", &[], "vtd73-churn", Mismatches, "devices that come back are never announced"),
    ("unwatched", &[], "vtd73-boot", Nothing, "all its entries were there when it was enabled"),
];

#[test]
fn tlb_invalidations() {
    judge(&["drop-invalidation"]);
}

#[test]
fn device_caches() {
    judge(&["drop-atc", "reorder-atc", "atc-timeout"]);
}

#[test]
fn tags_and_streams() {
    judge(&["swap-stream", "wrong-vmid", "widen"]);
}

#[test]
fn moves() {
    judge(&["forget-entry", "unwatched"]);
}

#[test]
fn the_physical_queue() {
    judge(&["complete-early", "illegal-command"]);
}

/// Every fault that the manual lists has rows, every row's fault is in the manual, and each of them is judged above.
#[test]
fn every_injection_is_in_the_table_and_in_the_manual() {
    let manual = include_str!("../../../../docs/replay.md");
    let section = manual.split("\n## ").find(|section| section.starts_with("Injected faults\n")).unwrap();
    let listed: BTreeSet<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(fault, _)| name(fault))
        .collect();
    let rows: BTreeSet<_> = ROWS.iter().map(|row| name(row.0)).collect();
    assert_eq!(rows, listed);
    assert_eq!(rows.len(), 11);
}

fn name(injection: &str) -> &str {
    injection.split_once(':').map_or(injection, |(name, _)| name)
}

fn judge(injections: &[&str]) {
    for row in ROWS.iter().filter(|row| injections.contains(&name(row.0))) {
        let &(injection, options, trace, expect, why) = row;
        let run = replay(&[&["--inject", injection], options].concat(), &[trace]);
        let what =
            format!("{injection} {options:?} {trace} must find {expect:?}: {why}\n{:?}\n{}", run.line(), run.stderr);
        assert!(is_as_expected(&run, expect, options, trace), "{what}");
        let mismatched = run.line().count("/translations/mismatched");
        assert_eq!(run.status, i32::from(mismatched > 0), "{what}");
        assert_eq!(run.line().count("/register_mismatches"), 0, "{what}");
        if mismatched > 0 {
            let explained = ["record ", "stream 0x", "iova 0x", "expected ", "got ", "walk"];
            assert!(explained.iter().all(|word| run.stderr.contains(word)), "not explained: {what}");
        }
    }
}

fn is_as_expected(run: &Run, expect: Expect, options: &[&str], trace: &str) -> bool {
    let line = run.line();
    let by_vm = line.mismatched_by_vm();
    let faults = line.0["guest_faults"].as_object().unwrap();
    match expect {
        Nothing => by_vm.iter().all(|&count| count == 0) && faults.is_empty(),
        Mismatches => by_vm.iter().all(|&count| count > 0),
        FewerHits => {
            let right = replay(options, &[trace]);
            by_vm.iter().all(|&count| count == 0) && line.count("/tlb/hits") < right.line().count("/tlb/hits")
        }
        FirstGuest(fault) => {
            let others = &by_vm[1..];
            let only = faults.keys().eq([fault]);
            by_vm[0] > 0 && !others.is_empty() && others.iter().all(|&count| count == 0) && only
        }
    }
}
