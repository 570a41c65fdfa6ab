//! The guest's accesses to its register frame, and what its registers show it.

use super::{ConfigRequest, DOORBELL, Pipeline};
use crate::Cause;
use crate::backend::GuestPage;
use crate::pipeline::GuestCounters;
use crate::seams::lock;
use std::sync::Arc;
use viommu_plugin::{Actions, GuestFault};

impl Pipeline {
    /// A guest read of the register frame.
    ///
    /// # Errors
    /// If there is no frontend, or the plugin failed.
    pub fn mmio_read(&self, offset: u64, size: u32) -> Result<u64, Cause> {
        if let Some((page, at)) = self.page.as_ref().and_then(|page| page.contains(offset)) {
            return Ok(page.read(at, size));
        }
        Ok(self.registers()?.read(offset, size)?)
    }

    /// A guest write of the register frame; a doorbell takes the commands as far as this thread can. A write that
    /// turns translation on or off returns when every device does what the guest now says.
    ///
    /// # Errors
    /// If there is no frontend, the plugin failed, or the devices were not switched in time.
    pub fn mmio_write(self: &Arc<Self>, offset: u64, size: u32, value: u64) -> Result<(), Cause> {
        if let Some((page, at)) = self.page.as_ref().and_then(|page| page.contains(offset)) {
            page.write(at, size, value);
            return Ok(());
        }
        let mut turn = self.queue.try_enter();
        let asked = {
            let mut registers = self.registers()?;
            let asked = registers.write(offset, size, value).map(|effects| self.store(effects));
            // One lock for the doorbell and for where the queue is now, if it is this thread's turn to look.
            if let (Some(fetch), Ok(asked)) = (&mut turn, &asked)
                && asked.actions.any(Actions::KICK)
            {
                fetch.seen = registers.queue_into(&mut fetch.queue).is_ok();
            }
            asked
        };
        let asked = asked.inspect_err(|_| self.give_up(GuestFault::HOST_ERROR))?;
        let actions = asked.actions;
        self.signal(Ok(asked));
        if actions.any(Actions::RECONFIGURE) {
            // The control plane may need the queue to answer.
            self.leave(turn.take());
            self.request_and_wait(ConfigRequest::Mode)?;
        }
        if actions.any(Actions::HW_QUEUES) {
            self.leave(turn.take());
            self.request_and_wait(ConfigRequest::HwQueues)?;
        }
        match turn {
            Some(mut fetch) => {
                if actions.any(Actions::KICK) && self.run(&mut fetch, DOORBELL, true) {
                    self.queue_rekick();
                }
                self.leave(Some(fetch));
            }
            None if actions.any(Actions::KICK) => self.kick(),
            None => {}
        }
        Ok(())
    }

    /// Machine reset: registers and queue indexes as after power-on, every device as the reset mode says.
    ///
    /// # Errors
    /// As [`Pipeline::mmio_write`].
    pub fn reset(self: &Arc<Self>) -> Result<(), Cause> {
        {
            let mut fetch = self.queue();
            if let Some(registers) = &self.registers {
                lock(registers).reset()?;
            }
            self.settle.resume();
            // What is on the ring without a SYNC stays the reset's affair: the control plane flushes the tag.
            fetch.before = viommu_plugin::Classes::NONE;
            fetch.seen = false;
        }
        self.request_and_wait(ConfigRequest::Reset)
    }

    /// Puts an event record of `virt_id`'s device into the guest's event queue. Without a frontend that queue is the VMM's.
    pub fn deliver_event(&self, virt_id: u32, record: &[u64]) {
        GuestCounters::add(&self.counters.events, 1);
        self.metrics.events.increment(1);
        let Ok(mut registers) = self.registers() else { return self.interrupts.event(virt_id, record) };
        let asked = registers.event(virt_id, record).map(|effects| self.store(effects));
        drop(registers);
        self.signal(asked);
    }

    /// Shows the guest that events were lost.
    pub fn event_lost(&self) {
        self.metrics.events_lost.increment(1);
        let Ok(mut registers) = self.registers() else { return self.interrupts.event_lost() };
        let asked = registers.event_lost().map(|effects| self.store(effects));
        drop(registers);
        self.signal(asked);
    }
}

/// Registers of the hardware in the guest's frame, for a VMM that has not mapped them into the guest.
pub(super) struct OwnPage {
    page: Arc<dyn GuestPage>,
    first: u64,
    length: u64,
}

impl OwnPage {
    pub(super) fn new(page: Arc<dyn GuestPage>) -> Self {
        let place = page.place();
        Self { page, first: place.guest_offset, length: place.length }
    }

    /// The page, and where in it an access goes; `None` if it goes elsewhere.
    fn contains(&self, offset: u64) -> Option<(&dyn GuestPage, u64)> {
        let at = offset.checked_sub(self.first).filter(|at| *at < self.length)?;
        Some((&*self.page, at))
    }
}
