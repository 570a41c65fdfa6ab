//! What came of a guest: every DMA at the physical end against what the recorded IOMMU answered.

use crate::GuestRam;
use std::fmt;
use viommu::plugin::{Answer, Status};
use viommu_trace::{Outcome, Translation};

/// How many DMAs and register reads were as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Score {
    /// DMAs that did what they did when they were recorded.
    pub matched: u64,
    /// DMAs to what is not the guest's memory: the recorded machine had something there, stage 2 must not.
    pub stage2_faults: u64,
    /// DMAs that did anything else.
    pub mismatched: u64,
    /// Register reads that did not give what they gave when they were recorded.
    pub wrong_registers: u64,
    /// The first mismatch, in words.
    pub first: Option<String>,
}

impl Score {
    /// Whether there was any DMA, and all of it and every register was right.
    pub fn is_right(&self) -> bool {
        self.matched > 0 && self.mismatched == 0 && self.wrong_registers == 0
    }

    /// Counts a register read.
    pub fn register(&mut self, offset: u64, recorded: u64, got: u64) {
        if recorded != got {
            self.wrong_registers += 1;
            self.first.get_or_insert_with(|| format!("register {offset:#x} is {got:#x}, recorded as {recorded:#x}"));
        }
    }

    /// Counts a DMA. The recorded IOMMU answered with a guest physical address; ours goes on through stage 2.
    pub fn dma(&mut self, recorded: &Translation, ram: &GuestRam, answer: &Answer) {
        let translated = |stage| match ram.host_address(recorded.output) {
            Some(host) => {
                let granted = recorded.permissions.filter(|_| stage == 1).map(u32::from);
                let right = answer.status == Status::OK && answer.stage == stage && answer.output == host;
                (right && granted.is_none_or(|granted| granted == answer.permissions), false)
            }
            None => {
                let faulted = answer.status == Status::FAULT && answer.stage == 2;
                (faulted && answer.ipa & !0xfff == recorded.output & !0xfff, true)
            }
        };
        let (right, outside) = match recorded.outcome {
            Outcome::Ok => translated(1),
            Outcome::Bypass | Outcome::Disabled => translated(2),
            // Stage 2's faults are the host's: what a guest sees is never one.
            Outcome::Fault => {
                (answer.status == Status::FAULT && answer.stage != 2 && answer.fault == recorded.fault, false)
            }
            Outcome::Abort => (answer.status == Status::ABORT, false),
        };
        match (right, outside) {
            (true, false) => self.matched += 1,
            (true, true) => self.stage2_faults += 1,
            (false, _) => {
                self.mismatched += 1;
                self.first.get_or_insert_with(|| format!("{recorded:x?} was answered with {answer:x?}"));
            }
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matched, stage2_faults, mismatched, wrong_registers, first } = self;
        write!(f, "{matched} DMAs as recorded, {stage2_faults} stopped by stage 2 as they must be, ")?;
        write!(f, "{mismatched} mismatched, {wrong_registers} registers wrong")?;
        first.iter().try_for_each(|first| write!(f, "; first: {first}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PhysicalMachine, RecordedGuest};
    use viommu_plugin_host::Plugin;

    fn score(outcome: Outcome, output: u64, answer: Answer) -> Score {
        let recorded = RecordedGuest::named("arm73-boot").unwrap();
        let machine = PhysicalMachine::new(&Plugin::linked::<arm_smmuv3::ArmSmmuv3>()).unwrap();
        let ram = machine.guest_ram(&recorded, 0).unwrap();
        let dma = Translation {
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
        };
        let mut score = Score::default();
        score.dma(&dma, &ram, &answer);
        score
    }

    #[test]
    fn an_identity_answer_is_a_mismatch_and_so_is_a_lost_fault() {
        let ok = Answer { status: Status::OK, stage: 1, permissions: 3, ..Answer::default() };
        let placed = 0x100_0000_1234;
        assert!(score(Outcome::Ok, 0x4000_1234, Answer { output: placed, ..ok }).is_right());
        assert_eq!(score(Outcome::Ok, 0x4000_1234, Answer { output: 0x4000_1234, ..ok }).mismatched, 1);
        assert_eq!(score(Outcome::Ok, 0x4000_1234, Answer { output: placed, permissions: 1, ..ok }).mismatched, 1);
        assert_eq!(score(Outcome::Fault, 0, Answer { output: placed, ..ok }).mismatched, 1);
        assert_eq!(score(Outcome::Ok, 0x7000_0000_0000, Answer { output: 0x7000_0000_0000, ..ok }).mismatched, 1);
        let stage2 = Answer { status: Status::FAULT, stage: 2, ipa: 0x7000_0000_0000, ..ok };
        assert_eq!(score(Outcome::Ok, 0x7000_0000_0000, stage2).stage2_faults, 1);
        assert_eq!(score(Outcome::Ok, 0x4000_1234, stage2).mismatched, 1);
    }
}
