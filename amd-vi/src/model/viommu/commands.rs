//! A guest's command buffer: fetched by guest physical address, its numbers replaced, executed here. No software looks on.

use super::Iommu;
use crate::model::commands::Undone;
use crate::model::walk::{READ, WRITE};
use crate::spec::commands::{
    COMMAND_WORDS, CompletionWait, InvalidateDevice, InvalidateIommuPages, InvalidateIotlbPages, Opcode,
};
use crate::spec::events::EventCode;
use crate::spec::registers::{RingPointer, Status};
use crate::spec::size::ALL_LOG2;
use viommu_cache::Range;

impl Iommu {
    /// One command of each guest that has one; whether any was executed.
    pub(in crate::model) fn step_guests(&mut self) -> bool {
        let ids: Vec<u16> = self.guests.pending.iter().copied().collect();
        ids.into_iter().fold(false, |any, id| self.step_guest(id) | any)
    }

    /// At most one command of a guest; whether one was executed.
    fn step_guest(&mut self, id: u16) -> bool {
        let iommu = self.registers.control();
        let Some(guest) = self.guests.guests.get(usize::from(id)) else { return false };
        let (ring, head, translate) = match guest.commands(iommu) {
            Some(ring) if ring.index(guest.head) != ring.index(guest.tail) => {
                (ring, ring.index(guest.head), guest.misc.translate())
            }
            _ => {
                self.guests.pending.remove(&id);
                return false;
            }
        };
        let gpa = ring.entry(head);
        let address = self.reach(translate, gpa, READ);
        let outcome = match address.and_then(|address| self.fetch(address)) {
            Some(command) => self.execute_for(id, translate, command),
            None => Err(Undone::Error(EventCode::COMMAND_HARDWARE_ERROR)),
        };
        let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return false };
        let next = RingPointer::new().with_index(ring.next(head));
        match outcome {
            Ok(()) => guest.head = next,
            Err(Undone::Waits) => return false,
            Err(Undone::TimedOut(device)) => {
                guest.head = next;
                guest.commands_stopped = true;
                self.log_guest_command(id, EventCode::IOTLB_INV_TIMEOUT, device, gpa);
            }
            Err(Undone::Error(event)) => {
                guest.commands_stopped = true;
                self.log_guest_command(id, event, 0, gpa);
                return false;
            }
        }
        true
    }

    /// One command of guest `id`. What it names must be the guest's; if it is not, the command is complete.
    fn execute_for(&mut self, id: u16, translate: u16, words: [u64; COMMAND_WORDS]) -> Result<(), Undone> {
        let opcode = Opcode::of(words[0]);
        if !self.is_offered(opcode) {
            return Err(Undone::Error(EventCode::ILLEGAL_COMMAND_ERROR));
        }
        match opcode {
            Opcode::COMPLETION_WAIT => return self.wait_for(id, translate, CompletionWait::from_words(words)),
            Opcode::INVALIDATE_DEVTAB_ENTRY => {
                if let Some(host) = self.host_device(id, InvalidateDevice::from_words(words).device_id()) {
                    self.devices.forget(host);
                }
            }
            Opcode::INVALIDATE_IOMMU_PAGES => {
                let command = InvalidateIommuPages::from_words(words);
                match self.host_domain(id, command.domain_id()) {
                    Some(host) => self.invalidate_pages(command.with_domain_id(host)),
                    // The host presets every entry: one that is not there is its mistake.
                    None => self.log_viommu(id, command.domain_id().into()),
                }
            }
            Opcode::INVALIDATE_IOTLB_PAGES => {
                let command = InvalidateIotlbPages::from_words(words);
                if let Some(host) = self.host_device(id, command.device_id()) {
                    let done = self.invalidate_iotlb(command.with_device_id(host).with_queue_id(host));
                    return done.map_err(|undone| undone.about(command.device_id()));
                }
            }
            Opcode::INVALIDATE_IOMMU_ALL => self.invalidate_all_of(id),
            Opcode::INVALIDATE_INTERRUPT_TABLE | Opcode::PREFETCH_IOMMU_PAGES | Opcode::COMPLETE_PPR_REQUEST => {}
            // RESET_VMMIO and INSERT_GUEST_EVENT are the host's.
            _ => return Err(Undone::Error(EventCode::ILLEGAL_COMMAND_ERROR)),
        }
        Ok(())
    }

    /// All that is cached of the domains and entries that the guest's maps lead to.
    fn invalidate_all_of(&mut self, id: u16) {
        let Some(guest) = self.guests.guests.get(usize::from(id)) else { return };
        let all = Range::block(0, ALL_LOG2);
        for domain in guest.reachable.domains() {
            self.tlb.host_pages(domain, all);
        }
        guest.reachable.devices().for_each(|device| self.devices.forget(device));
    }

    /// Stores at a guest physical address.
    fn wait_for(&mut self, id: u16, translate: u16, command: CompletionWait) -> Result<(), Undone> {
        if command.s() {
            let address = self.reach(translate, command.store_address(), WRITE);
            let data = command.data().to_le_bytes();
            if address.is_none_or(|address| self.host.write(address, &data).is_err()) {
                return Err(Undone::Error(EventCode::COMMAND_HARDWARE_ERROR));
            }
        }
        if command.i() {
            let guest = self.guests.guests.get(usize::from(id));
            let enabled = guest.is_some_and(|guest| guest.command.wait_int());
            self.interrupt_guest(id, Status::new().with_com_wait_int(true), enabled);
        }
        Ok(())
    }
}
