//! The command queue (§4, §7.1): fetch, execute, stop at an error until software acknowledges it.

use super::Smmu;
use super::queue::Queue;
use crate::spec::commands::{
    AtcInv, COMMAND_BYTES, COMMAND_WORDS, CfgiCd, CfgiSte, CfgiSteRange, Opcode, Signal, Sync, Tlbi,
};
use crate::spec::registers::{CmdqCons, CommandError, Gerror};
use viommu_cache::Range;

/// SSec: the command names a Secure stream. The Non-secure queue refuses it (§4.1.5).
const SSEC: u64 = 1 << 10;

impl Smmu {
    /// Executes at most `budget` commands; how many. Stops early when the queue is empty, off, or in error.
    pub(super) fn consume(&mut self, budget: u32) -> u32 {
        let queue = Queue::new(self.registers.cmdq_base(), self.identity.idr1().cmdqs(), COMMAND_BYTES);
        for consumed in 0..budget {
            let stopped = Gerror::from(self.registers.active_errors()).cmdq_err();
            let cons = queue.cut(self.registers.cmdq_cons().rd());
            if stopped || !self.registers.cr0().cmdqen() || queue.is_empty(self.registers.cmdq_prod(), cons) {
                return consumed;
            }
            let outcome = match self.fetch(queue.entry(cons)) {
                Some(command) => {
                    self.syncs += u64::from(Opcode::of(command[0]) == Opcode::SYNC);
                    self.execute(command)
                }
                None => Err(CommandError::ABT),
            };
            if let Err(error) = outcome {
                self.registers.set_cmdq_cons(CmdqCons::new().with_rd(cons).with_err(error.0));
                self.global_error(Gerror::new().with_cmdq_err(true));
                return consumed;
            }
            self.registers.set_cmdq_cons(CmdqCons::new().with_rd(queue.next(cons)));
        }
        budget
    }

    /// Executes a command that another queue than the SMMU's own fetched (a CMDQV beside it). `atc_timed_out` is that
    /// queue's "an ATC_INV since the last CMD_SYNC was not answered".
    ///
    /// # Errors
    /// What the queue stops with: CERROR_ILL, or CERROR_ATC_INV_SYNC for a CMD_SYNC behind such an ATC_INV.
    pub fn execute_for(&mut self, command: [u64; COMMAND_WORDS], atc_timed_out: &mut bool) -> Result<(), CommandError> {
        std::mem::swap(&mut self.atc_timed_out, atc_timed_out);
        let outcome = self.execute(command);
        std::mem::swap(&mut self.atc_timed_out, atc_timed_out);
        outcome
    }

    /// Reads a command; `None` where there is no memory.
    pub fn fetch(&self, address: u64) -> Option<[u64; COMMAND_WORDS]> {
        let mut bytes = [0; COMMAND_BYTES as usize];
        self.host.read(address, &mut bytes).ok()?;
        let both = u128::from_le_bytes(bytes);
        Some([both as u64, (both >> 64) as u64])
    }

