//! The host: the actors' threads, the registry, the shards, and where everything is handed in.

mod event;
mod registry;
mod shared;
mod workers;

pub use event::HostEvent;
pub(crate) use registry::Entry;
pub(crate) use shared::{Route, Shared};
pub(crate) use workers::Reap;

use crate::backend::{Host as HostWords, ObjectKind, Objects, Sink};
use crate::objects::served::{State, destroy_by};
use crate::objects::{
    AllocFaultQueue, AllocIoas, BindDevice, Device, DeviceState, FaultQueue, Ioas, IoasState, Link, NestParent,
    NestParentState, NestedHwpt, NestedHwptState, Node, ObjectInfo, Viommu, ViommuState,
};
use crate::pipeline::ShardMode;
use crate::seams::{
    BlockingPool, Clock, FaultPlan, MonotonicClock, OsThreads, Running, Threads, on_actor_thread, wait,
};
use crate::simulation::{self, Simulation};
use crate::{Cause, Error};
use dashmap::{DashMap, DashSet};
use shared::{ShardOptions, WrapSink};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu_plugin_host::Plugin;
use workers::ActorThread;

/// Builds a [`Host`]. Backend and plugin must be given; everything else has a default.
pub struct HostBuilder {
    backend: Option<Arc<dyn Objects>>,
    plugin: Option<Plugin>,
    shards: usize,
    shard_mode: ShardMode,
    sync_limit: Duration,
    wrap_sink: WrapSink,
    clock: Arc<dyn Clock>,
    pool: Option<Arc<dyn BlockingPool>>,
    threads: Arc<dyn Threads>,
    simulated: Option<u64>,
    beside: Option<ActorThread>,
    faults: FaultPlan,
}

impl HostBuilder {
    /// What carries out the operations.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Objects>) -> Self {
        self.backend = Some(backend);
        self
    }
    /// The vendor.
    #[must_use]
    pub fn plugin(mut self, plugin: Plugin) -> Self {
        self.plugin = Some(plugin);
        self
    }
    /// How many shards share the hardware queue (1).
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }
    /// How batches reach the hardware queue.
    #[must_use]
    pub fn shard_mode(mut self, mode: ShardMode) -> Self {
        self.shard_mode = mode;
        self
    }
    /// How long hardware may take for a SYNC (1 s).
    #[must_use]
    pub fn sync_limit(mut self, limit: Duration) -> Self {
        self.sync_limit = limit;
        self
    }
    /// Puts something between the shards and the backend's queue: fault injection, recording. Not for a backend whose sinks
    /// take checked words.
    #[must_use]
    pub fn wrap_sink(
        mut self,
        wrap: impl Fn(Arc<dyn Sink<Accepts = HostWords>>) -> Arc<dyn Sink<Accepts = HostWords>> + Send + Sync + 'static,
    ) -> Self {
        self.wrap_sink = Box::new(wrap);
        self
    }
    /// Time, for the supervisor.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
    /// Threads for what may block.
    #[must_use]
    pub fn blocking_pool(mut self, pool: Arc<dyn BlockingPool>) -> Self {
        self.pool = Some(pool);
        self
    }
    /// Where the host's own threads come from.
    #[must_use]
    pub fn threads(mut self, threads: Arc<dyn Threads>) -> Self {
        self.threads = threads;
        self
    }
    /// Runs the whole host on this thread: its clock stands still, its threads and blocking jobs are tasks of the
    /// thread's [`Simulation`] (entered with `seed` if there is none), and what happens next is drawn. Its backend has to
    /// take its seams from the simulation too. The host must be used, and dropped, on this thread only.
    #[must_use]
    pub fn simulated(mut self, seed: u64) -> Self {
        self.simulated = Some(seed);
        self
    }
    /// Runs the actors on `other`'s thread and its blocking pool: the host of another IOMMU in the same machine, of
    /// whatever vendor. Each has its own backend, plugin, queues and objects, and the numbers of their objects and streams
    /// have nothing to do with each other. The thread ends with the last of them.
    #[must_use]
    pub fn beside(mut self, other: &Host) -> Self {
        self.beside = Some(other.actors.shared());
        self
    }
    /// Panics to inject, for tests of supervision.
    #[must_use]
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.faults = plan;
        self
    }

    /// Starts the host's threads.
    ///
    /// # Errors
    /// If backend or plugin is missing, there are no shards (EINVAL), or a thread cannot be started.
    pub fn build(mut self) -> Result<Host, Error> {
        let failed = |cause: Cause| cause.of(ObjectKind::Host, None, "build");
        let missing = |what: &str| failed(Cause::Invalid(format!("a host needs a {what}")));
        let backend = self.backend.ok_or_else(|| missing("backend"))?;
        let plugin = self.plugin.ok_or_else(|| missing("plugin"))?;
        if self.shards == 0 {
            return Err(missing("shard"));
        }
        let simulated = self.simulated.map(|seed| Simulation::current().map_or_else(|| Simulation::enter(seed), Ok));
        if let Some(simulation) = simulated.transpose().map_err(failed)? {
            self.clock = simulation.clock();
            self.threads = simulation.threads();
            self.pool = Some(simulation.blocking_pool());
        }
        let actors = match self.beside {
            Some(actors) => Ok(actors),
            None if self.simulated.is_some() => ActorThread::simulated(),
            None => ActorThread::start(),
        };
        let actors = actors.map_err(|error| failed(error.into()))?;
        let (reaper, reaped) = flume::unbounded();
        let (supervisor, supervised) = flume::unbounded();
        let shared = Arc::new(Shared {
            backend: backend.clone(),
            plugin,
            arbiter: actors.arbiter.clone(),
            pool: self.pool.unwrap_or_else(|| actors.pool()),
            clock: self.clock,
            threads: self.threads,
            faults: self.faults,
            registry: registry::Registry::default(),
            streams: DashSet::new(),
            routes: DashMap::new(),
            owners: DashMap::new(),
            shard_options: ShardOptions {
                count: self.shards,
                mode: self.shard_mode,
                sync_limit: self.sync_limit,
                wrap: self.wrap_sink,
            },
            shards: Mutex::default(),
            last_owner: AtomicU32::new(0),
            reaper,
            supervisor,
            subscribers: event::Subscribers::default(),
        });
        actors.arbiter.spawn(workers::reaper(Arc::downgrade(&shared), reaped));
        actors.arbiter.spawn(workers::supervisor(Arc::downgrade(&shared), supervised));
        let (stop, stopped) = flume::bounded(0);
        let (weak, events) = (Arc::downgrade(&shared), backend.events());
        let route = Box::new(move || workers::route_events(&weak, &events, &stopped));
        let router = shared.threads.spawn("viommu-router", route).map_err(|error| failed(error.into()))?;
        let node = Node::new(ObjectKind::Host, 0, Vec::new());
        let link = Link::unpublished(&shared, node, Arc::new(()), (), HostState);
        Ok(Host { link, shared, actors, stop: Some(stop), router: Some(router), flushed: false })
    }
}

