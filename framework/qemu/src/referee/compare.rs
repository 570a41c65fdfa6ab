//! The model's answer beside QEMU's.

use super::exceptions::{EXCEPTIONS, Exception, Sides};
use crate::Got;
use viommu_plugin::{Answer, Request, Status};

/// What was seen of a DMA in QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it went.
    pub(super) output: Option<u64>,
    /// The event record.
    pub(super) record: Option<[u64; 4]>,
}

/// What comparing two cold answers came to.
pub(super) enum Finding {
    Same,
    Excepted(Vec<&'static Exception>),
    Wrong(String),
}

pub(super) fn passed(answer: &Answer) -> bool {
    matches!(answer.status, Status::OK | Status::BYPASS | Status::DISABLED)
}

/// An address that nothing has: what was read is not where it should be, and where it is cannot be told.
const SOMEWHERE: u64 = u64::MAX;

/// Where a read came from, if it was to come from `expected`.
pub(super) fn source(got: Got, expected: Option<u64>, word: impl Fn(u64) -> Option<u32>) -> Option<u64> {
    match (got, expected) {
        (Got::From(pa), _) => Some(pa),
        (Got::Word(read), Some(pa)) if word(pa) == Some(read) => expected,
        (Got::Word(_), _) => Some(SOMEWHERE),
        (Got::Nothing, Some(pa)) if word(pa) == Some(0) => expected,
        (Got::Nothing, _) => None,
    }
}

/// Fields of an event record.
pub(super) struct Record(pub(super) [u64; 4]);

impl Record {
    pub(super) fn id(&self) -> u32 {
        (self.0[0] & 0xff) as u32
    }
    pub(super) fn stream(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }
    /// Whether it is of stage 2.
    pub(super) fn is_stage_2(&self) -> bool {
        self.0[1] >> 39 & 1 != 0
    }
    /// Whether it is F_TRANSLATION, F_ADDR_SIZE, F_ACCESS or F_PERMISSION.
    pub(super) fn is_of_translation(&self) -> bool {
        (0x10..=0x13).contains(&self.id())
    }
}

impl Seen {
    /// In the model's words.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        match (self.output, self.record.map(Record)) {
            (Some(output), _) => {
                Answer { status: Status::OK, output, permissions: request.access, ..Answer::default() }
            }
            (None, None) => Answer { status: Status::ABORT, ..Answer::default() },
            (None, Some(record)) => {
                let stage = match (record.is_of_translation(), record.is_stage_2()) {
                    (false, _) => 0,
                    (true, stage_2) => 1 + u32::from(stage_2),
                };
                Answer { status: Status::FAULT, stage, fault: record.id(), ..Answer::default() }
            }
        }
    }
}

/// Whether two answers, each perhaps from a cache, say the same to the device and to software. What is not reported
/// can be refused for any reason.
pub(super) fn agree(model: &Answer, request: &Request, seen: &Seen) -> bool {
    match (passed(model), seen.output, seen.record.map(Record)) {
        (true, output, _) => output == Some(model.output),
        (false, Some(_), _) => false,
        (false, None, None) => true,
        (false, None, Some(record)) => {
            let stage_2 = record.is_of_translation() && record.is_stage_2();
            model.status == Status::FAULT
                && record.stream() == request.stream
                && record.id() == model.fault
                && stage_2 == (model.stage == 2 && record.is_of_translation())
        }
    }
}

/// Two answers that come from memory and registers alone: all must be the same, records word for word.
pub(super) fn finding(
    request: &Request,
    model: &Answer,
    record: Option<[u64; 4]>,
    qemu: &Seen,
    unknown: Option<&str>,
) -> Finding {
    let expected = Seen { output: passed(model).then_some(model.output), record };
    if expected == *qemu {
        return Finding::Same;
    }
    let mut sides = Sides { request: *request, model: expected, qemu: *qemu };
    let mut used = Vec::new();
    for exception in EXCEPTIONS.iter().filter(|exception| unknown != Some(exception.name)) {
        let mut forgiven = sides;
        if (exception.forgive)(&mut forgiven) {
            sides = forgiven;
            used.push(exception);
        }
    }
    if sides.qemu == sides.model {
        return Finding::Excepted(used);
    }
    let show = |seen: &Seen| match (seen.output, seen.record) {
        (Some(SOMEWHERE), _) => "passes it somewhere".to_owned(),
        (Some(pa), _) => format!("passes it to {pa:#x}"),
        (None, None) => "refuses it in silence".to_owned(),
        (None, Some(record)) => format!("refuses it with {record:#x?}").replace('\n', "").replace("    ", " "),
    };
    let kind = if request.access & 2 != 0 { "writes" } else { "reads" };
    Finding::Wrong(format!(
        "stream {:#x} {kind} {:#x}, nothing cached: the model {}, QEMU {}",
        request.stream,
        request.iova,
        show(&expected),
        show(qemu)
    ))
}
