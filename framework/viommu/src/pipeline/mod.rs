//! The data path of one vIOMMU: guest commands in, host commands on the hardware queue, completions back.
//!
//! ```text
//!  guest writes its doorbell                                        guest sees CONS move / its interrupt
//!    |                                                                        ^
//!  frontend -> guest_queue -> id_map -> codec.rewrite -> shard -> sink -> retire
//!   vendor       fetch        HostIds      vendor       one turn  backend
//! ```
//! The files below are in the order in which data meets them. Everything up to the sink runs on the thread that
//! trapped the guest; only a SYNC waits for the hardware.
//!
//! Three locks, taken in this order: the queue (fetch to retire, one thread at a time for a guest), the shard's turn
//! (while a batch is placed), the registers (for the length of one plugin call). Register reads take only the last.

mod counters;
mod doorbell;
mod entries;
mod frame;
mod guest_queue;
mod id_map;
mod interrupts;
mod primitives;
mod retire;
mod route;
mod saving;
mod settle;
mod shadow;
mod shard;
mod turn;
mod unchecked;

pub use counters::GuestCounters;
pub use id_map::{GuestIds, IdMap};
pub use interrupts::{EventFdInterrupts, Interrupts, NoInterrupts};
pub(crate) use shadow::Shadow;
pub(crate) use shard::ShardCounts;
pub use shard::{Lane, Shard, ShardMode, ShardParts, mark_vcpu_thread};

use crate::Cause;
use crate::backend::{GuestPage, Numbers, Objects, Owner, SinkError};
use crate::metrics::GuestMetrics;
use crate::seams::lock;
use doorbell::{Doorbell, Turn};
use entries::GuestView;
use frame::OwnPage;
use guest_queue::Fetch;
use primitives::Os;
use settle::Settle;
use shadow::Shadows;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use turn::DOORBELL;
use viommu_plugin::{Configuration, GuestFault, HwQueueRequest};
use viommu_plugin_host::{Codec, Frontend, PluginInfo};
use vm_memory::GuestMemoryMmap;

/// Sees the guest's words as they are consumed.
pub trait CommandTap: Send + Sync + 'static {
    /// `words` are whole commands of the guest's queue, in order; each is shown once.
    fn consumed(&self, words: &[u64]);
}

/// What the data path asks the control plane to do. The callback that takes it must not block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigRequest {
    /// Table entries of these guest IDs changed. The guest's queue is paused until [`Pipeline::configuration_done`].
    Entries(Configuration),
    /// The guest turned its IOMMU on or off, or moved its tables: ends with [`Pipeline::mode_done`].
    Mode,
    /// The guest wants other queues of its own than it has: ends with [`Pipeline::mode_done`].
    HwQueues,
    /// The machine was reset: ends with [`Pipeline::mode_done`].
    Reset,
    /// The data path gave up on this guest: no DMA of it may pass from now on.
    Quarantine(GuestFault),
}

/// How far [`Pipeline::invalidate`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalidated {
    /// Commands whose effect is complete in hardware, from the first.
    pub handled: usize,
    /// Why the next one was not, or [`GuestFault::NONE`].
    pub fault: GuestFault,
}

/// What a pipeline is made of.
pub struct PipelineParts {
    /// Whose commands they are, for the sink.
    pub owner: Owner,
    /// The guest's tag in hardware.
    pub tag: u32,
    /// Sizes of commands, entries and records.
    pub plugin: PluginInfo,
    /// The register frame; `None` if the VMM emulates registers itself.
    pub frontend: Option<Frontend>,
    /// Check and rewrite.
    pub codec: Codec,
    /// The guest's memory, by guest physical address.
    pub memory: Arc<GuestMemoryMmap>,
    /// Where batches go.
    pub shard: Arc<Shard>,
    /// Keeps the shadows of a guest that the hardware cannot nest.
    pub backend: Arc<dyn Objects>,
    /// Registers of the hardware that are the guest's own.
    pub page: Option<Arc<dyn GuestPage>>,
    /// The guest's interrupts.
    pub interrupts: Arc<dyn Interrupts>,
    /// Takes requests to the control plane.
    pub on_configuration: Box<dyn Fn(ConfigRequest) + Send + Sync>,
    /// Sees what the guest sent.
    pub tap: Option<Arc<dyn CommandTap>>,
}

/// The data path of one vIOMMU.
pub struct Pipeline {
    owner: Owner,
    tag: u32,
    plugin: PluginInfo,
    codec: Codec,
    memory: Arc<GuestMemoryMmap>,
    shard: Arc<Shard>,
    backend: Arc<dyn Objects>,
    shadows: Shadows,
    interrupts: Arc<dyn Interrupts>,
    on_configuration: Box<dyn Fn(ConfigRequest) + Send + Sync>,
    tap: Option<Arc<dyn CommandTap>>,
    page: Option<OwnPage>,
    registers: Option<Mutex<Frontend>>,
    queue: Doorbell<Os, Fetch>,
    rekick_queued: AtomicBool,
    ids: IdMap,
    lane: Lane,
    settle: Settle,
    counters: GuestCounters,
    metrics: GuestMetrics,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("owner", &self.owner).field("tag", &self.tag).finish()
    }
}

