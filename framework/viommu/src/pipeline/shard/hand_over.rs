//! The protocol of a shard: one batch at a time has the turn; who does not get it leaves the batch where whoever has it
//! can place it.
//!
//! ```text
//!   submit ─► turn free? ─ yes ─► place ──────────────────────────────► result
//!               │ no                        ▲
//!               ▼                           │ whoever has the turn
//!             slot (ticket n) ─► mailbox ───┴── or the submitter itself, when it gets the turn
//! ```
//! - **Ticket**: batches of a lane are numbered; a slot knows the last number queued and the last one placed, so a
//!   batch is placed once however many find it, and a descriptor that comes late finds nothing to do.
//! - **Credit**: a lane has one descriptor in the mailbox at most, and the mailbox has room for every lane's: leaving a
//!   descriptor cannot fail. A lane whose descriptor is still there leaves none: the one there finds the newer batch.

use crate::pipeline::primitives::{Count, Lock, Mailbox, Pause, Primitives};
use std::sync::Arc;

/// One submitter's place: the slot a batch `B` lies in until somebody placed it with result `R`.
pub(crate) struct Lane<P: Primitives, B: Send + 'static, R: Send + 'static>(P::Mutex<Slot<B, R>>);

struct Slot<B, R> {
    /// Number of the last batch queued.
    ticket: u64,
    /// Number of the last batch placed.
    placed: u64,
    batch: B,
    result: Option<R>,
    /// The lane's credit is out: its descriptor is in the mailbox.
    mailed: bool,
}

impl<P: Primitives, B: Send + 'static, R: Send + 'static> Lane<P, B, R> {
    /// A lane with nothing queued; `batch` is its buffer.
    pub(crate) fn new(batch: B) -> Self {
        Self(P::Mutex::new(Slot { ticket: 0, placed: 0, batch, result: None, mailed: false }))
    }

    fn queue(&self, fill: impl FnOnce(&mut B)) -> u64 {
        let mut slot = self.0.lock();
        slot.ticket += 1;
        slot.result = None;
        fill(&mut slot.batch);
        slot.ticket
    }

    /// Takes the credit, if it is there.
    fn take_credit(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().mailed, true)
    }

    fn give_credit(&self) {
        self.0.lock().mailed = false;
    }

    /// Places the batch that waits, if one does.
    fn place(&self, place: impl FnOnce(&B) -> R) {
        let mut slot = self.0.lock();
        if slot.placed < slot.ticket {
            slot.placed = slot.ticket;
            slot.result = Some(place(&slot.batch));
        }
    }

    /// The result of batch `ticket`, once.
    fn result(&self, ticket: u64) -> Option<R> {
        // Whoever places a batch of another lane's may wait for room meanwhile: looking must not wait for that.
        let mut slot = self.0.try_lock()?;
        if slot.placed < ticket { None } else { slot.result.take() }
    }
}

/// How a submitter behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// Tries for the turn before it leaves a descriptor.
    pub(crate) direct: bool,
    /// How many batches of others it places; asked only when there may be some.
    pub(crate) helps: fn() -> usize,
}

/// The turn `C` (what is counted under it), and the mailbox.
pub(crate) struct HandOver<P: Primitives, M, C: Send + 'static> {
    turn: P::Mutex<C>,
    mailbox: M,
    queued: P::Count,
}

impl<P: Primitives, M, C: Send + 'static> HandOver<P, M, C> {
    /// `mailbox` has room for a descriptor of every lane there will be.
    pub(crate) fn new(turn: C, mailbox: M) -> Self {
        Self { turn: P::Mutex::new(turn), mailbox, queued: P::Count::zero() }
    }

    /// Descriptors in the mailbox.
    pub(crate) fn queued(&self) -> usize {
        self.queued.get()
    }

    /// The turn, waited for.
    pub(crate) fn turn(&self) -> <P::Mutex<C> as Lock<C>>::Guard<'_> {
        self.turn.lock()
    }

    fn turn_soon(&self) -> Option<<P::Mutex<C> as Lock<C>>::Guard<'_>> {
        for _ in 0..P::SPINS {
            if let Some(turn) = self.turn.try_lock() {
                return Some(turn);
            }
            P::spin();
        }
        None
    }

    /// Has a batch placed, by this thread or another: with `now` if the turn is free, else through the lane, which is
    /// filled with `fill` and placed with `place`. Returns when it is placed. One thread at a time for a lane.
    pub(crate) fn submit<B: Send + 'static, R: Send + 'static>(
        &self,
        manners: Manners,
        lane: &Arc<Lane<P, B, R>>,
        fill: impl FnOnce(&mut B),
        now: impl FnOnce(&mut C) -> R,
        place: impl Fn(&mut C, &B) -> R,
    ) -> R
    where
        M: Mailbox<Arc<Lane<P, B, R>>>,
    {
        if manners.direct
            && let Some(mut turn) = self.turn_soon()
        {
            let result = now(&mut turn);
            drop(turn);
            self.care_for_others(manners, &place);
            return result;
        }
        let ticket = lane.queue(fill);
        self.mail(lane);
        let mut waiting = P::Pause::new();
        loop {
            if let Some(result) = lane.result(ticket) {
                return result;
            }
            match self.turn.try_lock() {
                Some(mut turn) => {
                    self.drain(&mut turn, (manners.helps)(), &place);
                    lane.place(|batch| place(&mut turn, batch));
                }
                None => waiting.pause(),
            }
        }
    }

    fn mail<B: Send + 'static, R: Send + 'static>(&self, lane: &Arc<Lane<P, B, R>>)
    where
        M: Mailbox<Arc<Lane<P, B, R>>>,
    {
        if !lane.take_credit() {
            return;
        }
        self.queued.add();
        if !self.mailbox.try_send(lane.clone()) {
            // More lanes than the mailbox was made for: the submitter places its batch itself, when it gets the turn.
            self.queued.subtract();
            lane.give_credit();
        }
    }

    /// Places queued batches in the order of the mailbox, at most `limit`.
    pub(crate) fn drain<B: Send + 'static, R: Send + 'static>(
        &self,
        turn: &mut C,
        limit: usize,
        place: impl Fn(&mut C, &B) -> R,
    ) where
        M: Mailbox<Arc<Lane<P, B, R>>>,
    {
        for _ in 0..limit {
            let Some(lane) = self.mailbox.try_recv() else { return };
            self.queued.subtract();
            // The credit first: what is queued from here on leaves a descriptor of its own.
            lane.give_credit();
            lane.place(|batch| place(turn, batch));
        }
    }

    /// After the own batch: who may, takes a few of the others' along.
    fn care_for_others<B: Send + 'static, R: Send + 'static>(&self, manners: Manners, place: impl Fn(&mut C, &B) -> R)
    where
        M: Mailbox<Arc<Lane<P, B, R>>>,
    {
        if self.queued.get() == 0 {
            return;
        }
        let helps = (manners.helps)();
        if helps > 0
            && let Some(mut turn) = self.turn.try_lock()
        {
            self.drain(&mut turn, helps, place);
        }
    }
}