/// What the host's own actor remembers: nothing. It makes the objects that have no parent.
#[derive(Clone)]
pub(crate) struct HostState;

impl State for HostState {
    const KIND: ObjectKind = ObjectKind::Host;
    type Facts = ();
    type Keeps = ();
}

/// What [`Host::shutdown`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Objects that still had a handle; they were destroyed.
    pub held: Vec<(ObjectKind, u32)>,
    /// Objects that the backend still has.
    pub remaining: Vec<(ObjectKind, u32)>,
}

impl Leftovers {
    /// Whether nothing was left over.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.remaining.is_empty()
    }
}

/// A host: owns the threads of its actors. Needs no tokio runtime of the caller's.
///
/// Dropping it ends its threads after everything without a handle is destroyed; handles that outlive it answer "shut
/// down".
pub struct Host {
    link: Arc<Link<HostState>>,
    shared: Arc<Shared>,
    actors: ActorThread,
    stop: Option<flume::Sender<()>>,
    router: Option<Box<dyn Running>>,
    flushed: bool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("objects", &self.objects()).finish()
    }
}

impl Host {
    /// A builder with defaults: one shard, 1 s for a SYNC, the system's clock, the host's own blocking pool.
    pub fn builder() -> HostBuilder {
        HostBuilder {
            backend: None,
            plugin: None,
            shards: 1,
            shard_mode: ShardMode::default(),
            sync_limit: Duration::from_secs(1),
            wrap_sink: Box::new(|sink| sink),
            clock: Arc::new(MonotonicClock::default()),
            pool: None,
            threads: Arc::new(OsThreads),
            simulated: None,
            beside: None,
            faults: FaultPlan::none(),
        }
    }

    /// IOAS_ALLOC.
    ///
    /// # Errors
    /// If the backend refuses.
    pub async fn ioas(&self) -> Result<Ioas, Error> {
        self.link.ask(AllocIoas).await.map(Ioas)
    }

