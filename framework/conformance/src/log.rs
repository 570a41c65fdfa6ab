//! What an iommufd did in random sequences, as a file: a line a sequence, with a hash of its plan and one of what was seen.
//!
//! ```text
//! # viommu conformance, format 1, seed 1: Linux 7.3.4 aarch64
//! 0 5f0c6d1b2e4a9377 93ad01c8be5510f2
//! ```
//!
//! A file that was made by another generator is told from one that disagrees: the plans' hashes differ.

use crate::memory::Memory;
use crate::sequences::{hash, plan, replay};
use crate::{Open, errno_name};
use std::collections::BTreeMap;
use std::fmt;

/// Counts up when what a step's line says, or a line of the file, changes.
const FORMAT: u32 = 1;
const TITLE: &str = "# viommu conformance, format ";

/// A sequence's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Of the steps themselves.
    pub plan: u64,
    /// Of what they answered.
    pub seen: u64,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What the sequences were made from.
    pub seed: u64,
    /// Whose answers these are.
    pub whose: String,
    /// By number of the sequence.
    pub sequences: BTreeMap<u64, Logged>,
}

/// Why a sequence's line says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// The file is of another format.
    Format(String),
    /// The file is of another seed.
    Seed(u64),
    /// The generator makes another sequence of this number now.
    Plan(u64),
    /// The file ends before it.
    Missing(u64),
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(line) => write!(f, "not a log of sequences of format {FORMAT}: {line:?}")?,
            Self::Seed(seed) => write!(f, "the log is of seed {seed}")?,
            Self::Plan(number) => write!(f, "the log is stale: sequence {number} is not the one that was logged")?,
            Self::Missing(number) => write!(f, "sequence {number} is not in the log")?,
        }
        f.write_str("; record it anew with viommu conformance --kernel /dev/iommu --sequences N --seed S --log FILE")
    }
}

impl Log {
    /// A log without a sequence.
    pub fn new(seed: u64, whose: &str) -> Self {
        Self { seed, whose: whose.into(), sequences: BTreeMap::new() }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is no log of this format.
    pub fn parse(text: &str) -> Result<Self, Stale> {
        let other = |line: &str| Stale::Format(line.into());
        let mut lines = text.lines();
        let title = lines.next().unwrap_or_default();
        let rest = title.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix(&format!("{FORMAT}, seed ")));
        let (seed, whose) = rest.and_then(|rest| rest.split_once(": ")).ok_or(other(title))?;
        let mut log = Self::new(seed.parse().map_err(|_| other(title))?, whose);
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let [number, plan, seen] = words[..] else { return Err(other(line)) };
            let hash = |word| u64::from_str_radix(word, 16);
            let (Ok(number), Ok(plan), Ok(seen)) = (number.parse(), hash(plan), hash(seen)) else {
                return Err(other(line));
            };
            log.sequences.insert(number, Logged { plan, seen });
        }
        Ok(log)
    }

    /// Whether what was seen of a sequence is what is logged.
    ///
    /// # Errors
    /// The line says nothing about this sequence.
    pub fn agrees(&self, seed: u64, number: u64, now: Logged) -> Result<bool, Stale> {
        if seed != self.seed {
            return Err(Stale::Seed(self.seed));
        }
        let then = self.sequences.get(&number).ok_or(Stale::Missing(number))?;
        if then.plan != now.plan { Err(Stale::Plan(number)) } else { Ok(then.seen == now.seen) }
    }

    /// Which of its sequences are answered otherwise here.
    ///
    /// # Errors
    /// Why the log says nothing, or the errno of an open, in words.
    pub fn differing(&self, open: &dyn Open, memory: &Memory) -> Result<Vec<u64>, String> {
        let mut differing = Vec::new();
        for number in self.sequences.keys() {
            let plan = plan(self.seed, *number);
            let lines = replay(&plan, open, memory).map_err(errno_name)?;
            let now = Logged::of(&plan, &lines);
            if !self.agrees(self.seed, *number, now).map_err(|stale| stale.to_string())? {
                differing.push(*number);
            }
        }
        Ok(differing)
    }
}

impl Logged {
    /// A sequence, and a line a step of what it answered.
    pub fn of(plan: &crate::Plan, lines: &[String]) -> Self {
        let steps: Vec<_> = plan.iter().map(|step| format!("{step:?}")).collect();
        Self { plan: hash(&steps), seen: hash(lines) }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}{FORMAT}, seed {}: {}", self.seed, self.whose)?;
        for (number, Logged { plan, seen }) in &self.sequences {
            writeln!(f, "{number} {plan:016x} {seen:016x}")?;
        }
        Ok(())
    }
}
