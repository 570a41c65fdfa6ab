//! Step 4: whoever has work drains. One batch at a time takes its turn at the hardware queue.

use super::Pipeline;
use crate::backend::{Batch, Host, Owner, Position, Sink, SinkError, Words};
use crate::metrics::ShardMetrics;
use crate::seams::{Clock, Threads, Wait, lock, recv_timeout};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::Duration;
use viommu_plugin::Classes;

thread_local! {
    static VCPU: Cell<bool> = const { Cell::new(false) };
}

/// Declares that this thread runs a guest: it will take no other VM's work from a shard.
pub fn mark_vcpu_thread() {
    VCPU.set(true);
}

/// How batches reach the hardware queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShardMode {
    /// The submitter writes straight into the ring if it is its turn, else leaves a descriptor in the mailbox.
    #[default]
    Direct,
    /// Everything goes through the mailbox.
    Mailbox,
}

/// Turns a submitter waits for before it leaves a descriptor: longer than a placement takes, shorter than a wake-up.
const SPINS: u32 = 64;
/// Descriptors the mailbox holds; a submitter that finds it full waits for its turn instead.
const MAILBOX: usize = 4096;
/// Batches of others that a thread without a guest places before it looks after itself.
const FOREIGN: usize = 16;
/// How often the shard's thread brings the counters up to date when nothing happens.
const FLUSH: Duration = Duration::from_millis(250);

/// One guest queue's place at a shard: the slot a batch lies in while it waits for its turn.
#[derive(Debug)]
pub struct Lane {
    owner: Owner,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    ticket: u64,
    state: SlotState,
    words: Vec<u64>,
    classes: Classes,
    sync: bool,
}

#[derive(Debug, Default)]
enum SlotState {
    #[default]
    Empty,
    Queued,
    Placed(Result<Position, SinkError>),
}

impl Lane {
    /// A lane with nothing queued.
    pub fn new(owner: Owner) -> Self {
        Self { owner, slot: Mutex::default() }
    }
}

/// A descriptor in the mailbox. Stale if the lane's ticket moved on.
struct Descriptor {
    lane: Arc<Lane>,
    ticket: u64,
}

/// A guest queue for the shard's own thread to take up again.
struct Rekick(Weak<Pipeline>);

/// Plain integers, under the turn.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ShardCounts {
    pub(crate) batches: u64,
    pub(crate) words: u64,
    pub(crate) syncs: u64,
    pub(crate) mailed: u64,
}

/// A shard: one order of batches towards one hardware queue.
///
/// Guarantees: batches of one guest queue keep their order; a batch is placed whole; a batch that was submitted is
/// placed by the time `submit` returns, by this thread or another; closing the job channel ends the shard's thread.
pub struct Shard {
    index: usize,
    mode: ShardMode,
    sync_limit: Duration,
    sink: Arc<dyn Sink<Accepts = Host>>,
    turn: Mutex<ShardCounts>,
    queued: AtomicUsize,
    mailbox: (flume::Sender<Descriptor>, flume::Receiver<Descriptor>),
    jobs: flume::Sender<Rekick>,
    clock: Arc<dyn Clock>,
}

/// What a [`Shard`] is made of.
pub struct ShardParts<'a> {
    /// Its number, for metrics.
    pub index: usize,
    /// Where batches go.
    pub sink: Arc<dyn Sink<Accepts = Host>>,
    /// The vendor's name, for metrics.
    pub vendor: &'a str,
    /// How batches reach the sink.
    pub mode: ShardMode,
    /// How long the hardware may take for a SYNC.
    pub sync_limit: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where its thread comes from.
    pub threads: &'a dyn Threads,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("index", &self.index).field("mode", &self.mode).finish()
    }
}

