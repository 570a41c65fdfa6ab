//! The same plan on two of them, and the shortest that still differs.

use super::replay::replay;
use super::step::{Plan, Step};
use crate::iommufd::Open;
use crate::memory::Memory;
use viommu::uapi::Errno;

/// Where two replays of a plan part.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The steps up to and with the one that differs.
    pub plan: Plan,
    /// What both wrote down of each step before.
    pub before: Vec<String>,
    /// What the first wrote down of the last step.
    pub one: String,
    /// What the second did.
    pub other: String,
}

impl Difference {
    /// Which command differs in which errno: differences of one kind have one cause, mostly.
    pub fn kind(&self) -> String {
        let first = |line: &str, words| line.split(' ').take(words).collect::<Vec<_>>().join(" ");
        let step = self.plan.last().map(|step| first(&step.to_string(), 2)).unwrap_or_default();
        format!("{step}: {}, {}", first(&self.one, 1), first(&self.other, 1))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (step, line)) in self.plan.iter().zip(&self.before).enumerate() {
            writeln!(f, "{number:3} {step}\n    {line}")?;
        }
        let Some(last) = self.plan.last() else { return Ok(()) };
        write!(f, "{:3} {last}\n  1 {}\n  2 {}", self.before.len(), self.one, self.other)
    }
}

/// Replays a plan on both: where they part.
///
/// # Errors
/// The errno of an open.
pub fn compare(plan: &[Step], pair: [&dyn Open; 2], memory: &Memory) -> Result<Option<Difference>, Errno> {
    let one = replay(plan, pair[0], memory)?;
    let other = replay(plan, pair[1], memory)?;
    let Some(at) = one.iter().zip(&other).position(|(one, other)| one != other) else { return Ok(None) };
    let difference = Difference {
        plan: plan[..=at].to_vec(),
        before: one[..at].to_vec(),
        one: one[at].clone(),
        other: other[at].clone(),
    };
    Ok(Some(difference))
}

/// Leaves out steps, halves first, as long as the two still part.
///
/// # Errors
/// The errno of an open.
pub fn shrink(found: Difference, pair: [&dyn Open; 2], memory: &Memory) -> Result<Difference, Errno> {
    let mut best = found;
    let mut run = best.plan.len() / 2;
    while run > 0 {
        let mut at = 0;
        while at < best.plan.len() {
            let mut shorter = best.plan.clone();
            shorter.drain(at..(at + run).min(best.plan.len()));
            match compare(&shorter, pair, memory)? {
                Some(difference) => best = difference,
                None => at += run,
            }
        }
        run /= 2;
    }
    Ok(best)
}
