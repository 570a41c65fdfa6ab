//! `viommu conformance`: Linux's object rules of iommufd, row by row and in random sequences.

mod bless;
mod rows;
mod sequences;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use viommu_conformance::{Kernel, Memory, Open, Software, errno_name};

/// Exit status of a command line that cannot be carried out.
const BAD_USE: u8 = 2;
/// Memory that rows map, and their bitmaps behind it. Nothing of it is there before it is touched.
const MEMORY: u64 = 200 << 20;

/// Run the object rules of Linux's iommufd, a row each, on the software iommufd or on a kernel's; or random sequences.
///
/// A row is a stimulus on a fresh iommufd with the mock driver, and what must be seen then: the errno, the count, the
/// event, the slots. docs/conformance.md has them all. A kernel needs CONFIG_IOMMUFD_TEST for its part, and
/// CONFIG_FAULT_INJECTION for rows in which allocations fail. Rows about vendors' drivers run on the software iommufd only.
///
/// A sequence is random commands on a fresh iommufd, the same for the same seed and number. With --kernel each is run on
/// the kernel and on the software iommufd, and the first difference of each kind is shrunk and shown. With --log, what the
/// kernel (without --kernel: the software iommufd) did is written as a hash a sequence, with --against compared with such a
/// file. A file that another version's sequences are in is refused, not compared.
///
/// Exit status: 0 if every row passed and no sequence differs, 1 if not, 2 if the command line is wrong. The last line of
/// standard output is the verdict.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A kernel's iommufd (/dev/iommu) instead of the software one
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Only rows like this: C6.*, C6.2?, C7.13
    #[arg(long, value_name = "GLOB", default_value = "*")]
    rows: String,
    /// Print what was seen as one JSON array
    #[arg(long, conflicts_with = "sequences")]
    json: bool,
    /// Show every row, not only those that failed
    #[arg(long, conflicts_with = "sequences")]
    all: bool,
    /// Write the tables of this document anew: this process, and a kernel by what its --json printed (see --seen)
    #[arg(long, value_name = "DOCUMENT", conflicts_with_all = ["sequences", "kernel"])]
    bless: Option<PathBuf>,
    /// What a kernel's run printed with --json; without it the document's kernel column stays
    #[arg(long, value_name = "FILE", requires = "bless")]
    seen: Option<PathBuf>,
    /// Run so many random sequences instead of the rows
    #[arg(long, value_name = "N")]
    sequences: Option<NonZeroU64>,
    /// The seed of the sequences
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// The first sequence
    #[arg(long, value_name = "K", default_value_t = 0)]
    first: u64,
    /// Write a hash for each sequence
    #[arg(long, value_name = "FILE", requires = "sequences")]
    log: Option<PathBuf>,
    /// Compare with the hashes in this file
    #[arg(long, value_name = "FILE", requires = "sequences")]
    against: Option<PathBuf>,
    /// Show each step of each sequence
    #[arg(long, requires = "sequences")]
    steps: bool,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let done =
        Memory::new(MEMORY).map_err(|errno| format!("no memory: {}", errno_name(errno))).and_then(|memory| {
            match (&args.bless, args.sequences) {
                (Some(document), _) => bless::run(document, args.seen.as_deref(), &memory),
                (None, Some(count)) => sequences::run(&args, count.get(), &memory),
                (None, None) => rows::run(&args, &memory),
            }
        });
    done.unwrap_or_else(|error| {
        eprintln!("viommu conformance: {error}");
        ExitCode::from(BAD_USE)
    })
}

/// What the rows and sequences run on.
fn opened<'a>(args: &Args, memory: &'a Memory) -> Result<Box<dyn Open + 'a>, String> {
    let Some(path) = &args.kernel else { return Ok(Box::new(Software)) };
    let kernel = Kernel::new(path, memory);
    kernel.open().map_err(|errno| format!("{}: {}", path.display(), errno_name(errno)))?;
    Ok(Box::new(kernel))
}
