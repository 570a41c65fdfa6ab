//! Event queue: a vIOMMU's fault records (VEVENTQ).

use super::served::{Operation, State};
use super::{Change, Link, Viommu, ViommuState};
use crate::backend::ObjectKind;
use crate::{Cause, Error};
use std::sync::Arc;

/// A vIOMMU's event queue. A vIOMMU has one; its records reach the guest through the vIOMMU's frontend or, where the
/// VMM emulates the registers itself, [`crate::pipeline::Interrupts::event`].
#[derive(Debug, Clone)]
pub struct EventQueue(pub(crate) Arc<Link<EventQueueState>>);

impl EventQueue {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// The vIOMMU whose events it takes.
    pub fn viommu(&self) -> &Viommu {
        &self.0.keeps
    }

    /// Destroys it.
    ///
    /// # Errors
    /// If the backend refuses.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What the actor remembers: nothing.
#[derive(Clone)]
pub(crate) struct EventQueueState;

impl State for EventQueueState {
    const KIND: ObjectKind = ObjectKind::EventQueue;
    type Facts = ();
    type Keeps = Viommu;
}

/// VEVENTQ_ALLOC.
pub(crate) struct AllocEventQueue(pub(crate) Viommu);

impl Operation for AllocEventQueue {
    type State = ViommuState;
    type Output = Arc<Link<EventQueueState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::EventQueue);

    fn run(self, _: &mut ViommuState, change: &mut Change) -> Result<Self::Output, Cause> {
        let viommu = change.node().clone();
        change.acquire_only(&viommu, ObjectKind::EventQueue, || format!("vIOMMU {} has one", viommu.id))?;
        let backend = change.backend();
        let id = change.create(backend.event_queue_alloc(viommu.id))?;
        Ok(Link::start(change, id, vec![viommu], Arc::new(()), self.0, EventQueueState))
    }
}
