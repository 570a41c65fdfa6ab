//! The physical command ring as a [`Sink`].

use super::hardware::Hardware;
use super::recover::{QueueControl, Troubles};
use crate::Cause;
use crate::backend::{BackendEvent, Batch, Host, Owner, Position, Sink, SinkError, Words};
use crate::seams::{Clock, Wait, lock};
use crate::simulation;
use crossbeam_utils::CachePadded;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use viommu_plugin::{Classes, GuestFault, RingGeometry};
use vm_memory::{GuestRegionMmap, VolatileMemory};
use zerocopy::IntoBytes;

/// The command ring of one physical IOMMU.
///
/// What a caller may rely on:
/// 1. A batch is on the ring whole, in order, with nobody's commands in between, or not at all.
/// 2. When [`Sink::submit`] returns, the doorbell has been rung.
/// 3. A batch that holds device-cache invalidations has a SYNC right behind it, asked for or not: no other guest's SYNC
///    stops for a device that does not answer.
/// 4. A full ring makes the submitter wait, never drops.
/// 5. If the hardware stops on a command, whoever waits next repairs it; the error is told to the command's owner only.
///
/// Indices run on without bound here; register and slot numbers are their low bits. The lock is held while commands are
/// copied, never while waiting.
pub struct RingSink {
    pub(super) hardware: Arc<dyn Hardware>,
    pub(super) control: Arc<dyn QueueControl>,
    pub(super) geometry: RingGeometry,
    memory: Arc<GuestRegionMmap>,
    offset: usize,
    capacity: u64,
    pub(super) sync: Box<[u64]>,
    limit: Duration,
    clock: Arc<dyn Clock>,
    producer: Mutex<Producer>,
    opened: Condvar,
    /// [`Producer::head`], for those without the lock.
    pub(super) head: AtomicU64,
    pub(super) consumed: CachePadded<AtomicU64>,
    pub(super) troubles: Troubles,
    pub(super) dead: OnceLock<String>,
    /// SYNCs ever put; written under the lock.
    syncs: AtomicU64,
    pub(super) events: flume::Sender<BackendEvent>,
}

struct Producer {
    /// Commands ever put.
    head: u64,
    /// Whose the commands are: one entry for each change of owner, oldest first; what the hardware consumed is forgotten.
    runs: VecDeque<Run>,
    /// The driver has the ring for itself: others wait.
    exclusive: bool,
}

struct Run {
    end: u64,
    owner: Owner,
}

/// What the consumer register says.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) consumed: u64,
    /// The bits that may mean that the queue stopped; 0 if it did not.
    pub(super) error: u32,
}

/// What a [`RingSink`] is made of.
pub struct RingParts {
    /// The IOMMU.
    pub hardware: Arc<dyn Hardware>,
    /// Who knows why it stopped.
    pub control: Arc<dyn QueueControl>,
    /// Where the ring is. It is empty.
    pub geometry: RingGeometry,
    /// The SYNC command.
    pub sync: Vec<u64>,
    /// How long to wait for room or a SYNC.
    pub limit: Duration,
    /// What to measure that with.
    pub clock: Arc<dyn Clock>,
    /// Takes [`BackendEvent::QueueError`].
    pub events: flume::Sender<BackendEvent>,
}

impl RingSink {
    /// Takes over a ring that the driver brought up.
    ///
    /// # Errors
    /// If the geometry makes no sense or is not in memory.
    pub fn new(parts: RingParts) -> Result<Arc<Self>, Cause> {
        let RingParts { hardware, control, geometry, sync, limit, clock, events } = parts;
        let ring = &geometry;
        let bits = ring.log2_commands + ring.wrap_bit;
        let sane = ring.log2_commands <= 24 && ring.wrap_bit <= 1 && (1..=16).contains(&ring.command_words);
        if !sane || ring.log2_commands == 0 || bits + ring.index_shift > 32 || sync.len() != ring.command_words as usize
        {
            return Err(Cause::Invalid(format!("a command ring cannot be like this: {ring:?}")));
        }
        let slots = 1u64 << ring.log2_commands;
        let bytes = slots * u64::from(ring.command_words) * 8;
        let place = hardware.memory().place(ring.base, bytes);
        let outside = || Cause::Invalid(format!("the command ring at {:#x} is not in memory", ring.base));
        let (memory, offset) = place.ok_or_else(outside)?;
        let start = (hardware.mmio_read(ring.consumer, 4) >> ring.index_shift) & ((1 << bits) - 1);
        let capacity = if ring.wrap_bit == 1 { slots } else { slots - 1 };
        let runs = VecDeque::with_capacity(slots as usize + 1);
        Ok(Arc::new(Self {
            hardware,
            control,
            geometry,
            memory,
            offset,
            capacity,
            sync: sync.into(),
            limit,
            clock,
            producer: Mutex::new(Producer { head: start, runs, exclusive: false }),
            opened: Condvar::new(),
            head: AtomicU64::new(start),
            consumed: CachePadded::new(AtomicU64::new(start)),
            troubles: Troubles::default(),
            dead: OnceLock::new(),
            syncs: AtomicU64::new(0),
            events,
        }))
    }

