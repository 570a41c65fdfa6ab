//! What a host takes from outside: time, threads that may block, and planned panics. Handed in by
//! [`crate::HostBuilder`], never taken from the air.

use crate::backend::ObjectKind;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
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

/// Panics to inject: in the n-th message of a name to actors of a kind. For tests of supervision; empty by default.
#[derive(Debug, Default)]
pub struct FaultPlan {
    panics: HashMap<(ObjectKind, &'static str), Vec<u64>>,
    seen: Mutex<HashMap<(ObjectKind, &'static str), u64>>,
}

impl FaultPlan {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a panic in the `nth` message (from 1) named `operation` (as in [`crate::Error::operation`]).
    #[must_use]
    pub fn panic(mut self, kind: ObjectKind, operation: &'static str, nth: u64) -> Self {
        self.panics.entry((kind, operation)).or_default().push(nth);
        self
    }

    /// Panics if the plan says so.
    pub(crate) fn strike(&self, kind: ObjectKind, operation: &'static str) {
        let Some(planned) = self.panics.get(&(kind, operation)) else { return };
        let nth = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry((kind, operation)).or_default();
            *count += 1;
            *count
        };
        assert!(!planned.contains(&nth), "planned panic in message {nth} \"{operation}\" of a {kind}");
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on a thread that may block.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
