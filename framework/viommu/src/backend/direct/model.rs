//! The vendor's own software model as the hardware of this backend.

use super::delay::Delay;
use super::hardware::{Hardware, InterruptHandler};
use super::memory::PhysicalMemory;
use super::speculate::{Speculated, Speculation};
use crate::Cause;
use crate::seams::lock;
use arc_swap::ArcSwapOption;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use viommu_plugin::{Answer, CacheStats, Message, ModelConfig, ModelHost, Request, RingGeometry, Unreadable};
use viommu_plugin_host::{CallError, Model, Plugin};

/// Who executes the commands on the ring, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelMode {
    /// The doorbell's writer: when the write returns, everything on the ring is executed.
    Inline,
    /// A thread of the model, woken by the doorbell.
    Thread,
    /// Whoever calls [`ModelHardware::step`]: nothing executes by itself, and a wait for the queue only waits.
    ByHand,
    /// A device that takes its time, in replay time, which counts events: one translation ([`ModelHardware::tick`]) or
    /// one command put on the ring. Each command executes, in ring order, no earlier than `d` events after it was put
    /// there, `d` drawn per command from `0..=64`. Waiting for the queue advances time to the oldest command's turn;
    /// nothing else does, not an idle device. Same seed, same calls: same result.
    Delayed {
        /// Seed of the delays.
        seed: u64,
    },
}

/// Commands a model executes in one go: no ring of any vendor is longer.
const WHOLE_RING: u32 = 1 << 20;
/// Commands the model's thread executes before others may have the lock.
const TURN: u32 = 64;

/// A software IOMMU as [`Hardware`].
///
/// Interrupts raised inside the model are delivered after its lock is released, by the thread that made it run.
pub struct ModelHardware {
    shared: Arc<Shared>,
    mode: ModelMode,
    worker: Option<Worker>,
}

struct Shared {
    memory: Arc<PhysicalMemory>,
    inner: Mutex<Inner>,
    /// Bit per interrupt line raised and not delivered yet.
    raised: Arc<AtomicU64>,
    handler: ArcSwapOption<InterruptHandler>,
}

struct Inner {
    model: Model,
    /// Once the driver handed the ring over. Before, everything runs in the doorbell: a driver that brings its queue up
    /// polls registers and could wait for nobody.
    ring: Option<RingGeometry>,
    delay: Option<Delay>,
    /// Whether devices have caches.
    atc: bool,
    speculation: Option<Speculation>,
}

struct Worker {
    doorbell: flume::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What the model sees of the machine.
struct Callbacks {
    memory: Arc<PhysicalMemory>,
    raised: Arc<AtomicU64>,
}

impl ModelHost for Callbacks {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *bytes)
            && pa.is_multiple_of(8)
        {
            *word = self.memory.load(pa)?.to_le_bytes();
            return Ok(());
        }
        self.memory.read(pa, bytes)
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.memory.write(pa, bytes)
    }

    fn irq(&self, line: u32) {
        self.raised.fetch_or(1 << (line % 64), Ordering::AcqRel);
    }
}

impl ModelHardware {
    /// The model of this plugin, over `memory`.
    ///
    /// # Errors
    /// If the plugin has no model or refuses these ID registers, or the thread cannot be started.
    pub fn new(
        plugin: &Plugin,
        memory: Arc<PhysicalMemory>,
        config: ModelConfig<'_>,
        mode: ModelMode,
    ) -> Result<Arc<Self>, Cause> {
        let raised = Arc::new(AtomicU64::new(0));
        let model = plugin.model(Box::new(Callbacks { memory: memory.clone(), raised: raised.clone() }), config)?;
        let inner = Mutex::new(Inner { model, ring: None, delay: None, atc: config.atc, speculation: None });
        let shared = Arc::new(Shared { memory, inner, raised, handler: ArcSwapOption::empty() });
        let worker = (mode == ModelMode::Thread).then(|| Worker::start(shared.clone())).transpose()?;
        Ok(Arc::new(Self { shared, mode, worker }))
    }

