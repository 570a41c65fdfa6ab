//! Whose turn it is at a guest's queue: one thread at a time, and no doorbell lost between them.

use super::Pipeline;
use super::doorbell::Turn;
use super::guest_queue::{BATCH, Fetch};
use super::primitives::Os;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use viommu_plugin::{GuestFault, QueueState};

/// Commands that a guest's own thread takes at once, about: twice what the largest queue holds. A guest that fills its
/// queue as fast as it is emptied has the rest taken by the shard's thread, in turn with the other guests'.
pub(super) const DOORBELL: u32 = 1 << 20;
/// How often a guest's own thread looks again because another thread of the guest rang meanwhile: as often as the
/// commands above may come in.
const ROUNDS: u32 = DOORBELL / BATCH as u32;

impl Pipeline {
    /// Takes the queue as far as it goes, unless another thread is at it: that one looks again when it leaves.
    pub(super) fn kick(self: &Arc<Self>) {
        let taken = || self.counters.commands.load(Ordering::Relaxed);
        let (before, mut rounds) = (taken(), 0);
        self.queue.ring(|fetch, rung| {
            let more = rung && self.run(fetch, DOORBELL, true);
            rounds += 1;
            let enough = more || rounds == ROUNDS || taken() - before >= u64::from(DOORBELL);
            if enough {
                self.queue_rekick();
            }
            !enough
        });
        self.settle.notify();
    }

    /// Gives the queue back, and looks after those who came in vain meanwhile.
    pub(super) fn leave(self: &Arc<Self>, turn: Option<Turn<'_, Os, Fetch>>) {
        if let Some(turn) = turn {
            if self.queue.leave(turn) {
                self.kick();
            }
            self.settle.notify();
        }
    }

    /// [`Pipeline::kick`] on the shard's thread: bounded, so that no guest keeps the others' thread.
    pub(super) fn kick_bounded(self: &Arc<Self>) {
        const COMMANDS: u32 = 4096;
        let doorbell = self.queue.answer();
        let mut fetch = self.queue();
        // Not before the queue is ours: until then this guest is not idle, and what is asked for meanwhile is seen now.
        self.rekick_queued.store(false, Ordering::SeqCst);
        let more = self.run(&mut fetch, COMMANDS, doorbell);
        if self.queue.leave(fetch) || more {
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
        if self.settle.is_busy() || self.queue.is_rung() || self.rekick_queued.load(Ordering::SeqCst) {
            return false;
        }
        let Some(turn) = self.queue.try_enter() else { return false };
        self.leave(Some(turn));
        match self.registers().map(|registers| registers.queue()) {
            Ok(Ok(queue)) => {
                queue.state != QueueState::RUNNING || (queue.pending == 0 && queue.fault == GuestFault::NONE)
            }
            _ => true,
        }
    }
}