    /// SYNCs put on the ring since it was taken over, the host's own included.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Commands the ring holds at most.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    fn index_mask(&self) -> u64 {
        (1 << (self.geometry.log2_commands + self.geometry.wrap_bit)) - 1
    }

    /// The ring, when its gate is open for this owner.
    fn enter(&self, owner: Owner) -> MutexGuard<'_, Producer> {
        if owner == Owner::HOST { lock(&self.producer) } else { self.opened() }
    }

    /// The ring, when its gate is open.
    fn opened(&self) -> MutexGuard<'_, Producer> {
        let mut waiting = Wait::new();
        let mut producer = lock(&self.producer);
        while producer.exclusive {
            if simulation::is_here() {
                drop(producer);
                waiting.pause();
                producer = lock(&self.producer);
            } else {
                producer = self.opened.wait(producer).unwrap_or_else(PoisonError::into_inner);
            }
        }
        producer
    }

    /// Puts whole commands, at most [`RingSink::capacity`] of them with the SYNC.
    fn put(&self, owner: Owner, words: &[u64], sync: bool) -> Result<Position, SinkError> {
        let size = self.geometry.command_words as usize;
        let need = (words.len() / size) as u64 + u64::from(sync);
        let mut producer = self.enter(owner);
        while producer.head + need > self.consumed.load(Ordering::Acquire) + self.capacity {
            let target = producer.head + need - self.capacity;
            drop(producer);
            self.reach(target, true)?;
            producer = self.enter(owner);
        }
        let consumed = self.consumed.load(Ordering::Relaxed);
        while producer.runs.front().is_some_and(|run| run.end <= consumed) {
            producer.runs.pop_front();
        }
        let start = producer.head;
        let end = start + need;
        self.copy(start, words);
        if sync {
            self.copy(end - 1, &self.sync);
            self.syncs.store(self.syncs.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        producer.head = end;
        match producer.runs.back_mut() {
            Some(run) if run.owner == owner => run.end = end,
            _ => producer.runs.push_back(Run { end, owner }),
        }
        self.head.store(end, Ordering::Release);
        // The commands are in memory before the index that shows them; a real `Hardware` adds what its bus needs.
        fence(Ordering::Release);
        self.hardware.mmio_write(self.geometry.producer, 4, (end & self.index_mask()) << self.geometry.index_shift);
        Ok(Position(end))
    }

    /// Writes commands to the slots from `position` on.
    pub(super) fn copy(&self, position: u64, words: &[u64]) {
        let size = self.geometry.command_words as usize * 8;
        let slots = 1u64 << self.geometry.log2_commands;
        let slot = (position & (slots - 1)) as usize;
        let bytes = words.as_bytes();
        let (first, second) = bytes.split_at(bytes.len().min((slots as usize - slot) * size));
        for (at, part) in [(slot * size, first), (0, second)] {
            if !part.is_empty()
                && let Ok(slice) = self.memory.get_slice(self.offset + at, part.len())
            {
                slice.copy_from(part);
            }
        }
    }

    /// Whose the command at `position` is.
    pub(super) fn owner_of(&self, position: u64) -> Option<Owner> {
        let producer = lock(&self.producer);
        let at = producer.runs.partition_point(|run| run.end <= position);
        producer.runs.get(at).map(|run| run.owner)
    }

    /// Reads the consumer register once.
    ///
    /// Whoever moves `consumed` forward read the register after it had the old value: since then nobody could put more
    /// than the ring holds, so the distance is not ambiguous. Who comes late takes what the others found.
    pub(super) fn poll(&self) -> Result<Seen, SinkError> {
        let before = self.consumed.load(Ordering::Acquire);
        let register = self.hardware.mmio_read(self.geometry.consumer, 4) as u32;
        if register == u32::MAX {
            return Err(self.died("its registers read as all ones"));
        }
        let mut error = register & self.geometry.error_mask;
        if self.geometry.error_register != 0 {
            let state = self.hardware.mmio_read(self.geometry.error_register.into(), 4) as u32;
            error |= (state & self.geometry.error_bits) | (!state & self.geometry.running_bits);
        }
        let after = self.forward(before, register >> self.geometry.index_shift);
        if after == before {
            return Ok(Seen { consumed: before, error });
        }
        let sane = after <= self.head.load(Ordering::Acquire);
        if !sane && self.consumed.load(Ordering::Acquire) == before {
            return Err(self.died("its consumer index is ahead of the producer's"));
        }
        let moved = if sane { after } else { before };
        let consumed = match self.consumed.compare_exchange(before, moved, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => moved,
            Err(now) => now,
        };
        Ok(Seen { consumed, error })
    }

    /// The first position not before `from` with this index.
    pub(super) fn forward(&self, from: u64, index: u32) -> u64 {
        from + (u64::from(index).wrapping_sub(from) & self.index_mask())
    }

    pub(super) fn died(&self, why: &str) -> SinkError {
        let why = self.dead.get_or_init(|| format!("the IOMMU's command queue is gone: {why}"));
        SinkError::Gone(why.clone())
    }

    /// Waits until the hardware consumed everything before `target`. With `repair`, a stopped queue is repaired on the
    /// way; without, the caller holds the driver and a stop is an error.
    fn reach(&self, target: u64, repair: bool) -> Result<(), SinkError> {
        let mut waiting = Wait::new();
        let mut started = None;
        let stale = if repair { 0 } else { self.troubles.stale() };
        loop {
            if let Some(why) = self.dead.get() {
                return Err(SinkError::Gone(why.clone()));
            }
            let seen = self.poll()?;
            if seen.consumed >= target {
                return Ok(());
            }
            if seen.error != 0 && repair {
                self.recover()?;
            } else if seen.error != stale && seen.error != 0 {
                return Err(SinkError::Fault(GuestFault::HOST_ERROR));
            }
            let now = self.clock.now();
            if now.saturating_sub(*started.get_or_insert(now)) > self.limit {
                return Err(SinkError::TimedOut(self.limit));
            }
            self.hardware.relax();
            waiting.pause();
        }
    }

    /// Host commands with a SYNC, done when this returns.
    pub(super) fn run(&self, words: &[u64], classes: Classes) -> Result<(), SinkError> {
        let batch = Batch { owner: Owner::HOST, words: Words::<Host>::of(words), classes, sync: true };
        let position = self.submit(batch)?;
        self.wait(Owner::HOST, position)
    }

    /// The driver's own commands, within [`RingSink::exclusive`]: a stop of the queue is an error here, because the
    /// repair needs the driver, which is in the call that issues.
    pub(super) fn issue(&self, words: &[u64]) -> Result<(), SinkError> {
        if !lock(&self.producer).exclusive {
            return Err(SinkError::Gone("a driver issues commands only while it attaches or detaches".into()));
        }
        let size = self.geometry.command_words as usize;
        let mut rest = words;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min((self.capacity as usize - 1) * size));
            let position = self.put(Owner::HOST, now, true)?;
            self.reach(position.0, false)?;
            rest = later;
        }
        Ok(())
    }

    /// Closes the gate to all but the host and waits until the ring is empty, so that nobody else's command can stop the
    /// queue while the driver issues its own.
    pub(super) fn exclusive(&self) -> Result<Exclusive<'_>, SinkError> {
        let mut producer = self.opened();
        producer.exclusive = true;
        let target = producer.head;
        drop(producer);
        let exclusive = Exclusive(self);
        self.reach(target, true)?;
        self.troubles.set_stale(self.poll()?.error);
        Ok(exclusive)
    }

    /// Leaves the queue running, whatever happened on it while the driver had it: the driver's call has said so.
    pub(super) fn settle(&self) -> Result<(), SinkError> {
        if self.poll()?.error != 0 {
            self.recover()?;
            self.troubles.forgive(Owner::HOST);
        }
        Ok(())
    }
}

