//! What devices see: unmap under nesting, queue errors, events, delays. Judged by DMA through the software SMMU.

mod machine;

use machine::{Machine, RAM, RAM_BYTES, TARGET, VIRTUAL, command, now, ram_mapping};
use std::time::Duration;
use viommu::backend::direct::{DirectOptions, Hardware, ModelMode};
use viommu::backend::{BackendEvent, Objects, SinkError};
use viommu::plugin::{Classes, GuestFault, ModelConfig, Status};

const HALF: u64 = RAM_BYTES / 2;

#[test]
fn unmap_reaches_stage_1_entries_and_no_other_guest() {
    let m = Machine::new();
    let (guest, other) = (m.guest(0), m.guest(1));
    for guest in [&guest, &other] {
        m.translate(guest);
        assert_eq!(m.dma(guest, VIRTUAL).output, guest.host + HALF);
        assert_eq!(m.dma(guest, VIRTUAL).output, guest.host + HALF);
    }
    let before = m.model.stats().unwrap();
    assert_eq!((before.hits, before.misses), (2, 2));

    assert_eq!(now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap(), HALF);
    let answer = m.dma(&guest, VIRTUAL);
    assert_eq!((answer.status, answer.stage, answer.ipa), (Status::FAULT, 2, TARGET));
    assert_eq!(m.dma(&other, VIRTUAL).output, other.host + HALF);
    let after = m.model.stats().unwrap();
    assert_eq!(after.hits, before.hits + 1, "the other guest's entry is still there");

    now(m.direct.ioas_map(guest.ioas, ram_mapping(guest.host, HALF))).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
}

/// Of a device without a stage 1, the translations are in the TLB as stage 2's own.
#[test]
fn unmap_reaches_stage_2_entries_of_its_range_only() {
    let m = Machine::new();
    let guest = m.guest(0);
    now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
    for iova in [RAM, TARGET, RAM, TARGET] {
        assert_eq!(m.dma(&guest, iova).output, guest.host + iova - RAM);
    }
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
    assert_eq!(m.dma(&guest, TARGET).status, Status::FAULT);
    assert_eq!(m.dma(&guest, RAM).output, guest.host);
    let stats = m.model.stats().unwrap();
    assert_eq!(stats.stage2_hits, 3, "what is still mapped is still cached");
}

#[test]
fn unmap_reaches_device_caches() {
    let m = Machine::with_caches();
    let guest = m.guest(0);
    m.translate(&guest);
    m.dma(&guest, VIRTUAL);
    m.dma(&guest, VIRTUAL);
    assert_eq!(m.model.stats().unwrap().atc_hits, 1);
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).status, Status::FAULT);
}

/// A device that may still have it cached: the memory stays mapped, and so the caller's.
#[test]
fn an_unmap_that_a_device_does_not_answer_fails_and_changes_nothing() {
    let m = Machine::with_caches();
    let guest = m.guest(0);
    m.translate(&guest);
    m.dma(&guest, VIRTUAL);
    m.model.atc_unresponsive(guest.stream, true).unwrap();
    // A second device that has nothing cached and sees stage 2 as it is.
    let fresh = now(m.direct.device_bind(0x999)).unwrap();
    now(m.direct.attach(fresh, guest.viommu.bypass)).unwrap();
    let cause = now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap_err();
    assert!(cause.to_string().contains("atc_timeout"), "{cause}");
    assert_eq!(m.dma_of(0x999, TARGET).output, guest.host + HALF);
    assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);

    // Taken away from the guest it can be all the same, and then the unmap works.
    now(m.direct.attach(guest.device, guest.viommu.abort)).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).status, Status::ABORT);
    now(m.direct.detach(guest.device)).unwrap();
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
}

/// A nested HWPT whose attach fails leaves the device where it was.
#[test]
fn an_attach_that_a_device_does_not_answer_fails_and_changes_nothing() {
    let m = Machine::with_caches();
    let guest = m.guest(0);
    now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
    m.model.atc_unresponsive(guest.stream, true).unwrap();
    let hwpt = now(m.direct.nested_hwpt_alloc(guest.viommu.id, &m.translate_key())).unwrap().id;
    now(m.direct.attach(guest.device, hwpt)).unwrap_err();
    assert_eq!(m.dma(&guest, RAM).output, guest.host, "still bypass");
    now(m.direct.destroy(hwpt)).expect("nothing is on it");
    m.model.atc_unresponsive(guest.stream, false).unwrap();
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).expect("the host was told of that error already");
    now(m.direct.ioas_map(guest.ioas, ram_mapping(guest.host, HALF))).unwrap();
    m.translate(&guest);
    assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
}

