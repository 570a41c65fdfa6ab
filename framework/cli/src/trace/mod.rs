//! `viommu trace`: recordings looked into, checked and made up, without an IOMMU.

mod check;
mod dump;
mod generate;

use std::process::ExitCode;

/// Arguments of `viommu trace`.
#[derive(clap::Args)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(clap::Subcommand)]
enum TraceCommand {
    /// Print a recording, one line a record, and the commands behind each doorbell; exit 2 if it cannot be read to its
    /// end
    Dump(dump::DumpArgs),
    /// Read recordings to their END and count what is in them; exit 1 if one is malformed or cut short, 2 if one
    /// cannot be opened
    Check(check::CheckArgs),
    /// Write the recording of a synthetic guest, seeded: one that never ran, with the answers of an oracle of its own
    Generate(generate::GenerateArgs),
}

/// Exit code for bad input.
const BAD_INPUT: u8 = 2;

/// Runs `viommu trace`.
pub(crate) fn run(args: TraceArgs) -> ExitCode {
    match args.command {
        TraceCommand::Dump(args) => dump::run(&args),
        TraceCommand::Check(args) => check::run(&args),
        TraceCommand::Generate(args) => generate::run(&args),
    }
}