    /// One command. Fields that a feature this SMMU lacks would give a meaning are ignored (RES0); commands that such
    /// a feature would offer are illegal.
    fn execute(&mut self, words: [u64; COMMAND_WORDS]) -> Result<(), CommandError> {
        let opcode = Opcode::of(words[0]);
        let idr0 = self.identity.idr0();
        let stalls = idr0.stall_model() != 1;
        let offered = match opcode {
            Opcode::TLBI_NH_ALL | Opcode::TLBI_NH_ASID | Opcode::TLBI_NH_VA | Opcode::TLBI_NH_VAA => idr0.s1p(),
            Opcode::TLBI_S12_VMALL | Opcode::TLBI_S2_IPA => idr0.s2p(),
            Opcode::TLBI_EL2_ALL | Opcode::TLBI_EL2_ASID | Opcode::TLBI_EL2_VA | Opcode::TLBI_EL2_VAA => idr0.hyp(),
            Opcode::ATC_INV => idr0.ats(),
            Opcode::PRI_RESP => idr0.pri(),
            Opcode::RESUME | Opcode::STALL_TERM => stalls,
            _ => true,
        };
        if !offered || words[0] & SSEC != 0 {
            return Err(CommandError::ILL);
        }
        match opcode {
            Opcode::CFGI_STE => self.streams.forget(CfgiSte::from_words(words).stream_id()),
            Opcode::CFGI_STE_RANGE => {
                let command = CfgiSteRange::from_words(words);
                self.streams.forget_range(command.stream_id(), command.range());
            }
            Opcode::CFGI_CD => {
                let command = CfgiCd::from_words(words);
                self.streams.forget_cd(command.stream_id(), command.substream_id());
            }
            Opcode::CFGI_CD_ALL => self.streams.forget_cds(CfgiCd::from_words(words).stream_id()),
            Opcode::TLBI_NH_ALL
            | Opcode::TLBI_NH_ASID
            | Opcode::TLBI_NH_VA
            | Opcode::TLBI_NH_VAA
            | Opcode::TLBI_S12_VMALL
            | Opcode::TLBI_S2_IPA
            | Opcode::TLBI_NSNH_ALL => self.invalidate(opcode, Tlbi::from_words(words)),
            Opcode::ATC_INV => self.atc_invalidate(AtcInv::from_words(words)),
            Opcode::SYNC => return self.sync(Sync::from_words(words)),
            // Hints that nothing has to follow; EL2 entries, of which this model holds none; answers to page requests
            // and stalls, which it never makes.
            Opcode::PREFETCH_CONFIG
            | Opcode::PREFETCH_ADDR
            | Opcode::TLBI_EL2_ALL
            | Opcode::TLBI_EL2_ASID
            | Opcode::TLBI_EL2_VA
            | Opcode::TLBI_EL2_VAA
            | Opcode::PRI_RESP
            | Opcode::RESUME
            | Opcode::STALL_TERM => {}
            _ => return Err(CommandError::ILL),
        }
        Ok(())
    }

    fn invalidate(&mut self, opcode: Opcode, command: Tlbi) {
        let (vmid, asid) = (self.identity.vmid(command.vmid()), self.identity.asid(command.asid()));
        match opcode {
            Opcode::TLBI_NH_ALL => self.tlb.nh_all(vmid),
            Opcode::TLBI_NH_ASID => self.tlb.nh_asid(vmid, asid),
            Opcode::TLBI_NH_VA => self.tlb.nh_va(vmid, asid, self.range(command)),
            Opcode::TLBI_NH_VAA => self.tlb.nh_vaa(vmid, self.range(command)),
            Opcode::TLBI_S12_VMALL => self.tlb.s12_vmall(vmid),
            Opcode::TLBI_S2_IPA => self.tlb.s2_ipa(vmid, self.range(command)),
            _ => self.tlb.clear(),
        }
    }

    /// The addresses that a TLBI names (§4.4.1.1). TTL and Leaf only spare table caches, of which there are none.
    fn range(&self, command: Tlbi) -> Range {
        let address = command.address() << 12;
        match command.tg() {
            tg @ 1..=3 if self.identity.idr3().ril() => {
                let scale = if self.identity.idr5().ds() { command.scale() } else { command.scale() & 0x1f };
                let granule = 10 + 2 * tg;
                Range::units(address, u64::from(command.num()) + 1, granule + scale)
            }
            _ => Range::units(address, 1, 0),
        }
    }

    fn atc_invalidate(&mut self, command: AtcInv) {
        if self.unresponsive.contains(&command.stream_id()) {
            self.atc_timed_out = true;
        } else if let Some(atc) = &mut self.atc {
            atc.invalidate(command);
        }
    }

    /// CMD_SYNC. Commands complete as they are consumed, so all before it are; only a device may not have answered.
    fn sync(&mut self, command: Sync) -> Result<(), CommandError> {
        if Signal(command.cs()) == Signal::RESERVED {
            return Err(CommandError::ILL);
        }
        if std::mem::take(&mut self.atc_timed_out) {
            return Err(CommandError::ATC_INV_SYNC);
        }
        if Signal(command.cs()) == Signal::IRQ {
            self.sync_interrupt(command.msi_address() << 2, command.msi_data());
        }
        Ok(())
    }
}