impl Sink for RingSink {
    type Accepts = Host;

    fn submit(&self, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        self.troubles.admit(batch.owner)?;
        let size = self.geometry.command_words as usize;
        let sync = batch.sync || batch.classes.any(Classes::ATC);
        let mut words = batch.words.as_slice();
        if !words.len().is_multiple_of(size) {
            return Err(SinkError::Gone(format!("{} words are not whole commands of {size}", words.len())));
        }
        if words.is_empty() && !sync {
            return Ok(Position(self.head.load(Ordering::Acquire)));
        }
        // Longer than the ring is the one batch that goes in pieces.
        while (words.len() / size) as u64 + u64::from(sync) > self.capacity {
            let (now, later) = words.split_at(self.capacity as usize * size);
            self.put(batch.owner, now, false)?;
            words = later;
        }
        self.put(batch.owner, words, sync)
    }

    fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        if self.consumed.load(Ordering::Acquire) < position.0 {
            self.reach(position.0, true)?;
        }
        self.troubles.check(owner, position.0)
    }

    fn is_done(&self, position: Position) -> bool {
        let passed = |consumed| consumed >= position.0;
        passed(self.consumed.load(Ordering::Acquire)) || self.poll().is_ok_and(|seen| passed(seen.consumed))
    }
}

impl fmt::Debug for RingSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, consumed) = (self.head.load(Ordering::Acquire), self.consumed.load(Ordering::Acquire));
        f.debug_struct("RingSink").field("head", &head).field("consumed", &consumed).finish_non_exhaustive()
    }
}

/// The gate of the ring is closed to all but the host while this lives.
pub(super) struct Exclusive<'a>(&'a RingSink);

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        lock(&self.0.producer).exclusive = false;
        self.0.opened.notify_all();
    }
}
