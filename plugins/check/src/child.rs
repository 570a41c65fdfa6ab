//! A check in a child process, so that a crash or a hang is a result.

use crate::{Check, Verdict};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Exit code of a child whose check failed; the reason is on its standard output.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a child whose check does not apply; the reason is on its standard output.
pub const EXIT_SKIPPED: u8 = 77;

/// A child that answers nothing for so long hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest reason taken from a child, in bytes.
const REASON_MAX: u64 = 16 << 10;

/// How a check in a child process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestStatus {
    /// The plugin keeps the contract in this.
    Success,
    /// The child died, or hung and was ended; how.
    Crashed(String),
    /// The plugin breaks the contract; how.
    Failed(String),
    /// The check does not apply; why.
    Skipped(String),
}

impl TestStatus {
    /// One word for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Success => "ok",
            Self::Crashed(_) => "CRASHED",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The reason, if there is one.
    pub fn reason(&self) -> &str {
        match self {
            Self::Success => "",
            Self::Crashed(why) | Self::Failed(why) | Self::Skipped(why) => why,
        }
    }

    /// Whether the plugin is to blame for something.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Crashed(_) | Self::Failed(_))
    }
}

impl Check {
    /// In the child: prints the reason, if any, and gives the exit code that [`in_child`] understands.
    pub fn report(outcome: Result<(), Verdict>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(Verdict::Failed(why)) => {
                println!("{why}");
                EXIT_FAILED.into()
            }
            Err(Verdict::Skipped(why)) => {
                println!("{why}");
                EXIT_SKIPPED.into()
            }
        }
    }
}

/// Runs `command`, which is to run one check and end as [`Check::report`] says.
///
/// # Errors
/// If it cannot be started.
pub fn in_child(command: &mut Command) -> std::io::Result<TestStatus> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (sender, receiver) = mpsc::channel();
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut reason = Vec::new();
        if let Some(output) = output {
            // What was read until an error is as good a reason as any.
            let _ = output.take(REASON_MAX).read_to_end(&mut reason);
        }
        // Nobody listens any more if the child was late.
        let _ = sender.send(());
        String::from_utf8_lossy(&reason).trim().to_owned()
    });
    let hung = receiver.recv_timeout(LIMIT).is_err();
    if hung {
        child.kill()?;
    }
    let status = child.wait()?;
    let reason = reader.join().unwrap_or_default();
    Ok(match status.code() {
        _ if hung => TestStatus::Crashed(format!("no answer in {} s", LIMIT.as_secs())),
        Some(0) => TestStatus::Success,
        Some(code) if code == i32::from(EXIT_FAILED) => TestStatus::Failed(reason),
        Some(code) if code == i32::from(EXIT_SKIPPED) => TestStatus::Skipped(reason),
        _ => TestStatus::Crashed(status.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> TestStatus {
        in_child(Command::new("sh").args(["-c", script])).expect("there is a shell")
    }

    #[test]
    fn the_four_ends_of_a_child() {
        assert_eq!(shell("exit 0"), TestStatus::Success);
        assert_eq!(shell("echo because; exit 1"), TestStatus::Failed("because".into()));
        assert_eq!(shell("echo no driver; exit 77"), TestStatus::Skipped("no driver".into()));
        assert!(matches!(shell("kill -SEGV $$"), TestStatus::Crashed(how) if how.contains("signal")));
        assert!(matches!(shell("exit 101"), TestStatus::Crashed(_)));
    }
}
