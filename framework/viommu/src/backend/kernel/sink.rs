//! A vIOMMU's invalidations: collected up to a SYNC, turned into the kernel's entries, and sent by calls that are believed
//! only when they succeed.
//!
//! ```text
//!   submit ─► collected words ─► (SYNC, or many) ─► runs of one class ─► entries by target ─► bucket ─► replay ─► ioctl
//! ```
//! Everything happens on the thread that submits. A call returns when the hardware has finished, so that whoever waits
//! behind a SYNC never waits.

use super::bucket::{Bucket, Rate};
use super::counters::KernelCounters;
use super::iommufd::Iommufd;
use super::replay::{self, Answer, Issue, Outcome};
use super::targets::Targets;
use crate::backend::{Batch, Checked, Owner, Position, Sink, SinkError};
use crate::seams::{Clock, lock};
use crate::uapi::Errno;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu_plugin::{Classes, GuestFault, InvalidateTarget, KernelEntries, KernelFacts, NO_DOMAIN};
use viommu_plugin_host::KernelAbi;

/// Commands collected at most before they go out without a SYNC: whole blocks of the kernel's.
const COLLECTED: usize = 64 * replay::CHUNK;
/// How long the kernel's drivers wait for the hardware.
const KERNEL_LIMIT: Duration = Duration::from_secs(1);

/// What every sink of a backend has in common.
pub(super) struct SinkParts {
    pub(super) iommufd: Iommufd,
    pub(super) abi: KernelAbi,
    pub(super) facts: KernelFacts,
    pub(super) command_words: usize,
    /// TLB and configuration invalidations go out twice (erratum REPEAT_TLBI_CFGI).
    pub(super) repeat: bool,
    pub(super) precheck: bool,
    pub(super) trust: bool,
    pub(super) rate: Option<Rate>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pause: Arc<dyn Fn(Duration) + Send + Sync>,
    pub(super) counters: Arc<KernelCounters>,
}

/// The sink of one vIOMMU.
pub(super) struct KernelSink {
    parts: Arc<SinkParts>,
    targets: Arc<Targets>,
    state: Mutex<State>,
}

struct State {
    /// Collected and not known to be executed.
    words: Vec<u64>,
    classes: Classes,
    submitted: u64,
    /// Everything up to here is executed, but for what was refused.
    finished: u64,
    /// The kernel refused something that nobody has been told of.
    refused: bool,
    bucket: Option<Bucket>,
}

/// Entries of one target, and the words they come from.
struct Job {
    targets: Vec<u32>,
    key: (InvalidateTarget, u32),
    entry_bytes: usize,
    bytes: Vec<u8>,
    twice: bool,
}

impl KernelSink {
    pub(super) fn new(parts: Arc<SinkParts>, targets: Arc<Targets>) -> Arc<Self> {
        let bucket = parts.rate.map(Bucket::new);
        let state =
            State { words: Vec::new(), classes: Classes::NONE, submitted: 0, finished: 0, refused: false, bucket };
        Arc::new(Self { parts, targets, state: Mutex::new(state) })
    }

    /// Commands of the host itself, in this guest's numbers; complete when this returns.
    pub(super) fn run(&self, words: &[u64], classes: Classes) -> Result<(), SinkError> {
        let words = crate::backend::Words::of(words);
        let position = self.submit(Batch { owner: Owner::HOST, words, classes, sync: true })?;
        self.wait(Owner::HOST, position)
    }

    /// Sends what is collected, as far as it goes. Words that are executed or refused are gone from the collection.
    fn flush(&self, state: &mut State) -> Result<(), SinkError> {
        while !state.words.is_empty() {
            let run = self.run_of_one_class(state)?;
            let taken = self.send(state, run)?;
            state.words.drain(..taken);
        }
        state.classes = Classes::NONE;
        Ok(())
    }

