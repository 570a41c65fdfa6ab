//! `viommu replay` from outside: what it prints, and with which exit status it ends.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use viommu_trace::{Header, Outcome, Record, Trace, Translation, Vendor, Writer};

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces").join(format!("{name}.gtrace.zst"))
}

fn replay(arguments: &[&str], traces: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).arg("replay").args(arguments).args(traces).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it exits")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn header() -> Header {
    Header::new(Vendor::ARM_SMMUV3).ram(0x4000_0000, 0x10_0000).frame(0x0905_0000, 0x2_0000).device("edu", 8)
}

/// Bytes of a whole uncompressed trace.
fn made(header: &Header, records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = Writer::plain(Vec::new(), header).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

/// A file in a folder of its own; keep the folder.
fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.gtrace");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let good = made(&header(), &[Record::Reset]);
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let first = good.len() - 16;
    let cases = [
        (b"#!/bin/sh\n".to_vec(), "not a trace"),
        (Vec::new(), "not a trace"),
        (patched(8, &[7, 0]), "version 7"),
        (patched(10, &[99, 0]), "unknown vendor 99"),
        (patched(10, &[0, 0x90]), "--plugin"),
        (good[..40].to_vec(), "cut short"),
        (good[..good.len() - 8].to_vec(), "cut short"),
        (good[..good.len() - 3].to_vec(), "cut short"),
        (patched(first + 4, &[0, 0, 1, 0]), "longer than the file"),
    ];
    for (bytes, says) in cases {
        let (_folder, path) = file(&bytes);
        for arguments in [&["--bare"][..], &["--bare", "--json"]] {
            let output = replay(arguments, &[&path]);
            assert_eq!(status(&output), 2, "{says}");
            let error = stderr(&output);
            assert!(error.contains(says) && error.contains("made.gtrace"), "{error:?} does not say {says:?}");
            assert!(!error.contains("panicked"), "{error}");
        }
        let lines = json(&replay(&["--bare", "--json"], &[&path]));
        assert!(lines[0]["refused"].as_str().is_some_and(|reason| reason.contains(says)), "{lines:?}");
    }
    let output = replay(&["--bare"], &[Path::new("/nowhere/at/all.gtrace")]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("cannot be opened"));
}

