//! What the protocols between threads are made of: locks, counters, a mailbox, a pause. The protocols
//! ([`super::shard`], [`super::doorbell`]) are generic over these, so that the code that runs is the code that loom
//! explores.

use crate::seams::{Wait, lock};
use std::ops::DerefMut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// One family of primitives.
pub(crate) trait Primitives: 'static {
    type Mutex<T: Send + 'static>: Lock<T>;
    type Count: Count;
    type Flag: Flag;
    type Pause: Pause;

    /// Looks at a lock before a submitter gives up: longer than a placement takes, shorter than a wake-up.
    const SPINS: u32;

    /// Orders everything before it with everything after it, among all threads that do the same.
    fn fence();
    /// Orders the release of a lock before a load that follows.
    fn fence_after_unlock() {
        Self::fence();
    }
    /// A moment in a short spin.
    fn spin();
}

pub(crate) trait Lock<T>: Send + Sync {
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;
    fn new(value: T) -> Self;
    fn lock(&self) -> Self::Guard<'_>;
    /// The lock, unless another thread has it.
    fn try_lock(&self) -> Option<Self::Guard<'_>>;
}

pub(crate) trait Count: Send + Sync {
    fn zero() -> Self;
    fn add(&self);
    fn subtract(&self);
    fn get(&self) -> usize;
}

pub(crate) trait Flag: Send + Sync {
    fn unset() -> Self;
    fn set(&self);
    fn is_set(&self) -> bool;
    /// Unsets it; whether it was set.
    fn take(&self) -> bool;
}

/// A longer wait for another thread, without being told of it.
pub(crate) trait Pause {
    fn new() -> Self;
    fn pause(&mut self);
}

/// A bounded queue of many to many.
pub(crate) trait Mailbox<T>: Send + Sync {
    /// `false` if it is full.
    fn try_send(&self, message: T) -> bool;
    fn try_recv(&self) -> Option<T>;
}

/// What threads of the operating system use, and tasks of a simulation.
pub(crate) struct Os;

impl Primitives for Os {
    type Mutex<T: Send + 'static> = Mutex<T>;
    type Count = AtomicUsize;
    type Flag = AtomicBool;
    type Pause = Wait;

    const SPINS: u32 = 64;

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }

    /// On x86 the release is an exchange, which orders everything already: only the compiler must be told, and a
    /// doorbell is spared a full fence.
    #[inline]
    fn fence_after_unlock() {
        #[cfg(target_arch = "x86_64")]
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        #[cfg(not(target_arch = "x86_64"))]
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn spin() {
        std::hint::spin_loop();
    }
}

impl<T: Send> Lock<T> for Mutex<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        T: 'a;

    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, T> {
        lock(self)
    }

    #[inline]
    fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Count for AtomicUsize {
    fn zero() -> Self {
        Self::new(0)
    }
    fn add(&self) {
        self.fetch_add(1, Ordering::SeqCst);
    }
    fn subtract(&self) {
        self.fetch_sub(1, Ordering::SeqCst);
    }
    #[inline]
    fn get(&self) -> usize {
        self.load(Ordering::SeqCst)
    }
}

impl Flag for AtomicBool {
    fn unset() -> Self {
        Self::new(false)
    }
    #[inline]
    fn set(&self) {
        self.store(true, Ordering::SeqCst);
    }
    #[inline]
    fn is_set(&self) -> bool {
        self.load(Ordering::SeqCst)
    }
    #[inline]
    fn take(&self) -> bool {
        self.swap(false, Ordering::SeqCst)
    }
}

impl Pause for Wait {
    fn new() -> Self {
        Self::new()
    }
    fn pause(&mut self) {
        self.pause();
    }
}

impl<T: Send> Mailbox<T> for (flume::Sender<T>, flume::Receiver<T>) {
    fn try_send(&self, message: T) -> bool {
        self.0.try_send(message).is_ok()
    }
    fn try_recv(&self) -> Option<T> {
        self.1.try_recv().ok()
    }
}
