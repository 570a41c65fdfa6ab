//! The backend that owns an IOMMU and programs it through a vendor plugin.
//!
//! ```text
//!   Objects ─► graph (who uses whom) ─► driver (plugin) ─► tables ─┐
//!      └─► unmap: host-side invalidations ─┐                       ├─► Hardware: registers, PhysicalMemory, interrupts
//!   guests' batches ───────────────────────┴─► RingSink ─► ring ───┘        = ModelHardware, or a real one
//!                                   recover ◄── stopped queue ◄────┤
//!   BackendEvent channel ◄── events thread ◄── driver.event() ◄────┘
//! ```
//!
//! Locks, outermost first: object graph, gate of the ring ([`ring`](RingSink)), driver, producer, model. Nobody waits for
//! the hardware with the driver or producer locked, except the driver itself inside attach and detach: then the gate is
//! closed, the ring holds nobody else's commands, and a stop of the queue fails the call instead of being repaired in it.

mod attach;
mod delay;
mod events;
mod graph;
mod hardware;
mod interface;
mod memory;
mod model;
mod objects;
mod recover;
mod ring;
mod shadow;
mod speculate;
mod stage2;
mod tags;
mod unmap;

pub use hardware::{Hardware, InterruptHandler};
pub use memory::PhysicalMemory;
pub use model::{ModelHardware, ModelMode};
pub use recover::QueueControl;
pub use ring::{RingParts, RingSink};
pub use speculate::Speculated;

use crate::backend::{ObjectKind, SinkError};
use crate::seams::{Clock, MonotonicClock, OsThreads, Threads, lock};
use crate::{Cause, Error};
use events::Events;
use graph::Graph;
use hardware::Port;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::Duration;
use tags::Tags;
use viommu_plugin::{DriverInfo, HostInvalidation, QueueFault, Register, Scope, TranslationMode};
use viommu_plugin_host::{CallError, Driver, Plugin};

/// Settings of a [`Direct`].
#[derive(Clone)]
pub struct DirectOptions {
    /// How long the hardware may take for a SYNC, or to make room on its ring.
    pub sync_limit: Duration,
    /// Use only so many translation tags, to see what happens when they run out.
    pub tag_limit: Option<u32>,
    /// What [`DirectOptions::sync_limit`] is measured with.
    pub clock: Arc<dyn Clock>,
    /// Where the thread comes from that drains the event queue.
    pub threads: Arc<dyn Threads>,
    /// Hardware events kept for a reader that is late; more are lost, and marked as [`BackendEvent::Lost`].
    ///
    /// [`BackendEvent::Lost`]: crate::backend::BackendEvent::Lost
    pub event_capacity: usize,
}

impl Default for DirectOptions {
    /// One second, as the kernel's drivers; all tags; the machine's clock and threads; 4096 events.
    fn default() -> Self {
        let clock = Arc::new(MonotonicClock::default());
        let sync_limit = Duration::from_secs(1);
        Self { sync_limit, tag_limit: None, clock, threads: Arc::new(OsThreads), event_capacity: 4096 }
    }
}

/// One IOMMU, owned by this process.
///
/// Control operations are serial, as they are in a kernel per IOMMU; commands of guests go past them, to
/// [`Direct::ring`].
pub struct Direct {
    // The events thread ends before the driver goes.
    events: Events,
    graph: Mutex<Graph>,
    ring: Arc<RingSink>,
    driver: Arc<DriverCell>,
    info: DriverInfo,
    vendor: String,
    hardware: Arc<dyn Hardware>,
    /// By mode.
    guest_registers: [Vec<Register>; 2],
}

/// The driver behind its lock.
struct DriverCell(Mutex<Driver>);

impl Direct {
    /// Takes over the IOMMU: every stream aborts until something is attached to it.
    ///
    /// # Errors
    /// If the plugin's driver refuses the hardware, or its queue is not what it says.
    pub fn new(plugin: &Plugin, hardware: Arc<dyn Hardware>, options: DirectOptions) -> Result<Arc<Self>, Error> {
        Self::take_over(plugin, hardware, options).map_err(|cause| cause.of(ObjectKind::Host, None, "alloc"))
    }

