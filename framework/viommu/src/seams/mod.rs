//! What a host takes from outside: time, threads, threads that may block, and planned panics. Handed in by
//! [`crate::HostBuilder`], never taken from the air. How a thread waits for another is the thread's own affair, see
//! `wait`.

mod waiting;

pub(crate) use waiting::{Wait, lock, on_actor_thread, recv, recv_timeout, wait};

use crate::backend::ObjectKind;
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time since some fixed start, never going back.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct MonotonicClock(Instant);

impl Default for MonotonicClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl<F: Fn() -> Duration + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Duration {
        self()
    }
}

/// Starts the host's own threads: shards, the event router, the drain of the event queue.
pub trait Threads: Send + Sync + 'static {
    /// Runs `body` beside the caller.
    ///
    /// # Errors
    /// If the system has no thread left.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>>;
}

/// What [`Threads::spawn`] started.
pub trait Running: Send + Sync {
    /// Waits for its end; at once, if this is it.
    fn join(self: Box<Self>);
}

/// Threads of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsThreads;

impl Threads for OsThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>> {
        Ok(Box::new(std::thread::Builder::new().name(name.into()).spawn(body)?))
    }
}

impl Running for JoinHandle<()> {
    fn join(self: Box<Self>) {
        let name = self.thread().name().unwrap_or_default().to_owned();
        if self.thread().id() != std::thread::current().id() && JoinHandle::join(*self).is_err() {
            tracing::error!(name, "a thread of the host panicked");
        }
    }
}

/// Threads on which the control plane's jobs may block: ioctls, waits for hardware.
pub trait BlockingPool: Send + Sync + 'static {
    /// Runs `job`, now or soon, on any thread but the actors'. A pool that runs it at once, on the calling thread,
    /// makes a host deterministic, at the price of an arbiter that blocks.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// The blocking pool of a tokio runtime; by default that of the host's own.
#[derive(Debug, Clone)]
pub struct TokioPool(pub tokio::runtime::Handle);

impl BlockingPool for TokioPool {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job));
    }
}

/// Panics to inject: in messages to actors, before the handler does anything or after one of its steps. For tests of
/// supervision; empty by default.
#[derive(Debug, Default)]
pub struct FaultPlan {
    panics: Vec<Planned>,
    seen: Mutex<BTreeMap<(ObjectKind, &'static str), Seen>>,
}

#[derive(Debug)]
struct Planned {
    kind: ObjectKind,
    operation: &'static str,
    messages: RangeInclusive<u64>,
    step: u32,
}

/// What happened of one kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Messages carried out, or struck.
    pub messages: u64,
    /// Steps of the longest of them: what a failure would have undone.
    pub steps: u32,
    /// Panics injected.
    pub panics: u64,
}

impl FaultPlan {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a panic at the start of the `nth` message (from 1) named `operation` (as in [`crate::Error::operation`]).
    #[must_use]
    pub fn panic(self, kind: ObjectKind, operation: &'static str, nth: u64) -> Self {
        self.panic_after(kind, operation, nth..=nth, 0)
    }

    /// Adds a panic in each of these messages, after so many of its steps.
    #[must_use]
    pub fn panic_after(
        mut self,
        kind: ObjectKind,
        operation: &'static str,
        messages: RangeInclusive<u64>,
        step: u32,
    ) -> Self {
        self.panics.push(Planned { kind, operation, messages, step });
        self
    }

    /// What happened so far, by kind of message.
    pub fn seen(&self) -> Vec<(ObjectKind, &'static str, Seen)> {
        lock(&self.seen).iter().map(|(&(kind, operation), &seen)| (kind, operation, seen)).collect()
    }

    /// A message begins; which one of its kind it is. Panics if the plan says so.
    pub(crate) fn begin(&self, kind: ObjectKind, operation: &'static str) -> u64 {
        let nth = {
            let mut seen = lock(&self.seen);
            let seen = seen.entry((kind, operation)).or_default();
            seen.messages += 1;
            seen.messages
        };
        self.step(kind, operation, nth, 0);
        nth
    }

    /// Message `nth` has done `step` steps. Panics if the plan says so.
    pub(crate) fn step(&self, kind: ObjectKind, operation: &'static str, nth: u64, step: u32) {
        let here = |planned: &Planned| {
            (planned.kind, planned.operation, planned.step) == (kind, operation, step)
                && planned.messages.contains(&nth)
        };
        let strikes = self.panics.iter().any(here);
        {
            let mut seen = lock(&self.seen);
            let seen = seen.entry((kind, operation)).or_default();
            seen.steps = seen.steps.max(step);
            seen.panics += u64::from(strikes);
        }
        assert!(!strikes, "planned panic in message {nth} \"{operation}\" of a {kind}, after step {step}");
    }
}
