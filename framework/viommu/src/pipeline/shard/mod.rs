//! Step 4: whoever has work drains. One batch at a time takes its turn at the hardware queue.

mod hand_over;
#[cfg(test)]
mod models;

use super::Pipeline;
use super::primitives::Os;
use crate::backend::{Batch, Numbers, Owner, Position, Routed, SinkError, SinkOf, Words};
use crate::metrics::ShardMetrics;
use crate::seams::{Clock, Threads, recv_timeout};
use hand_over::{HandOver, Manners};
use std::cell::Cell;
use std::sync::{Arc, Weak};
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

/// Descriptors the mailbox holds: one for each guest of a shard. Guests beyond wait for their own turn instead.
const MAILBOX: usize = 4096;
/// Batches of others that a thread without a guest places before it looks after itself.
const FOREIGN: usize = 16;
/// How often the shard's thread brings the counters up to date when nothing happens.
const FLUSH: Duration = Duration::from_millis(250);

type Placed = Result<Position, SinkError>;
type Slot = hand_over::Lane<Os, OwnedBatch, Placed>;
type Mail = (flume::Sender<Arc<Slot>>, flume::Receiver<Arc<Slot>>);

/// One guest queue's place at a shard: where a batch lies while it waits for its turn.
pub struct Lane {
    owner: Owner,
    slot: Arc<Slot>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Lane {
    /// A lane with nothing queued.
    pub fn new(owner: Owner) -> Self {
        let batch = OwnedBatch { owner, words: Vec::new(), classes: Classes::NONE, sync: false };
        Self { owner, slot: Arc::new(Slot::new(batch)) }
    }
}

/// A batch that waits. Its buffer is kept from batch to batch.
struct OwnedBatch {
    owner: Owner,
    words: Vec<u64>,
    classes: Classes,
    sync: bool,
}

impl OwnedBatch {
    fn fill(&mut self, batch: &Batch<'_, Routed>) {
        self.words.clear();
        self.words.extend_from_slice(batch.words.as_slice());
        (self.classes, self.sync) = (batch.classes, batch.sync);
    }

    fn lend(&self) -> Batch<'_, Routed> {
        Batch { owner: self.owner, words: Words::of(&self.words), classes: self.classes, sync: self.sync }
    }
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
    number: Option<usize>,
    mode: ShardMode,
    sync_limit: Duration,
    sink: SinkOf,
    hand_over: HandOver<Os, Mail, ShardCounts>,
    metrics: ShardMetrics,
    jobs: flume::Sender<Rekick>,
    clock: Arc<dyn Clock>,
}

/// What a [`Shard`] is made of.
pub struct ShardParts<'a> {
    /// Its number, for its thread's name and for metrics; `None` if it ends with the one guest it has. There is no bound on
    /// how many of those come and go, so metrics tell them not apart.
    pub number: Option<usize>,
    /// Where batches go.
    pub sink: SinkOf,
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
        f.debug_struct("Shard").field("number", &self.number).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard with its thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(parts: ShardParts<'_>) -> std::io::Result<Arc<Self>> {
        let ShardParts { number, sink, vendor, mode, sync_limit, clock, threads } = parts;
        let (jobs, inbox) = flume::unbounded();
        let hand_over = HandOver::new(ShardCounts::default(), flume::bounded(MAILBOX));
        let metrics = ShardMetrics::new(number, vendor);
        let shard = Arc::new(Self { number, mode, sync_limit, sink, hand_over, metrics, jobs, clock: clock.clone() });
        let weak = Arc::downgrade(&shard);
        let body = move || drain_of_last_resort(&weak, &inbox, &*clock);
        let name = number.map_or_else(|| "viommu-shard".to_owned(), |number| format!("viommu-shard-{number}"));
        threads.spawn(&name, Box::new(body))?;
        Ok(shard)
    }

    /// Limit of one wait for the hardware.
    pub fn sync_limit(&self) -> Duration {
        self.sync_limit
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Which numbers its words carry.
    pub(crate) fn numbers(&self) -> Numbers {
        self.sink.numbers()
    }

    /// Puts a batch on the hardware queue and returns the place behind it.
    ///
    /// # Errors
    /// As [`crate::backend::Sink::submit`].
    #[inline]
    pub fn submit(&self, lane: &Lane, batch: Batch<'_, Routed>) -> Result<Position, SinkError> {
        let helps = || if VCPU.get() { 0 } else { FOREIGN };
        let manners = Manners { direct: self.mode == ShardMode::Direct, helps };
        let now = |turn: &mut ShardCounts| self.put(turn, batch);
        let queued = |turn: &mut ShardCounts, batch: &OwnedBatch| self.put_queued(turn, batch);
        self.hand_over.submit(manners, &lane.slot, |slot| slot.fill(&batch), now, queued)
    }

    /// Waits for the hardware, without holding the turn.
    ///
    /// # Errors
    /// As [`crate::backend::Sink::wait`].
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

    fn put(&self, turn: &mut ShardCounts, batch: Batch<'_, Routed>) -> Placed {
        turn.batches += 1;
        turn.words += batch.words.as_slice().len() as u64;
        turn.syncs += u64::from(batch.sync);
        self.sink.submit(batch)
    }

    fn put_queued(&self, turn: &mut ShardCounts, batch: &OwnedBatch) -> Placed {
        turn.mailed += 1;
        self.put(turn, batch.lend())
    }
}

impl Drop for Shard {
    /// What it did since its thread last looked is counted, and nothing waits any more.
    fn drop(&mut self) {
        let counts = *self.hand_over.turn();
        self.metrics.update(&counts, 0);
    }
}

/// The shard's thread: parks, takes up guest queues again after configuration changes, brings counters up to date.
fn drain_of_last_resort(shard: &Weak<Shard>, inbox: &flume::Receiver<Rekick>, clock: &dyn Clock) {
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
            let mut turn = shard.hand_over.turn();
            let place = |turn: &mut ShardCounts, batch: &OwnedBatch| shard.put_queued(turn, batch);
            shard.hand_over.drain(&mut turn, MAILBOX, place);
            *turn
        };
        shard.metrics.update(&counts, shard.hand_over.queued());
    }
}
