//! What the queues may say, and what it becomes before the SMMU does it.

use super::Tegra;
use super::registers::Vintf;
use arm_smmuv3::spec::commands::{AtcInv, COMMAND_WORDS, Opcode, Signal, Sync, Tlbi};
use arm_smmuv3::spec::registers::CommandError;

impl Tegra {
    /// Whether some queue has a command.
    pub(super) fn queues_have_work(&self) -> bool {
        let log2_most = self.smmu.command_queue_log2();
        self.cmdqv.enabled().iter().any(|&queue| self.cmdqv.queues[queue].next(log2_most).is_some())
    }

    /// One command of each queue that has one; whether any had.
    pub(super) fn step_queues(&mut self) -> bool {
        let mut any = false;
        for place in 0..self.cmdqv.enabled().len() {
            // Executing a command enables and disables no queue.
            any |= self.step_queue(self.cmdqv.enabled()[place]);
        }
        any
    }

    fn step_queue(&mut self, queue: usize) -> bool {
        let log2_most = self.smmu.command_queue_log2();
        let Some((number, vintf)) = self.cmdqv.owner(queue).filter(|(_, vintf)| vintf.config.en()) else {
            return false;
        };
        let Some(address) = self.cmdqv.queues[queue].next(log2_most) else { return false };
        let command = self.smmu.fetch(address).ok_or(CommandError::ABT).and_then(|words| own(vintf, words));
        let timed_out = &mut self.cmdqv.queues[queue].atc_timed_out;
        match command.and_then(|words| self.smmu.execute_for(words, timed_out)) {
            Ok(()) => self.cmdqv.queues[queue].advance(log2_most),
            Err(error) => {
                self.cmdqv.queues[queue].stop(error);
                if self.cmdqv.interrupts(number) {
                    self.interrupt();
                }
            }
        }
        true
    }
}

/// The command as one of this VINTF: its VMID and its devices, whatever a guest wrote there. Nobody is told of a SYNC but
/// by CONS. CERROR_ILL for what such a queue does not take, and for a StreamID without a slot (our choice).
fn own(vintf: &Vintf, words: [u64; COMMAND_WORDS]) -> Result<[u64; COMMAND_WORDS], CommandError> {
    match Opcode::of(words[0]) {
        Opcode::SYNC if Signal(Sync::from_words(words).cs()) != Signal::NONE => Err(CommandError::ILL),
        Opcode::SYNC => Ok(words),
        _ if vintf.config.hyp_own() => Ok(words),
        Opcode::TLBI_NH_VA | Opcode::TLBI_NH_ASID => Ok(Tlbi::from_words(words).with_vmid(vintf.config.vmid()).words()),
        Opcode::ATC_INV => {
            let command = AtcInv::from_words(words);
            let sid = vintf.replace(command.stream_id()).ok_or(CommandError::ILL)?;
            Ok(command.with_stream_id(sid).words())
        }
        _ => Err(CommandError::ILL),
    }
}
