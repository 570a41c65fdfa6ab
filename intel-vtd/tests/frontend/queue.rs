//! The invalidation queue: indices, errors, waits.

use crate::{NOTHING, QIE, frontend, messages, showing, write};
use intel_vtd::features::Features;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, GuestFault, QueueState};

const IQE: u64 = 1 << 4;
const ITE: u64 = 1 << 6;
const WIDE: u64 = 1 << 11;

/// An enabled queue of 2^`size` pages at 0x5bf0_0000, with fault and completion messages let through.
fn queue(mut unit: VtdFrontend, low: u64) -> VtdFrontend {
    unit.write(offset::IQA, 8, 0x5bf0_0000 | low);
    for (control, address, data) in [(offset::FECTL, 0xfee0_1000, 0x20), (offset::IECTL, 0xfee0_2000, 0x30)] {
        write(&mut unit, control + 4, data);
        write(&mut unit, control + 8, address);
        write(&mut unit, control, 0);
    }
    write(&mut unit, offset::GCMD, QIE);
    unit
}

#[test]
fn doorbell_and_advance_over_the_end() {
    for (low, size, words, capacity) in [(WIDE, 32, 4, 128), (0, 16, 2, 256), (WIDE | 7, 32, 4, 16384)] {
        let mut unit = queue(frontend(), low);
        assert_eq!(write(&mut unit, offset::IQT, (capacity - 2) * size), Actions::KICK);
        let now = unit.queue();
        assert_eq!((now.base, u64::from(now.capacity), now.head), (0x5bf0_0000, capacity, 0));
        assert_eq!((u64::from(now.pending), now.command_words), (capacity - 2, words));
        assert_eq!((now.state, now.fault), (QueueState::RUNNING, GuestFault::NONE));
        unit.advance(capacity as u32 - 2);
        write(&mut unit, offset::IQT, 3 * size);
        assert_eq!((unit.queue().head, unit.queue().pending), (capacity as u32 - 2, 5));
        unit.advance(4);
        assert_eq!((unit.read(offset::IQH, 4), unit.queue().pending), (2 * size, 1));
        unit.advance(u32::MAX);
        assert_eq!((unit.read(offset::IQH, 4), unit.queue().pending), (3 * size, 0), "not beyond the tail");
    }
}

#[test]
fn wide_descriptors_are_for_those_that_were_shown_scalable_mode() {
    let features = Features::default();
    let ecap = features.ecap.with_scalable_mode(false);
    let unit = queue(showing(features.cap, ecap), WIDE);
    assert_eq!((unit.queue().command_words, unit.queue().capacity), (2, 256));
}

#[test]
fn a_tail_that_is_no_place_is_an_error_until_it_is_mended() {
    for (tail, info) in [(0x1000, 1), (0x7_fff0, 1), (0x10, 6)] {
        let mut unit = queue(frontend(), WIDE);
        write(&mut unit, offset::IQT, tail);
        assert_eq!((unit.queue().pending, unit.queue().fault), (0, GuestFault::QUEUE_CONFIG));
        assert_eq!(messages(&unit.fault(GuestFault::QUEUE_CONFIG)), [(0xfee0_1000, 0x20)]);
        assert_eq!((unit.read(offset::FSTS, 4), unit.read(offset::IQERCD, 8)), (IQE, info));
        write(&mut unit, offset::IQT, 0x20);
        assert_eq!(unit.queue().state, QueueState::STOPPED, "a doorbell is no acknowledgement");
        assert_eq!(write(&mut unit, offset::FSTS, IQE), Actions::KICK);
        assert_eq!((unit.queue().state, unit.queue().pending), (QueueState::RUNNING, 1));
    }
}

