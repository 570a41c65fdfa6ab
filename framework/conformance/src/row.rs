//! A row of the table: a stimulus, what is expected of it, and the code that does it.

use crate::iommufd::{Open, errno_name};
use crate::memory::Memory;
use crate::session::{NOT_HERE, Said, Session};

/// One object rule of iommufd.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its number in the table: `C6.23`.
    pub id: &'static str,
    /// What is done.
    pub stimulus: &'static str,
    /// What is seen then, word for word.
    pub expected: &'static str,
    pub(crate) run: fn(&mut Session<'_>) -> Said,
}

impl Row {
    /// Does the row's stimulus on a fresh iommufd: what was seen, in the words of [`Row::expected`].
    pub fn got(&self, open: &dyn Open, memory: &Memory) -> String {
        let mut session = match Session::open(open, memory) {
            Ok(session) => session,
            Err(errno) => return format!("open: {}", errno_name(errno)),
        };
        let said = (self.run)(&mut session);
        let seen = session.seen();
        match said {
            Ok(()) => seen,
            Err(failed) if seen.is_empty() => format!("set-up: {failed}"),
            Err(failed) => format!("{seen}; set-up: {failed}"),
        }
    }
}

/// Rows that were run, with what was seen.
pub struct Verdict {
    /// The row.
    pub row: Row,
    /// What was seen.
    pub got: String,
}

impl Verdict {
    /// What was seen is what was expected.
    pub fn passed(&self) -> bool {
        self.got == self.row.expected
    }

    /// The row could not be run there, which is no verdict.
    pub fn skipped(&self) -> bool {
        self.got.starts_with(NOT_HERE)
    }
}

/// Runs rows, each on an iommufd of its own.
pub fn run(rows: &[Row], open: &dyn Open, memory: &Memory) -> Vec<Verdict> {
    rows.iter().map(|row| Verdict { row: *row, got: row.got(open, memory) }).collect()
}
