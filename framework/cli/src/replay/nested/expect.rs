//! What the physical IOMMU has to answer for a DMA whose guest-side answer was recorded.

use crate::replay::registers::Refused;
use viommu_plugin::{Answer, Request, Status, TranslationMode};
use viommu_trace::{Outcome, Translation};

/// Where a machine's memory lies in the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    /// Guest RAM: first address and bytes.
    pub(super) ram: (u64, u64),
    /// Host physical address of the first byte of guest RAM.
    pub(super) host_ram: u64,
    /// Guest physical page of the MSI doorbell, and where it lies in the host.
    pub(super) doorbell: Option<(u64, u64)>,
}

/// log2 of the sizes that a guest's page may have.
const SMALLEST_PAGE: u32 = 12;
const LARGEST_PAGE: u32 = 48;

/// Bytes of the doorbell page.
pub(super) const DOORBELL_BYTES: u64 = 0x1000;

impl Placement {
    /// Where stage 2 leads a guest physical address.
    fn host(&self, gpa: u64) -> Option<u64> {
        let (base, size) = self.ram;
        if gpa >= base && gpa - base < size {
            return Some(self.host_ram + (gpa - base));
        }
        let (page, host) = self.doorbell?;
        (gpa >= page && gpa - page < DOORBELL_BYTES).then(|| host + (gpa - page))
    }

    /// Which of the guest's physical addresses stage 2 leads to a host's.
    fn guest(&self, host: u64) -> Option<u64> {
        let (base, size) = self.ram;
        if host >= self.host_ram && host - self.host_ram < size {
            return Some(base + (host - self.host_ram));
        }
        let (page, doorbell) = self.doorbell?;
        (host >= doorbell && host - doorbell < DOORBELL_BYTES).then(|| page + (host - doorbell))
    }
}

/// How an answer stands to the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As recorded, through stage 2.
    Matched,
    /// The recorded output is not the guest's memory: stage 2 refused it, as it must.
    StageTwoFault,
    /// Anything else.
    Mismatched,
}

/// The request that the recorded device made, as `stream` of the host.
pub(super) fn request(recorded: &Translation, stream: u32) -> Request {
    Request {
        stream,
        pasid: recorded.pasid.unwrap_or(u32::MAX),
        iova: recorded.iova,
        access: u32::from(recorded.access),
        flags: 0,
    }
}

/// What was recorded, with the refusal that the physical IOMMU has for it where it was one.
pub(super) fn refused_as(recorded: &Translation, refused: Refused) -> Translation {
    match (recorded.outcome, refused) {
        (Outcome::Fault, Refused::Fault(fault)) => Translation { fault, ..*recorded },
        (Outcome::Fault, Refused::Abort) => Translation { outcome: Outcome::Abort, ..*recorded },
        _ => *recorded,
    }
}

/// Judges the physical IOMMU's answer for a guest that is served in this mode.
pub(super) fn judge(recorded: &Translation, placement: &Placement, mode: TranslationMode, answer: &Answer) -> Verdict {
    let is_shadow = mode == TranslationMode::SHADOW;
    let right = match recorded.outcome {
        Outcome::Ok if is_shadow => return judge_shadow(recorded, placement, answer),
        Outcome::Ok => return judge_output(recorded, placement, answer, 1),
        Outcome::Bypass | Outcome::Disabled => return judge_output(recorded, placement, answer, 2),
        // Stage 2's faults are the host's: what the guest sees is never one. A shadow holds both stages.
        Outcome::Fault => {
            answer.status == Status::FAULT && (is_shadow || answer.stage != 2) && answer.fault == recorded.fault
        }
        Outcome::Abort => answer.status == Status::ABORT,
    };
    if right { Verdict::Matched } else { Verdict::Mismatched }
}

/// A shadow leads from the device's address to the host's in one table. Its leaves are not the guest's: they may be
/// smaller where the guest's memory lies in pieces. So the output is taken back to the guest's address, and where the
/// recording has only the start of the guest's page, it has to be the address in some page that starts there.
fn judge_shadow(recorded: &Translation, placement: &Placement, answer: &Answer) -> Verdict {
    if placement.host(recorded.output).is_none() {
        let refused = answer.status == Status::FAULT;
        return if refused { Verdict::StageTwoFault } else { Verdict::Mismatched };
    }
    let output = placement.guest(answer.output).filter(|_| answer.status == Status::OK);
    let in_page = |output: u64| {
        let start = recorded.output;
        let sizes = SMALLEST_PAGE..=start.trailing_zeros().min(LARGEST_PAGE);
        sizes.into_iter().any(|size| start + (recorded.iova & low_bits(size)) == output)
    };
    let right = |output: u64| if recorded.page_start { in_page(output) } else { output == recorded.output };
    let permitted = recorded.permissions.is_none_or(|granted| u32::from(granted) == answer.permissions);
    match output {
        Some(output) if permitted && right(output) => Verdict::Matched,
        _ => Verdict::Mismatched,
    }
}

