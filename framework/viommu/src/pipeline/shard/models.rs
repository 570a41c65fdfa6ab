//! loom explores the protocols: the code that runs, with loom's primitives, every schedule of a few threads and every
//! value that the memory model lets a load see. What loom has no model of (flume) is a list behind a lock here, and has a
//! stress test of its own.

use super::hand_over::{HandOver, Lane, Manners};
use crate::pipeline::doorbell::Doorbell;
use crate::pipeline::primitives::{Count, Flag, Lock, Mailbox, Os, Pause, Primitives};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

struct Loom<const FENCES: bool = true>;

impl<const FENCES: bool> Primitives for Loom<FENCES> {
    type Mutex<T: Send + 'static> = Weak<T>;
    type Count = AtomicUsize;
    type Flag = AtomicBool;
    type Pause = Yield;

    const SPINS: u32 = 1;

    fn fence() {
        if FENCES {
            fence(Ordering::SeqCst);
        }
    }
    fn spin() {
        thread::yield_now();
    }
}

struct Yield;

impl Pause for Yield {
    fn new() -> Self {
        Self
    }
    fn pause(&mut self) {
        thread::yield_now();
    }
}

/// A lock that orders no more than a lock must: loom's own is a full fence, which would hide that one is missing.
struct Weak<T> {
    held: AtomicBool,
    /// Never contended: `held` says whose it is.
    value: std::sync::Mutex<T>,
}

struct Holding<'a, T> {
    value: Option<std::sync::MutexGuard<'a, T>>,
    held: &'a AtomicBool,
}

impl<T> Deref for Holding<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_deref().expect("held")
    }
}

impl<T> DerefMut for Holding<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect("held")
    }
}

impl<T> Drop for Holding<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.held.store(false, Ordering::Release);
    }
}

impl<T: Send + 'static> Lock<T> for Weak<T> {
    type Guard<'a> = Holding<'a, T>;

    fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: std::sync::Mutex::new(value) }
    }
    fn lock(&self) -> Holding<'_, T> {
        loop {
            match self.try_lock() {
                Some(guard) => return guard,
                None => thread::yield_now(),
            }
        }
    }
    fn try_lock(&self) -> Option<Holding<'_, T>> {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Holding { value: self.value.try_lock().ok(), held: &self.held })
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
    fn get(&self) -> usize {
        self.load(Ordering::SeqCst)
    }
}

/// Weaker than the code's: what holds here rests on the fences alone.
impl Flag for AtomicBool {
    fn unset() -> Self {
        Self::new(false)
    }
    fn set(&self) {
        self.store(true, Ordering::Relaxed);
    }
    fn is_set(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
    fn take(&self) -> bool {
        self.swap(false, Ordering::Relaxed)
    }
}

/// A mailbox with exactly as much room as there are credits: a send that finds it full breaks the promise.
struct Room<T>(Weak<VecDeque<T>>, usize);

impl<T: Send + 'static> Mailbox<T> for Room<T> {
    fn try_send(&self, message: T) -> bool {
        let mut messages = self.0.lock();
        assert!(messages.len() < self.1, "more descriptors than credits");
        messages.push_back(message);
        true
    }
    fn try_recv(&self) -> Option<T> {
        self.0.lock().pop_front()
    }
}

/// Who placed batch `n` of `lane`, in the order in which they were placed.
type Placed = Vec<(usize, u32)>;
type Queue = Lane<Loom, (usize, u32), usize>;
type Model = HandOver<Loom, Room<Arc<Queue>>, Placed>;

/// Every schedule in which threads are interrupted at most so often.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn submit(model: &Model, lane: &Arc<Queue>, batch: (usize, u32), manners: Manners) {
    let place = |placed: &mut Placed, batch: &(usize, u32)| {
        placed.push(*batch);
        placed.len()
    };
    let at = model.submit(manners, lane, |slot| *slot = batch, |placed| place(placed, &batch), place);
    assert_eq!(model.turn()[at - 1], batch, "the answer is that of the batch");
}

/// `lanes` submitters of `batches` each, and with `drains` the shard's own thread. What was placed in the end.
fn shard(lanes: usize, batches: u32, room: usize, manners: Manners, drains: bool) -> Placed {
    let model: Arc<Model> = Arc::new(HandOver::new(Vec::new(), Room(Weak::new(VecDeque::new()), room)));
    let submitters: Vec<_> = (0..lanes)
        .map(|lane| {
            let model = model.clone();
            thread::spawn(move || {
                let queue = Arc::new(Queue::new((lane, 0)));
                (0..batches).for_each(|n| submit(&model, &queue, (lane, n), manners));
            })
        })
        .collect();
    let place = |placed: &mut Placed, batch: &(usize, u32)| {
        placed.push(*batch);
        placed.len()
    };
    if drains {
        model.drain(&mut model.turn(), lanes, place);
    }
    submitters.into_iter().for_each(|thread| thread.join().expect("submitter"));
    model.drain(&mut model.turn(), lanes, place);
    assert_eq!(model.queued(), 0, "no credit is lost");
    model.turn().clone()
}

