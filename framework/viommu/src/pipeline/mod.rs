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
use crate::save::GuestEntry;
use crate::seams::lock;
use doorbell::{Doorbell, Turn};
use guest_queue::Fetch;
use primitives::Os;
use settle::Settle;
use shadow::Shadows;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use turn::DOORBELL;
use viommu_plugin::{Actions, Configuration, EntryKey, GuestFault, HwQueueRequest, KeyKind, Lookup, Mode};
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

    /// What `virt_id`'s DMA should do now: the guest's mode, and if that is "translate" its table entry.
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn desired_entry(&self, virt_id: u32) -> Result<GuestEntry, Cause> {
        let mut entry = vec![0; self.plugin.entry_words];
        let found = {
            let registers = self.registers()?;
            match registers.mode()? {
                Mode::TRANSLATE => registers.entry(&GuestView(&self.memory), virt_id, &mut entry)?,
                Mode::BYPASS => return Ok(GuestEntry::Bypass),
                _ => return Ok(GuestEntry::Abort),
            }
        };
        Ok(if found == Lookup::FOUND { GuestEntry::Words(entry.into()) } else { GuestEntry::Abort })
    }

    /// What an entry asks for, in canonical form.
    ///
    /// # Errors
    /// As [`Pipeline::entry_key`].
    pub fn key_of(&self, entry: &GuestEntry) -> Result<EntryKey, Cause> {
        match entry {
            GuestEntry::Abort => Ok(EntryKey::default()),
            GuestEntry::Bypass => Ok(EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() }),
            GuestEntry::Words(words) => self.entry_key(words),
        }
    }

    /// What a guest table entry asks for.
    ///
    /// # Errors
    /// If it has the wrong number of words, or the plugin failed.
    pub fn entry_key(&self, words: &[u64]) -> Result<EntryKey, Cause> {
        let expected = self.plugin.entry_words;
        if words.len() != expected {
            return Err(Cause::Invalid(format!("a table entry has {expected} words, not {}", words.len())));
        }
        Ok(self.codec.entry_key(words)?)
    }

    /// Guest physical pages (4 KiB), ascending, in which a write of the guest may make table entries of `virt_ids` valid
    /// without a command that says so; `most` at most.
    ///
    /// # Errors
    /// If there is no frontend, or the plugin failed.
    pub fn watched_pages(&self, virt_ids: &[u32], most: usize) -> Result<Vec<u64>, Cause> {
        Ok(self.registers()?.watched(&GuestView(&self.memory), virt_ids, most)?)
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

/// Registers of the hardware in the guest's frame, for a VMM that has not mapped them into the guest.
struct OwnPage {
    page: Arc<dyn GuestPage>,
    first: u64,
    length: u64,
}

impl OwnPage {
    fn new(page: Arc<dyn GuestPage>) -> Self {
        let place = page.place();
        Self { page, first: place.guest_offset, length: place.length }
    }

    /// The page, and where in it an access goes; `None` if it goes elsewhere.
    fn contains(&self, offset: u64) -> Option<(&dyn GuestPage, u64)> {
        let at = offset.checked_sub(self.first).filter(|at| *at < self.length)?;
        Some((&*self.page, at))
    }
}

/// The guest's memory as a frontend reads it.
struct GuestView<'a>(&'a GuestMemoryMmap);

impl viommu_plugin::GuestMemory for GuestView<'_> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), viommu_plugin::Unreadable> {
        use vm_memory::{Bytes, GuestAddress};
        self.0.read_slice(bytes, GuestAddress(gpa)).map_err(|_| viommu_plugin::Unreadable)
    }
}