#[test]
fn an_illegal_command_stops_its_own_guest_only() {
    let m = Machine::new();
    let (guest, other) = (m.guest(0), m.guest(1));
    for guest in [&guest, &other] {
        m.translate(guest);
        m.dma(guest, VIRTUAL);
    }
    let bad = m.put(&guest, &command::ILLEGAL, Classes::TLB).unwrap();
    let good = m.put(&other, &command::nh_all(other.viommu.tag), Classes::TLB).unwrap();
    m.wait(&other, good).unwrap();
    assert_eq!(m.wait(&guest, bad), Err(SinkError::Fault(GuestFault::HOST_ERROR)));
    assert_eq!(m.put_and_wait(&guest, &[], Classes::NONE), Err(SinkError::Quarantined));
    let events: Vec<_> = m.direct.events().drain().collect();
    assert!(
        matches!(events[..], [BackendEvent::QueueError { owner, .. }] if owner == guest.owner),
        "one for the guest that did it: {events:?}"
    );
    let misses = m.model.stats().unwrap().misses;
    m.dma(&other, VIRTUAL);
    assert_eq!(m.model.stats().unwrap().misses, misses + 1, "the other's invalidation was executed");
    // The host still changes the quarantined guest's tables.
    now(m.direct.attach(guest.device, guest.viommu.abort)).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).status, Status::ABORT);
}

/// The queue is stopped by a guest when the driver wants to issue: it is repaired before the driver gets it.
#[test]
fn an_attach_behind_an_illegal_command_succeeds() {
    let m = Machine::new();
    let (guest, other) = (m.guest(0), m.guest(1));
    let bad = m.put(&guest, &command::ILLEGAL, Classes::TLB).unwrap();
    m.translate(&other);
    assert_eq!(m.dma(&other, VIRTUAL).output, other.host + HALF);
    assert_eq!(m.wait(&guest, bad), Err(SinkError::Fault(GuestFault::HOST_ERROR)));
    now(m.direct.detach(other.device)).expect("what the register still shows of the old error disturbs nobody");
}

#[test]
fn an_unanswered_device_cache_is_its_own_guests_trouble() {
    let m = Machine::with_caches();
    let (guest, other) = (m.guest(0), m.guest(1));
    m.model.atc_unresponsive(guest.stream, true).unwrap();
    let stuck = m.put(&guest, &command::atc_all(guest.stream), Classes::ATC).unwrap();
    m.put_and_wait(&other, &command::atc_all(other.stream), Classes::ATC).unwrap();
    assert_eq!(m.wait(&guest, stuck), Err(SinkError::Fault(GuestFault::ATC_TIMEOUT)));
    m.put_and_wait(&guest, &command::nh_all(guest.viommu.tag), Classes::TLB).expect("not quarantined");
}

#[test]
fn a_machine_reset_empties_the_caches_of_one_guest() {
    let m = Machine::with_caches();
    let (guest, other) = (m.guest(0), m.guest(1));
    for guest in [&guest, &other] {
        m.translate(guest);
        m.dma(guest, VIRTUAL);
    }
    now(m.direct.flush(guest.viommu.id)).unwrap();
    m.dma(&guest, VIRTUAL);
    m.dma(&other, VIRTUAL);
    let stats = m.model.stats().unwrap();
    assert_eq!((stats.misses, stats.atc_misses, stats.atc_hits), (3, 3, 1));
}

#[test]
fn faults_reach_the_channel_with_their_owner() {
    let m = Machine::new();
    let guest = m.guest(0);
    m.translate(&guest);
    assert_eq!(m.dma(&guest, 0x7000_0000).stage, 1);
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).stage, 2);
    let events = m.direct.events();
    let limit = Duration::from_secs(20);
    let first = events.recv_timeout(limit).unwrap();
    assert!(
        matches!(first, BackendEvent::Guest { stream, record, words: 4 }
            if stream == guest.stream && record[0] >> 32 == 0 && record[2] == 0x7000_0000),
        "{first:?}"
    );
    let second = events.recv_timeout(limit).unwrap();
    assert!(matches!(second, BackendEvent::Host { stream, .. } if stream == guest.stream), "{second:?}");
}

