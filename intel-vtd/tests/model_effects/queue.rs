//! The invalidation queue: order, completion, errors, and getting out of them.

use crate::machine::*;
use intel_vtd::spec::descriptors::{
    ContextCacheInv, DeviceTlbInv, InterruptEntryCacheInv, IotlbInv, PageGroupResponse, PasidCacheInv,
    PasidDeviceTlbInv, PasidIotlbInv, Wait,
};
use intel_vtd::spec::registers::{FaultStatus, Global, QueueError, QueueErrorInfo, offset};
use viommu_plugin::{Model, Register, Status};

const IQE: u32 = 1 << 4;
const ITE: u32 = 1 << 6;

fn status(m: &mut Machine) -> u32 {
    m.read(offset::FSTS)
}

fn wait(data: u32) -> [u64; 2] {
    let wait = Wait::new().with_status_write(true).with_status_data(data);
    wait.with_status_address(STATUS >> 2).words()
}

#[test]
fn a_budget_is_kept_and_a_wait_says_that_it_was_reached() {
    let mut m = Machine::new();
    for data in 1..=6 {
        m.post(wait(data));
    }
    assert_eq!((m.unit.step(0), m.unit.step(2)), (0, 2));
    assert_eq!((m.memory.get(STATUS), m.read(offset::IQH)), (2, 2 * 32));
    assert_eq!((m.unit.step(100), m.unit.step(100)), (4, 0));
    assert_eq!(m.memory.get(STATUS), 6);
    m.memory.put(STATUS, &[u64::MAX]);
    m.invalidate(Wait::new().with_fence(true).words());
    assert_eq!(m.memory.get(STATUS), u64::MAX, "no status write was asked for");
    m.invalidate(
        Wait::new().with_status_write(true).with_status_data(7).with_status_address((STATUS + 4) >> 2).words(),
    );
    assert_eq!(m.memory.get(STATUS), 0x7_ffff_ffff, "four bytes, where they were asked for");
}

#[test]
fn the_ring_goes_round_in_both_widths() {
    for wide in [true, false] {
        let mut m = if wide { Machine::new() } else { Machine::legacy(&[], false) };
        for data in 0..600 {
            m.invalidate(wait(data));
            assert_eq!(m.memory.get(STATUS), u64::from(data));
        }
    }
}

/// Status words that reach nothing are lost; the queue goes on.
#[test]
fn a_status_outside_memory_is_lost() {
    let mut m = Machine::new();
    m.invalidate(Wait::new().with_status_write(true).with_status_address(MEMORY_END >> 2).words());
    assert_eq!(status(&mut m), 0);
}

#[test]
fn a_completion_event_once_until_it_is_acknowledged() {
    const PENDING: u32 = 1 << 30;
    let mut m = Machine::new();
    m.write(offset::IEDATA, 4, 0x55);
    m.write(offset::IEADDR, 4, 0x60_0000);
    let wait = Wait::new().with_interrupt(true).words();
    m.invalidate(wait);
    assert_eq!(
        (m.read(offset::ICS), m.read(offset::IECTL) & PENDING, m.memory.get(0x60_0000)),
        (1, PENDING, 0),
        "masked"
    );
    m.write(offset::IECTL, 4, 0);
    assert_eq!((m.read(offset::IECTL), m.memory.get(0x60_0000)), (0, 0x55));
    m.memory.put(0x60_0000, &[0]);
    m.invalidate(wait);
    assert_eq!(m.memory.get(0x60_0000), 0, "IWC is still set");
    m.write(offset::ICS, 4, 1);
    assert_eq!(m.read(offset::ICS), 0);
    m.invalidate(wait);
    assert_eq!(m.memory.get(0x60_0000), 0x55);
    m.write(offset::IEADDR, 4, 0);
    m.write(offset::ICS, 4, 1);
    m.invalidate(wait);
    assert_eq!(m.memory.irqs(), [2], "without an address: the line");
}

