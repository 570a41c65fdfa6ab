//! Rest for a guest's queue while its state is taken, and going on where another host stopped.

use super::Pipeline;
use crate::Cause;
use crate::backend::SinkError;
use std::sync::Arc;
use viommu_plugin::GuestFault;

impl Pipeline {
    /// Stops the queue where it is, until [`Pipeline::resume`].
    pub(crate) fn hold(&self) {
        self.settle.begin_saving();
    }

    /// Takes the queue up where it is, on the shard's thread: one that was held, or that another host left.
    pub(crate) fn resume(self: &Arc<Self>) {
        self.settle.end_saving();
        let queue = self.registers().and_then(|registers| Ok(registers.queue()?));
        // Without commands there is nothing to take up, and a look at the queue would only be in a guest's way.
        if queue.is_ok_and(|queue| queue.pending > 0 || queue.fault != GuestFault::NONE) {
            self.queue_rekick();
        }
        self.settle.notify();
    }

    /// Returns when the control plane owes this guest no answer, and nothing more of a queue that is held can ask for one.
    ///
    /// # Errors
    /// If it takes too long.
    pub(crate) fn wait_answered(&self) -> Result<(), Cause> {
        // Whoever took the queue up before it was held may be at a configuration command right now.
        drop(self.queue());
        let limit = self.shard.sync_limit().saturating_mul(4);
        let answered = self.settle.wait(limit, self.shard.clock(), || !self.settle.is_busy());
        if answered { Ok(()) } else { Err(Cause::TimedOut(limit)) }
    }

    /// The register frame, when nothing of this guest is unfinished in hardware; `None` without a frontend. What the
    /// hardware finds wrong with the last commands is shown to the guest first: its registers take the error along.
    ///
    /// # Errors
    /// If the control plane owes the guest an answer, the hardware does not finish, or the plugin cannot save.
    pub(crate) fn drain_and_save(&self) -> Result<Option<Vec<u8>>, Cause> {
        let mut fetch = self.queue();
        if self.settle.is_busy() {
            return Err(Cause::Busy { users: "a configuration change of its guest".into() });
        }
        match self.sync_outstanding(&mut fetch) {
            Err(SinkError::TimedOut(limit)) => return Err(Cause::TimedOut(limit)),
            Err(SinkError::Fault(fault)) => self.guest_fault(fault),
            // A guest that is out of service has nothing there.
            Ok(()) | Err(SinkError::Quarantined | SinkError::Gone(_)) => {}
        }
        Ok(self.registers.as_ref().map(|registers| crate::seams::lock(registers).save()).transpose()?)
    }

    /// Stops the queue for good, without telling the guest again.
    pub(crate) fn out_of_service(&self) {
        self.settle.quarantine();
    }
}
