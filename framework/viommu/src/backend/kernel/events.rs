//! Event queues: read by a thread of its own into one bounded channel.
//!
//! ```text
//!   VEVENTQ fd ─► header, payload ─► plugin: guest's ID, record ─► Guest { stream } or Queues { vIOMMU }
//!        └─ marker without payload, gap in the sequence ─► GuestLost { vIOMMU, records }
//!   FAULT fd ───► page requests ─► PageRequest
//! ```
//! A read that gives nothing is no end of file. An fd is closed only when the thread is not at it: the kernel keeps the
//! object as long as anybody reads its fd.

mod reader;

pub(super) use reader::Source;

use super::calls::Calls;
use super::counters::KernelCounters;
use super::graph::Names;
use crate::Cause;
use crate::backend::BackendEvent;
use crate::seams::{Running, Threads, lock};
use crate::uapi::flags::{PAGE_RESP_INVALID, VEVENTQ_FLAG_LOST_EVENTS};
use crate::uapi::payload::{HwptPageResponse, HwptPgfault, VeventHeader};
use reader::{Reader, request};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use viommu_plugin::NO_STREAM;
use viommu_plugin_host::KernelAbi;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes read at once: many records of any type.
const ROOM: usize = 4096;
/// Reads of one queue before the others get their turn.
const TURN: usize = 16;
/// When waiting failed, how long until it is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long the thread waits when nobody wakes it.
const IDLE: Duration = Duration::from_secs(60);

/// What the thread and the others share.
struct Shared {
    calls: Arc<dyn Calls>,
    abi: KernelAbi,
    counters: Arc<KernelCounters>,
    sender: flume::Sender<BackendEvent>,
    state: Mutex<State>,
    seen: Condvar,
}

#[derive(Default)]
struct State {
    sources: BTreeMap<i32, Reader>,
    /// Counts changes of `sources`.
    changed: u64,
    /// The change that the thread works by.
    seen: u64,
    stop: bool,
}

/// The thread, and the receiver's end.
pub(super) struct Events {
    shared: Arc<Shared>,
    pub(super) receiver: flume::Receiver<BackendEvent>,
    thread: Option<Box<dyn Running>>,
}

impl Events {
    pub(super) fn start(
        calls: Arc<dyn Calls>,
        (abi, counters): (KernelAbi, Arc<KernelCounters>),
        capacity: usize,
        threads: &dyn Threads,
    ) -> Result<Self, Cause> {
        let (sender, receiver) = flume::bounded(capacity);
        let shared = Arc::new(Shared { calls, abi, counters, sender, state: Mutex::default(), seen: Condvar::new() });
        let worker = shared.clone();
        let thread = threads.spawn("viommu-kernel-events", Box::new(move || worker.run()))?;
        Ok(Self { shared, receiver, thread: Some(thread) })
    }

    /// Reads this fd from now on.
    pub(super) fn add(&self, fd: i32, source: Source) {
        let mut state = lock(&self.shared.state);
        state.sources.insert(fd, Reader { source, next: None, unsent: 0 });
        state.changed += 1;
        drop(state);
        self.shared.calls.wake();
    }

    /// Does not read this fd any more; the thread is not at it when this returns.
    pub(super) fn remove(&self, fd: i32) {
        let mut state = lock(&self.shared.state);
        if state.sources.remove(&fd).is_none() {
            return;
        }
        state.changed += 1;
        let changed = state.changed;
        while state.seen < changed && !state.stop {
            self.shared.calls.wake();
            let waited = self.shared.seen.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.calls.wake();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let fds: Vec<i32> = {
                let mut state = lock(&self.state);
                if state.stop {
                    return;
                }
                state.seen = state.changed;
                self.seen.notify_all();
                state.sources.keys().copied().collect()
            };
            match self.calls.poll(&fds, IDLE) {
                Ok(ready) => ready.into_iter().for_each(|fd| self.drain(fd)),
                Err(error) => {
                    tracing::error!(%error, "event queues cannot be waited for");
                    std::thread::park_timeout(AGAIN);
                }
            }
        }
    }