    fn take_over(plugin: &Plugin, hardware: Arc<dyn Hardware>, options: DirectOptions) -> Result<Arc<Self>, Cause> {
        let slot = Arc::new(OnceLock::new());
        let driver = plugin.driver(Box::new(Port { hardware: hardware.clone(), ring: slot.clone() }))?;
        let info = driver.info()?;
        let nested = driver.guest_registers(TranslationMode::NESTED)?;
        let guest_registers = [nested, driver.guest_registers(TranslationMode::SHADOW)?];
        let mut sync = vec![0; info.ring.command_words as usize];
        let written = driver.encode(&HostInvalidation { scope: Scope::SYNC, ..Default::default() }, &mut sync)?;
        sync.truncate(written);
        let driver = Arc::new(DriverCell(Mutex::new(driver)));
        let channel = flume::bounded(options.event_capacity);
        let ring = RingSink::new(RingParts {
            hardware: hardware.clone(),
            control: driver.clone(),
            geometry: info.ring,
            sync,
            limit: options.sync_limit,
            clock: options.clock,
            events: channel.0.clone(),
        })?;
        let _ = slot.set(Arc::downgrade(&ring));
        hardware.ring_ready(&info.ring);
        let events = Events::start(&*hardware, driver.clone(), channel, &*options.threads)?;
        // Events from before the handler was set raised an interrupt that nobody heard.
        events.drain.run();
        let graph = Mutex::new(Graph::new(Tags::new(info.first_tag, info.last_tag, options.tag_limit)));
        let vendor = plugin.info().name.to_string();
        Ok(Arc::new(Self { events, graph, ring, driver, info, vendor, hardware, guest_registers }))
    }

    /// What the IOMMU offers.
    pub fn info(&self) -> DriverInfo {
        self.info
    }

    /// ID registers that a guest of this IOMMU may be shown, in the mode that new guests are served in.
    pub fn guest_registers(&self) -> &[Register] {
        self.registers_in(self.preferred_mode())
    }

    /// The mode that new guests are served in: nested if the hardware can.
    pub fn preferred_mode(&self) -> TranslationMode {
        let nested = self.info.modes & TranslationMode::NESTED.bit() != 0;
        if nested { TranslationMode::NESTED } else { TranslationMode::SHADOW }
    }

    fn registers_in(&self, mode: TranslationMode) -> &[Register] {
        self.guest_registers.get(mode.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The command ring.
    pub fn ring(&self) -> Arc<RingSink> {
        self.ring.clone()
    }

    /// Takes what the hardware has reported so far into the event channel now, on this thread; how many records. For
    /// hosts that run without threads of their own.
    pub fn pump_events(&self) -> usize {
        self.events.drain.run()
    }

    /// Calls the driver with the ring to itself, so that it may issue commands.
    fn exclusively<R>(&self, call: impl FnOnce(&mut Driver) -> Result<R, CallError>) -> Result<R, Cause> {
        let gate = self.ring.exclusive().map_err(cause)?;
        let result = call(&mut self.driver.lock());
        if let Err(error) = self.ring.settle() {
            tracing::error!(%error, "the command queue");
        }
        drop(gate);
        Ok(result?)
    }
}

impl DriverCell {
    fn lock(&self) -> MutexGuard<'_, Driver> {
        lock(&self.0)
    }
}

impl QueueControl for DriverCell {
    fn attend(&self, repair: &mut dyn FnMut(QueueFault) -> bool) {
        let mut driver = match self.0.try_lock() {
            Ok(driver) => driver,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let done = match driver.queue_fault() {
            Ok(Some(fault)) if repair(fault) => driver.queue_resume(),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::error!(%error, "the command queue cannot be repaired");
        }
    }
}

fn cause(error: SinkError) -> Cause {
    match error {
        SinkError::Fault(fault) => Cause::Queue(fault.name().into()),
        SinkError::TimedOut(limit) => Cause::TimedOut(limit),
        SinkError::Quarantined => Cause::Quarantined("its commands made the hardware queue stop".into()),
        SinkError::Gone(why) => Cause::Queue(why),
    }
}
