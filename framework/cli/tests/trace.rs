//! `viommu trace` from outside.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use viommu_trace::{Header, Record, Vendor, Writer};

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces").join(format!("{name}.gtrace.zst"))
}

fn trace(arguments: &[&str], files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).arg("trace").args(arguments).args(files).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn made(header: &Header, records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = Writer::plain(Vec::new(), header).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.gtrace");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn a_whole_recording_is_counted() {
    let output = trace(&["check", "--json"], &[&recorded("arm73-boot"), &recorded("amd73-boot")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // As counted by the recordings' own tools.
    assert_eq!((&lines[0]["vendor"], &lines[0]["streams"]), (&"arm-smmuv3".into(), &7.into()));
    assert_eq!(lines[0]["by_type"]["TRANSLATION"], 317);
    assert_eq!(lines[1]["vendor"], "amd-vi");
    assert_eq!((&lines[1]["translations"]["OK"], &lines[1]["translations"]["FAULT"]), (&487.into(), &14.into()));
    for line in &lines {
        let sum: u64 = line["by_type"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(line["records"], sum);
        assert_eq!((&line["by_type"]["END"], &line["outside_ram"]), (&1.into(), &0.into()));
    }
    let people = text(&trace(&["check"], &[&recorded("arm73-boot")]).stdout);
    assert!(people.contains("arm73-boot.gtrace.zst: whole (arm-smmuv3, ") && people.contains("OK 317"), "{people}");
}

#[test]
fn a_recording_that_is_cut_short_or_none_fails() {
    let whole = made(&Header::new(Vendor::AMD_VI).ram(0, 0x1000), &[Record::Mark(b"boot")]);
    for (bytes, says) in [
        (&whole[..whole.len() - 8], "cut short"),
        (&whole[..whole.len() - 3], "cut short"),
        (b"#!/bin/sh\n", "not a trace"),
    ] {
        let (_folder, path) = file(bytes);
        let output = trace(&["check"], &[&path, &recorded("arm73-boot")]);
        assert_eq!(output.status.code(), Some(1), "{says}");
        assert!(text(&output.stderr).contains(says) && text(&output.stdout).contains("arm73-boot"), "{output:?}");
        let output = trace(&["check", "--json"], &[&path]);
        let broken: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(broken["broken"].as_str().unwrap().contains(says), "{broken}");
        assert_eq!(trace(&["dump"], &[&path]).status.code(), Some(2), "{says}");
    }
    let nowhere = Path::new("/nowhere/at/all.gtrace");
    assert_eq!(trace(&["check"], &[nowhere]).status.code(), Some(2));
    assert_eq!(trace(&["dump"], &[nowhere]).status.code(), Some(2));
}

#[test]
fn a_dump_has_a_line_a_record_and_the_commands_behind_a_doorbell() {
    let output = trace(&["dump"], &[&recorded("arm73-boot")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let dump = text(&output.stdout);
    let (records, commands): (Vec<_>, Vec<_>) = dump.lines().partition(|line| !line.starts_with("            "));
    assert_eq!(commands.len(), 145, "every command is decoded");
    for (number, line) in records.iter().enumerate() {
        assert!(line.trim_start().starts_with(&format!("{number} ")), "{line}");
    }
    assert!(records.last().unwrap().ends_with("END"), "{:?}", records.last());
    assert!(commands.iter().any(|line| line.contains("TLBI_NH_VA")), "{commands:?}");
    assert!(records.iter().any(|line| line.contains("MMIO_WRITE") && line.contains("CMDQ_PROD")), "{dump}");
    assert!(records.iter().any(|line| line.contains("stream 0x10 iova 0x")), "{dump}");
}

#[test]
fn a_dump_of_some_records_is_part_of_the_whole() {
    let dump = |range: &str| text(&trace(&["dump", "--records", range], &[&recorded("arm73-boot")]).stdout);
    let whole = dump("..");
    let number = |line: &str| line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    let mut wanted = String::new();
    let mut current = 0;
    for line in whole.lines() {
        current = number(line).unwrap_or(current);
        if (100..=160).contains(&current) {
            wanted += &format!("{line}\n");
        }
    }
    assert_eq!(dump("100..160"), wanted);
    assert_eq!(dump("0").lines().count(), 1);
    let wrong = trace(&["dump", "--records", "7..3"], &[&recorded("arm73-boot")]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_recording_of_a_private_vendor_is_dumped_without_its_commands() {
    let page = [7; 64];
    let records = [Record::Mem { role: viommu_trace::Role::QUEUE, gpa: 0x40, bytes: &page }];
    let (_folder, path) = file(&made(&Header::new(Vendor(0x8001)).ram(0, 0x1000), &records));
    let output = trace(&["dump"], &[&path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let dump = text(&output.stdout);
    assert_eq!(dump.lines().count(), 2, "{dump}");
    assert!(dump.contains("0x40 64 bytes, command: 0x707070707070707 ") && dump.contains(".."), "{dump}");
    let missing = trace(&["dump", "--plugin", "nonesuch"], &[&path]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("libnonesuch_plugin.so"));
}
