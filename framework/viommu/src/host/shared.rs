//! What every actor of a host reaches.

use super::event::{HostEvent, Subscribers};
use super::registry::Registry;
use super::workers::Reap;
use crate::Cause;
use crate::backend::{Host as HostWords, Objects, Owner, Sink, SinkOf};
use crate::objects::ViommuState;
use crate::objects::served::Served;
use crate::pipeline::{Pipeline, Shard, ShardMode, ShardParts};
use crate::seams::{BlockingPool, Clock, FaultPlan, Threads, lock};
use actix::{ArbiterHandle, WeakAddr};
use dashmap::{DashMap, DashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu_plugin_host::Plugin;

/// Wraps the backend's sink.
pub(crate) type WrapSink =
    Box<dyn Fn(Arc<dyn Sink<Accepts = HostWords>>) -> Arc<dyn Sink<Accepts = HostWords>> + Send + Sync>;

/// How shards are made.
pub(crate) struct ShardOptions {
    pub(crate) count: usize,
    pub(crate) mode: ShardMode,
    pub(crate) sync_limit: Duration,
    pub(crate) wrap: WrapSink,
}

/// Whose events a host stream's are.
pub(crate) struct Route {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) virt_id: u32,
}

/// Shared by the host, its actors and its handles.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Objects>,
    pub(crate) plugin: Plugin,
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) pool: Arc<dyn BlockingPool>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) threads: Arc<dyn Threads>,
    pub(crate) faults: FaultPlan,
    pub(crate) registry: Registry,
    /// Host streams bound.
    pub(crate) streams: DashSet<u32>,
    /// Guests' devices by host stream.
    pub(crate) routes: DashMap<u32, Route>,
    /// vIOMMUs by the number the hardware queue knows.
    pub(crate) owners: DashMap<Owner, (u32, WeakAddr<Served<ViommuState>>)>,
    pub(crate) shard_options: ShardOptions,
    pub(crate) shards: Mutex<Vec<Arc<Shard>>>,
    pub(crate) last_owner: AtomicU32,
    pub(crate) reaper: flume::Sender<Reap>,
    pub(crate) supervisor: flume::Sender<u32>,
    pub(crate) subscribers: Subscribers,
}

impl Shared {
    /// Runs a job where it may block. `None` if the host is going down.
    pub(crate) fn off_thread<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.pool.run(Box::new(move || drop(answer.send(job()))));
        async move { answered.await.ok() }
    }

    /// An owner number that nobody had, and the shard its commands go to.
    pub(crate) fn owner_and_shard(&self, viommu: u32) -> Result<(Owner, Arc<Shard>), Cause> {
        let owner = Owner(self.last_owner.fetch_add(1, Ordering::Relaxed) + 1);
        let sink = match self.backend.sink(viommu)? {
            SinkOf::Host(sink) => sink,
            // Nothing merges across guests there: each has an order of its own, and ends with its guest.
            checked => return Ok((owner, self.shard(None, checked)?)),
        };
        let mut shards = lock(&self.shards);
        if shards.is_empty() {
            let sink = (self.shard_options.wrap)(sink);
            let made = (0..self.shard_options.count).map(|index| self.shard(Some(index), SinkOf::Host(sink.clone())));
            *shards = made.collect::<Result<_, _>>()?;
        }
        Ok((owner, shards[owner.0 as usize % shards.len()].clone()))
    }

    fn shard(&self, number: Option<usize>, sink: SinkOf) -> Result<Arc<Shard>, Cause> {
        let ShardOptions { mode, sync_limit, .. } = &self.shard_options;
        Ok(Shard::new(ShardParts {
            number,
            sink,
            vendor: &self.plugin.info().name,
            mode: *mode,
            sync_limit: *sync_limit,
            clock: self.clock.clone(),
            threads: &*self.threads,
        })?)
    }

    /// The vIOMMU of this data path is gone.
    pub(crate) fn forget(&self, pipeline: &Pipeline) {
        self.owners.remove(&pipeline.owner());
    }

    /// Leaves something to the reaper. A host that is gone has no backend objects left to care for.
    pub(crate) fn reap(&self, what: Reap) {
        drop(self.reaper.send(what));
    }

    /// Asks for a restart of an object and of what was made on it.
    pub(crate) fn supervise(&self, id: u32) {
        let _ = self.supervisor.send(id);
    }

    pub(crate) fn tell(&self, event: HostEvent) {
        self.tell_somebody(&event);
    }

    /// Whether somebody heard it.
    pub(crate) fn tell_somebody(&self, event: &HostEvent) -> bool {
        tracing::info!(?event, "host event");
        self.subscribers.tell(event)
    }
}