#[test]
fn options_that_make_no_sense_exit_with_2() {
    let trace = recorded("arm73-boot");
    for (arguments, says) in [
        (&["--vms", "0"][..], "--vms"),
        (&["--threads", "0"], "--threads"),
        (&["--shards", "0"], "--shards"),
        (&["--inject", "nonsense"], "drop-invalidation:K"),
        (&["--inject", "widen"], "--vms 2"),
        (&["--inject", "wrong-vmid", "--vms", "1"], "--vms 2"),
        (&["--inject", "complete-early"], "--device-delay"),
        (&["--device-delay", "1", "--model", "thread"], "--model inline"),
        (&["--bare", "--vms", "2"], "--bare"),
    ] {
        let output = replay(arguments, &[&trace]);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(status(&replay(&["--bare"], &[])), 2, "no trace at all");
}

#[test]
fn a_missing_plugin_is_an_error_that_says_where_it_was_looked_for() {
    let trace = recorded("arm73-boot");
    let output = replay(&["--bare", "--plugin", "nonesuch"], &[&trace]);
    assert_eq!(status(&output), 2);
    let beside = Path::new(env!("CARGO_BIN_EXE_viommu")).parent().unwrap();
    for folder in [beside, &beside.join("deps"), Path::new("/usr/lib/viommu/plugins")] {
        let looked = folder.join("libnonesuch_plugin.so");
        assert!(stderr(&output).contains(&*looked.to_string_lossy()), "{}", stderr(&output));
    }

    // The vendor's plugin is a file of its own: a binary alone replays nothing.
    // A link, not a copy: a program that somebody still has open for writing (a child of another test, between fork and
    // exec) cannot be run.
    let alone = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let binary = alone.path().join("viommu");
    std::fs::hard_link(env!("CARGO_BIN_EXE_viommu"), &binary).unwrap();
    let run = |folder: &Path| {
        let mut command = Command::new(&binary);
        command.args(["replay", "--bare"]).arg(&trace).env("VIOMMU_PLUGIN_PATH", folder);
        command.output().unwrap()
    };
    let output = run(&alone.path().join("plugins"));
    assert_eq!(status(&output), 2);
    let looked = alone.path().join("plugins/libarm_smmuv3_plugin.so");
    assert!(stderr(&output).contains(&*looked.to_string_lossy()), "{}", stderr(&output));
    let output = run(&beside.join("deps"));
    assert_eq!(status(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_plugin_of_another_vendor_is_refused() {
    let (_folder, path) = file(&made(&Header { vendor: Vendor::AMD_VI, ..header() }, &[Record::Reset]));
    let output = replay(&["--bare", "--json", "--plugin", "arm-smmuv3"], &[&path]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("is for vendor 1"), "{}", stderr(&output));
    assert_eq!(json(&output)[0]["vendor"], "amd-vi");
}

#[test]
fn recorded_guests_replay_bare_without_a_mismatch() {
    let traces = ["arm73-boot", "arm73-passthrough", "arm73-churn"].map(recorded);
    let paths = traces.each_ref().map(PathBuf::as_path);
    let output = replay(&["--bare", "--json"], &paths);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let lines = json(&output);
    assert_eq!(lines.len(), traces.len());
    for (line, path) in lines.iter().zip(paths) {
        let records = records(path);
        assert!(line["trace"].as_str().unwrap().contains(&*path.file_name().unwrap().to_string_lossy()));
        assert_eq!((&line["vendor"], &line["mode"], &line["vms"]), (&"arm-smmuv3".into(), &"bare".into(), &1.into()));
        for count in ["records", "checked", "matched"] {
            assert_eq!(line["translations"][count], records, "{count} of {}", path.display());
        }
        assert_eq!(line["translations"]["mismatched"], 0);
        assert_eq!(line["translations"]["stage2_faults"], 0);
        assert_eq!(line["register_mismatches"], 0);
    }
    // As counted by the recordings' own tools.
    let boot = &lines[0]["commands"];
    assert_eq!(
        (&boot["total"], &lines[0]["doorbells"], &lines[0]["syncs"]["guest"]),
        (&145.into(), &78.into(), &67.into())
    );
    assert_eq!((&boot["by_opcode"]["CFGI_STE"], &boot["by_opcode"]["TLBI_NH_VA"]), (&22.into(), &21.into()));
}

#[test]
fn guests_of_the_other_vendors_replay_bare_without_a_mismatch() {
    for (trace, vendor, commands) in [
        ("amd73-boot", "amd-vi", 750),
        ("amd73-churn", "amd-vi", 19_940),
        ("amd73-lazy", "amd-vi", 5970),
        ("vtd73-boot", "intel-vtd", 256),
        ("vtd73-churn", "intel-vtd", 10_558),
        ("vtd73-legacy-strict", "intel-vtd", 33_382),
    ] {
        let path = recorded(trace);
        let output = replay(&["--bare", "--json"], &[&path]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let line = json(&output).remove(0);
        assert_eq!((&line["vendor"], &line["mode"]), (&vendor.into(), &"bare".into()));
        assert_eq!(line["translations"]["matched"], records(&path), "{trace}");
        assert_eq!(
            (&line["commands"]["total"], &line["register_mismatches"]),
            (&commands.into(), &0.into()),
            "{trace}"
        );
    }
}

fn records(path: &Path) -> u64 {
    let mut trace = Trace::open(path).unwrap();
    let mut records = 0;
    while let Some(entry) = trace.next().unwrap() {
        records += u64::from(matches!(entry.record, Record::Translation(_)));
    }
    records
}

#[test]
fn the_json_object_has_every_field() {
    let output = replay(&["--bare", "--json"], &[&recorded("arm73-boot")]);
    let line = json(&output).remove(0);
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for field in [
        "trace",
        "vendor",
        "mode",
        "vms",
        "vm_switches",
        "translations",
        "commands",
        "guest_faults",
        "doorbells",
        "syncs",
        "nested_hwpts",
        "late_attaches",
        "tlb",
        "speculation",
        "latency_ns",
        "elapsed_s",
        "commands_per_second",
    ] {
        assert!(fields(&line).iter().any(|name| name == field), "{field} is missing in {line}");
    }
    for (part, expected) in [
        ("translations", &["checked", "matched", "mismatched", "records", "stage2_faults"][..]),
        ("commands", &["by_opcode", "local_stream", "total"]),
        ("syncs", &["guest", "hardware"]),
        ("nested_hwpts", &["created", "live", "reused"]),
        ("tlb", &["evictions", "hits", "misses", "s2_hits"]),
        ("speculation", &["atc_fills", "requests", "tlb_fills"]),
        ("latency_ns", &["p50", "p99"]),
    ] {
        let mut found = fields(&line[part]);
        found.sort();
        assert_eq!(found, expected, "{part}");
    }
    let by_opcode = line["commands"]["by_opcode"].as_object().unwrap();
    assert_eq!(by_opcode.values().filter_map(Value::as_u64).sum::<u64>(), line["commands"]["total"]);
    assert!(
        line["latency_ns"]["p50"].as_u64() > Some(0)
            && line["latency_ns"]["p50"].as_u64() <= line["latency_ns"]["p99"].as_u64()
    );
}

#[test]
fn commands_dropped_on_purpose_are_noticed() {
    let mismatched = |arguments: &[&str], name| {
        let output = replay(&[&["--bare", "--json"], arguments].concat(), &[&recorded(name)]);
        let mismatched = json(&output)[0]["translations"]["mismatched"].as_u64().unwrap();
        assert_eq!(status(&output), i32::from(mismatched > 0), "{}", stderr(&output));
        mismatched
    };
    let every = mismatched(&["--inject", "drop-invalidation:1"], "arm73-churn");
    let some = mismatched(&["--inject", "drop-invalidation:3"], "arm73-churn");
    assert!(every > some && some > 0, "{every} wrong without any, {some} with two of three");
    for other in ["amd73-churn", "vtd73-churn", "vtd73-legacy-strict"] {
        assert!(mismatched(&["--inject", "drop-invalidation:3"], other) > 0, "{other}");
    }
    assert!(mismatched(&["--atc", "--inject", "drop-atc"], "vtd73-ats-strict") > 0);
    assert_eq!(mismatched(&["--atc"], "arm73-ats-strict"), 0);
    assert!(mismatched(&["--atc", "--inject", "drop-atc"], "arm73-ats-strict") > 0);
    assert_eq!(mismatched(&["--inject", "drop-atc"], "arm73-ats-strict"), 0, "no device has a cache");
}

#[test]
fn a_wrong_answer_is_a_mismatch_and_is_explained() {
    // A guest that never enables its SMMU: its DMA passes untranslated, whatever this recording claims.
    let claim = Translation {
        stream: 8,
        pasid: None,
        iova: 0x1234_5000,
        output: 0x4000_0000,
        mask: 0,
        outcome: Outcome::Ok,
        access: 0,
        permissions: Some(3),
        stage: 1,
        fault: 0,
        cached: false,
        page_start: false,
    };
    let truth = Translation { outcome: Outcome::Disabled, output: claim.iova, stage: 0, permissions: None, ..claim };
    let records = [Record::Reset, Record::Translation(truth), Record::Translation(claim)];
    let (_folder, wrong) = file(&made(&header(), &records));
    let output = replay(&["--bare", "--json"], &[&wrong]);
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    assert_eq!(json(&output)[0]["translations"]["mismatched"], 1);
    for says in ["record 2", "stream 0x8", "iova 0x12345000", "expected OK 0x40000000", "got      DISABLED", "walk"] {
        assert!(stderr(&output).contains(says), "{says:?} is not in {}", stderr(&output));
    }

    // A refused trace wins over a mismatch, and the others are replayed all the same.
    let (_other, bad) = file(b"junk");
    let output = replay(&["--bare", "--json"], &[&bad, &wrong, &recorded("arm73-boot")]);
    assert_eq!(status(&output), 2);
    let lines = json(&output);
    assert_eq!(lines.len(), 3);
    assert!(lines[0]["refused"].is_string() && lines[0]["vendor"].is_null());
    assert_eq!(lines[2]["translations"]["matched"], 317);
}

#[test]
fn a_register_that_answers_otherwise_is_a_mismatch() {
    // The first read of an ID register is its value; a second one that differs cannot be matched.
    let read = |value| Record::MmioRead { offset: 0, value, size: 4 };
    let (_folder, path) = file(&made(&header(), &[Record::Reset, read(0x0d44_101b), read(0x0d44_101a)]));
    let output = replay(&["--bare", "--json"], &[&path]);
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    assert_eq!(json(&output)[0]["register_mismatches"], 1);
}