    /// Reads one queue until it is empty, or for its turn.
    fn drain(&self, fd: i32) {
        let Some(mut reader) = lock(&self.state).sources.get(&fd).cloned() else { return };
        let mut bytes = [0; ROOM];
        for _ in 0..TURN {
            // Page requests are read in whole records only.
            let room = if matches!(reader.source, Source::Faults { .. }) {
                ROOM - ROOM % size_of::<HwptPgfault>()
            } else {
                ROOM
            };
            match self.calls.read(fd, &mut bytes[..room]) {
                Ok(0) => break,
                Ok(read) => self.take(fd, &mut reader, &bytes[..read.min(room)]),
                Err(error) => {
                    tracing::error!(fd, %error, "an event queue cannot be read");
                    break;
                }
            }
        }
        if let Some(kept) = lock(&self.state).sources.get_mut(&fd) {
            *kept = reader;
        }
    }

    fn take(&self, fd: i32, reader: &mut Reader, bytes: &[u8]) {
        match reader.source.clone() {
            Source::Events { viommu, kind, payload, names } => {
                self.take_events(reader, bytes, viommu, (kind, payload), &names);
            }
            Source::Faults { queue, devices } => {
                for record in bytes.chunks_exact(size_of::<HwptPgfault>()) {
                    let Ok(fault) = HwptPgfault::read_from_bytes(record) else { continue };
                    let stream = lock(&devices).get(&fault.dev_id).copied();
                    if self.sender.try_send(BackendEvent::PageRequest(request(queue, stream, &fault))).is_err() {
                        self.counters.events_lost.add(1);
                        self.refuse(fd, fault.cookie);
                    }
                }
            }
        }
    }

    /// Nobody hears of this page request: the device is told that it failed, and does not wait for ever. Another page of the
    /// group may have been refused before, which is no error.
    fn refuse(&self, fd: i32, cookie: u32) {
        let answer = HwptPageResponse { cookie, code: PAGE_RESP_INVALID };
        let answered = self.calls.write(fd, answer.as_bytes());
        tracing::warn!(cookie, ?answered, "a page request that nobody takes");
    }

    fn take_events(
        &self,
        reader: &mut Reader,
        mut bytes: &[u8],
        viommu: u32,
        (kind, payload): (u32, usize),
        names: &Names,
    ) {
        while let Ok((header, rest)) = VeventHeader::read_from_prefix(bytes) {
            let marker = header.flags & VEVENTQ_FLAG_LOST_EVENTS != 0;
            let lost = reader.count(header.sequence, marker);
            if lost > 0 {
                self.counters.events_lost.add(lost.into());
                self.send(reader, viommu, BackendEvent::GuestLost { viommu, records: u64::from(lost) });
            }
            bytes = rest;
            if marker {
                continue;
            }
            let Some((record, rest)) = bytes.split_at_checked(payload) else { return };
            bytes = rest;
            match self.abi.event(kind, record) {
                Ok(Some(event)) if event.virt_id == NO_STREAM => {
                    self.send(
                        reader,
                        viommu,
                        BackendEvent::Queues { viommu, record: event.record, words: event.words },
                    );
                }
                Ok(Some(event)) => match lock(names).get(&event.virt_id).copied() {
                    Some(stream) => {
                        self.send(
                            reader,
                            viommu,
                            BackendEvent::Guest { stream, record: event.record, words: event.words },
                        );
                    }
                    None => {
                        tracing::debug!(viommu, virt_id = event.virt_id, "event of a device that has left its guest")
                    }
                },
                Ok(None) => tracing::warn!(viommu, kind, "an event that the plugin does not know"),
                Err(error) => tracing::error!(viommu, %error, "an event cannot be read"),
            }
        }
    }

    /// In order or not at all: nothing passes a gap that is not marked.
    fn send(&self, reader: &mut Reader, viommu: u32, event: BackendEvent) {
        if reader.unsent > 0 {
            let marker = BackendEvent::GuestLost { viommu, records: reader.unsent };
            if self.sender.try_send(marker).is_err() {
                return self.unsent(reader);
            }
            reader.unsent = 0;
        }
        if self.sender.try_send(event).is_err() {
            self.unsent(reader);
        }
    }

    fn unsent(&self, reader: &mut Reader) {
        reader.unsent += 1;
        self.counters.events_lost.add(1);
    }
}
