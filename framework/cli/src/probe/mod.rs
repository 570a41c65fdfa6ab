//! `viommu probe`: what this host's iommufd, and the IOMMUs behind it, can do for guests.
//!
//! ```text
//!   /dev/iommu, VFIO devices ─► ask ─► Facts ─► report ─► Report ─► table, or JSON with the facts
//!   a file of facts from elsewhere ──────┘
//! ```

mod ask;
mod facts;
mod report;
mod table;
#[cfg(test)]
mod tests;

use facts::{DeviceFacts, Facts, Outcome};
use report::{Report, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use viommu::backend::kernel::Calls;
use viommu::backend::kernel::sys::{RawDevice, RawIommufd};
use viommu::uapi::Errno;

/// Exit code if there is nothing to report on.
const NOTHING: u8 = 2;
/// Where VFIO's device nodes are.
const VFIO_DEVICES: &str = "/dev/vfio/devices";
/// Where the kernel lists IOMMUs.
const IOMMUS: &str = "/sys/class/iommu";

/// Arguments of `viommu probe`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Without --device, only the commands of the running kernel are probed, each with an argument too short to do anything.

A device named by --device is opened and bound to the iommufd for as long as it is asked, and is asked without being \
attached to anything: no DMA of it is let through or redirected. Binding a device that somebody uses fails, and is \
reported; it does not disturb the user. But while it is bound nobody else can use it, and when it is released vfio-pci \
may reset it. So name only devices that are bound to vfio-pci and idle. What is allocated to find out (IOAS, HWPT, \
vIOMMU, vDEVICE, event queues) is destroyed before the command ends.

Exit status: 0 if a report was made, 2 if there is no /dev/iommu or it may not be opened.")]
pub(crate) struct Args {
    /// The iommufd's device node
    #[arg(long, default_value = "/dev/iommu", value_name = "PATH")]
    iommu: PathBuf,
    /// A VFIO device to bind and ask (/dev/vfio/devices/vfioN); may be given again. See --help
    #[arg(long, value_name = "PATH")]
    device: Vec<PathBuf>,
    /// Report on facts that were found elsewhere: the JSON of another host's `viommu probe --json`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["iommu", "device"])]
    facts: Option<PathBuf>,
    /// One JSON object: the report, and the facts it is made of
    #[arg(long)]
    json: bool,
}

/// What `--json` prints, and `--facts` reads.
#[derive(Serialize, serde::Deserialize)]
struct Printed<R> {
    report: R,
    facts: Facts,
}

/// Runs `viommu probe`.
pub(crate) fn run(args: Args) -> ExitCode {
    let facts = match &args.facts {
        Some(file) => match read(file) {
            Ok(facts) => facts,
            Err(why) => {
                eprintln!("viommu: {}: {why}", file.display());
                return NOTHING.into();
            }
        },
        None => gather(&args.iommu, &args.device),
    };
    let report = report::report(&facts);
    let code = exit_code(&report);
    if args.json {
        // Strings and numbers only: nothing here can fail to be JSON.
        println!("{}", serde_json::to_string(&Printed { report: &report, facts }).unwrap_or_default());
    } else if code == 0 {
        print!("{}", table::table(&report));
    }
    if code != 0 {
        eprintln!("viommu: {}", report.sentence);
    }
    code.into()
}

fn exit_code(report: &Report) -> u8 {
    if report.state == State::Asked { 0 } else { NOTHING }
}

fn read(file: &Path) -> Result<Facts, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let printed: Printed<serde::de::IgnoredAny> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(printed.facts)
}

/// Names in a folder, in order; none if it cannot be read.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.path().display().to_string()).collect();
    names.sort();
    names
}

/// Asks this host.
fn gather(iommu: &Path, devices: &[PathBuf]) -> Facts {
    let kernel = |what: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{what}")).unwrap_or_default();
    let opened = RawIommufd::open(iommu);
    let last = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut facts = Facts {
        iommufd: iommu.display().to_string(),
        open: Outcome::from(&opened),
        kernel: kernel("osrelease").trim().to_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        commands: BTreeMap::new(),
        rlimit_mode: None,
        fault_queue: None,
        iommus: names(IOMMUS).into_iter().map(last).collect(),
        candidates: names(VFIO_DEVICES),
        devices: Vec::new(),
    };
    if let Ok(iommufd) = opened {
        let calls: Arc<dyn Calls> = Arc::new(iommufd);
        ask::iommufd(&mut facts, &calls);
        let known = facts.commands.values().any(|answer| !answer.is(Errno::NOTTY));
        // No device is touched for something that is no iommufd.
        facts.devices = devices.iter().filter(|_| known).map(|path| ask_device(path, &calls)).collect();
    }
    facts
}

fn ask_device(path: &Path, calls: &Arc<dyn Calls>) -> DeviceFacts {
    let name = path.display().to_string();
    match RawDevice::open(path) {
        Ok(device) => ask::device(name, calls, Arc::new(device)),
        Err(errno) => DeviceFacts::unasked(name, Outcome::from(&Err::<(), Errno>(errno))),
    }
}