    /// Who executes commands.
    pub fn mode(&self) -> ModelMode {
        self.mode
    }

    /// Devices' requests, in order; how many were answered (all, unless `answers` is shorter).
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn translate(&self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
        self.shared.run(|inner| inner.translate(requests, answers))
    }

    /// From now on this is hostile hardware: between any two commands it refills TLB and configuration cache for what
    /// devices asked for lately, and devices with a cache of their own ask again at once for what a command removed
    /// from it; everything as the memory stands, drawn from `seed`. Same seed, same calls: same result.
    pub fn speculate(&self, seed: u64) {
        self.shared.run(|inner| inner.speculation = Some(Speculation::new(seed, inner.atc)));
    }

    /// Hostile hardware reads no translation tables of these streams until they are used again, only their
    /// configuration. For a memory image that may be older than the tables that the configuration names.
    pub fn spare_tables(&self, streams: impl Fn(u32) -> bool) {
        self.shared.run(|inner| {
            if let Some(speculation) = &mut inner.speculation {
                speculation.spare_tables(streams);
            }
        });
    }

    /// What speculation did so far; nothing unless [`ModelHardware::speculate`] was called.
    pub fn speculated(&self) -> Speculated {
        self.shared.run(|inner| inner.speculation.as_ref().map(Speculation::done).unwrap_or_default())
    }

    /// Executes at most `budget` commands of the ring; how many it was.
    pub fn step(&self, budget: u32) -> u32 {
        self.shared.run(|inner| {
            inner.speculate();
            inner.step(budget)
        })
    }

    /// Cache counters since creation.
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn stats(&self) -> Result<CacheStats, CallError> {
        self.shared.run(|inner| inner.model.stats())
    }

    /// The walk that answers this request, step by step in words, without caches or side effects.
    pub fn explain(&self, request: &Request) -> String {
        let mut text = Message::default();
        match self.shared.run(|inner| inner.model.explain(request, &mut text)) {
            Ok(()) => text.text(),
            Err(error) => error.to_string(),
        }
    }

    /// Test hook: the devices of `stream` answer no cache invalidation from now on (`false`: they do again).
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn atc_unresponsive(&self, stream: u32, unresponsive: bool) -> Result<(), CallError> {
        self.shared.run(|inner| inner.model.atc_unresponsive(stream, unresponsive))
    }

    /// One event of replay time: one translation of any VM. Only matters in [`ModelMode::Delayed`].
    pub fn tick(&self) {
        if let ModelMode::Delayed { .. } = self.mode {
            self.shared.run(|inner| {
                if let Some(delay) = &mut inner.delay {
                    delay.tick();
                }
                inner.execute_due();
            });
        }
    }
}

impl Hardware for ModelHardware {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.shared.run(|inner| inner.model.mmio_read(offset, size)).unwrap_or(u64::MAX)
    }

    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        self.shared
            .run(|inner| inner.write(offset, size, value, matches!(self.mode, ModelMode::Thread | ModelMode::ByHand)));
        if let Some(worker) = &self.worker {
            // A full mailbox means that the thread will look again anyway.
            let _ = worker.doorbell.try_send(());
        }
    }

    fn memory(&self) -> &PhysicalMemory {
        &self.shared.memory
    }

    fn relax(&self) {
        match self.mode {
            ModelMode::Thread | ModelMode::ByHand => {}
            ModelMode::Inline => self.shared.run(|inner| inner.execute(WHOLE_RING)),
            ModelMode::Delayed { .. } => self.shared.run(|inner| {
                if let Some(delay) = &mut inner.delay {
                    delay.skip();
                }
                inner.execute_due();
                if inner.delay.as_ref().is_some_and(Delay::is_idle) {
                    // Nothing of the ring's is left out there: what this takes is of guests' own queues.
                    inner.execute(TURN);
                }
            }),
        }
    }

    fn on_interrupt(&self, handler: InterruptHandler) {
        self.shared.handler.store(Some(Arc::new(handler)));
    }

    fn ring_ready(&self, ring: &RingGeometry) {
        self.shared.run(|inner| {
            inner.ring = Some(*ring);
            if let ModelMode::Delayed { seed } = self.mode {
                let producer = inner.model.mmio_read(ring.producer, 4).unwrap_or_default();
                inner.delay = Some(Delay::new(seed, ring, producer));
            }
        });
    }
}

