//! `viommu conformance`: Linux's object rules of iommufd, row by row.

mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status of a command line that cannot be carried out.
const BAD_USE: u8 = 2;
/// Memory that rows map, and their bitmaps behind it. Nothing of it is there before it is touched.
const MEMORY: u64 = 200 << 20;

/// Run the object rules of Linux's iommufd, a row each, on the software iommufd or on a kernel's.
///
/// A row is a stimulus on a fresh iommufd with the mock driver, and what must be seen then: the errno, the count, the
/// event, the slots. docs/conformance.md has them all. A kernel needs CONFIG_IOMMUFD_TEST for its part.
///
/// Exit status: 0 if every row passed, 1 if one failed, 2 if the command line is wrong. The last line of standard output
/// is the verdict.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A kernel's iommufd (/dev/iommu) instead of the software one
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Only rows like this: C6.*, C6.2?, C7.13
    #[arg(long, value_name = "GLOB", default_value = "*")]
    rows: String,
    /// Print what was seen as one JSON array
    #[arg(long)]
    json: bool,
    /// Show every row, not only those that failed
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: Args) -> ExitCode {
    match rows::run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("viommu conformance: {error}");
            ExitCode::from(BAD_USE)
        }
    }
}
