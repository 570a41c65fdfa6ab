//! The report for people.

use super::report::Report;
use super::report::device::DeviceReport;
use super::report::libvirt::Can;
use std::fmt::Write;

/// Width of the column of names.
const NAMES: usize = 18;
/// Width of the text beside it.
const TEXT: usize = 92;

/// The whole report.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    line(&mut text, "kernel", &report.kernel);
    if !report.commands.is_empty() {
        let there = report.commands.iter().filter(|command| command.there == Some(true)).count();
        let absent: Vec<_> =
            report.commands.iter().filter(|command| command.there == Some(false)).map(|c| c.name).collect();
        let all = report.commands.len();
        let without = if absent.is_empty() { String::new() } else { format!("; not {}", absent.join(", ")) };
        line(&mut text, "iommufd", &format!("{there} of the {all} commands of Linux 7.3{without}"));
    }
    for lacks in &report.lacks {
        line(&mut text, "lacks", lacks);
    }
    if let Some(memory) = report.pinned_memory {
        line(&mut text, "pinned memory", memory);
    }
    if !report.iommus.is_empty() {
        line(&mut text, "IOMMUs", &report.iommus.join(", "));
    }
    for device in &report.devices {
        text.push('\n');
        self::device(&mut text, device);
    }
    text.push('\n');
    text += &broken(&report.sentence, NAMES + TEXT).join("\n");
    text.push('\n');
    text
}

fn device(text: &mut String, device: &DeviceReport) {
    line(text, "device", &device.path);
    if let Some(problem) = &device.problem {
        return line(text, "  not asked", problem);
    }
    line(text, "  IOMMU", device.iommu.unwrap_or("unknown"));
    if let Some(nesting) = &device.nesting {
        line(text, "  nesting", &nesting.words);
    }
    if device.iommu.is_some() {
        line(text, "  vIOMMU types", &or_none(&device.viommu_types.join(", ")));
    }
    let pasid = if device.pasid_bits == 0 { "none".to_owned() } else { format!("{} bits", device.pasid_bits) };
    line(text, "  PASIDs", &pasid);
    let queues =
        device.hw_queues.as_ref().map(|own| format!("{} a guest, naming {} StreamIDs", own.queues, own.streams));
    line(text, "  HW queues", &queues.unwrap_or_else(|| "none".to_owned()));
    line(
        text,
        "  dirty tracking",
        match (device.dirty_tracking.here, device.dirty_tracking.with_nesting) {
            (true, true) => "yes, on nesting parents too",
            (true, false) => "yes, but not on nesting parents: a guest with nesting is not tracked",
            (false, _) => "no",
        },
    );
    line(text, "  ATS", &format!("{:?}", device.ats).to_lowercase());
    for erratum in &device.errata {
        line(text, "  erratum", &format!("{}: {}", erratum.name, erratum.words));
    }
    for note in &device.notes {
        line(text, "  note", note);
    }
    if !device.libvirt.is_empty() {
        line(text, "  libvirt", "<iommu model='smmuv3'><driver .../></iommu>");
    }
    for property in &device.libvirt {
        let value = match (property.can, &property.value) {
            (Can::Yes, Some(value)) => value.as_str(),
            _ => "no",
        };
        line(text, &format!("    {}", property.name), &format!("{value:<4} {}", property.words));
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".into() } else { text.into() }
}

/// A name, and text beside it.
fn line(text: &mut String, name: &str, words: &str) {
    for (index, words) in broken(words, TEXT).iter().enumerate() {
        let name = if index == 0 { name } else { "" };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{name:NAMES$}{words}");
    }
}

/// Text in lines of at most `width` characters, broken between words.
fn broken(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
