//! HW queue: a hardware queue that a guest drives itself (HW_QUEUE, Tegra's vCMDQ).

use super::served::{Operation, State};
use super::{Change, Link, Viommu, ViommuState};
use crate::backend::ObjectKind;
use crate::{Cause, Error};
use std::sync::Arc;
use viommu_plugin::{HwQueueKind, HwQueueRequest};

/// A queue of a vIOMMU that hardware reads from guest memory. Queue n uses queue n-1: they go in descending index.
#[derive(Debug, Clone)]
pub struct HwQueue(pub(crate) Arc<Link<HwQueueState>>);

impl HwQueue {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// Its index in the vIOMMU, from 0.
    pub fn index(&self) -> u32 {
        self.0.facts.index
    }

    /// The vIOMMU it belongs to.
    pub fn viommu(&self) -> &Viommu {
        &self.0.keeps.0
    }

    /// Destroys it.
    ///
    /// # Errors
    /// EBUSY while the queue with the next index lives.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What handles know of a HW queue.
pub(crate) struct HwQueueFacts {
    pub(crate) index: u32,
    pub(crate) iova: u64,
    pub(crate) length: u64,
}

/// What the actor remembers: nothing.
#[derive(Clone)]
pub(crate) struct HwQueueState;

impl State for HwQueueState {
    const KIND: ObjectKind = ObjectKind::HwQueue;
    type Facts = HwQueueFacts;
    type Keeps = (Viommu, Option<HwQueue>);
}

/// HW_QUEUE_ALLOC.
pub(crate) struct AllocHwQueue {
    pub(crate) viommu: Viommu,
    pub(crate) index: u32,
    pub(crate) iova: u64,
    pub(crate) length: u64,
}

impl Operation for AllocHwQueue {
    type State = ViommuState;
    type Output = Arc<Link<HwQueueState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::HwQueue);

    fn run(self, _: &mut ViommuState, change: &mut Change) -> Result<Self::Output, Cause> {
        let Self { viommu, index, iova, length } = self;
        let queues = change.shared().registry.handles::<HwQueueState>();
        let find = |index| {
            let mine = queues.iter().find(|queue| queue.keeps.0.id() == viommu.id() && queue.facts.index == index);
            mine.cloned().map(HwQueue)
        };
        if find(index).is_some() {
            return Err(Cause::Exists(format!("vIOMMU {} has HW queue {index}", viommu.id())));
        }
        let previous = match index {
            0 => None,
            _ => Some(find(index - 1).ok_or_else(|| Cause::Queue(format!("queue {} comes first", index - 1)))?),
        };
        let mut parents = vec![change.node().clone()];
        parents.extend(previous.as_ref().map(|previous| previous.0.node.clone()));
        for parent in &parents {
            change.acquire(parent, ObjectKind::HwQueue)?;
        }
        let backend = change.backend();
        let queue = HwQueueRequest { kind: HwQueueKind::COMMAND, index, iova, length };
        let id = change.create(backend.hw_queue_alloc(viommu.id(), &queue))?;
        Ok(Link::start(
            change,
            id,
            parents,
            Arc::new(HwQueueFacts { index, iova, length }),
            (viommu, previous),
            HwQueueState,
        ))
    }
}
