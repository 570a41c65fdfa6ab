//! Saving a guest's IOMMU. Nothing changes but that its queue rests.

use super::{Viommu, ViommuState};
use crate::objects::event_queue::EventQueueState;
use crate::objects::hw_queue::HwQueueState;
use crate::objects::served::Operation;
use crate::objects::{Change, ObjectState};
use crate::save::{SavedHwQueue, SavedVdevice, SavedViommu};
use crate::{Cause, Error};

impl Viommu {
    /// What this guest's IOMMU takes along to another host. What the guest sent and did not follow by a SYNC is complete
    /// in hardware when this returns, and no configuration change is half done. Commands that were not consumed stay in the
    /// guest's queue, for the new host to consume: from here on this one takes none, until [`Viommu::resume`].
    ///
    /// The VMM stops the VM's vCPUs and devices first, and moves the VM's memory after: what the guest does meanwhile is
    /// not in the state. Fault records that have not reached the guest's queue are not in it either.
    ///
    /// # Errors
    /// If the hardware or the control plane does not finish in time (ETIMEDOUT), or the plugin has no saved states
    /// (EOPNOTSUPP). The guest's queue goes on then.
    pub async fn save(&self) -> Result<SavedViommu, Error> {
        // The queue rests first, else it might pause anew in between.
        self.pipeline().hold();
        let pipeline = self.pipeline().clone();
        let saved = match self.0.off_thread("save", move || pipeline.wait_answered()).await {
            Ok(()) => self.0.ask(Save).await,
            Err(error) => Err(error),
        };
        saved.inspect_err(|_| self.resume())
    }

    /// The guest's queue goes on here: it was saved, and did not move.
    pub fn resume(&self) {
        self.pipeline().resume();
    }
}

/// Takes the state, while nothing else changes it.
struct Save;

impl Operation for Save {
    type State = ViommuState;
    type Output = SavedViommu;
    const NAME: &'static str = "save";
    const ALWAYS: bool = true;

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<SavedViommu, Cause> {
        let (shared, node) = (change.shared().clone(), change.node().clone());
        if state.has_queues() {
            let what = "moving a guest that drives queues of its own: where they stand is in the hardware's page alone";
            return Err(Cause::Unsupported(what.into()));
        }
        let mut hw_queues: Vec<_> = shared.registry.handles::<HwQueueState>();
        hw_queues.retain(|queue| queue.keeps.0.id() == node.id);
        hw_queues.sort_by_key(|queue| queue.facts.index);
        let event_queues = shared.registry.handles::<EventQueueState>();
        Ok(SavedViommu {
            vendor: shared.plugin.info().name.clone(),
            shown: state.facts.shown.clone(),
            frontend: state.facts.pipeline.drain_and_save()?,
            quarantined: (node.state() == ObjectState::Quarantined).then(|| node.reason()),
            event_queue: event_queues.iter().any(|queue| queue.keeps.id() == node.id),
            vdevices: state.entries().map(|(virt_id, entry)| SavedVdevice { virt_id, entry }).collect(),
            hw_queues: hw_queues
                .iter()
                .map(|queue| SavedHwQueue { iova: queue.facts.iova, length: queue.facts.length })
                .collect(),
        })
    }
}
