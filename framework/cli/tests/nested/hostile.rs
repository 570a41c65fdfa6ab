//! `--hostile-hardware`: an IOMMU, and devices, that refill their caches between any two commands. What the guests rely
//! on is still right; what would be wrong is seen sooner.

use crate::run::{Line, all, recorded, replay};
use viommu_trace::{Record, Trace};

/// Seeds of this run; CI goes on with others.
const SEEDS: [&str; 2] = ["1", "2"];
const ATS: &str = "arm73-ats-strict";
const INTEL_ATS: &str = "vtd73-ats-strict";

/// Speculation took place: `what` of it.
fn count(line: &Line, what: &str) -> u64 {
    line.count(&format!("/speculation/{what}"))
}

#[test]
fn every_recorded_guest_is_right_on_hostile_hardware() {
    for seed in SEEDS {
        let run = replay(&["--hostile-hardware", seed], &all());
        run.is_clean();
        assert!(run.lines.iter().all(|line| line.is_idle() || count(line, "requests") > 100), "{:?}", run.lines);
        assert!(run.lines.iter().all(|line| count(line, "atc_fills") == 0), "{:?}", run.lines);
        // A strict guest clears an entry before it invalidates it, so there is little left to refill.
        let filled: Vec<u64> = run.lines.iter().map(|line| count(line, "tlb_fills")).collect();
        assert!(filled.iter().filter(|fills| **fills > 0).count() >= 10, "{filled:?}");
        assert!(filled.iter().sum::<u64>() > 10_000, "{filled:?}");
    }
}

#[test]
fn and_with_devices_that_have_caches_and_commands_that_come_late() {
    for seed in SEEDS {
        let run = replay(&["--hostile-hardware", seed, "--atc", "--device-delay", seed], &all());
        run.is_clean();
        let (ats, others): (Vec<_>, Vec<_>) = run.lines.iter().partition(|line| line.is_of(ATS));
        assert!(ats.iter().all(|line| count(line, "atc_fills") > 0), "{ats:?}");
        assert!(others.iter().all(|line| count(line, "atc_fills") == 0), "{others:?}");
    }
}

#[test]
fn and_with_intel_devices_that_have_caches() {
    let run = replay(&["--hostile-hardware", "1", "--atc", "--device-delay", "1"], &[INTEL_ATS]);
    run.is_clean();
    assert!(count(run.line(), "atc_fills") > 0, "{:?}", run.lines);
}

#[test]
fn and_for_several_guests() {
    let others = ["amd73-boot", "amd73-churn", "vtd73-boot", "vtd73-churn"];
    replay(&["--hostile-hardware", "7", "--vms", "3", "--threads", "2", "--shards", "2"], &others).is_clean();
    replay(&["--hostile-hardware", "8", "--vms", "2", "--migrate-every", "50"], &others).is_clean();
    let traces = ["arm73-churn", "arm73-passthrough", "arm73-reboot", ATS];
    replay(&["--hostile-hardware", "3", "--vms", "3", "--atc"], &traces).is_clean();
    replay(&["--hostile-hardware", "4", "--vms", "4", "--threads", "2", "--shards", "2"], &traces).is_clean();
    replay(&["--hostile-hardware", "5", "--vms", "2", "--model", "thread"], &traces).is_clean();
    replay(&["--hostile-hardware", "6", "--vms", "2", "--migrate-every", "50"], &traces[..3]).is_clean();
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let objects = |arguments: &[&str]| {
        let run = replay(arguments, &["arm73-churn", "arm73-16k-strict", "arm73-boot", "amd73-churn", "vtd73-churn"]);
        run.lines.iter().map(Line::without_times).collect::<Vec<_>>()
    };
    for more in [&[][..], &["--atc", "--device-delay", "7"], &["--vms", "3"]] {
        let with = |seed| [&["--hostile-hardware", seed], more].concat();
        assert_eq!(objects(&with("1")), objects(&with("1")), "{more:?}");
        assert_ne!(objects(&with("1")), objects(&with("2")), "{more:?}");
    }
    let quiet = replay(&[], &["arm73-churn"]);
    for what in ["requests", "tlb_fills", "atc_fills"] {
        assert_eq!(count(quiet.line(), what), 0, "unasked");
    }
}

/// `reorder-atc` delays the TLBIs of devices without ATS as well, which any hardware would show. What devices refill
/// from a TLB that has not forgotten yet comes on top, and only hostile ones do.
#[test]
fn only_hostile_devices_refill_themselves_before_the_tlb_has_forgotten() {
    let run = |hostile: &[&str]| {
        let run = replay(&[&["--inject", "reorder-atc", "--atc"], hostile].concat(), &[ATS]);
        assert_eq!(run.status, 1, "{}", run.stderr);
        (run.line().count("/translations/mismatched"), count(run.line(), "atc_fills"))
    };
    let (friendly, none) = run(&[]);
    let right = count(replay(&["--atc", "--hostile-hardware", "1"], &[ATS]).line(), "atc_fills");
    for seed in SEEDS {
        let (hostile, fills) = run(&["--hostile-hardware", seed]);
        assert!(hostile > friendly + 1000, "seed {seed}: {hostile}, friendly {friendly}");
        assert!(fills > 10 * right && none == 0, "seed {seed}: {fills} refilled, in the right order {right}");
    }
}

/// Why speculation leaves the tables of a stream alone whose configuration has just changed: the recording gives them
/// at their first use, and until then it has what their memory held when it was a table of another domain.
#[test]
fn a_recording_has_new_tables_only_at_their_first_use() {
    const CD_TTB0: u64 = 0x463b_0008;
    const TABLE: u64 = 0x4456_0000;
    let mut trace = Trace::open(recorded("arm73-churn")).unwrap();
    let (mut named, mut contents) = (Vec::new(), Vec::new());
    while let Some(entry) = trace.next().unwrap() {
        let Record::Mem { gpa, bytes, .. } = entry.record else { continue };
        let word = |at: u64| {
            let from = usize::try_from(at.checked_sub(gpa)?).ok()?;
            Some(u64::from_le_bytes(bytes.get(from..from + 8)?.try_into().unwrap()))
        };
        named.extend(word(CD_TTB0).map(|table| (entry.number, table)).filter(|(_, table)| *table == TABLE));
        contents.extend(word(TABLE).map(|descriptor| (entry.number, descriptor)));
    }
    let (from, _) = named.iter().copied().find(|(number, _)| *number > 40_000).unwrap();
    let before = contents.iter().rfind(|(number, _)| *number < from).unwrap();
    let after = contents.iter().find(|(number, _)| *number > from).unwrap();
    assert_eq!((before, from, after), (&(15_219, 0x4622_a003), 42_982, &(42_996, 0x4458_a003)));
}
