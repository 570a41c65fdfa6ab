//! `viommu trace dump`: a recording for people, with its commands decoded by the vendor's codec.

use super::BAD_INPUT;
use super::check::outcome_name;
use crate::replay::commands::{GuestCommands, waiting};
use crate::replay::image::Image;
use crate::replay::registers;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use viommu_plugin::Message;
use viommu_plugin_host::{CallError, LoadError, Plugin, SearchPath};
use viommu_trace::{Entry, Record, Role, Scan, Trace, TraceError, Translation, Vendor};

/// Bytes of memory shown of a record.
const SHOWN_BYTES: usize = 32;

/// Arguments of `viommu trace dump`.
#[derive(clap::Args)]
pub(crate) struct DumpArgs {
    /// A recording (.gtrace or .gtrace.zst)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only records FIRST to LAST; each may be left out, and a single number is one record
    #[arg(long, value_name = "FIRST..LAST", default_value = "..")]
    records: Range,
    /// The plugin that decodes the commands, by name or by path (a value with '/'); default: by the recording's vendor.
    /// Without a plugin, commands stay words
    #[arg(long, value_name = "NAME|PATH")]
    plugin: Option<String>,
}

/// Numbers of records, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str, empty| match text {
            "" => Ok(empty),
            digits => digits.parse().map_err(|_| format!("{digits:?} is not the number of a record")),
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let range = Self { first: number(first, 0)?, last: number(last, u64::MAX)? };
        if range.first <= range.last { Ok(range) } else { Err("the last record comes before the first".into()) }
    }
}

/// Why a dump stops.
#[derive(Debug, thiserror::Error)]
enum DumpError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Plugin(#[from] LoadError),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Prints the records asked for; the exit status.
pub(crate) fn run(args: &DumpArgs) -> ExitCode {
    match dump(args, &mut BufWriter::new(io::stdout().lock())) {
        // Whoever reads has seen enough.
        Err(DumpError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("viommu: {error}");
            BAD_INPUT.into()
        }
    }
}

fn dump(args: &DumpArgs, out: &mut impl Write) -> Result<(), DumpError> {
    let mut trace = Trace::open(&args.file)?;
    let header = trace.header().clone();
    let mut guest = guest(args, header.vendor, &args.file)?;
    let mut image = Image::new(&header);
    while let Some(entry) = trace.next()? {
        let shown = (args.records.first..=args.records.last).contains(&entry.number);
        if shown {
            line(&entry, guest.as_ref(), out)?;
        }
        match entry.record {
            Record::Mem { gpa, bytes, .. } => {
                image.put(gpa, bytes);
            }
            Record::MmioWrite { offset, value, size } => {
                if let Some(guest) = &mut guest {
                    let queue = guest.write(offset, size.into(), value)?;
                    for command in waiting(&queue, queue.pending, image.reader()).filter(|_| shown) {
                        let mut text = Message::default();
                        guest.codec.describe(command.words(), &mut text)?;
                        writeln!(out, "{:8}    {:#x}: {}", "", command.address, text.text())?;
                    }
                    guest.frontend.advance(queue.pending)?;
                }
            }
            Record::Reset => {
                if let Some(guest) = &mut guest {
                    guest.frontend.reset()?;
                }
            }
            _ => {}
        }
        if entry.number == args.records.last {
            break;
        }
    }
    Ok(out.flush()?)
}

/// What decodes the commands: `None` if no plugin was named and there is none.
fn guest(args: &DumpArgs, vendor: Vendor, path: &Path) -> Result<Option<GuestCommands>, DumpError> {
    let found = match (&args.plugin, vendor.name()) {
        (Some(named), _) => Plugin::find(named, &SearchPath::standard())?,
        (None, None) => return Ok(None),
        (None, Some(name)) => match Plugin::find(name, &SearchPath::standard()) {
            Ok(plugin) => plugin,
            Err(error) => {
                eprintln!("viommu: commands stay words: {error}");
                return Ok(None);
            }
        },
    };
    let trace = Trace::open(path)?;
    let header = trace.header().clone();
    let shown = registers::shown(&header, &Scan::of(trace)?, &found);
    Ok(Some(GuestCommands::new(&found, &shown)?))
}

fn line(entry: &Entry<'_>, guest: Option<&GuestCommands>, out: &mut impl Write) -> Result<(), DumpError> {
    let mut line = format!("{:8} {:<11}", entry.number, entry.record.name()).into_bytes();
    describe(entry, guest, &mut line)?;
    out.write_all(line.trim_ascii_end())?;
    Ok(writeln!(out)?)
}

/// What a record says, beside its number and type.
fn describe(entry: &Entry<'_>, guest: Option<&GuestCommands>, out: &mut impl Write) -> Result<(), DumpError> {
    match entry.record {
        Record::MmioWrite { offset, value, size } | Record::MmioRead { offset, value, size } => {
            let register = guest.map(|guest| guest.frontend.register_name(offset)).transpose()?.flatten();
            write!(out, " {} {value:#x} ({size} bytes)", Register(register, offset))?;
        }
        Record::Mem { role, gpa, bytes } | Record::IommuWrite { role, gpa, bytes } => {
            write!(out, " {gpa:#x} {} bytes, {}:", bytes.len(), role_name(role))?;
            for word in bytes[..bytes.len().min(SHOWN_BYTES)].chunks(8) {
                write!(out, " {:#x}", word.iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte)))?;
            }
            write!(out, "{}", if bytes.len() > SHOWN_BYTES { " .." } else { "" })?;
        }
        Record::Translation(translation) => write!(out, " {}", Dma(&translation))?,
        Record::Mark(text) | Record::Note(text) => write!(out, " {}", String::from_utf8_lossy(text).escape_debug())?,
        Record::Time(nanoseconds) => {
            write!(out, " {}.{:09} s", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)?
        }
        Record::Irq { line, message: None } => write!(out, " line {line}")?,
        Record::Irq { message: Some((address, data)), .. } => write!(out, " {data:#x} to {address:#x}")?,
        Record::Unknown { kind } => write!(out, " type {kind}")?,
        Record::Reset | Record::End => {}
    }
    Ok(())
}