impl Pipeline {
    /// A pipeline with no streams yet.
    pub fn new(parts: PipelineParts) -> Arc<Self> {
        let PipelineParts { owner, tag, plugin, frontend, codec, memory, shard, backend, .. } = parts;
        let PipelineParts { interrupts, on_configuration, tap, page, .. } = parts;
        Arc::new(Self {
            queue: Doorbell::new(Fetch::new(plugin.command_words)),
            rekick_queued: AtomicBool::new(false),
            ids: IdMap::new(if shard.numbers() == Numbers::Host { tag } else { 0 }),
            lane: Lane::new(owner),
            settle: Settle::default(),
            counters: GuestCounters::default(),
            metrics: GuestMetrics::new(&plugin.name, codec.mode().unwrap_or_default()),
            page: page.map(OwnPage::new),
            registers: frontend.map(Mutex::new),
            owner,
            tag,
            plugin,
            codec,
            memory,
            shard,
            backend,
            shadows: Shadows::default(),
            interrupts,
            on_configuration,
            tap,
        })
    }

    /// The queues that the guest's registers ask hardware to use itself.
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn hw_queues(&self) -> Result<Vec<HwQueueRequest>, Cause> {
        match &self.registers {
            Some(registers) => Ok(lock(registers).hw_queues()?),
            None => Ok(Vec::new()),
        }
    }

    /// Waits until the queue is idle or stopped and no configuration change is outstanding; `false` if `limit` ran out.
    pub fn wait_settled(self: &Arc<Self>, limit: Duration) -> bool {
        self.settle.wait(limit, self.shard.clock(), || self.idle())
    }

    /// Command words from a VMM that emulates the registers itself: checked, rewritten, put on the hardware queue, and
    /// complete when this returns. Takes no SYNC and no configuration command: those are the caller's.
    ///
    /// # Errors
    /// If the plugin or the hardware failed; nothing after the last complete command may be assumed.
    pub fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Cause> {
        self.invalidate_words(words)
    }

    /// Publishes the host numbers that this guest's commands are rewritten to.
    pub fn publish(&self, ids: GuestIds) {
        self.ids.publish(if self.shard.numbers() == Numbers::Host { ids } else { ids.identity() });
    }

    /// Returns when nothing that was fetched under an older ID map is without a hardware SYNC.
    ///
    /// # Errors
    /// If the hardware does not finish.
    pub fn drain(&self) -> Result<(), SinkError> {
        let mut fetch = self.queue();
        self.sync_outstanding(&mut fetch)
    }

    /// Answers [`ConfigRequest::Entries`]: the command that asked is complete (or failed), and the queue goes on, on the
    /// shard's thread.
    pub fn configuration_done(self: &Arc<Self>, result: Result<(), GuestFault>) {
        {
            let mut fetch = self.queue();
            fetch.seen = false;
            match result {
                Ok(()) => {
                    self.advance(1);
                    GuestCounters::add_alone(&self.counters.commands, 1, &fetch);
                }
                Err(fault) => self.guest_fault(fault),
            }
            self.settle.resume();
        }
        self.queue_rekick();
        self.settle.notify();
    }

    /// Answers [`ConfigRequest::Mode`] and [`ConfigRequest::Reset`].
    pub fn mode_done(&self) {
        self.settle.answered();
    }

    /// Stops this guest's queue for good.
    pub fn quarantine(&self, why: GuestFault) {
        self.settle.quarantine();
        self.guest_fault(why);
        self.settle.notify();
    }

    /// Whether [`Pipeline::quarantine`] was called or the data path gave up.
    pub fn is_quarantined(&self) -> bool {
        self.settle.is_quarantined()
    }

    /// Counters since creation.
    pub fn counters(&self) -> &GuestCounters {
        &self.counters
    }

    /// The number under which the sink knows this guest.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The guest's tag in hardware.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Check and rewrite, as this guest has it.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    fn registers(&self) -> Result<MutexGuard<'_, Frontend>, Cause> {
        match &self.registers {
            Some(registers) => Ok(lock(registers)),
            None => Err(Cause::Unsupported("this vIOMMU has no frontend: the VMM emulates the registers".into())),
        }
    }

    fn queue(&self) -> Turn<'_, Os, Fetch> {
        self.queue.enter()
    }

    fn request_and_wait(&self, request: ConfigRequest) -> Result<(), Cause> {
        self.settle.asked();
        (self.on_configuration)(request);
        let limit = self.shard.sync_limit().saturating_mul(4);
        let answered = self.settle.wait_answered(limit, self.shard.clock());
        if self.settle.is_quarantined() {
            // The devices are being blocked: nobody may take this for what was asked.
            return Err(Cause::Quarantined("the data path gave up on this guest".into()));
        }
        if answered { Ok(()) } else { Err(Cause::TimedOut(limit)) }
    }

    fn give_up(&self, why: GuestFault) {
        if self.settle.quarantine() {
            (self.on_configuration)(ConfigRequest::Quarantine(why));
        }
    }
}
