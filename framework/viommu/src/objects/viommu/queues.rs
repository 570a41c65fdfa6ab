//! Queues that the guest asked for through its registers: they come and go with what the registers say.

use super::ViommuState;
use crate::Cause;
use crate::objects::Change;
use viommu_plugin::HwQueueRequest;

/// A queue of the backend's that this guest drives.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnQueue {
    id: u32,
    request: HwQueueRequest,
}

impl ViommuState {
    pub(super) fn has_queues(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Makes the queues what the guest's registers ask for now. Those from the first that differs go, last to first; then
    /// the new ones come, first to last. One that hardware refuses is not there for the guest, which finds that it cannot
    /// enable it, and neither are those behind it.
    pub(super) fn follow_queues(&mut self, change: &mut Change) -> Result<(), Cause> {
        let wanted = self.facts.pipeline.hw_queues()?;
        let same = self.queues.iter().zip(&wanted).take_while(|(queue, wanted)| queue.request == **wanted).count();
        self.free_queues(same, change)?;
        for request in wanted.into_iter().skip(same) {
            let backend = change.backend();
            match change.create(backend.hw_queue_alloc(self.facts.info.id, &request)) {
                Ok(id) => self.queues.push(OwnQueue { id, request }),
                Err(cause) => {
                    tracing::warn!(viommu = self.facts.info.id, ?request, %cause, "a guest's queue is refused");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Frees the queues behind the first `keep`, last to first.
    pub(super) fn free_queues(&mut self, keep: usize, change: &mut Change) -> Result<(), Cause> {
        while self.queues.len() > keep
            && let Some(&OwnQueue { id, .. }) = self.queues.last()
        {
            change.destroy(id)?;
            self.queues.pop();
        }
        Ok(())
    }

    /// What the backend no longer has is forgotten.
    pub(super) fn forget_queues(&mut self, live: impl Fn(u32) -> bool) {
        self.queues.retain(|queue| live(queue.id));
    }
}