/// A register's name in the manual, if it has one, and its offset.
struct Register(Option<&'static str>, u64);

impl std::fmt::Display for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(name) => write!(f, "{name} ({:#x})", self.1),
            None => write!(f, "{:#x}", self.1),
        }
    }
}

/// A translation, with only the fields that say something.
struct Dma<'a>(&'a Translation);

impl std::fmt::Display for Dma<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dma = self.0;
        write!(f, "stream {:#x}", dma.stream)?;
        if let Some(pasid) = dma.pasid {
            write!(f, " pasid {pasid:#x}")?;
        }
        write!(f, " iova {:#x}: {}", dma.iova, outcome_name(dma.outcome))?;
        match dma.outcome {
            viommu_trace::Outcome::Fault => write!(f, " {:#x}", dma.fault)?,
            viommu_trace::Outcome::Abort => {}
            _ => write!(f, " {:#x}", dma.output)?,
        }
        if dma.page_start {
            f.write_str(" (start of its page)")?;
        }
        if dma.mask != 0 {
            write!(f, ", mask {:#x}", dma.mask)?;
        }
        f.write_str(["", ", read", ", write"].get(usize::from(dma.access)).unwrap_or(&""))?;
        if let Some(permissions) = dma.permissions {
            write!(f, ", permissions {}", ["none", "r", "w", "rw"][usize::from(permissions & 3)])?;
        }
        f.write_str(if dma.cached { ", cached" } else { "" })
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::QUEUE => "command",
        Role::STREAM_TABLE => "stream table",
        Role::CONTEXT => "context",
        Role::PAGE_TABLE => "page table",
        Role::EVENT => "event",
        Role::INTERRUPT => "interrupt table",
        Role::STATUS => "status",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_numbers_of_records() {
        let range = |text: &str| text.parse::<Range>().map(|range| (range.first, range.last));
        assert_eq!(range(".."), Ok((0, u64::MAX)));
        assert_eq!(range("3..7"), Ok((3, 7)));
        assert_eq!(range("3.."), Ok((3, u64::MAX)));
        assert_eq!(range("..7"), Ok((0, 7)));
        assert_eq!(range("5"), Ok((5, 5)));
        assert!(range("7..3").is_err() && range("x").is_err() && range("-1").is_err());
    }
}
