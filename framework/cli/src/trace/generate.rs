//! `viommu trace generate`: the recording of a guest that never ran.

use super::BAD_INPUT;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use viommu_synth::{Kind, Recipe, generate, generate_toy};

/// Arguments of `viommu trace generate`.
#[derive(clap::Args)]
pub(crate) struct GenerateArgs {
    /// Whose IOMMU, and how hardware can serve the guest: amd-nested, amd-shadow, vtd-nested, vtd-shadow, arm-nested;
    /// or toy, the hardware of the examples of plugins
    kind: Guest,
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

/// Whose guest.
#[derive(Debug, Clone, Copy)]
enum Guest {
    Of(Kind),
    Toy,
}

impl FromStr for Guest {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "toy" { Ok(Self::Toy) } else { name.parse().map(Self::Of).map_err(|known| format!("{known}, toy")) }
    }
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
    let file = BufWriter::new(File::create(output)?);
    let mut file = match kind {
        Guest::Of(kind) => generate(&Recipe { kind, seed, steps, compressed }, file)?,
        Guest::Toy => generate_toy(seed, steps, compressed, file)?,
    };
    file.flush()
}
