//! What guests are told: their own event logs, and interrupts. And what the host is told of a guest's part that is broken.

use super::Iommu;
use crate::model::walk::WRITE;
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventCode, EventWord0};
use crate::spec::registers::{RingPointer, Status};
use crate::spec::viommu::GUEST_LINE;

impl Iommu {
    /// Whether events of the guest's devices go to its own log.
    pub(in crate::model) fn has_own_log(&self, id: u16) -> bool {
        let guest = self.guests.guests.get(usize::from(id));
        self.registers.control().viommu_en() && guest.is_some_and(|guest| guest.misc.translate() != 0)
    }

    /// Writes an entry to a guest's log, if it is on. A log that is full, or that is not the guest's memory, stops.
    pub(in crate::model) fn log_guest(&mut self, id: u16, words: [u64; EVENT_WORDS]) {
        let iommu = self.registers.control();
        let Some(guest) = self.guests.guests.get(usize::from(id)) else { return };
        let Some(ring) = guest.events(iommu) else { return };
        let (head, tail) = (ring.index(guest.event_head), ring.index(guest.event_tail));
        if ring.next(tail) == head {
            self.stop_guest_log(id);
            return;
        }
        let (at, translate) = (ring.entry(tail), guest.misc.translate());
        let mut bytes = [0; EVENT_BYTES as usize];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let address = self.reach(translate, at, WRITE);
        if address.is_none_or(|address| self.host.write(address, &bytes).is_err()) {
            self.stop_guest_log(id);
            return;
        }
        let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return };
        guest.event_tail = RingPointer::new().with_index(ring.next(tail));
        let enabled = guest.event.interrupt();
        self.interrupt_guest(id, Status::new().with_event_log_int(true), enabled);
    }

    fn stop_guest_log(&mut self, id: u16) {
        let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return };
        guest.events_stopped = true;
        let enabled = guest.event.interrupt();
        self.interrupt_guest(id, Status::new().with_event_overflow(true), enabled);
    }

    /// Sets a bit of a guest's status, and interrupts if it was clear.
    pub(super) fn interrupt_guest(&mut self, id: u16, bit: Status, enabled: bool) {
        let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return };
        let (old, bits) = (u64::from(guest.status), u64::from(bit));
        guest.status = Status::from(old | bits);
        if old & bits != bits && enabled {
            self.host.irq(GUEST_LINE);
        }
    }

    /// The guest's command at `gpa` stopped its buffer.
    pub(super) fn log_guest_command(&mut self, id: u16, event: EventCode, device: u16, gpa: u64) {
        self.log_guest(id, [EventWord0::new().with_code(event.0).with_device_id(device).into(), gpa]);
    }

    /// The guest's tables cannot be reached at `address`: the host's event log says so.
    pub(super) fn log_viommu(&mut self, id: u16, address: u64) {
        self.log_command(EventCode::VIOMMU_HARDWARE_ERROR, id, address);
    }
}