#[test]
fn errors_have_the_manuals_codes_and_stop_the_queue_at_the_descriptor() {
    for (fault, status, info) in [
        (GuestFault::ILLEGAL_OPCODE, IQE, 3),
        (GuestFault::RESERVED_BITS, IQE, 4),
        (GuestFault::FETCH_ABORT, IQE, 2),
        (GuestFault::HOST_ERROR, IQE, 0),
        (GuestFault(999), IQE, 0),
        (GuestFault::ATC_TIMEOUT, ITE, 0),
    ] {
        let mut unit = queue(frontend(), WIDE);
        write(&mut unit, offset::IQT, 5 * 32);
        unit.advance(3);
        assert_eq!(messages(&unit.fault(fault)).len(), 1);
        assert_eq!((unit.read(offset::FSTS, 4), unit.read(offset::IQERCD, 8)), (status, info), "{}", fault.name());
        assert_eq!(unit.queue().state, QueueState::STOPPED);
        assert_eq!(unit.fault(GuestFault::ILLEGAL_OPCODE), NOTHING, "one error at a time");
        assert_eq!(write(&mut unit, offset::FSTS, (IQE | ITE) ^ status), 0, "another error's acknowledgement");
        assert_eq!(unit.queue().state, QueueState::STOPPED);
        assert_eq!(write(&mut unit, offset::FSTS, status), Actions::KICK);
        assert_eq!((unit.queue().head, unit.queue().pending), (3, 2), "resumes at the same descriptor");
    }
    for none in [GuestFault::NONE, GuestFault::EVENT_ABORT] {
        assert_eq!(queue(frontend(), WIDE).fault(none), NOTHING);
    }
}

#[test]
fn a_wait_stores_and_signals_as_it_asks() {
    let mut unit = queue(frontend(), WIDE);
    write(&mut unit, offset::IQT, 4 * 32);
    assert_eq!(unit.sync_done(&[0x45, 0, 0, 0]), NOTHING);
    let effects = unit.sync_done(&[0xdead_beef << 32 | 0x25, 0x4000_0014, 0, 0]);
    let store = effects.stores[0];
    assert_eq!((effects.store_count, effects.msi_count, store.gpa, store.len), (1, 0, 0x4000_0014, 4));
    assert_eq!(store.bytes[..4], 0xdead_beef_u32.to_le_bytes());
    assert_eq!(messages(&unit.sync_done(&[0x15, 0, 0, 0])), [(0xfee0_2000, 0x30)]);
    assert_eq!((unit.read(offset::ICS, 4), unit.read(offset::IQH, 4)), (1, 3 * 32));
    assert_eq!(unit.sync_done(&[0x15, 0, 0, 0]), NOTHING, "IWC is set: its message was sent");
    write(&mut unit, offset::ICS, 1);
    assert_eq!(unit.read(offset::ICS, 4), 0);
    write(&mut unit, offset::IQT, 5 * 32);
    assert_eq!(messages(&unit.sync_done(&[0x15, 0, 0, 0])).len(), 1);
}

#[test]
fn a_masked_message_waits_and_is_withdrawn_when_its_reason_is_gone() {
    let mut unit = queue(frontend(), WIDE);
    write(&mut unit, offset::IECTL, 1 << 31);
    write(&mut unit, offset::IQT, 2 * 32);
    assert_eq!(unit.sync_done(&[0x15, 0, 0, 0]), NOTHING);
    assert_eq!(unit.read(offset::IECTL, 4), 3 << 30, "IP");
    assert_eq!(messages(&unit.write(offset::IECTL, 4, 0)), [(0xfee0_2000, 0x30)]);
    assert_eq!(unit.read(offset::IECTL, 4), 0);
    write(&mut unit, offset::ICS, 1);
    write(&mut unit, offset::IECTL, 1 << 31);
    unit.sync_done(&[0x15, 0, 0, 0]);
    write(&mut unit, offset::ICS, 1);
    assert_eq!(unit.read(offset::IECTL, 4), 1 << 31);
    assert_eq!(unit.write(offset::IECTL, 4, 0), NOTHING);
}

#[test]
fn the_queue_stays_where_it_is_while_it_runs_and_starts_at_its_beginning() {
    let mut unit = queue(frontend(), WIDE);
    write(&mut unit, offset::IQT, 64);
    unit.advance(2);
    unit.write(offset::IQA, 8, 0x1000);
    assert_eq!(unit.read(offset::IQA, 8), 0x5bf0_0000 | WIDE);
    write(&mut unit, offset::GCMD, 0);
    assert_eq!((unit.queue().state, unit.read(offset::IQH, 4)), (QueueState::DISABLED, 0));
    // The wait that was under way completes, and moves nothing.
    assert_eq!(unit.sync_done(&[0x25, 0x1000, 0, 0]).store_count, 1);
    assert_eq!(unit.read(offset::IQH, 4), 0);
    unit.write(offset::IQA, 8, 0x1000);
    assert_eq!(unit.read(offset::IQA, 8), 0x1000);
}
