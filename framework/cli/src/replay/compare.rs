//! A recorded translation against an answer.

use std::fmt;
use viommu_plugin::{Answer, Request, Status};
use viommu_trace::{Outcome, Translation};

/// What an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// How the translation ends.
    pub(crate) status: Status,
    /// Output address of an OK, BYPASS or DISABLED.
    pub(crate) output: u64,
    /// `output` is only the start of the translated page.
    pub(crate) page_start: bool,
    /// Permissions of an OK; `None` if the recording does not know.
    pub(crate) permissions: Option<u32>,
    /// Fault code of a FAULT.
    pub(crate) fault: u32,
}

/// The request that a recorded translation was the answer to.
pub(crate) fn request(recorded: &Translation) -> Request {
    Request {
        stream: recorded.stream,
        pasid: recorded.pasid.unwrap_or(u32::MAX),
        iova: recorded.iova,
        access: recorded.access.into(),
        flags: 0,
    }
}

impl Expectation {
    /// The recorded answer.
    pub(crate) fn of(recorded: &Translation) -> Self {
        let status = match recorded.outcome {
            Outcome::Ok => Status::OK,
            Outcome::Fault => Status::FAULT,
            Outcome::Bypass => Status::BYPASS,
            Outcome::Abort => Status::ABORT,
            Outcome::Disabled => Status::DISABLED,
        };
        Self {
            status,
            output: recorded.output,
            page_start: recorded.page_start,
            permissions: recorded.permissions.map(u32::from),
            fault: recorded.fault,
        }
    }

    /// Whether `answer` is it.
    pub(crate) fn is_met_by(&self, answer: &Answer) -> bool {
        let output = || {
            let page = if self.page_start { u64::MAX.checked_shl(answer.leaf_log2).unwrap_or(0) } else { u64::MAX };
            answer.output & page == self.output
        };
        answer.status == self.status
            && match self.status {
                Status::OK => output() && self.permissions.is_none_or(|granted| granted == answer.permissions),
                Status::FAULT => answer.fault == self.fault,
                Status::BYPASS | Status::DISABLED => output(),
                _ => true,
            }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.status, self.output, self.permissions, self.fault)
    }
}

/// An answer, for people.
pub(crate) struct Shown<'a>(pub(crate) &'a Answer);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { status, output, permissions, fault, stage, flags, .. } = *self.0;
        show(f, status, output, Some(permissions), fault)?;
        if stage != 0 {
            write!(f, ", stage {stage}")?;
        }
        f.write_str(match flags & 3 {
            1 => ", from the TLB",
            2 | 3 => ", from the device's ATC",
            _ => "",
        })
    }
}

fn show(f: &mut fmt::Formatter<'_>, status: Status, output: u64, permissions: Option<u32>, fault: u32) -> fmt::Result {
    match status {
        Status::OK => {
            let granted = match permissions.map(|bits| bits & 3) {
                None => "unknown",
                Some(0) => "none",
                Some(1) => "r",
                Some(2) => "w",
                Some(_) => "rw",
            };
            write!(f, "OK {output:#x}, permissions {granted}")
        }
        Status::FAULT => write!(f, "FAULT {fault:#x}"),
        Status::BYPASS => write!(f, "BYPASS {output:#x}"),
        Status::ABORT => write!(f, "ABORT"),
        Status::DISABLED => write!(f, "DISABLED {output:#x}"),
        Status(other) => write!(f, "status {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: Translation = Translation {
        stream: 8,
        pasid: None,
        iova: 0xffff_f123,
        output: 0x4567_8123,
        mask: 0,
        outcome: Outcome::Ok,
        access: 0,
        permissions: Some(3),
        stage: 1,
        fault: 0,
        cached: false,
        page_start: false,
    };

    fn met(recorded: Translation, answer: Answer) -> bool {
        Expectation::of(&recorded).is_met_by(&answer)
    }

    #[test]
    fn an_ok_is_its_output_and_its_permissions() {
        let right = Answer { status: Status::OK, output: 0x4567_8123, permissions: 3, ..Answer::default() };
        assert!(met(RECORDED, right));
        assert!(!met(RECORDED, Answer { output: 0x4567_8000, ..right }));
        assert!(!met(RECORDED, Answer { permissions: 1, ..right }));
        assert!(!met(RECORDED, Answer { status: Status::BYPASS, ..right }));
        assert!(met(Translation { permissions: None, ..RECORDED }, Answer { permissions: 1, ..right }));
        let start = Translation { output: 0x4567_8000, page_start: true, ..RECORDED };
        assert!(met(start, Answer { leaf_log2: 12, ..right }));
        assert!(!met(start, Answer { leaf_log2: 16, ..right }));
    }

    #[test]
    fn a_fault_is_its_code() {
        let fault = Translation { outcome: Outcome::Fault, output: 0, fault: 0x10, ..RECORDED };
        let right = Answer { status: Status::FAULT, fault: 0x10, output: 0x77, ..Answer::default() };
        assert!(met(fault, right));
        assert!(!met(fault, Answer { fault: 0x12, ..right }));
        assert!(!met(fault, Answer { status: Status::ABORT, ..right }));
    }

    #[test]
    fn identity_has_an_address_and_an_abort_has_none() {
        let bypass = Translation { outcome: Outcome::Bypass, output: 0x1000, permissions: None, ..RECORDED };
        let right = Answer { status: Status::BYPASS, output: 0x1000, ..Answer::default() };
        assert!(met(bypass, right));
        assert!(!met(bypass, Answer { output: 0x2000, ..right }));
        let abort = Translation { outcome: Outcome::Abort, output: 0, ..RECORDED };
        assert!(met(abort, Answer { status: Status::ABORT, output: 5, ..Answer::default() }));
    }

    #[test]
    fn both_sides_are_shown_in_the_same_words() {
        let answer = Answer { status: Status::OK, output: 0x4567_8123, permissions: 3, flags: 1, ..Answer::default() };
        assert_eq!(Expectation::of(&RECORDED).to_string(), "OK 0x45678123, permissions rw");
        assert_eq!(Shown(&answer).to_string(), "OK 0x45678123, permissions rw, from the TLB");
    }
}