    /// Binds the device with this host stream.
    ///
    /// # Errors
    /// If it is bound already (EEXIST) or out of the backend's range (EINVAL).
    pub async fn device(&self, stream: u32) -> Result<Device, Error> {
        self.link.ask(BindDevice { stream }).await.map(Device)
    }

    /// FAULT_QUEUE_ALLOC.
    ///
    /// # Errors
    /// If the backend refuses.
    pub async fn fault_queue(&self) -> Result<FaultQueue, Error> {
        self.link.ask(AllocFaultQueue).await.map(FaultQueue)
    }

    /// Objects alive, by ID.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        self.shared.registry.infos()
    }

    /// A handle to an IOAS by its ID.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn find_ioas(&self, id: u32) -> Result<Ioas, Error> {
        self.find::<IoasState>(id).map(Ioas)
    }

    /// A handle to a nesting parent by its ID.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn find_nest_parent(&self, id: u32) -> Result<NestParent, Error> {
        self.find::<NestParentState>(id).map(NestParent)
    }

    /// A handle to a vIOMMU by its ID.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn find_viommu(&self, id: u32) -> Result<Viommu, Error> {
        self.find::<ViommuState>(id).map(Viommu)
    }

    /// A handle to a device by its ID.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn find_device(&self, id: u32) -> Result<Device, Error> {
        self.find::<DeviceState>(id).map(Device)
    }

    /// A handle to a nested HWPT by its ID.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn find_nested_hwpt(&self, id: u32) -> Result<NestedHwpt, Error> {
        let link = self.find::<NestedHwptState>(id)?;
        let viommu = self.find_viommu(link.facts.viommu)?;
        let mine = viommu.nested_hwpts().into_iter().find(|nested| nested.id() == id);
        mine.ok_or_else(|| Cause::NotFound(ObjectKind::NestedHwpt).of(ObjectKind::NestedHwpt, id, "find"))
    }

    /// What happens from now on. A subscriber that falls behind loses the newest; see [`Host::events_lost`].
    pub fn events(&self) -> flume::Receiver<HostEvent> {
        self.shared.subscribers.subscribe()
    }

    /// Events that subscribers were too slow for.
    pub fn events_lost(&self) -> u64 {
        self.shared.subscribers.lost()
    }

    /// The panics that were planned, and what messages there were.
    pub fn faults(&self) -> &FaultPlan {
        &self.shared.faults
    }

    /// The vendor.
    pub fn plugin(&self) -> &Plugin {
        &self.shared.plugin
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Objects> {
        &self.shared.backend
    }

    /// Returns when everything whose last handle was dropped by now is destroyed, or was tried twice.
    pub async fn settle(&self) {
        let (done, settled) = tokio::sync::oneshot::channel();
        self.shared.reap(Reap::Flush(done));
        drop(settled.await);
    }

    /// Destroys everything, children first, and ends the host's threads.
    pub async fn shutdown(mut self) -> Leftovers {
        self.settle().await;
        let mut held = Vec::new();
        for (node, destroy) in self.shared.registry.youngest_first() {
            // Nested HWPTs go with their last user.
            if node.kind == ObjectKind::NestedHwpt {
                continue;
            }
            held.push((node.kind, node.id));
            if let Some(object) = destroy.upgrade()
                && !matches!(destroy_by(&object, node.id).await, Ok(Ok(())))
            {
                self.shared.reap(Reap::Object { node, object });
            }
        }
        self.settle().await;
        held.sort_by_key(|(_, id)| *id);
        let remaining = self.shared.backend.live().into_iter().map(|(id, kind)| (kind, id)).collect();
        self.flushed = true;
        if simulation::is_here() {
            return Leftovers { held, remaining };
        }
        // The threads are joined on the pool's behalf by a thread of its own: this one may be a runtime's.
        let (done, ended) = tokio::sync::oneshot::channel();
        let joiner = std::thread::Builder::new().name("viommu-shutdown".into()).spawn(move || {
            drop(self);
            let _ = done.send(());
        });
        if joiner.is_ok() {
            drop(ended.await);
        }
        Leftovers { held, remaining }
    }

    fn find<S: State>(&self, id: u32) -> Result<Arc<Link<S>>, Error> {
        self.shared.registry.handle(id).map_err(|cause| cause.of(S::KIND, id, "find"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.flushed && !on_actor_thread() {
            wait(self.settle());
        }
        drop(self.stop.take());
        if let Some(router) = self.router.take() {
            router.join();
        }
        self.actors.stop();
    }
}
