//! `viommu referee`: somebody else's IOMMU judges the software model.

mod qemu;

use clap::Subcommand;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Referee,
}

#[derive(Subcommand, Debug)]
enum Referee {
    /// Run random guests on the software SMMUv3 and on QEMU's at once, and compare every answer
    Qemu(qemu::Args),
}

pub(crate) fn run(args: Args) -> ExitCode {
    match args.command {
        Referee::Qemu(args) => qemu::run(&args),
    }
}
