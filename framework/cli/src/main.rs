//! The `viommu` command: recorded guests through the whole of viommu, and vendor plugins listed and checked.
//!
//! ```text
//!   viommu replay TRACE..  ─► viommu-trace ─► Host, vIOMMUs, ring (viommu) ─► the plugin's model ─► every DMA compared
//!   viommu plugins [check] ─► SearchPath ─► a child process for each check ─► viommu-plugin-check
//!   viommu probe           ─► /dev/iommu ─► facts ─► report
//!   viommu referee qemu    ─► random guests on the model and on QEMU's SMMUv3 at once (viommu-qemu), every answer compared
//!   viommu trace dump|check ─► viommu-trace, commands decoded by the plugin's codec
//! ```
//!
//! ```sh
//! cargo run --release -- replay traces/arm73-boot.gtrace.zst
//! cargo run --release -- plugins check arm-smmuv3
//! ```
//! The first is run by `.ci/run`, both by `framework/cli/tests`. Errors are for people, on standard error; what a
//! program reads (`--json`) is on standard output.
#![forbid(unsafe_code)]

mod conformance;
#[cfg(feature = "guests")]
mod plugins;
mod probe;
#[cfg(feature = "guests")]
mod referee;
#[cfg(feature = "guests")]
mod replay;
#[cfg(feature = "guests")]
mod sim;
#[cfg(feature = "guests")]
mod trace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Virtual IOMMUs for guests: nested translation objects, guest invalidations to the hardware queue.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the object rules of Linux's iommufd on the software iommufd or on a kernel's
    Conformance(conformance::Args),
    /// List the plugins on the search path, or check one
    #[cfg(feature = "guests")]
    Plugins(plugins::PluginsArgs),
    /// Ask this host's iommufd, and devices that are named, what they can do for guests
    Probe(probe::Args),
    /// Have QEMU's IOMMU judge the software model
    #[cfg(feature = "guests")]
    Referee(referee::Args),
    /// Replay recorded guests and compare every DMA with the recording
    #[cfg(feature = "guests")]
    Replay(replay::Args),
    /// Run random guests and faults in a deterministic simulation and judge every DMA
    #[cfg(feature = "guests")]
    Sim(sim::Args),
    /// Look into recordings
    #[cfg(feature = "guests")]
    Trace(trace::TraceArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "guests")]
    log(&cli.command);
    match cli.command {
        Command::Conformance(args) => conformance::run(args),
        #[cfg(feature = "guests")]
        Command::Plugins(args) => plugins::run(args),
        Command::Probe(args) => probe::run(args),
        #[cfg(feature = "guests")]
        Command::Referee(args) => referee::run(args),
        #[cfg(feature = "guests")]
        Command::Replay(args) => replay::run(args),
        #[cfg(feature = "guests")]
        Command::Sim(args) => sim::run(args),
        #[cfg(feature = "guests")]
        Command::Trace(args) => trace::run(args),
    }
}

/// What the framework logs goes to standard error.
#[cfg(feature = "guests")]
fn log(command: &Command) {
    use tracing_subscriber::EnvFilter;
    // A simulation is full of what would be worth a warning elsewhere.
    let quiet = if matches!(command, Command::Sim(_) | Command::Referee(_)) { "off" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
