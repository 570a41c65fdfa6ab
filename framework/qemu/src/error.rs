//! What may go wrong with a QEMU.

use std::time::Duration;

/// Why QEMU did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// There is no such program: what needs it is skipped.
    #[error("{0} is not installed")]
    Missing(String),
    /// It ended, or said no, while it was started.
    #[error("QEMU does not start: {0}")]
    Start(String),
    /// A system call of ours failed.
    #[error("{what}: {cause}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It did not answer, or a device of it did not finish, in time.
    #[error("QEMU did not answer within {limit:?}: {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// It refused a command of the qtest or QMP socket.
    #[error("QEMU refuses \"{command}\": {answer}")]
    Refused {
        /// The command.
        command: String,
        /// Its answer.
        answer: String,
    },
}

impl QemuError {
    pub(crate) fn os(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Os { what, cause }
    }
}
