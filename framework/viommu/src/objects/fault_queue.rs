//! Fault queue: page requests of devices (FAULT).

use super::served::{Operation, State};
use super::{Change, Link};
use crate::backend::ObjectKind;
use crate::host::HostState;
use crate::{Cause, Error};
use std::sync::Arc;

/// A fault queue.
#[derive(Debug, Clone)]
pub struct FaultQueue(pub(crate) Arc<Link<FaultQueueState>>);

impl FaultQueue {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// Answers a group of page requests ([`crate::HostEvent::PageRequest`]) by its cookie: the device tries again, or
    /// gives up.
    ///
    /// # Errors
    /// EINVAL if nothing with this cookie waits: its device left, or it was answered.
    pub async fn respond(&self, cookie: u32, success: bool) -> Result<(), Error> {
        let (backend, id) = (self.0.shared.backend.clone(), self.id());
        self.0.off_thread("respond", move || backend.page_response(id, cookie, success)).await
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
pub(crate) struct FaultQueueState;

impl State for FaultQueueState {
    const KIND: ObjectKind = ObjectKind::FaultQueue;
    type Facts = ();
    type Keeps = ();
}

/// FAULT_QUEUE_ALLOC.
pub(crate) struct AllocFaultQueue;

impl Operation for AllocFaultQueue {
    type State = HostState;
    type Output = Arc<Link<FaultQueueState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::FaultQueue);

    fn run(self, _: &mut HostState, change: &mut Change) -> Result<Self::Output, Cause> {
        let backend = change.backend();
        let id = change.create(backend.fault_queue_alloc())?;
        Ok(Link::start(change, id, Vec::new(), Arc::new(()), (), FaultQueueState))
    }
}