impl Inner {
    fn write(&mut self, offset: u64, size: u32, value: u64, later: bool) {
        if let Err(error) = self.model.mmio_write(offset, size, value) {
            tracing::error!(%error, "the model failed");
            return;
        }
        let is_doorbell = self.ring.is_some_and(|ring| offset == ring.producer);
        if is_doorbell {
            self.speculate();
        }
        match &mut self.delay {
            Some(delay) => {
                if is_doorbell {
                    delay.put(value);
                }
                self.execute_due();
            }
            None if later && self.ring.is_some() => {}
            None => self.execute(WHOLE_RING),
        }
    }

    /// What hostile hardware does at any moment. Here only at moments that the same calls repeat: when commands are put
    /// on the ring, before they are executed late or by hand, and behind each.
    fn speculate(&mut self) {
        if let Some(speculation) = &mut self.speculation
            && let Err(error) = speculation.between(&mut self.model)
        {
            tracing::error!(%error, "the model failed");
        }
    }

    fn execute(&mut self, budget: u32) {
        let _ = self.step(budget);
    }

    /// Executes at most `budget` commands; how many it was. A model that failed or stopped executes none.
    fn step(&mut self, budget: u32) -> u32 {
        let done = match &mut self.speculation {
            None => self.model.step(budget),
            Some(speculation) => step_with_requests(&mut self.model, speculation, budget),
        };
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "the model failed");
            0
        })
    }

    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
        let answered = self.model.translate(requests, answers)?;
        if let Some(speculation) = &mut self.speculation {
            speculation.saw(&mut self.model, &requests[..answered])?;
        }
        Ok(answered)
    }

    fn execute_due(&mut self) {
        while let Some(due) = self.delay.as_ref().map(Delay::due).filter(|&due| due > 0) {
            self.speculate();
            let done = self.step(due);
            if done == 0 {
                return;
            }
            if let Some(delay) = &mut self.delay {
                delay.executed(done);
            }
        }
    }
}

/// One command at a time, and behind each the requests of hostile hardware.
fn step_with_requests(model: &mut Model, speculation: &mut Speculation, budget: u32) -> Result<u32, CallError> {
    for done in 0..budget {
        if model.step(1)? == 0 {
            return Ok(done);
        }
        speculation.behind_command(model)?;
    }
    Ok(budget)
}

impl Shared {
    /// Calls the model under its lock, then delivers the interrupts that it raised.
    fn run<R>(&self, call: impl FnOnce(&mut Inner) -> R) -> R {
        let result = call(&mut lock(&self.inner));
        if self.raised.load(Ordering::Acquire) != 0 {
            self.deliver();
        }
        result
    }

    #[cold]
    fn deliver(&self) {
        let Some(handler) = self.handler.load_full() else { return };
        let mut lines = self.raised.swap(0, Ordering::AcqRel);
        while lines != 0 {
            handler(lines.trailing_zeros());
            lines &= lines - 1;
        }
    }
}

impl Worker {
    fn start(shared: Arc<Shared>) -> Result<Self, Cause> {
        let (doorbell, rings) = flume::bounded(1);
        let work = move || {
            for () in rings {
                while shared.run(|inner| inner.step(TURN)) > 0 {
                    // Others get at the lock between two turns.
                    thread::yield_now();
                }
            }
        };
        let thread = thread::Builder::new().name("viommu-model".into()).spawn(work)?;
        Ok(Self { doorbell, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (closed, _) = flume::bounded(0);
        self.doorbell = closed;
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for ModelHardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHardware").field("mode", &self.mode).field("memory", &self.shared.memory).finish()
    }
}