fn each_once_in_order(placed: &Placed, lanes: usize, batches: u32) {
    for lane in 0..lanes {
        let of_lane: Vec<_> = placed.iter().filter(|batch| batch.0 == lane).map(|batch| batch.1).collect();
        assert_eq!(of_lane, (0..batches).collect::<Vec<_>>(), "lane {lane}: {placed:?}");
    }
}

#[test]
fn two_direct_submitters_place_each_batch_once_and_in_order() {
    explore(3, || each_once_in_order(&shard(2, 1, 2, Manners { direct: true, helps: || 1 }, false), 2, 1));
}

#[test]
fn two_lanes_place_each_batch_once_through_the_mailbox() {
    explore(3, || each_once_in_order(&shard(2, 1, 2, Manners { direct: false, helps: || 2 }, false), 2, 1));
}

#[test]
fn batches_of_one_lane_keep_their_order_through_the_mailbox() {
    explore(4, || each_once_in_order(&shard(1, 3, 1, Manners { direct: false, helps: || 1 }, true), 1, 3));
}

#[test]
fn a_vcpu_places_nothing_of_others_and_nothing_of_it_is_left() {
    explore(2, || each_once_in_order(&shard(2, 2, 2, Manners { direct: true, helps: || 0 }, false), 2, 2));
}

/// The model sees a mailbox that is too small for its lanes: the credits are what makes it large enough.
#[test]
#[should_panic(expected = "more descriptors than credits")]
fn a_mailbox_smaller_than_the_credits_is_noticed() {
    explore(2, || each_once_in_order(&shard(2, 1, 1, Manners { direct: false, helps: || 0 }, false), 2, 1));
}

/// Two vCPUs of one guest, or one and the shard's thread, at one queue. How much was taken when all have left.
fn doorbells<const FENCES: bool>(with_shard: bool) -> usize {
    let doorbell: Arc<Doorbell<Loom<FENCES>, usize>> = Arc::new(Doorbell::new(0));
    // The registers, behind their lock: how many commands the guest has announced.
    let tail: Arc<Weak<usize>> = Arc::new(Weak::new(0));
    let take = |tail: &Weak<usize>| *tail.lock();
    let vcpu = move |doorbell: &Doorbell<Loom<FENCES>, usize>, tail: &Weak<usize>| {
        let ring = || {
            doorbell.ring(|taken, _| {
                *taken = take(tail);
                true
            });
        };
        // As `Pipeline::mmio_write` does it: the queue first if it is free, then the register, then the commands.
        let turn = doorbell.try_enter();
        *tail.lock() += 1;
        match turn {
            Some(mut queue) => {
                *queue = take(tail);
                if doorbell.leave(queue) {
                    ring();
                }
            }
            None => ring(),
        }
    };
    let other = {
        let (doorbell, tail) = (doorbell.clone(), tail.clone());
        thread::spawn(move || {
            if !with_shard {
                return vcpu(&doorbell, &tail);
            }
            // As `Pipeline::kick_bounded` does it; what it is asked to do again, it does again.
            loop {
                doorbell.answer();
                let mut queue = doorbell.enter();
                *queue = take(&tail);
                if !doorbell.leave(queue) {
                    break;
                }
            }
        })
    };
    vcpu(&doorbell, &tail);
    other.join().expect("the other thread");
    *doorbell.enter()
}

#[test]
fn no_doorbell_is_lost_between_two_vcpus() {
    explore(3, || assert_eq!(doorbells::<true>(false), 2));
}

#[test]
fn no_doorbell_is_lost_between_a_vcpu_and_the_shard() {
    explore(4, || assert_eq!(doorbells::<true>(true), 1));
}

#[test]
#[should_panic(expected = "left: 1")]
fn without_the_fences_a_doorbell_is_lost() {
    explore(3, || assert_eq!(doorbells::<false>(false), 2));
}

/// What loom does not explore: the real mailbox, with real threads, more of them than the machine has.
#[test]
fn flume_loses_and_doubles_nothing_under_stress() {
    const LANES: usize = 8;
    const BATCHES: u32 = 2_000;
    type Slot = Lane<Os, (usize, u32), usize>;
    let mailbox: (flume::Sender<Arc<Slot>>, flume::Receiver<Arc<Slot>>) = flume::bounded(LANES);
    let model = HandOver::<Os, _, Placed>::new(Vec::new(), mailbox);
    let place = |placed: &mut Placed, batch: &(usize, u32)| {
        placed.push(*batch);
        placed.len()
    };
    std::thread::scope(|threads| {
        for lane in 0..LANES {
            let model = &model;
            threads.spawn(move || {
                let queue = Arc::new(Slot::new((lane, 0)));
                // Some go straight, some through the mailbox; some help, some are vCPUs.
                let manners = Manners { direct: lane % 2 == 0, helps: if lane % 4 < 2 { || 3 } else { || 0 } };
                for batch in (0..BATCHES).map(|n| (lane, n)) {
                    let at = model.submit(manners, &queue, |slot| *slot = batch, |placed| place(placed, &batch), place);
                    assert_eq!(model.turn()[at - 1], batch);
                }
            });
        }
    });
    model.drain(&mut model.turn(), LANES, place);
    assert_eq!(model.queued(), 0, "no credit is lost");
    each_once_in_order(&model.turn(), LANES, BATCHES);
}
