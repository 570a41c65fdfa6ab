//! Invalidation by calls that can lie about how far they got.
//!
//! Linux 7.3.4 converts a batch command by command and issues it in blocks of 63. When it refuses a command it reports
//! everything before that as done, though the commands of the same block never reached the hardware; out of memory, it
//! reports all of them as done. So only a call that succeeds proves anything:
//!
//! ```text
//!   0 ........ confirmed ........ c ──── chunk, at most 63 ────► ok: c moves on
//!                                 │                              refused: halves of it, each from c, down to the offender,
//!                                 │                                       which is left out
//!                                 └── replay from c ◄─────────── failed otherwise: smaller, later, or given up at c
//! ```
//! Invalidating twice does no harm; not at all lets a device reach memory that the guest took away.

use crate::uapi::Errno;
use std::ops::Range;

/// Entries of one call at most: what the kernel issues as one block, with a SYNC behind it.
pub const CHUNK: usize = 63;
/// How often one entry is tried again while the kernel is out of memory.
const ATTEMPTS: u32 = 8;

/// What a call answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Entries it says it handled.
    pub reported: usize,
    /// Whether it succeeded.
    pub result: Result<(), Errno>,
}

/// Where the calls go.
pub trait Issue {
    /// One call with these entries.
    fn issue(&mut self, entries: Range<usize>) -> Answer;
    /// Lets time pass before attempt `attempt` (from 1) of the same entries.
    fn pause(&mut self, attempt: u32);
}

/// How far it got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Entries from the first that are executed, or refused for good.
    pub done: usize,
    /// Of those: the entries that the kernel refuses, each tried alone, with its errno.
    pub refused: Vec<(usize, Errno)>,
    /// Why nothing from `done` on is known to be executed, if that is not the end.
    pub stopped: Option<Errno>,
    /// Calls made.
    pub calls: u64,
    /// Times the entries of a failed call were sent again in two halves.
    pub bisections: u64,
}

/// What an error says about the entries of its call.
enum Blame {
    /// One of them is refused.
    Entry,
    /// None: it may work later.
    Moment,
    /// None, and trying again is of no use.
    Target,
}

fn blame(errno: Errno) -> Blame {
    match errno {
        Errno::IO | Errno::INVAL | Errno::OPNOTSUPP | Errno::TOOBIG => Blame::Entry,
        Errno::NOMEM | Errno::INTR | Errno::AGAIN | Errno::BUSY => Blame::Moment,
        _ => Blame::Target,
    }
}

/// Executes `entries`, those that the kernel refuses left out.
pub fn run(entries: Range<usize>, issue: &mut dyn Issue) -> Outcome {
    let mut outcome = Outcome { done: entries.start, ..Outcome::default() };
    while outcome.done < entries.end && outcome.stopped.is_none() {
        let chunk = outcome.done..entries.end.min(outcome.done + CHUNK);
        settle(chunk, issue, &mut outcome);
    }
    outcome
}

/// Executes one range; afterwards all of it is done, or `outcome` says why not.
fn settle(range: Range<usize>, issue: &mut dyn Issue, outcome: &mut Outcome) {
    for attempt in 1.. {
        outcome.calls += 1;
        let Err(errno) = issue.issue(range.clone()).result else {
            outcome.done = range.end;
            return;
        };
        match (blame(errno), range.len()) {
            (Blame::Target, _) => outcome.stopped = Some(errno),
            (Blame::Entry, 1) => {
                outcome.refused.push((range.start, errno));
                outcome.done = range.end;
            }
            (Blame::Moment, 1) if attempt < ATTEMPTS => {
                issue.pause(attempt);
                continue;
            }
            (Blame::Moment, 1) => outcome.stopped = Some(errno),
            (Blame::Entry | Blame::Moment, length) => {
                outcome.bisections += 1;
                let middle = range.start + length / 2;
                settle(range.start..middle, issue, outcome);
                if outcome.stopped.is_none() {
                    settle(middle..range.end, issue, outcome);
                }
            }
        }
        return;
    }
}

/// What [`run`] is not: goes on behind what the kernel says it handled. Loses invalidations; for tests that show it.
pub fn run_trusting(entries: Range<usize>, issue: &mut dyn Issue) -> Outcome {
    let mut outcome = Outcome { done: entries.start, ..Outcome::default() };
    while outcome.done < entries.end && outcome.stopped.is_none() {
        let chunk = outcome.done..entries.end.min(outcome.done + CHUNK);
        outcome.calls += 1;
        let Answer { reported, result } = issue.issue(chunk.clone());
        outcome.done = chunk.end.min(chunk.start + reported);
        match result {
            Ok(()) => {}
            Err(errno) if outcome.done < chunk.end => {
                outcome.refused.push((outcome.done, errno));
                outcome.done += 1;
            }
            Err(_) => {}
        }
    }
    outcome
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
