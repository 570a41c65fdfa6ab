//! What was looked at, and what came of it.

use std::fmt::{Debug, Display};
use viommu_examples::Story;

/// Counts checks and prints each: `ok NAME`, or `FAILED NAME: why`.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Those that held.
    pub(crate) ok: u32,
    /// Those that did not, as printed.
    pub(crate) failed: Vec<String>,
}

impl Checks {
    /// What is must be what should be.
    pub(crate) fn same<T: PartialEq + Debug>(&mut self, name: impl Display, is: T, should_be: T) {
        if is == should_be {
            self.holds(name, true, "");
        } else {
            self.holds(name, false, format_args!("{is:x?}, not {should_be:x?}"));
        }
    }

    /// A condition.
    pub(crate) fn holds(&mut self, name: impl Display, holds: bool, otherwise: impl Display) {
        if holds {
            self.ok += 1;
            println!("ok {name}");
        } else {
            let line = format!("{name}: {otherwise}");
            println!("FAILED {line}");
            self.failed.push(line);
        }
    }

    /// Runs a part of the proof. What ends it early is a failed check.
    pub(crate) fn part(&mut self, name: &str, part: impl FnOnce(&mut Self) -> Story) {
        println!("# {name}");
        if let Err(error) = part(self) {
            self.holds(name, false, error);
        }
    }
}
