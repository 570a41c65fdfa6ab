//! `viommu trace check`: is a recording whole, and what is in it?

use super::BAD_INPUT;
use crate::replay::vendor_name;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use viommu_trace::{Outcome, Problem, Record, Trace, TraceError};

/// Most distinct streams counted: one for each function of a PCI segment.
const MAX_STREAMS: usize = 1 << 16;

/// Arguments of `viommu trace check`.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// Recordings (.gtrace or .gtrace.zst)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object a recording and line
    #[arg(long)]
    json: bool,
}

/// What a recording holds.
#[derive(Debug, Serialize)]
struct Contents {
    trace: String,
    vendor: String,
    /// All records, END included.
    records: u64,
    /// The same, by the format's names.
    by_type: BTreeMap<&'static str, u64>,
    /// TRANSLATION records by how they ended.
    translations: BTreeMap<&'static str, u64>,
    /// Streams that TRANSLATION records name.
    streams: usize,
    /// MEM records that are not, or not only, RAM.
    outside_ram: u64,
}

/// A recording that is not whole.
#[derive(Debug, Serialize)]
struct Broken {
    trace: String,
    broken: String,
}

/// Checks all files; the exit status.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
    let mut status = 0;
    for path in &args.files {
        let line = match contents(path) {
            Ok(contents) => show(&contents, args.json),
            Err(error) => {
                eprintln!("{error}");
                status = status.max(if matches!(error.problem(), Problem::Open(_)) { BAD_INPUT } else { 1 });
                let broken = Broken { trace: path.display().to_string(), broken: error.problem().to_string() };
                if args.json { json(&broken) } else { String::new() }
            }
        };
        if !line.is_empty() && writeln!(io::stdout(), "{line}").is_err() {
            return BAD_INPUT.into();
        }
    }
    status.into()
}

fn contents(path: &Path) -> Result<Contents, TraceError> {
    let mut trace = Trace::open(path)?;
    let header = trace.header().clone();
    let mut contents = Contents {
        trace: path.display().to_string(),
        vendor: vendor_name(header.vendor),
        records: 0,
        by_type: BTreeMap::new(),
        translations: BTreeMap::new(),
        streams: 0,
        outside_ram: 0,
    };
    let mut streams = BTreeSet::new();
    while let Some(entry) = trace.next()? {
        contents.records += 1;
        *contents.by_type.entry(entry.record.name()).or_default() += 1;
        match entry.record {
            Record::Mem { gpa, bytes, .. } => {
                contents.outside_ram += u64::from(!header.in_ram(gpa, bytes.len() as u64));
            }
            Record::Translation(translation) => {
                *contents.translations.entry(outcome_name(translation.outcome)).or_default() += 1;
                if streams.len() < MAX_STREAMS {
                    streams.insert(translation.stream);
                }
            }
            _ => {}
        }
    }
    contents.streams = streams.len();
    Ok(contents)
}

/// The format's name of an outcome.
pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "OK",
        Outcome::Fault => "FAULT",
        Outcome::Bypass => "BYPASS",
        Outcome::Abort => "ABORT",
        Outcome::Disabled => "DISABLED",
    }
}

fn show(contents: &Contents, as_json: bool) -> String {
    if as_json {
        return json(contents);
    }
    let list = |counts: &BTreeMap<&str, u64>| {
        let named: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if named.is_empty() { "none".into() } else { named.join(", ") }
    };
    let Contents { trace, vendor, records, by_type, translations, streams, outside_ram } = contents;
    let outside = if *outside_ram > 0 { format!("\n  outside RAM   {outside_ram} MEM records") } else { String::new() };
    format!(
        "{trace}: whole ({vendor}, {records} records)\n  records       {}\n  translations  {} of {streams} streams{outside}",
        list(by_type),
        list(translations),
    )
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings")
}
