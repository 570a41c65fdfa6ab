//! What the SMMU tells software: event records (§7.2), global errors (§7.5), interrupts (§3.18).

use super::Smmu;
use super::fault::Fault;
use super::queue::Queue;
use crate::spec::events::EVENT_BYTES;
use crate::spec::registers::{Gerror, offset};
use viommu_plugin::Request;

/// Wired interrupt lines, numbered as in the recordings.
mod line {
    pub(super) const EVENTQ: u32 = 0;
    pub(super) const CMD_SYNC: u32 = 2;
    pub(super) const GERROR: u32 = 3;
}

impl Smmu {
    /// Writes the event record of `fault`, if software is to be told of it. Without room it is lost and OVFLG says
    /// so; where the queue cannot be written, EVENTQ_ABT_ERR does.
    pub(super) fn record(&mut self, fault: &Fault, request: &Request) {
        if !fault.recorded || !self.registers.cr0().eventqen() {
            return;
        }
        let queue = Queue::new(self.registers.eventq_base(), self.identity.idr1().eventqs(), EVENT_BYTES);
        let (prod, cons) = (self.registers.eventq_prod(), self.registers.eventq_cons());
        if queue.is_full(prod.index(), cons.index()) {
            // Toggles once; software acknowledges by making CONS.OVACKFLG equal.
            self.registers.set_eventq_prod(prod.with_overflow(!cons.overflow()));
            return;
        }
        let mut bytes = [0; EVENT_BYTES as usize];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(fault.record(request)) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        if self.host.write(queue.entry(prod.index()), &bytes).is_err() {
            self.global_error(Gerror::new().with_eventq_abt_err(true));
            return;
        }
        self.registers.set_eventq_prod(prod.with_index(queue.next(prod.index())));
        if queue.is_empty(prod.index(), cons.index()) && self.registers.irq_ctrl().eventq_irqen() {
            let message = self.registers.message(offset::EVENTQ_IRQ_CFG0);
            self.interrupt(line::EVENTQ, message, Gerror::new().with_msi_eventq_abt_err(true));
        }
    }

    /// Makes a global error active and interrupts, unless it already is.
    pub(super) fn global_error(&mut self, error: Gerror) {
        if self.registers.raise(error) && self.registers.irq_ctrl().gerror_irqen() {
            let message = self.registers.message(offset::GERROR_IRQ_CFG0);
            self.interrupt(line::GERROR, message, Gerror::new().with_msi_gerror_abt_err(true));
        }
    }

    /// The completion interrupt of a CMD_SYNC.
    pub(super) fn sync_interrupt(&mut self, address: u64, data: u32) {
        self.interrupt(line::CMD_SYNC, (address, data), Gerror::new().with_msi_cmdq_abt_err(true));
    }

    /// Sends a message, or pulses the line if the message has no address (or IDR0.MSI is 0). A message that reaches
    /// nothing is the global error `lost`.
    fn interrupt(&mut self, line: u32, (address, data): (u64, u32), lost: Gerror) {
        if address == 0 || !self.identity.idr0().msi() {
            self.host.irq(line);
        } else if self.host.write(address, &data.to_le_bytes()).is_err() {
            if lost.msi_gerror_abt_err() {
                // The interrupt that would tell is the one that was lost.
                self.registers.raise(lost);
            } else {
                self.global_error(lost);
            }
        }
    }
}
