//! `viommu replay`: recorded guests, and every DMA compared with what their own IOMMU answered.
//!
//! A trace is scanned once (is it whole? which ID registers and streams?), its vendor's plugin is loaded, and then it
//! is replayed: bare, or through the framework.

mod args;
mod bare;
pub(crate) mod commands;
mod compare;
mod drop;
pub(crate) mod image;
mod latency;
mod nested;
mod progress;
pub(crate) mod registers;
mod report;

pub(crate) use args::Args;
pub(crate) use report::vendor_name;

use report::{Refused, Report};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use viommu_plugin_host::{CallError, LoadError, Plugin, SearchPath};
use viommu_trace::{Scan, Trace, TraceError, Vendor};

/// Why a trace is not replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The trace is none, is cut short, or is malformed.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// There is no usable plugin.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// A private vendor code names no plugin.
    #[error("vendor {:#x} is no format's: name its plugin with --plugin", .0.0)]
    PrivateVendor(Vendor),
    /// A plugin for other hardware.
    #[error("plugin {plugin} is for vendor {of}, the trace is of vendor {}", .trace.0)]
    OtherVendor {
        /// The plugin's name.
        plugin: String,
        /// Its vendor code.
        of: u32,
        /// The trace's.
        trace: Vendor,
    },
    /// The plugin refused, failed or answered nonsense.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The software IOMMU does not come to rest.
    #[error("record {record}: the software IOMMU consumed {commands} commands after one register write")]
    Endless {
        /// Number of the record.
        record: u64,
        /// Commands it consumed.
        commands: u64,
    },
    /// It is not known which commands of this vendor to drop.
    #[error("it is not known which commands of {} --inject would drop", report::vendor_name(*.0))]
    Injection(Vendor),
    /// A fault on a way that this guest's commands do not take.
    #[error("--inject {} breaks TLB invalidations on the physical queue, and this guest is served in shadow mode", .0.name())]
    NotInShadow(args::Injection),
    /// The framework refused or failed.
    #[error("{0}")]
    Framework(#[from] viommu::Error),
    /// The framework's parts failed before there were objects.
    #[error("{0}")]
    Setup(#[from] viommu::Cause),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(String),
    /// The guest's RAM cannot be had.
    #[error("guest RAM of {size:#x} bytes at {base:#x}: {what}")]
    Memory {
        /// First guest physical address.
        base: u64,
        /// Bytes.
        size: u64,
        /// Why not.
        what: String,
    },
    /// A machine's saved state is none.
    #[error("a machine cannot move: {0}")]
    Saved(#[from] viommu::save::StateError),
    /// A host was not torn down whole.
    #[error("a host that all machines had left was not empty: {0}")]
    Leftovers(String),
    /// A guest would wait for ever.
    #[error("record {record}: the queue of VM {machine} did not come to rest within {limit:?}")]
    Stuck {
        /// Number of the record.
        record: u64,
        /// The machine.
        machine: u32,
        /// How long it waited.
        limit: std::time::Duration,
    },
}

/// A trace to be replayed, as far as it is known before its first record.
pub(crate) struct Job<'a> {
    /// The options.
    pub(crate) args: &'a Args,
    /// The trace's file.
    pub(crate) path: &'a Path,
    /// What a first pass over it found. The file was whole then.
    pub(crate) scan: Scan,
    /// The vendor's plugin.
    pub(crate) plugin: Plugin,
}

/// Replays all traces; the exit status.
pub(crate) fn run(args: Args) -> ExitCode {
    if let Err(reason) = args.check() {
        eprintln!("error: {reason}");
        return ExitCode::from(2);
    }
    if let Some(address) = args.metrics {
        let exporter = metrics_exporter_prometheus::PrometheusBuilder::new().with_http_listener(address);
        if let Err(error) = exporter.install() {
            eprintln!("error: metrics cannot be served at {address}: {error}");
            return ExitCode::from(2);
        }
        viommu::metrics::describe();
    }
    let mut status = 0;
    for path in &args.traces {
        let outcome = match replay(&args, path) {
            Ok(report) => {
                report.explain(&mut io::stderr().lock());
                status = status.max(u8::from(!report.summary.is_clean()));
                if args.json { report.summary.json() } else { report.summary.to_string() }
            }
            Err((vendor, error)) => {
                match &error {
                    ReplayError::Trace(named) => eprintln!("refused: {named}"),
                    reason => eprintln!("refused: {}: {reason}", path.display()),
                }
                status = 2;
                let refused = Refused::new(path, vendor, &error);
                if args.json { refused.json() } else { String::new() }
            }
        };
        if !outcome.is_empty() && writeln!(io::stdout(), "{outcome}").is_err() {
            return ExitCode::from(2);
        }
    }
    ExitCode::from(status)
}

fn replay(args: &Args, path: &Path) -> Result<Report, (Option<Vendor>, ReplayError)> {
    let trace = Trace::open(path).map_err(|error| (None, error.into()))?;
    let vendor = trace.header().vendor;
    prepare(args, path, trace)
        .and_then(|job| if args.bare { bare::replay(&job) } else { nested::replay(&job) })
        .map_err(|error| (Some(vendor), error))
}

fn prepare<'a>(args: &'a Args, path: &'a Path, trace: Trace) -> Result<Job<'a>, ReplayError> {
    let vendor = trace.header().vendor;
    let scan = Scan::of(trace)?;
    let name = match (&args.plugin, vendor.name()) {
        (Some(given), _) => given.as_str(),
        (None, Some(name)) => name,
        (None, None) => return Err(ReplayError::PrivateVendor(vendor)),
    };
    let plugin = Plugin::find(name, &SearchPath::standard())?;
    let info = plugin.info();
    if info.vendor != u32::from(vendor.0) {
        return Err(ReplayError::OtherVendor { plugin: info.name.clone(), of: info.vendor, trace: vendor });
    }
    Ok(Job { args, path, scan, plugin })
}
