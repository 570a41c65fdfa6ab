//! Everything that happened, in the order of the seeds, whatever thread ran them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use viommu_sim::{Outcome, Plan, Vendor};

/// Where it is written.
pub(super) struct Log(BufWriter<Box<dyn Write>>);

impl Log {
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|error| format!("{}: {error}", path.display()))?)
        };
        Ok(Self(BufWriter::new(to)))
    }

    /// One seed: its plan, its lines, its end.
    pub(super) fn seed(&mut self, vendor: Vendor, seed: u64, outcome: &Outcome) -> io::Result<()> {
        writeln!(self.0, "seed {seed}\n{}", Plan::of(vendor, seed))?;
        for line in &outcome.log {
            writeln!(self.0, "{line}")?;
        }
        let end = outcome.violation.as_ref().map_or_else(|| "passed".to_owned(), ToString::to_string);
        writeln!(self.0, "seed {seed}: {end}, {} steps, sum {:016x}", outcome.steps, outcome.fingerprint)?;
        self.0.flush()
    }
}
