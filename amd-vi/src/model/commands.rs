//! The command buffer: fetch, execute, stop at an error until software disables and enables it.

use super::Iommu;
use super::tlb::NO_PASID;
use crate::spec::commands::{
    COMMAND_BYTES, COMMAND_WORDS, CompletionWait, InvalidateDevice, InvalidateIommuPages, InvalidateIotlbPages, Opcode,
    ResetVmmio, span,
};
use crate::spec::events::EventCode;
use crate::spec::registers::Status;
use viommu_cache::Range;

/// Why a command is not done.
pub(super) enum Undone {
    /// It stops the command buffer with this event.
    Error(EventCode),
    /// It is done without its effect, and the command buffer stops behind it: this device did not answer in time.
    TimedOut(u16),
    /// A device has not answered, and CONTROL.InvTimeOut lets it take for ever: the command is tried again.
    Waits,
}

impl Undone {
    /// The same of a device by another number.
    pub(super) fn about(self, device: u16) -> Self {
        if let Self::TimedOut(_) = self { Self::TimedOut(device) } else { self }
    }
}

impl Iommu {
    /// Executes at most `budget` commands; how many. Stops early when the buffer is empty, off, in error, or waits.
    pub(super) fn consume(&mut self, budget: u32) -> u32 {
        for consumed in 0..budget {
            let (ring, head, tail) = self.registers.commands();
            if !self.registers.commands_run() || head == tail {
                return consumed;
            }
            let address = ring.entry(head);
            let outcome = match self.fetch(address) {
                Some(command) => self.execute(command),
                None => Err(Undone::Error(EventCode::COMMAND_HARDWARE_ERROR)),
            };
            match outcome {
                Ok(()) => self.registers.set_command_head(ring.next(head)),
                Err(Undone::Waits) => return consumed,
                Err(Undone::TimedOut(device)) => {
                    self.log_command(EventCode::IOTLB_INV_TIMEOUT, device, address);
                    self.registers.set_command_head(ring.next(head));
                    self.registers.stop_commands();
                    return consumed + 1;
                }
                Err(Undone::Error(event)) => {
                    self.registers.stop_commands();
                    self.log_command(event, 0, address);
                    return consumed;
                }
            }
        }
        budget
    }

    /// The command at a physical address.
    pub(super) fn fetch(&self, address: u64) -> Option<[u64; COMMAND_WORDS]> {
        let mut bytes = [0; COMMAND_BYTES as usize];
        self.host.read(address, &mut bytes).ok()?;
        let both = u128::from_le_bytes(bytes);
        Some([both as u64, (both >> 64) as u64])
    }

    /// Whether the features offer a command, where it takes one.
    pub(super) fn is_offered(&self, opcode: Opcode) -> bool {
        let efr = self.identity.efr;
        match opcode {
            Opcode::INVALIDATE_IOTLB_PAGES => self.identity.header.iotlb_sup(),
            Opcode::PREFETCH_IOMMU_PAGES => efr.pref_sup(),
            Opcode::COMPLETE_PPR_REQUEST => efr.ppr_sup(),
            Opcode::INVALIDATE_IOMMU_ALL => efr.ia_sup(),
            Opcode::RESET_VMMIO => efr.viommu_sup(),
            _ => true,
        }
    }

    /// One command. Reserved bits are ignored; commands that a missing feature would offer are illegal.
    fn execute(&mut self, words: [u64; COMMAND_WORDS]) -> Result<(), Undone> {
        let opcode = Opcode::of(words[0]);
        if !self.is_offered(opcode) {
            return Err(Undone::Error(EventCode::ILLEGAL_COMMAND_ERROR));
        }
        match opcode {
            Opcode::COMPLETION_WAIT => return self.completion_wait(CompletionWait::from_words(words)),
            Opcode::INVALIDATE_DEVTAB_ENTRY => self.devices.forget(InvalidateDevice::from_words(words).device_id()),
            Opcode::INVALIDATE_IOMMU_PAGES => self.invalidate_pages(InvalidateIommuPages::from_words(words)),
            Opcode::INVALIDATE_IOTLB_PAGES => {
                return self.invalidate_iotlb(InvalidateIotlbPages::from_words(words));
            }
            Opcode::INVALIDATE_IOMMU_ALL => {
                self.tlb.clear();
                self.devices.clear();
            }
            Opcode::RESET_VMMIO => {
                let command = ResetVmmio::from_words(words);
                if !self.guests.reset(command.guest_id(), command.all(), command.vcmd()) {
                    return Err(Undone::Error(EventCode::ILLEGAL_COMMAND_ERROR));
                }
            }
            // Interrupts are not remapped here; a hint that nothing has to follow; page requests are never made.
            Opcode::INVALIDATE_INTERRUPT_TABLE | Opcode::PREFETCH_IOMMU_PAGES | Opcode::COMPLETE_PPR_REQUEST => {}
            _ => return Err(Undone::Error(EventCode::ILLEGAL_COMMAND_ERROR)),
        }
        Ok(())
    }

    /// PDE only spares caches of page directories, of which there are none.
    pub(super) fn invalidate_pages(&mut self, command: InvalidateIommuPages) {
        let (first, log2) = span(command.s(), command.address());
        let range = Range::block(first, log2);
        match command.gn() {
            true => self.tlb.guest_pages(command.domain_id(), command.pasid(), range),
            false => self.tlb.host_pages(command.domain_id(), range),
        }
    }

    /// A device that does not answer in time stops the buffer: it has not forgotten.
    pub(super) fn invalidate_iotlb(&mut self, command: InvalidateIotlbPages) -> Result<(), Undone> {
        let device = u32::from(command.device_id());
        if self.unresponsive.contains(&device) {
            if self.registers.control().inv_timeout() == 0 {
                return Err(Undone::Waits);
            }
            return Err(Undone::TimedOut(command.device_id()));
        } else if let Some(atc) = &mut self.atc {
            let pasid = if command.gn() { command.pasid() } else { NO_PASID };
            let (first, log2) = span(command.s(), command.address());
            atc.invalidate(device, pasid, Range::block(first, log2));
        }
        Ok(())
    }

    /// Commands complete as they are consumed, so all before it are complete.
    fn completion_wait(&mut self, command: CompletionWait) -> Result<(), Undone> {
        if command.s() && self.host.write(command.store_address(), &command.data().to_le_bytes()).is_err() {
            return Err(Undone::Error(EventCode::COMMAND_HARDWARE_ERROR));
        }
        if command.i() {
            let enabled = self.registers.control().com_wait_int_en();
            self.interrupt(Status::new().with_com_wait_int(true), enabled);
        }
        Ok(())
    }
}
