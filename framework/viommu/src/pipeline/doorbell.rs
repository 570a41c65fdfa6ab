//! The protocol at a guest's queue: one thread at a time takes commands, and no doorbell is lost between two of them.
//!
//! ```text
//!   ring: note, fence, try the lock ─ got it ─► take commands, give it back, fence, look for a note ─┐
//!                          │ another has it                  ▲────────────── there is one ───────────┘
//!                          └─► return: the other looks for the note after it gave the lock back
//! ```

use super::primitives::{Flag, Lock, Primitives};

/// A queue `T` behind a lock, and the note of who rang.
pub(super) struct Doorbell<P: Primitives, T: Send + 'static> {
    queue: P::Mutex<T>,
    rung: P::Flag,
}

/// The lock on a queue.
pub(super) type Turn<'a, P, T> = <<P as Primitives>::Mutex<T> as Lock<T>>::Guard<'a>;

impl<P: Primitives, T: Send + 'static> Doorbell<P, T> {
    pub(super) fn new(queue: T) -> Self {
        Self { queue: P::Mutex::new(queue), rung: P::Flag::unset() }
    }

    /// Notes that there is something to take, and has it taken by `take` as long as no other thread is at it and
    /// `take` says that it will go on. `take` is told whether somebody rang since it last looked.
    pub(super) fn ring(&self, mut take: impl FnMut(&mut T, bool) -> bool) {
        self.rung.set();
        P::fence();
        while let Some(mut queue) = self.queue.try_lock() {
            let rung = self.rung.take();
            let go_on = take(&mut queue, rung);
            drop(queue);
            P::fence();
            if !go_on || !self.rung.is_set() {
                return;
            }
        }
    }

    /// The queue, waited for.
    pub(super) fn enter(&self) -> Turn<'_, P, T> {
        self.queue.lock()
    }

    /// The queue, unless another thread is at it.
    pub(super) fn try_enter(&self) -> Option<Turn<'_, P, T>> {
        self.queue.try_lock()
    }

    /// Gives the queue back; whether somebody rang in vain meanwhile: then the caller has to ring.
    #[must_use]
    pub(super) fn leave(&self, queue: Turn<'_, P, T>) -> bool {
        drop(queue);
        P::fence_after_unlock();
        self.rung.is_set()
    }

    /// Whether somebody rang and nobody has looked since.
    pub(super) fn is_rung(&self) -> bool {
        self.rung.is_set()
    }

    /// Takes the note away: the caller is going to look.
    pub(super) fn answer(&self) -> bool {
        self.rung.take()
    }
}
