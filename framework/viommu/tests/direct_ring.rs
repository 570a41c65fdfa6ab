//! The physical ring: order, room, wrap, and whose error is whose. The hardware is a fake that executes when told.

mod fake;

use fake::{ILLEGAL, LIMIT, Numbered, PLAIN, Rig, SYNC, UNANSWERED, UNREADABLE, plain};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use viommu::backend::{BackendEvent, Owner, SinkError};
use viommu::plugin::{Classes, GuestFault};

const A: u32 = 1;
const B: u32 = 2;

#[test]
fn batches_arrive_whole_and_in_order_around_the_ring() {
    for wrap_bit in [0, 1] {
        let rig = Rig::new(3, wrap_bit);
        rig.fake.pace.store(3, Relaxed);
        let mut commands = Numbered::from(0);
        let mut last = None;
        for round in 0..500 {
            last = Some(rig.put(A, &commands.take(round % 7), round % 3 == 0).unwrap());
        }
        let end = rig.put(A, &[], true).unwrap();
        assert!(Some(end) > last);
        rig.wait(A, end).unwrap();
        let executed = plain(&rig.fake.executed());
        let put: usize = (0..500).map(|round| round % 7).sum();
        assert_eq!(executed, (0..put as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_batch_longer_than_the_ring_goes_in_pieces() {
    let rig = Rig::new(3, 1);
    rig.fake.pace.store(1, Relaxed);
    let end = rig.put(A, &Numbered::from(0).take(100), true).unwrap();
    rig.wait(A, end).unwrap();
    assert_eq!(plain(&rig.fake.executed()).len(), 100);
    assert_eq!(rig.fake.executed().last(), Some(&[SYNC, 0]));
}

#[test]
fn a_full_ring_makes_the_submitter_wait_and_then_fail() {
    let rig = Rig::new(3, 1);
    rig.put(A, &Numbered::from(0).take(8), false).unwrap();
    assert_eq!(rig.put(B, &[[PLAIN, 99]], false), Err(SinkError::TimedOut(LIMIT)));
    rig.fake.run(1);
    rig.put(B, &[[PLAIN, 8]], false).unwrap();
    rig.fake.run(100);
    assert_eq!(plain(&rig.fake.executed()), (0..9).collect::<Vec<_>>(), "the refused command is not on the ring");
}

#[test]
fn a_ring_without_wrap_bit_keeps_one_slot_free() {
    let rig = Rig::new(3, 0);
    assert_eq!(rig.ring.capacity(), 7);
    rig.put(A, &Numbered::from(0).take(7), false).unwrap();
    assert_eq!(rig.put(A, &[[PLAIN, 7]], false), Err(SinkError::TimedOut(LIMIT)));
}

#[test]
fn a_sync_that_never_completes_is_an_error_with_its_limit() {
    let rig = Rig::new(4, 1);
    let position = rig.put(A, &[[PLAIN, 0]], true).unwrap();
    let error = rig.wait(A, position).unwrap_err();
    assert_eq!(error, SinkError::TimedOut(LIMIT));
    assert_eq!(error.to_string(), "SYNC did not complete within 1s");
    rig.fake.run(2);
    rig.wait(A, position).unwrap();
}

#[test]
fn an_illegal_command_becomes_a_sync_and_puts_its_owner_out() {
    let rig = Rig::new(4, 1);
    let a = rig.put(A, &[[PLAIN, 0], [ILLEGAL, 0], [PLAIN, 1]], true).unwrap();
    let b = rig.put(B, &[[PLAIN, 2]], true).unwrap();
    rig.fake.pace.store(100, Relaxed);

    rig.wait(B, b).unwrap();
    assert_eq!(rig.fake.executed(), [[PLAIN, 0], [SYNC, 0], [PLAIN, 1], [SYNC, 0], [PLAIN, 2], [SYNC, 0]]);
    assert_eq!(rig.wait(A, a), Err(SinkError::Fault(GuestFault::HOST_ERROR)));
    assert_eq!(rig.wait(A, a), Err(SinkError::Fault(GuestFault::HOST_ERROR)), "for ever");
    assert_eq!(rig.put(A, &[[PLAIN, 3]], true), Err(SinkError::Quarantined));
    let event = rig.events.try_recv().unwrap();
    assert!(matches!(event, BackendEvent::QueueError { owner: Owner(A), fault: GuestFault::HOST_ERROR }), "{event:?}");

    let b = rig.put(B, &[[PLAIN, 4]], true).unwrap();
    rig.wait(B, b).unwrap();
    assert_eq!(rig.fake.resumes(), 1);
}

#[test]
fn the_hosts_own_illegal_command_is_told_once() {
    let rig = Rig::new(4, 1);
    rig.fake.pace.store(100, Relaxed);
    let position = rig.put(Owner::HOST.0, &[[ILLEGAL, 0]], true).unwrap();
    assert_eq!(rig.wait(Owner::HOST.0, position), Err(SinkError::Fault(GuestFault::HOST_ERROR)));
    let position = rig.put(Owner::HOST.0, &[[PLAIN, 0]], true).unwrap();
    rig.wait(Owner::HOST.0, position).unwrap();
    assert!(rig.events.is_empty());
}

#[test]
fn a_device_that_does_not_answer_is_its_owners_trouble_only() {
    let rig = Rig::new(4, 1);
    let before = rig.put(A, &[[PLAIN, 0]], true).unwrap();
    rig.put_classes(A, &[[UNANSWERED, 0]], Classes::ATC, false).unwrap();
    let b = rig.put(B, &[[PLAIN, 1]], true).unwrap();
    rig.fake.pace.store(100, Relaxed);

    rig.wait(B, b).unwrap();
    rig.wait(A, before).unwrap();
    // A put its SYNC after the trouble was found, and is told all the same, once.
    let late = rig.put(A, &[], true).unwrap();
    assert_eq!(rig.wait(A, late), Err(SinkError::Fault(GuestFault::ATC_TIMEOUT)));
    let next = rig.put(A, &[[PLAIN, 2]], true).unwrap();
    rig.wait(A, next).unwrap();
    assert!(rig.events.is_empty(), "nobody is out");
}

#[test]
fn device_cache_invalidations_have_a_sync_of_their_own() {
    let rig = Rig::new(4, 1);
    rig.fake.eager.store(100, Relaxed);
    rig.put_classes(A, &[[PLAIN, 0], [PLAIN, 1]], Classes::ATC.with(Classes::CONFIG), false).unwrap();
    rig.put(B, &[[PLAIN, 2]], false).unwrap();
    assert_eq!(rig.fake.executed(), [[PLAIN, 0], [PLAIN, 1], [SYNC, 0], [PLAIN, 2]]);
}

#[test]
fn a_fetch_error_is_tried_again_until_it_is_hopeless() {
    let rig = Rig::new(4, 1);
    rig.fake.pace.store(100, Relaxed);
    let position = rig.put(A, &[[UNREADABLE, 0]], true).unwrap();
    let error = rig.wait(A, position).unwrap_err();
    assert!(matches!(&error, SinkError::Gone(why) if why.contains("again and again")), "{error}");
    assert!((2..20).contains(&rig.fake.resumes()));
    assert!(matches!(rig.wait(B, position), Err(SinkError::Gone(_))));
}

#[test]
fn hardware_that_talks_nonsense_is_gone() {
    for (register, why) in [(u32::MAX, "all ones"), (7 << 4, "ahead of the producer")] {
        let rig = Rig::new(4, 1);
        let position = rig.put(A, &[[PLAIN, 0]], true).unwrap();
        rig.fake.break_consumer(register);
        let error = rig.wait(A, position).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn words_that_are_no_whole_commands_are_refused() {
    let rig = Rig::new(4, 1);
    let words = viommu::backend::Words::<viommu::backend::Host>::injected(&[PLAIN]);
    let batch = viommu::backend::Batch { owner: Owner(A), words, classes: Classes::TLB, sync: true };
    let error = viommu::backend::Sink::submit(&*rig.ring, batch).unwrap_err();
    assert!(error.to_string().contains("whole commands"), "{error}");
}

#[test]
fn waiters_that_see_the_same_error_repair_it_once() {
    let rig = Rig::new(6, 1);
    rig.fake.pace.store(1, Relaxed);
    let bad = rig.put(A, &[[ILLEGAL, 0]], true).unwrap();
    let positions: Vec<_> = (B..B + 4).map(|owner| (owner, rig.put(owner, &[[PLAIN, 0]], true).unwrap())).collect();
    let rig = &rig;
    thread::scope(|scope| {
        for (owner, position) in positions {
            scope.spawn(move || rig.wait(owner, position).unwrap());
        }
        scope.spawn(move || rig.wait(A, bad).unwrap_err());
    });
    assert_eq!(rig.events.len(), 1);
    assert_eq!(plain(&rig.fake.executed()).len(), 4);
}

#[test]
fn many_owners_at_once_keep_their_order() {
    const OWNERS: u64 = 4;
    const BATCHES: u64 = 500;
    let rig = Rig::new(4, 1);
    rig.fake.pace.store(2, Relaxed);
    rig.fake.eager.store(1, Relaxed);
    thread::scope(|scope| {
        for owner in 0..OWNERS {
            let rig = &rig;
            scope.spawn(move || {
                let mut commands = Numbered::from(owner << 32);
                for batch in 0..BATCHES {
                    let position = rig.put(owner as u32 + 1, &commands.take(3), batch % 4 == 0).unwrap();
                    if batch % 4 == 0 {
                        rig.wait(owner as u32 + 1, position).unwrap();
                    }
                }
                let end = rig.put(owner as u32 + 1, &[], true).unwrap();
                rig.wait(owner as u32 + 1, end).unwrap();
            });
        }
    });
    let executed = plain(&rig.fake.executed());
    for owner in 0..OWNERS {
        let own: Vec<_> = executed.iter().filter(|&&number| number >> 32 == owner).map(|n| n & 0xffff_ffff).collect();
        assert_eq!(own, (0..3 * BATCHES).collect::<Vec<_>>());
    }
    for batch in executed.iter().collect::<Vec<_>>().chunks(3) {
        assert_eq!(*batch[0] + 2, *batch[2], "batches are not mixed");
    }
}