impl Shard {
    /// A shard with its thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(parts: ShardParts<'_>) -> std::io::Result<Arc<Self>> {
        let ShardParts { index, sink, vendor, mode, sync_limit, clock, threads } = parts;
        let (jobs, inbox) = flume::unbounded();
        let shard = Arc::new(Self {
            index,
            mode,
            sync_limit,
            sink,
            turn: Mutex::default(),
            queued: AtomicUsize::new(0),
            mailbox: flume::bounded(MAILBOX),
            jobs,
            clock,
        });
        let metrics = ShardMetrics::new(index, vendor);
        let weak = Arc::downgrade(&shard);
        let clock = shard.clock.clone();
        let body = move || drain_of_last_resort(&weak, &inbox, &*clock, &metrics);
        threads.spawn(&format!("viommu-shard-{index}"), Box::new(body))?;
        Ok(shard)
    }

    /// Limit of one wait for the hardware.
    pub fn sync_limit(&self) -> Duration {
        self.sync_limit
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Puts a batch on the hardware queue and returns the place behind it.
    ///
    /// # Errors
    /// As [`Sink::submit`].
    pub fn submit(&self, lane: &Arc<Lane>, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        if self.mode == ShardMode::Direct
            && let Some(mut turn) = self.turn_soon()
        {
            let position = self.put(&mut turn, batch);
            drop(turn);
            self.care_for_others();
            return position;
        }
        self.mail(lane, batch)
    }

    /// Waits for the hardware, without holding the turn.
    ///
    /// # Errors
    /// As [`Sink::wait`].
    pub fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        self.sink.wait(owner, position)
    }

    /// Whether [`Shard::wait`] would return at once.
    pub fn is_done(&self, position: Position) -> bool {
        self.sink.is_done(position)
    }

    /// Has the shard's thread take up `pipeline`'s queue again.
    pub(super) fn rekick(&self, pipeline: &Arc<Pipeline>) {
        // The receiver lives as long as the shard: this cannot fail. One job a pipeline at a time bounds the channel.
        let _ = self.jobs.send(Rekick(Arc::downgrade(pipeline)));
    }

    fn turn_soon(&self) -> Option<MutexGuard<'_, ShardCounts>> {
        for _ in 0..SPINS {
            if let Some(turn) = self.turn_now() {
                return Some(turn);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn turn_now(&self) -> Option<MutexGuard<'_, ShardCounts>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn put(&self, turn: &mut ShardCounts, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        turn.batches += 1;
        turn.words += batch.words.as_slice().len() as u64;
        turn.syncs += u64::from(batch.sync);
        self.sink.submit(batch)
    }

    /// Leaves the batch in the lane's slot and a descriptor in the mailbox, then sees to it that it is placed.
    fn mail(&self, lane: &Arc<Lane>, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        let ticket = {
            let mut slot = lock(&lane.slot);
            slot.ticket += 1;
            slot.words.clear();
            slot.words.extend_from_slice(batch.words.as_slice());
            slot.classes = batch.classes;
            slot.sync = batch.sync;
            slot.state = SlotState::Queued;
            slot.ticket
        };
        self.queued.fetch_add(1, Ordering::SeqCst);
        if self.mailbox.0.try_send(Descriptor { lane: lane.clone(), ticket }).is_err() {
            self.queued.fetch_sub(1, Ordering::SeqCst);
        }
        let mut waiting = Wait::new();
        loop {
            if let Some(placed) = taken_result(lane) {
                return placed;
            }
            if let Some(mut turn) = self.turn_now() {
                turn.mailed += 1;
                if VCPU.get() {
                    self.place_slot(&mut turn, lane, ticket);
                } else {
                    self.drain(&mut turn, FOREIGN);
                    self.place_slot(&mut turn, lane, ticket);
                }
                continue;
            }
            waiting.pause();
        }
    }

    /// Places queued batches in the order of the mailbox, at most `limit`.
    fn drain(&self, turn: &mut ShardCounts, limit: usize) {
        for _ in 0..limit {
            let Ok(descriptor) = self.mailbox.1.try_recv() else { return };
            self.queued.fetch_sub(1, Ordering::SeqCst);
            self.place_slot(turn, &descriptor.lane, descriptor.ticket);
        }
    }

    fn place_slot(&self, turn: &mut ShardCounts, lane: &Lane, ticket: u64) {
        let mut slot = lock(&lane.slot);
        if slot.ticket != ticket || !matches!(slot.state, SlotState::Queued) {
            return;
        }
        let batch = Batch { owner: lane.owner, words: Words::of(&slot.words), classes: slot.classes, sync: slot.sync };
        slot.state = SlotState::Placed(self.put(turn, batch));
    }

    /// After the own batch: a thread without a guest takes a few of the others' along.
    fn care_for_others(&self) {
        if self.queued.load(Ordering::SeqCst) == 0 || VCPU.get() {
            return;
        }
        if let Some(mut turn) = self.turn_now() {
            self.drain(&mut turn, FOREIGN);
        }
    }
}

fn taken_result(lane: &Lane) -> Option<Result<Position, SinkError>> {
    let mut slot = lock(&lane.slot);
    match std::mem::take(&mut slot.state) {
        SlotState::Placed(result) => Some(result),
        other => {
            slot.state = other;
            None
        }
    }
}

/// The shard's thread: parks, takes up guest queues again after configuration changes, brings counters up to date.
fn drain_of_last_resort(
    shard: &Weak<Shard>,
    inbox: &flume::Receiver<Rekick>,
    clock: &dyn Clock,
    metrics: &ShardMetrics,
) {
    loop {
        let job = recv_timeout(inbox, FLUSH, clock);
        let Some(shard) = shard.upgrade() else { return };
        match job {
            Ok(Rekick(pipeline)) => {
                if let Some(pipeline) = pipeline.upgrade() {
                    pipeline.kick_bounded();
                }
            }
            Err(flume::RecvTimeoutError::Timeout) => {}
            Err(flume::RecvTimeoutError::Disconnected) => return,
        }
        let counts = {
            let mut turn = lock(&shard.turn);
            shard.drain(&mut turn, MAILBOX);
            *turn
        };
        metrics.update(&counts, shard.queued.load(Ordering::Relaxed));
    }
}