    /// Words from the first that go out together, and whether they are to go out twice. Device caches are never in one call
    /// with TLB and configuration caches: a device could refill its cache from what is not yet forgotten, and only one of
    /// the two kinds may be repeated.
    fn run_of_one_class(&self, state: &State) -> Result<(Range<usize>, bool), SinkError> {
        if !state.classes.any(Classes::ATC) {
            return Ok((0..state.words.len(), true));
        }
        let size = self.parts.command_words;
        let mut first = None;
        for (index, command) in state.words.chunks_exact(size).enumerate() {
            let repeatable = self.parts.abi.repeatable(command).map_err(gone)?;
            if *first.get_or_insert(repeatable) != repeatable {
                return Ok((0..index * size, !repeatable));
            }
        }
        Ok((0..state.words.len(), first.unwrap_or(true)))
    }

    /// Sends one run; how many of its words are done. All of them, or it fails: what was executed of them is then executed
    /// again with the rest.
    fn send(&self, state: &mut State, (run, repeatable): (Range<usize>, bool)) -> Result<usize, SinkError> {
        // Nobody replaces or destroys a target while entries are on their way to it.
        let targets = self.targets.read();
        let jobs = self.jobs(&state.words[run.clone()], repeatable && self.parts.repeat, &targets)?;
        let mut refused = false;
        for mut job in jobs {
            let entries = job.bytes.len() / job.entry_bytes;
            self.throttle(state, (entries * job.targets.len()) as u64);
            for target in job.targets.clone() {
                refused |= self.issue(target, &mut job)?;
                if job.twice {
                    self.parts.counters.repeats.add(entries as u64);
                    refused |= self.issue(target, &mut job)?;
                }
            }
        }
        state.refused |= refused;
        if refused && self.parts.precheck {
            // The check and the kernel disagree: this guest's commands cannot be relied on.
            return Err(SinkError::Gone("the kernel refuses a command that was checked".into()));
        }
        Ok(run.end)
    }

    /// Entries of one job to one target; whether some were refused.
    fn issue(&self, target: u32, job: &mut Job) -> Result<bool, SinkError> {
        let entries = job.bytes.len() / job.entry_bytes;
        let mut calls = Invalidate { parts: &self.parts, target, entry_bytes: job.entry_bytes, bytes: &mut job.bytes };
        let run = if self.parts.trust { replay::run_trusting } else { replay::run };
        let Outcome { refused, stopped, calls, bisections, .. } = run(0..entries, &mut calls);
        let counters = &self.parts.counters;
        counters.calls.add(calls);
        counters.bisections.add(bisections);
        counters.refused.add(refused.len() as u64);
        if let Some((entry, errno)) = refused.first() {
            tracing::warn!(target, entry, refused = refused.len(), %errno, "the kernel refuses an invalidation");
        }
        match stopped {
            None => Ok(!refused.is_empty()),
            Some(Errno::TIMEDOUT) => Err(SinkError::TimedOut(KERNEL_LIMIT)),
            Some(errno) => Err(SinkError::Gone(format!("HWPT_INVALIDATE on {target}: {errno}"))),
        }
    }

    /// The kernel's entries of a run of commands, in order, by target.
    fn jobs(&self, words: &[u64], twice: bool, targets: &super::targets::Known) -> Result<Vec<Job>, SinkError> {
        let (abi, size) = (&self.parts.abi, self.parts.command_words);
        let mut buffer =
            vec![0; (words.len() / size).max(1) * self.parts.facts.invalidate_entry_bytes.max(64) as usize];
        let (mut jobs, mut at) = (Vec::<Job>::new(), 0);
        while at < words.len() {
            let entries = abi.entries(&words[at..], &mut buffer).map_err(gone)?;
            let KernelEntries { taken, written, target, entry_bytes, domain, refused } = entries;
            if taken == 0 && refused == 0 {
                return Err(SinkError::Gone("the plugin makes no entries of checked commands".into()));
            }
            if written > 0 {
                let bytes = &buffer[..written as usize];
                push(&mut jobs, targets, (target, domain), entry_bytes as usize, bytes, twice);
            }
            at += taken as usize;
            if refused == 1 && at < words.len() {
                if self.parts.precheck {
                    return Err(SinkError::Gone("the kernel has no such command".into()));
                }
                // As the guest wrote it: for the kernel to find.
                let raw: Vec<u8> = words[at..at + size].iter().flat_map(|word| word.to_le_bytes()).collect();
                push(&mut jobs, targets, (InvalidateTarget::VIOMMU, NO_DOMAIN), raw.len(), &raw, twice);
                at += size;
            }
        }
        Ok(jobs)
    }

