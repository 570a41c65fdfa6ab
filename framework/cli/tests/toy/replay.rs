//! A guest of the toy through the framework, with each plugin.

use crate::plugins::{both, lines, scratch, viommu};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The recording of a guest that never ran.
fn trace(seed: u64) -> PathBuf {
    let path = scratch("toy-traces").join(format!("toy-{seed}.gtrace.zst"));
    let (seed, file) = (seed.to_string(), path.to_str().expect("a path of text"));
    let output = viommu(["trace", "generate", "toy", "--seed", &seed, "--steps", "600", "--output", file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// Replays it; the exit status and the summary.
fn replay(plugin: &Path, trace: &Path, options: &[&str]) -> (Option<i32>, Value) {
    let (plugin, trace) = (plugin.to_str().expect("text"), trace.to_str().expect("text"));
    let output = viommu(["replay", "--json", "--plugin", plugin, trace].into_iter().chain(options.iter().copied()));
    let summary = lines(&output).pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), summary)
}

#[test]
fn a_generated_guest_is_carried_without_a_mismatch() {
    let options: [&[&str]; 6] = [
        &[],
        &["--atc"],
        &["--vms", "8", "--threads", "2"],
        &["--atc", "--vms", "2", "--device-delay", "3"],
        &["--atc", "--hostile-hardware", "4"],
        &["--bare"],
    ];
    for path in both() {
        for (seed, options) in (1..).zip(options) {
            let (status, summary) = replay(path, &trace(seed), options);
            assert_eq!(status, Some(0), "{path:?} {options:?} seed {seed}: {summary}");
            assert_eq!(summary["translations"]["mismatched"], 0, "{path:?} {options:?} seed {seed}: {summary}");
            assert!(
                summary["translations"]["matched"].as_u64() > Some(500),
                "{path:?} {options:?} seed {seed}: {summary}"
            );
        }
    }
}

#[test]
fn a_dropped_or_misrouted_command_is_noticed() {
    let trace = trace(7);
    for path in both() {
        let options: [&[&str]; 5] = [
            &["--inject", "drop-invalidation:1"],
            &["--inject", "swap-stream"],
            &["--vms", "2", "--inject", "wrong-vmid"],
            &["--atc", "--inject", "drop-atc"],
            &["--device-delay", "3", "--inject", "complete-early"],
        ];
        for options in options {
            let (status, summary) = replay(path, &trace, options);
            assert_eq!(status, Some(1), "{path:?} {options:?}: {summary}");
            assert!(summary["translations"]["mismatched"].as_u64() > Some(0), "{path:?} {options:?}: {summary}");
        }
    }
}
