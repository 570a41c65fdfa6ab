//! A progress line on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

/// Records between two looks at the clock.
const STRIDE: u64 = 1024;

/// How far a replay is.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line for the trace at `path` with so many records. Draws nothing if standard error is no terminal.
    pub(crate) fn new(path: &Path, records: u64) -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent}% {eta}").ok();
        let bar = ProgressBar::new(records);
        let bar = match style {
            Some(style) => bar.with_style(style),
            None => bar,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { bar: bar.with_prefix(name) }
    }

    /// So many records are behind all machines.
    pub(crate) fn show(&self, records: u64) {
        self.bar.set_position(records);
    }

    /// Record `number` is being replayed.
    pub(crate) fn at(&self, number: u64) {
        if number.is_multiple_of(STRIDE) {
            self.bar.set_position(number);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
