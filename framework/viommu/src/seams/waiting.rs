//! How a thread waits for another: by the operating system's means, or in a simulation by giving way.

use super::Clock;
use crate::simulation;
use crossbeam_utils::Backoff;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// One wait for something that another thread does, without being told of it: look, pause, look again.
pub(crate) struct Wait {
    backoff: Backoff,
    first: bool,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Self { backoff: Backoff::new(), first: true }
    }

    /// The caller looked in vain.
    pub(crate) fn pause(&mut self) {
        if simulation::is_here() {
            simulation::blocked(std::mem::take(&mut self.first), None);
        } else {
            self.backoff.snooze();
        }
    }

    /// As [`Wait::pause`], in a simulation: the caller will look again at `until` whatever happens.
    fn pause_until(&mut self, until: Duration) {
        simulation::blocked(std::mem::take(&mut self.first), Some(until));
    }
}

/// The lock, whatever a panicking holder left: what is behind the locks of this crate is whole between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => lock_later(mutex),
    }
}

#[cold]
fn lock_later<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    if !simulation::is_here() {
        return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let mut waiting = Wait::new();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => waiting.pause(),
        }
    }
}

/// The next message; an error if there will be none.
pub(crate) fn recv<T>(receiver: &flume::Receiver<T>) -> Result<T, flume::RecvError> {
    if !simulation::is_here() {
        return receiver.recv();
    }
    let mut waiting = Wait::new();
    loop {
        match receiver.try_recv() {
            Ok(message) => return Ok(message),
            Err(flume::TryRecvError::Disconnected) => return Err(flume::RecvError::Disconnected),
            Err(flume::TryRecvError::Empty) => waiting.pause(),
        }
    }
}

/// The next message within `limit`.
pub(crate) fn recv_timeout<T>(
    receiver: &flume::Receiver<T>,
    limit: Duration,
    clock: &dyn Clock,
) -> Result<T, flume::RecvTimeoutError> {
    if !simulation::is_here() {
        return receiver.recv_timeout(limit);
    }
    let (mut waiting, end) = (Wait::new(), clock.now() + limit);
    loop {
        match receiver.try_recv() {
            Ok(message) => return Ok(message),
            Err(flume::TryRecvError::Disconnected) => return Err(flume::RecvTimeoutError::Disconnected),
            Err(flume::TryRecvError::Empty) if clock.now() >= end => return Err(flume::RecvTimeoutError::Timeout),
            Err(flume::TryRecvError::Empty) => waiting.pause_until(end),
        }
    }
}

/// Whether this thread runs actors, and is at it: what it waited for might never happen.
pub(crate) fn on_actor_thread() -> bool {
    if simulation::is_here() { simulation::in_system() } else { actix::Arbiter::try_current().is_some() }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Notes that a future may have got further.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits for a future on a thread that may block.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    if simulation::is_here() {
        return wait_simulated(future);
    }
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

fn wait_simulated<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        let mut waiting = Wait::new();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !woken.0.swap(false, Ordering::AcqRel) {
            waiting.pause();
        }
    }
}