/// An output goes through stage 2; where stage 2 has nothing, that very address must be what faults there.
fn judge_output(recorded: &Translation, placement: &Placement, answer: &Answer, stage: u32) -> Verdict {
    let Some(host) = placement.host(recorded.output) else {
        let faulted = answer.status == Status::FAULT && answer.stage == 2;
        let there = answer.ipa & !0xfff == recorded.output & !0xfff;
        return if faulted && there { Verdict::StageTwoFault } else { Verdict::Mismatched };
    };
    let output = if recorded.page_start { answer.output & !low_bits(answer.leaf_log2) } else { answer.output };
    let permitted = match recorded.permissions {
        Some(permissions) if recorded.outcome == Outcome::Ok => u32::from(permissions) == answer.permissions,
        _ => true,
    };
    if answer.status == Status::OK && answer.stage == stage && output == host && permitted {
        Verdict::Matched
    } else {
        Verdict::Mismatched
    }
}

fn low_bits(log2: u32) -> u64 {
    1_u64.checked_shl(log2).map_or(u64::MAX, |size| size - 1)
}

/// What was expected, in words.
pub(super) fn expected(recorded: &Translation, placement: &Placement) -> String {
    match recorded.outcome {
        Outcome::Fault => format!("fault {:#x} of stage 1", recorded.fault),
        Outcome::Abort => "abort".into(),
        Outcome::Ok | Outcome::Bypass | Outcome::Disabled => match placement.host(recorded.output) {
            Some(host) => format!("{host:#x} (the guest's {:#x})", recorded.output),
            None => format!("a stage-2 fault at {:#x}", recorded.output),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEMENT: Placement =
        Placement { ram: (0x4000_0000, 0x1000_0000), host_ram: 0x100_0000_0000, doorbell: Some((0x809_0000, 0x7000)) };

    fn nested(recorded: &Translation, placement: &Placement, answer: &Answer) -> Verdict {
        judge(recorded, placement, TranslationMode::NESTED, answer)
    }

    fn shadow(recorded: &Translation, answer: &Answer) -> Verdict {
        judge(recorded, &PLACEMENT, TranslationMode::SHADOW, answer)
    }

    #[test]
    fn only_faults_are_refused_otherwise() {
        let fault = recorded(Outcome::Fault, 0);
        let abort = refused_as(&fault, Refused::Abort);
        let answer = |status, fault| Answer { status, fault, ..Answer::default() };
        assert_eq!(nested(&abort, &PLACEMENT, &answer(Status::ABORT, 0)), Verdict::Matched);
        assert_eq!(nested(&abort, &PLACEMENT, &answer(Status::FAULT, 0x10)), Verdict::Mismatched);
        assert_eq!(nested(&abort, &PLACEMENT, &answer(Status::OK, 0)), Verdict::Mismatched);
        let other = refused_as(&fault, Refused::Fault(0x79));
        assert_eq!(nested(&other, &PLACEMENT, &answer(Status::FAULT, 0x79)), Verdict::Matched);
        assert_eq!(nested(&other, &PLACEMENT, &answer(Status::FAULT, 0x10)), Verdict::Mismatched);
        let ok = recorded(Outcome::Ok, 0x4000_1000);
        assert_eq!(refused_as(&ok, Refused::Abort), ok);
    }

    fn recorded(outcome: Outcome, output: u64) -> Translation {
        Translation {
            stream: 8,
            pasid: None,
            iova: 0x1000,
            output,
            mask: 0,
            outcome,
            access: 0,
            permissions: Some(3),
            stage: 1,
            fault: 0x10,
            cached: false,
            page_start: false,
        }
    }

    fn answer(status: Status, stage: u32, output: u64) -> Answer {
        Answer { status, stage, output, permissions: 3, fault: 0x10, ipa: 0x9999_9000, ..Default::default() }
    }

    #[test]
    fn outputs_are_judged_through_stage_two() {
        let ok = recorded(Outcome::Ok, 0x4000_1234);
        assert_eq!(nested(&ok, &PLACEMENT, &answer(Status::OK, 1, 0x100_0000_1234)), Verdict::Matched);
        assert_eq!(nested(&ok, &PLACEMENT, &answer(Status::OK, 1, 0x4000_1234)), Verdict::Mismatched);
        assert_eq!(nested(&ok, &PLACEMENT, &answer(Status::OK, 2, 0x100_0000_1234)), Verdict::Mismatched);
        let weaker = Answer { permissions: 1, ..answer(Status::OK, 1, 0x100_0000_1234) };
        assert_eq!(nested(&ok, &PLACEMENT, &weaker), Verdict::Mismatched);
        let doorbell = recorded(Outcome::Bypass, 0x809_0040);
        assert_eq!(nested(&doorbell, &PLACEMENT, &answer(Status::OK, 2, 0x7040)), Verdict::Matched);
    }

    #[test]
    fn an_output_outside_memory_must_fault_in_stage_two_at_that_address() {
        let outside = recorded(Outcome::Ok, 0x9999_9040);
        assert_eq!(nested(&outside, &PLACEMENT, &answer(Status::FAULT, 2, 0)), Verdict::StageTwoFault);
        assert_eq!(nested(&outside, &PLACEMENT, &answer(Status::OK, 1, 0x9999_9040)), Verdict::Mismatched);
        assert_eq!(nested(&outside, &PLACEMENT, &answer(Status::FAULT, 1, 0)), Verdict::Mismatched);
        let elsewhere = recorded(Outcome::Ok, 0x8888_8000);
        assert_eq!(nested(&elsewhere, &PLACEMENT, &answer(Status::FAULT, 2, 0)), Verdict::Mismatched);
    }

    #[test]
    fn a_recorded_fault_is_the_guest_s_own() {
        let fault = recorded(Outcome::Fault, 0);
        assert_eq!(nested(&fault, &PLACEMENT, &answer(Status::FAULT, 1, 0)), Verdict::Matched);
        assert_eq!(nested(&fault, &PLACEMENT, &answer(Status::FAULT, 2, 0)), Verdict::Mismatched);
        let other = Answer { fault: 0x13, ..answer(Status::FAULT, 1, 0) };
        assert_eq!(nested(&fault, &PLACEMENT, &other), Verdict::Mismatched);
        assert_eq!(nested(&recorded(Outcome::Abort, 0), &PLACEMENT, &answer(Status::ABORT, 0, 0)), Verdict::Matched);
    }

    #[test]
    fn a_shadow_is_judged_in_the_guest_s_addresses() {
        let ok = recorded(Outcome::Ok, 0x4000_1234);
        for stage in [1, 2] {
            assert_eq!(shadow(&ok, &answer(Status::OK, stage, 0x100_0000_1234)), Verdict::Matched);
        }
        assert_eq!(shadow(&ok, &answer(Status::OK, 2, 0x100_0000_1238)), Verdict::Mismatched);
        assert_eq!(shadow(&ok, &answer(Status::OK, 2, 0x4000_1234)), Verdict::Mismatched);
        assert_eq!(shadow(&ok, &answer(Status::FAULT, 2, 0)), Verdict::Mismatched);
        let weaker = Answer { permissions: 1, ..answer(Status::OK, 1, 0x100_0000_1234) };
        assert_eq!(shadow(&ok, &weaker), Verdict::Mismatched);
        let fault = recorded(Outcome::Fault, 0);
        assert_eq!(shadow(&fault, &answer(Status::FAULT, 2, 0)), Verdict::Matched);
        let outside = recorded(Outcome::Ok, 0x9999_9040);
        assert_eq!(shadow(&outside, &answer(Status::FAULT, 2, 0)), Verdict::StageTwoFault);
        assert_eq!(shadow(&outside, &answer(Status::OK, 2, 0x9999_9040)), Verdict::Mismatched);
        let identity = recorded(Outcome::Disabled, 0x4000_1000);
        assert_eq!(shadow(&identity, &answer(Status::OK, 2, 0x100_0000_1000)), Verdict::Matched);
    }

    #[test]
    fn the_start_of_a_guest_s_page_of_any_size_is_enough() {
        let start = |iova, output| Translation { iova, page_start: true, ..recorded(Outcome::Ok, output) };
        let ours = |gpa: u64| answer(Status::OK, 2, 0x100_0000_0000 + (gpa - 0x4000_0000));
        let large = start(0xff32_5678, 0x4020_0000);
        assert_eq!(shadow(&large, &ours(0x4020_0678)), Verdict::Matched, "4 KiB");
        assert_eq!(shadow(&large, &ours(0x4032_5678)), Verdict::Matched, "2 MiB");
        assert_eq!(shadow(&large, &ours(0x4032_6678)), Verdict::Mismatched);
        assert_eq!(shadow(&large, &ours(0x4020_0000)), Verdict::Mismatched, "the offset is lost");
        assert_eq!(shadow(&large, &ours(0x4072_5678)), Verdict::Mismatched, "not the address's place in 8 MiB");
        let small = start(0xff32_5678, 0x4020_1000);
        assert_eq!(shadow(&small, &ours(0x4020_1678)), Verdict::Matched);
        assert_eq!(shadow(&small, &ours(0x4032_5678)), Verdict::Mismatched, "no large page starts there");
    }
}