/// Nobody reads: what does not fit is counted, and the gap is marked before anything newer.
#[test]
fn a_late_reader_sees_that_events_were_lost() {
    let options = DirectOptions { event_capacity: 2, ..DirectOptions::default() };
    let m = Machine::with(ModelMode::Inline, ModelConfig::default(), options);
    let guest = m.guest(0);
    m.translate(&guest);
    for _ in 0..5 {
        m.dma(&guest, 0x7000_0000);
        m.direct.pump_events();
    }
    let events = m.direct.events();
    assert_eq!(events.drain().filter(|event| matches!(event, BackendEvent::Guest { .. })).count(), 2);
    m.dma(&guest, 0x7000_1000);
    m.direct.pump_events();
    let limit = Duration::from_secs(20);
    assert!(matches!(events.recv_timeout(limit), Ok(BackendEvent::Lost)));
    assert!(matches!(events.recv_timeout(limit), Ok(BackendEvent::Guest { record, .. }) if record[2] == 0x7000_1000));
}

#[test]
fn a_model_with_its_own_thread_gives_the_same_answers() {
    let m = Machine::with(ModelMode::Thread, ModelConfig::default(), DirectOptions::default());
    let guest = m.guest(0);
    m.translate(&guest);
    for round in 0..200 {
        assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
        m.put_and_wait(&guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
        assert_eq!(m.model.stats().unwrap().misses, round + 1);
    }
    now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
    assert_eq!(m.dma(&guest, VIRTUAL).status, Status::FAULT);
}

/// How far the hardware is after each of a fixed series of steps.
fn progress(seed: u64) -> Vec<u64> {
    let m = Machine::with(ModelMode::Delayed { seed }, ModelConfig::default(), DirectOptions::default());
    let guest = m.guest(0);
    let ring = m.direct.info().ring;
    let consumed = || m.model.mmio_read(ring.consumer, 4);
    let start = consumed();
    let mut log = Vec::new();
    for _ in 0..40 {
        m.put(&guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
        log.push(consumed() - start);
        m.model.tick();
        log.push(consumed() - start);
    }
    log
}

#[test]
fn delays_come_from_the_seed() {
    assert_eq!(progress(1), progress(1));
    assert_ne!(progress(1), progress(2));
    let late = (1..).zip(progress(3).chunks(2)).filter(|(round, steps)| steps[0] < 2 * round).count();
    assert!(late > 30, "commands wait for their turn: {late} of 40");
}

#[test]
fn only_events_and_waiting_advance_replay_time() {
    let m = Machine::with(ModelMode::Delayed { seed: 7 }, ModelConfig::default(), DirectOptions::default());
    let guest = m.guest(0);
    m.translate(&guest);
    let ring = m.direct.info().ring;
    let consumed = || m.model.mmio_read(ring.consumer, 4);
    let start = consumed();
    let first = m.put(&guest, &[command::nh_all(1); 20].concat(), Classes::TLB).unwrap();
    let after = consumed();
    assert!(after - start < 21, "a delay of 0 for all of 21 commands");
    for _ in 0..1000 {
        m.dma(&guest, VIRTUAL);
    }
    assert_eq!(consumed(), after, "a look does not count");
    for _ in 0..64 {
        m.model.tick();
    }
    assert_eq!(consumed() - start, 21, "no delay is longer than 64 events");

    let second = m.put(&guest, &[command::nh_all(1); 20].concat(), Classes::TLB).unwrap();
    let third = m.put(&guest, &[command::nh_all(1); 20].concat(), Classes::TLB).unwrap();
    m.wait(&guest, first).unwrap();
    m.wait(&guest, second).unwrap();
    assert!((42..63).contains(&(consumed() - start)), "time went to the second SYNC, not to the end");
    m.wait(&guest, third).unwrap();
    assert_eq!(consumed() - start, 63);
}

#[test]
fn dropping_everything_in_any_order_ends_all_threads() {
    for mode in [ModelMode::Thread, ModelMode::Inline] {
        let m = Machine::with(mode, ModelConfig::default(), DirectOptions::default());
        let guest = m.guest(0);
        let (events, sink) = (m.direct.events(), m.direct.sink(guest.viommu.id).unwrap());
        let machine::Machine { direct, model, .. } = m;
        drop(direct);
        drop(model);
        drop(sink);
        assert!(events.recv().is_err(), "nobody is left to send");
    }
}

#[test]
fn nothing_can_be_read_through_an_entry_that_points_nowhere() {
    let m = Machine::new();
    let guest = m.guest(0);
    now(m.direct.ioas_unmap(guest.ioas, RAM, HALF)).unwrap();
    m.translate(&guest);
    let answer = m.dma(&guest, VIRTUAL);
    assert_eq!((answer.status, answer.stage), (Status::FAULT, 2), "the guest's own tables are behind stage 2");
}