/// Everything that the manual calls an invalid descriptor stops the queue before it.
#[test]
fn a_bad_descriptor_stops_the_queue_until_iqe_is_cleared() {
    let none = identity(|cap, ecap| (cap, ecap.with_device_tlb(false).with_scalable_mode(false)));
    let device = DeviceTlbInv::new().words();
    let cases: Vec<(&[Register], bool, [u64; 2], QueueErrorInfo)> = vec![
        (&[], true, [0, 0], QueueErrorInfo::TYPE),
        (&[], true, [0xa, 0], QueueErrorInfo::TYPE),
        (&[], true, [5 | 1 << 9, 0], QueueErrorInfo::TYPE),
        (&[], true, PageGroupResponse::new().words(), QueueErrorInfo::TYPE),
        (&none, false, device, QueueErrorInfo::TYPE),
        (&none, false, PasidCacheInv::new().words(), QueueErrorInfo::TYPE),
        (&[], false, PasidCacheInv::new().with_granularity(3).words(), QueueErrorInfo::WIDTH),
        (&[], false, PasidIotlbInv::new().with_granularity(2).words(), QueueErrorInfo::WIDTH),
        (&[], false, PasidDeviceTlbInv::new().words(), QueueErrorInfo::WIDTH),
        (&[], true, ContextCacheInv::new().words(), QueueErrorInfo::RESERVED),
        (&[], true, IotlbInv::new().words(), QueueErrorInfo::RESERVED),
        (&[], true, PasidIotlbInv::new().with_granularity(1).words(), QueueErrorInfo::RESERVED),
        (&[], true, PasidCacheInv::new().with_granularity(2).words(), QueueErrorInfo::RESERVED),
        (&[], true, IotlbInv::new().with_granularity(3).with_address_mask(19).words(), QueueErrorInfo::RESERVED),
        (&[], true, PasidIotlbInv::new().with_granularity(3).with_address_mask(63).words(), QueueErrorInfo::RESERVED),
        (&[], true, [1 | 1 << 4 | 1 << 12, 0], QueueErrorInfo::RESERVED),
        (&[], true, [2 | 1 << 4, 1 << 7], QueueErrorInfo::RESERVED),
        (&[], true, [device[0], 2], QueueErrorInfo::RESERVED),
        (&[], true, [4 | 1 << 5, 0], QueueErrorInfo::RESERVED),
        (&[], true, [5, 1], QueueErrorInfo::RESERVED),
        (&[], true, [6 | 2 << 4 | 1 << 63, 0], QueueErrorInfo::RESERVED),
        (&[], true, [8, 1 << 4], QueueErrorInfo::RESERVED),
    ];
    for (registers, wide, words, info) in cases {
        let mut m = if wide { Machine::with(registers, false, 0) } else { Machine::legacy(registers, false) };
        m.invalidate(wait(1));
        let head = m.read(offset::IQH);
        m.post(words);
        m.post(wait(2));
        assert_eq!((m.unit.step(10), status(&mut m)), (0, IQE), "{words:x?}");
        assert_eq!((m.unit.step(10), m.read(offset::IQH), m.memory.get(STATUS)), (0, head, 1), "{words:x?}");
        assert_eq!(QueueError::from(u64::from(m.read(offset::IQERCD))).info(), info.0, "{words:x?}");
        // What Linux does: a wait in the bad descriptor's place, then the error away.
        m.memory.put(QUEUE + u64::from(head), &Wait::new().words());
        assert_eq!(m.unit.step(10), 0);
        m.write(offset::FSTS, 4, IQE.into());
        assert_eq!((m.unit.step(10), m.memory.get(STATUS), status(&mut m)), (2, 2, 0));
    }
}

#[test]
fn the_upper_half_of_a_wide_descriptor_is_reserved() {
    for word in [2, 3] {
        let mut m = Machine::new();
        m.post(wait(1));
        m.memory.put(QUEUE + 8 * word, &[1]);
        assert_eq!((m.unit.step(1), status(&mut m)), (0, IQE));
    }
}

