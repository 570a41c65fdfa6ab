//! What the IOMMU tells software: event log entries, and its interrupt.

use super::fault::Fault;
use super::{Context, Iommu};
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventCode, EventWord0, flags};
use crate::spec::registers::Status;
use viommu_plugin::Request;

/// The interrupt line, numbered as in the recordings: event log and completion waits share it.
const LINE: u32 = 0;

impl Iommu {
    /// Logs a refused request in its device's context: page faults are not logged with SA, and what a guest's own tables
    /// refused goes to the guest's log, if it has one.
    pub(super) fn log_fault(&mut self, fault: &Fault, request: &Request, context: Option<&Context>) {
        let (domain, quiet) = context.map_or((0, false), |context| (context.domain, context.quiet));
        let page = fault.event == EventCode::IO_PAGE_FAULT;
        if quiet && page {
            return;
        }
        let record = fault.record(request, domain);
        let word0 = EventWord0::from(record[0]);
        let guests = word0.flags() & flags::GN != 0 && (page || fault.event == EventCode::INVALID_DEVICE_REQUEST);
        match context.and_then(|context| context.own).filter(|(guest, _)| guests && self.has_own_log(*guest)) {
            Some((guest, device)) => self.log_guest(guest, [word0.with_device_id(device).into(), record[1]]),
            None => self.log(record),
        }
    }

    /// Logs what went wrong with the command at `address`.
    pub(super) fn log_command(&mut self, event: EventCode, device: u16, address: u64) {
        self.log([EventWord0::new().with_code(event.0).with_device_id(device).into(), address]);
    }

    /// Writes an entry. Without room it is lost, EventOverflow says so, and the log stops until it is enabled again.
    /// An entry that reaches no memory is lost.
    fn log(&mut self, words: [u64; EVENT_WORDS]) {
        if !self.registers.events_run() {
            return;
        }
        let (ring, head, tail) = self.registers.events();
        let enabled = self.registers.control().event_int_en();
        if ring.next(tail) == head {
            self.registers.stop_events();
            if enabled {
                self.host.irq(LINE);
            }
            return;
        }
        let mut bytes = [0; EVENT_BYTES as usize];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        if self.host.write(ring.entry(tail), &bytes).is_ok() {
            self.registers.set_event_tail(ring.next(tail));
            self.interrupt(Status::new().with_event_log_int(true), enabled);
        }
    }

    /// Sets a bit of STATUS, and interrupts if it was clear: software acknowledges by clearing it.
    pub(super) fn interrupt(&mut self, bit: Status, enabled: bool) {
        if self.registers.raise(bit) && enabled {
            self.host.irq(LINE);
        }
    }
}