    /// Waits until this guest may send so many entries.
    fn throttle(&self, state: &mut State, entries: u64) {
        let Some(bucket) = &mut state.bucket else { return };
        let delay = bucket.take(entries, self.parts.clock.now());
        if !delay.is_zero() {
            self.parts.counters.throttled.add(1);
            (self.parts.pause)(delay);
        }
    }
}

fn push(
    jobs: &mut Vec<Job>,
    known: &super::targets::Known,
    key: (InvalidateTarget, u32),
    entry_bytes: usize,
    bytes: &[u8],
    twice: bool,
) {
    if let Some(job) = jobs.last_mut().filter(|job| job.key == key && job.entry_bytes == entry_bytes) {
        return job.bytes.extend_from_slice(bytes);
    }
    let targets = known.of(key.0, key.1);
    // Nothing with that domain: nothing of it can be cached.
    if !targets.is_empty() && entry_bytes > 0 {
        jobs.push(Job { targets, key, entry_bytes, bytes: bytes.to_vec(), twice });
    }
}

fn gone(error: viommu_plugin_host::CallError) -> SinkError {
    SinkError::Gone(format!("plugin: {error}"))
}

/// Calls with entries of one length to one target.
struct Invalidate<'a> {
    parts: &'a SinkParts,
    target: u32,
    entry_bytes: usize,
    bytes: &'a mut [u8],
}

impl Issue for Invalidate<'_> {
    fn issue(&mut self, entries: Range<usize>) -> Answer {
        let count = entries.len() as u64;
        let bytes = &mut self.bytes[entries.start * self.entry_bytes..entries.end * self.entry_bytes];
        let data_type = self.parts.facts.invalidate_data_type;
        let reply = self.parts.iommufd.invalidate(self.target, data_type, self.entry_bytes, bytes);
        match reply.result {
            Ok(()) => self.parts.counters.entries.add(count),
            Err(_) => self.parts.counters.replays.add(1),
        }
        Answer { reported: reply.entries as usize, result: reply.result }
    }

    fn pause(&mut self, attempt: u32) {
        (self.parts.pause)(Duration::from_micros(50) * 2u32.pow(attempt.min(8)));
    }
}

impl Sink for KernelSink {
    type Accepts = Checked;

    fn submit(&self, batch: Batch<'_, Checked>) -> Result<Position, SinkError> {
        let mut state = lock(&self.state);
        let earlier = state.words.len();
        state.words.extend_from_slice(batch.words.as_slice());
        state.classes = state.classes.with(batch.classes);
        if batch.sync || state.words.len() >= COLLECTED * self.parts.command_words {
            let total = state.words.len();
            if let Err(error) = self.flush(&mut state) {
                // Its sender will send it again; what was collected before stays.
                let done = total - state.words.len();
                state.words.truncate(earlier.saturating_sub(done));
                return Err(error);
            }
            state.finished = state.submitted + 1;
        }
        state.submitted += 1;
        Ok(Position(state.submitted))
    }

    fn wait(&self, _: Owner, _: Position) -> Result<(), SinkError> {
        // The call that sent it has returned; what it could not do it has told the submitter.
        match std::mem::take(&mut lock(&self.state).refused) {
            true => Err(SinkError::Fault(GuestFault::ILLEGAL_OPCODE)),
            false => Ok(()),
        }
    }

    fn is_done(&self, position: Position) -> bool {
        let state = lock(&self.state);
        position.0 <= state.finished && !state.refused
    }
}
