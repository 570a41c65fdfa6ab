//! What the unit tells software: fault records and status (§7.2), events (§7.3).

use super::RemappingUnit;
use super::fault::Fault;
use crate::spec::registers::{EventControl, FaultStatus, offset};
use viommu_plugin::Request;

/// Lines of the events that have no message address. Silicon only sends messages; the line is for a machine without
/// an interrupt controller behind the model.
mod line {
    pub(super) const FAULT: u32 = 0;
    pub(super) const PAGE_REQUEST: u32 = 1;
    pub(super) const INVALIDATION: u32 = 2;
}

impl RemappingUnit {
    /// Records `fault`, if software is to be told of it. A device has one record at a time (§7.2.1 lets hardware
    /// collapse); without a free record the fault is lost and PFO says so.
    pub(super) fn record(&mut self, fault: &Fault, request: &Request) {
        let before = self.registers.fault_status();
        if !fault.recorded || before.overflow() || self.registers.has_fault_of(request.stream as u16) {
            return;
        }
        if !self.registers.put_fault(fault.record(request)) {
            self.registers.set_fault_status(before.with_overflow(true));
        }
        self.fault_event(before);
    }

    /// The fault event, unless FSTS had something to tell `before`: then software has been called.
    pub(super) fn fault_event(&mut self, before: FaultStatus) {
        if u32::from(before.with_first_register(0)) == 0 {
            self.registers.set_pending(offset::FECTL, true);
            self.release(offset::FECTL);
        }
    }

    /// Sends the message of the event with its control register at `control` if it is due and not masked.
    pub(super) fn release(&mut self, control: u64) {
        let state = EventControl::from(self.registers.word(control));
        if !state.pending() || state.mask() {
            return;
        }
        self.registers.set_pending(control, false);
        match self.registers.message(control) {
            (0, _) => self.host.irq(match control {
                offset::FECTL => line::FAULT,
                offset::PECTL => line::PAGE_REQUEST,
                _ => line::INVALIDATION,
            }),
            // A message that reaches nothing is lost: there is no register to say so.
            (address, data) => drop(self.host.write(address, &data.to_le_bytes())),
        }
    }
}
