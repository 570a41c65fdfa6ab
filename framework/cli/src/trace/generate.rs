//! `viommu trace generate`: the recording of a guest that never ran.

use super::BAD_INPUT;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use viommu_synth::{Kind, Recipe, generate};

/// Arguments of `viommu trace generate`.
#[derive(clap::Args)]
pub(crate) struct GenerateArgs {
    /// Whose IOMMU, and how hardware can serve the guest: amd-nested, amd-shadow, vtd-nested, vtd-shadow, arm-nested
    kind: Kind,
    /// What the guest does; the same seed and steps give the same file
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the guest lives
    #[arg(long, default_value_t = 2000)]
    steps: u32,
    /// The file to write; compressed if its name ends in .zst
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Writes the file.
pub(crate) fn run(args: &GenerateArgs) -> ExitCode {
    match write(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: cannot be written: {error}", args.output.display());
            BAD_INPUT.into()
        }
    }
}

fn write(args: &GenerateArgs) -> io::Result<()> {
    let &GenerateArgs { kind, seed, steps, ref output } = args;
    let compressed = output.extension().is_some_and(|extension| extension == "zst");
    let recipe = Recipe { kind, seed, steps, compressed };
    generate(&recipe, BufWriter::new(File::create(output)?))?.flush()
}