#[test]
fn a_queue_that_cannot_be_read_is_an_error() {
    for (base, tail, info) in [
        (MEMORY_END, 32, QueueErrorInfo::FETCH),
        (QUEUE, 0x1000, QueueErrorInfo::TAIL),
        (QUEUE, 0x10, QueueErrorInfo::TAIL_UNALIGNED),
    ] {
        let mut m = Machine::new();
        m.command(Global::new());
        m.write(offset::IQA, 8, base | 1 << 11);
        m.command(Global::new().with_queued_invalidation(true));
        m.write(offset::IQT, 4, tail);
        assert_eq!((m.unit.step(4), status(&mut m)), (0, IQE));
        assert_eq!(u32::from(info.0), m.read(offset::IQERCD));
    }
}

#[test]
fn a_queue_that_is_off_starts_again_at_its_base() {
    let mut m = Machine::new();
    m.invalidate(wait(1));
    m.command(Global::new().with_translation(true));
    assert_eq!(m.read(offset::IQH), 0);
    m.write(offset::IQT, 4, 32);
    m.memory.put(QUEUE, &wait(3));
    assert_eq!((m.unit.step(1), m.memory.get(STATUS)), (0, 1));
    m.command(Global::new().with_translation(true).with_queued_invalidation(true));
    let base = m.unit.mmio_read(offset::IQA, 8);
    m.write(offset::IQA, 8, 0);
    assert_eq!(m.unit.mmio_read(offset::IQA, 8), base, "not while it is on");
    assert_eq!((m.unit.step(1), m.memory.get(STATUS)), (1, 3));
}

/// A device that does not answer: the head does not pass a wait until software has seen ITE.
#[test]
fn a_silent_device_holds_back_the_waits_after_it() {
    let with_pasid = PasidDeviceTlbInv::new().with_source_id(1).with_size(true).with_address(u64::MAX >> 13);
    let without = DeviceTlbInv::new().with_source_id(1).with_size(true).with_address(u64::MAX >> 13);
    for words in [with_pasid.words(), without.words()] {
        let mut m = Machine::with(&[], true, 0);
        m.unit.atc_unresponsive(1, true);
        m.post(words);
        m.post(wait(9));
        assert_eq!((m.unit.step(10), status(&mut m), m.memory.get(STATUS)), (1, ITE, 0));
        assert_eq!(QueueError::from(m.unit.mmio_read(offset::IQERCD, 8)).time_out_source(), 1);
        assert_eq!((m.unit.step(10), m.read(offset::IQH)), (0, 32));
        m.write(offset::FSTS, 4, ITE.into());
        assert_eq!((m.unit.step(10), m.memory.get(STATUS)), (1, 9));
        m.unit.atc_unresponsive(1, false);
        m.invalidate(words);
        assert_eq!(FaultStatus::from(status(&mut m)), FaultStatus::new());
    }
}

/// Interrupt entries are not cached here; answers to page requests go nowhere where ECAP.PRS offers them.
#[test]
fn descriptors_without_effect_are_consumed() {
    let mut m = Machine::with(&identity(|cap, ecap| (cap, ecap.with_page_request(true))), false, 0);
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0x1000, 0x7000, 1, FS_RW);
    m.device(1, first(1, &tables));
    m.ask(1, 0x1000);
    for words in [
        InterruptEntryCacheInv::new().words(),
        InterruptEntryCacheInv::new().with_selective(true).with_index(5).with_index_mask(3).words(),
        PageGroupResponse::new().with_requester_id(1).words(),
        DeviceTlbInv::new().with_source_id(1).words(),
    ] {
        m.invalidate(words);
        assert_eq!((m.ask(1, 0x1000).status, m.ask(1, 0x1000).flags), (Status::OK, FROM_TLB));
    }
}
