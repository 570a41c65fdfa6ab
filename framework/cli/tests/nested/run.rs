//! One run of the built binary, and what must hold for every line it prints.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Recordings of guests that no vIOMMU can serve, and what the refusal names: one owns stage 2 itself, two have tables
/// that cannot be nested and do not announce what they map in them.
pub(crate) const REFUSED: [(&str, &str); 3] =
    [("arm73-s2-strict", "IDR0.S1P"), ("amd73-lazy", "NpCache"), ("vtd73-legacy-strict", "CAP.CM")];

/// Recordings of the other vendors that a test of every option can afford; `.ci/replay-all` has them all.
pub(crate) const OTHERS: [&str; 6] =
    ["amd73-boot", "amd73-churn", "amd73-passthrough", "vtd73-boot", "vtd73-churn", "vtd73-passthrough"];

/// The file of a recording in the repository.
pub(crate) fn recorded(name: &str) -> PathBuf {
    folder().join(format!("{name}.gtrace.zst"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces")
}

/// Names of all Arm recordings in the repository but the refused one.
pub(crate) fn arm() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name());
    let name = |file: std::ffi::OsString| Some(file.to_str()?.strip_suffix(".gtrace.zst")?.to_owned());
    let mut names: Vec<_> = files.filter_map(name).collect();
    names.sort();
    names.retain(|name| name.starts_with("arm73-"));
    let before = names.len();
    names.retain(|name| name != REFUSED[0].0);
    assert_eq!(names.len() + 1, before, "{REFUSED:?} is among the recordings");
    names
}

/// [`arm`] and [`OTHERS`].
pub(crate) fn all() -> Vec<String> {
    arm().into_iter().chain(OTHERS.map(str::to_owned)).collect()
}

/// `viommu replay --json` with these arguments, not started.
pub(crate) fn command(arguments: &[&str], traces: &[impl AsRef<str>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viommu"));
    command.args(["replay", "--json"]).args(arguments);
    command.args(traces.iter().map(|name| recorded(name.as_ref())));
    command
}

/// What it printed, and how it ended.
pub(crate) struct Run {
    pub(crate) status: i32,
    /// One object a trace, in the order of the traces.
    pub(crate) lines: Vec<Line>,
    pub(crate) stderr: String,
}

/// Runs it to its end, and checks what holds for every run.
pub(crate) fn replay(arguments: &[&str], traces: &[impl AsRef<str>]) -> Run {
    let Output { status, stdout, stderr } = command(arguments, traces).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let status = status.code().unwrap_or_else(|| panic!("{arguments:?}: ended by a signal: {stderr}"));
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    let text = String::from_utf8(stdout).unwrap();
    let lines: Vec<_> = text.lines().map(|line| Line(serde_json::from_str(line).unwrap())).collect();
    let run = Run { status, lines, stderr };
    if !run.lines.is_empty() {
        assert_eq!(run.lines.len(), traces.len(), "{arguments:?}: a line a trace: {}", run.stderr);
    }
    for (line, name) in run.lines.iter().zip(traces) {
        let (trace, name) = (line.0["trace"].as_str().unwrap(), name.as_ref());
        assert!(trace.ends_with(&format!("{name}.gtrace.zst")), "{trace} is not {name}");
        if !line.is_refused() {
            line.adds_up();
        }
    }
    run
}

impl Run {
    /// The line of the only trace.
    pub(crate) fn line(&self) -> &Line {
        assert_eq!(self.lines.len(), 1, "{}", self.stderr);
        &self.lines[0]
    }

    /// Asserts that every DMA and every register was as recorded.
    pub(crate) fn is_clean(&self) {
        for line in &self.lines {
            assert!(!line.is_refused(), "{line:?}");
            assert_eq!(line.count("/translations/mismatched"), 0, "{line:?}\n{}", self.stderr);
            assert_eq!(line.count("/register_mismatches"), 0, "{line:?}\n{}", self.stderr);
            assert_eq!(line.count("/tlb/evictions"), 0, "{line:?}");
            assert_eq!(line.0["guest_faults"], Value::Object(Default::default()), "{line:?}");
        }
        assert_eq!(self.status, 0, "{}", self.stderr);
    }
}

/// One JSON object.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) Value);

impl Line {
    /// The number at a JSON pointer.
    pub(crate) fn count(&self, at: &str) -> u64 {
        let number = self.0.pointer(at).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number {at} in {self:?}"))
    }

    /// Whether it is about this recording.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        self.0["trace"].as_str().is_some_and(|trace| trace.contains(name))
    }

    /// Whether its guest made no DMA that was recorded.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_of("amd73-passthrough") || self.is_of("vtd73-passthrough")
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.0.get("refused").is_some()
    }

    /// Mismatches of each virtual machine.
    pub(crate) fn mismatched_by_vm(&self) -> Vec<u64> {
        self.0["mismatched_by_vm"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect()
    }

    /// The object without what depends on the clock.
    pub(crate) fn without_times(&self) -> Value {
        let mut object = self.0.as_object().unwrap().clone();
        for timing in ["latency_ns", "elapsed_s", "commands_per_second"] {
            assert!(object.remove(timing).is_some(), "{timing}");
        }
        Value::Object(object)
    }

    /// What holds for every replay, clean or not.
    fn adds_up(&self) {
        let [records, checked, matched, mismatched, stage2_faults] =
            ["records", "checked", "matched", "mismatched", "stage2_faults"]
                .map(|part| self.count(&format!("/translations/{part}")));
        assert_eq!(records == 0, self.is_idle(), "{self:?}");
        assert_eq!(checked, records * self.count("/vms"), "{self:?}");
        assert_eq!(checked, matched + mismatched + stage2_faults, "{self:?}");
        assert_eq!(mismatched, self.mismatched_by_vm().iter().sum::<u64>(), "{self:?}");
        assert_eq!(self.mismatched_by_vm().len() as u64, self.count("/vms"), "{self:?}");
        let [vendor, mode] = match () {
            () if self.is_of("amd73-") => ["amd-vi", "shadow"],
            () if self.is_of("vtd73-") => ["intel-vtd", "nested"],
            () => ["arm-smmuv3", "nested"],
        };
        assert_eq!((&self.0["vendor"], &self.0["mode"]), (&vendor.into(), &mode.into()));
        let by_opcode = self.0["commands"]["by_opcode"].as_object().unwrap();
        let total: u64 = by_opcode.values().filter_map(Value::as_u64).sum();
        assert_eq!(total, self.count("/commands/total"), "{self:?}");
    }
}
