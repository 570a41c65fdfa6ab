//! Synthetic guests through the built binary: each kind, some seeds, in every way a host may run them, and broken on
//! purpose. What this shows has the evidence letter M.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const KINDS: [&str; 5] = ["amd-nested", "amd-shadow", "vtd-nested", "vtd-shadow", "arm-nested"];
const SEEDS: std::ops::RangeInclusive<u32> = 1..=6;
const STEPS: &str = "1000";
/// Its devices have no caches.
const WITHOUT_ATS: &str = "amd-shadow";

fn viommu(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).args(arguments).output().unwrap()
}

/// The recordings of a kind, one a seed.
fn guests(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let guest = |seed: u32| {
        let path = folder.join(format!("{kind}-{seed}.gtrace"));
        let file = path.to_str().unwrap();
        let made = viommu(&["trace", "generate", kind, "--seed", &seed.to_string(), "--steps", STEPS, "-o", file]);
        assert!(made.status.success(), "{kind} {seed}: {}", String::from_utf8_lossy(&made.stderr));
        path
    };
    SEEDS.map(guest).collect()
}

/// Replays all of `guests`: the objects that were printed, and what was explained.
fn replay(options: &[&str], guests: &[PathBuf]) -> (Vec<Value>, String) {
    let files: Vec<_> = guests.iter().map(|path| path.to_str().unwrap()).collect();
    let Output { stdout, stderr, .. } = viommu(&[&["replay", "--json"], options, &files].concat());
    let explained = String::from_utf8_lossy(&stderr).into_owned();
    let lines: Vec<Value> =
        stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), guests.len(), "{options:?}: {explained}");
    (lines, explained)
}

fn count(line: &Value, at: &str) -> u64 {
    line.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {at} in {line}"))
}

fn mismatches(options: &[&str], guests: &[PathBuf]) -> u64 {
    replay(options, guests).0.iter().map(|line| count(line, "/translations/mismatched")).sum()
}

/// Every DMA as the oracle says, every register as shown, no guest at fault; and it was served in this mode.
fn is_clean(mode: &str, options: &[&str], guests: &[PathBuf]) {
    let (lines, explained) = replay(options, guests);
    for line in &lines {
        assert_eq!(line["mode"], mode, "{options:?}: {line}");
        assert_eq!(count(line, "/translations/mismatched"), 0, "{options:?}: {line}\n{explained}");
        assert_eq!(count(line, "/translations/stage2_faults"), 0, "{options:?}: {line}");
        assert_eq!(count(line, "/register_mismatches"), 0, "{options:?}: {line}");
        assert_eq!(line["guest_faults"], Value::Object(Default::default()), "{options:?}: {line}");
        assert!(count(line, "/translations/matched") > 500, "{options:?}: {line}");
    }
}

/// How a host serves guests of this kind.
fn mode(kind: &str) -> &str {
    kind.split_once('-').unwrap().1
}

#[test]
fn recordings_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let guests = guests(folder.path(), kind);
        let files: Vec<_> = guests.iter().map(|path| path.to_str().unwrap()).collect();
        let checked = viommu(&[&["trace", "check"][..], &files].concat());
        assert!(checked.status.success(), "{kind}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    let bad =
        viommu(&["trace", "generate", "amd-nested", "-o", folder.path().join("no/such/folder").to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(viommu(&["trace", "generate", "amd-shadowed", "-o", "x"]).status.code(), Some(2));
}

#[test]
fn bare() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let guests = guests(folder.path(), kind);
        is_clean("bare", &["--bare"], &guests);
        is_clean("bare", &["--bare", "--atc"], &guests);
        assert!(mismatches(&["--bare", "--inject", "drop-invalidation:1"], &guests) > 0, "{kind}");
        let found = mismatches(&["--bare", "--atc", "--inject", "drop-atc"], &guests);
        assert_eq!(found > 0, kind != WITHOUT_ATS, "{kind}");
    }
}

#[test]
fn served() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let guests = guests(folder.path(), kind);
        is_clean(mode(kind), &[], &guests);
        is_clean(mode(kind), &["--atc", "--hostile-hardware", "5"], &guests);
        is_clean(mode(kind), &["--vms", "3", "--shards", "2", "--threads", "2"], &guests);
        is_clean(mode(kind), &["--device-delay", "3", "--atc"], &guests);
        is_clean(mode(kind), &["--migrate-every", "40", "--vms", "2"], &guests);
    }
}

#[test]
fn broken() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let guests = guests(folder.path(), kind);
        let mut faults: Vec<&[&str]> = vec![
            &["--inject", "drop-invalidation:1"],
            &["--inject", "drop-invalidation:3"],
            &["--inject", "swap-stream"],
        ];
        if kind != WITHOUT_ATS {
            faults.push(&["--atc", "--inject", "drop-atc"]);
        }
        // A shadowed guest's TLB invalidations are not on the physical queue.
        if mode(kind) == "nested" {
            faults.push(&["--vms", "2", "--inject", "wrong-vmid"]);
        }
        for fault in faults {
            let found = mismatches(fault, &guests);
            assert!(found > 0, "{kind}: {fault:?} shows nowhere");
        }
    }
}
