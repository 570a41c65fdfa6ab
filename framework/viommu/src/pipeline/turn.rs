//! Whose turn it is at a guest's queue: one thread at a time, and no doorbell lost between them.

use super::Pipeline;
use super::guest_queue::{BATCH, Fetch};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, MutexGuard, TryLockError};
use viommu_plugin::{GuestFault, QueueState};

/// Commands that a guest's own thread takes at once, about: twice what the largest queue holds. A guest that fills its
/// queue as fast as it is emptied has the rest taken by the shard's thread, in turn with the other guests'.
pub(super) const DOORBELL: u32 = 1 << 20;
/// How often a guest's own thread looks again because another thread of the guest rang meanwhile: as often as the
/// commands above may come in.
const ROUNDS: u32 = DOORBELL / BATCH as u32;

impl Pipeline {
    /// The queue, if no other thread is at it.
    pub(super) fn try_queue(&self) -> Option<MutexGuard<'_, Fetch>> {
        match self.queue.try_lock() {
            Ok(fetch) => Some(fetch),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the queue as far as it goes, unless another thread is at it: that one looks again when it leaves.
    pub(super) fn kick(self: &Arc<Self>) {
        self.kicked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let taken = || self.counters.commands.load(Ordering::Relaxed);
        let (before, mut rounds) = (taken(), 0);
        while let Some(mut fetch) = self.try_queue() {
            let more = self.kicked.swap(false, Ordering::SeqCst) && self.run(&mut fetch, DOORBELL, true);
            drop(fetch);
            fence(Ordering::SeqCst);
            rounds += 1;
            if more || rounds == ROUNDS || taken() - before >= u64::from(DOORBELL) {
                self.queue_rekick();
                break;
            }
            if !self.kicked.load(Ordering::SeqCst) {
                break;
            }
        }
        self.settle.notify();
    }

    /// Gives the queue back, and looks after those who came in vain meanwhile.
    pub(super) fn leave(self: &Arc<Self>, turn: Option<MutexGuard<'_, Fetch>>) {
        if turn.is_some() {
            drop(turn);
            barrier_after_unlock();
            if self.kicked.load(Ordering::SeqCst) {
                self.kick();
            }
            self.settle.notify();
        }
    }

    /// [`Pipeline::kick`] on the shard's thread: bounded, so that no guest keeps the others' thread.
    pub(super) fn kick_bounded(self: &Arc<Self>) {
        const COMMANDS: u32 = 4096;
        self.rekick_queued.store(false, Ordering::SeqCst);
        let doorbell = self.kicked.swap(false, Ordering::SeqCst);
        let more = {
            let mut fetch = self.queue();
            self.run(&mut fetch, COMMANDS, doorbell)
        };
        if more || self.kicked.load(Ordering::SeqCst) {
            self.queue_rekick();
        }
        self.settle.notify();
    }

    pub(super) fn queue_rekick(self: &Arc<Self>) {
        if !self.rekick_queued.swap(true, Ordering::SeqCst) {
            self.shard.rekick(self);
        }
    }

    pub(super) fn idle(self: &Arc<Self>) -> bool {
        if self.settle.is_quarantined() {
            return true;
        }
        if self.settle.is_busy() || self.kicked.load(Ordering::SeqCst) {
            return false;
        }
        let Some(turn) = self.try_queue() else { return false };
        self.leave(Some(turn));
        match self.registers().map(|registers| registers.queue()) {
            Ok(Ok(queue)) => {
                queue.state != QueueState::RUNNING || (queue.pending == 0 && queue.fault == GuestFault::NONE)
            }
            _ => true,
        }
    }
}

/// Orders the release of a lock before a load that follows. On x86 the release is an exchange, which orders everything
/// already: only the compiler must be told, and a doorbell is spared a full fence.
#[inline]
fn barrier_after_unlock() {
    #[cfg(target_arch = "x86_64")]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    fence(Ordering::SeqCst);
}
