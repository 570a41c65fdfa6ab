//! The command buffer: what waits, where it stops, how a wait is answered.

use crate::{ON, frontend, running};
use amd_vi::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, GuestFault, QueueState};

const BASE: u64 = 0x10_0000;
const COM_WAIT_INT: u64 = 4;

#[test]
fn head_and_tail_are_byte_offsets_that_wrap_by_size() {
    let mut iommu = running();
    assert_eq!(iommu.write(offset::COMMAND_TAIL, 4, 3 * 16).actions, Actions(Actions::KICK));
    let queue = iommu.queue();
    assert_eq!((queue.base, queue.capacity, queue.head, queue.pending), (BASE, 256, 0, 3));
    assert_eq!((queue.state, queue.fault, queue.command_words), (QueueState::RUNNING, GuestFault::NONE, 2));
    iommu.advance(2);
    assert_eq!((iommu.read(offset::COMMAND_HEAD, 4), iommu.queue().pending), (32, 1));
    iommu.advance(77);
    assert_eq!(iommu.queue().pending, 0);
    iommu.write(offset::COMMAND_TAIL, 4, 16);
    let queue = iommu.queue();
    assert_eq!((queue.head, queue.pending), (3, 254));
    iommu.advance(254);
    assert_eq!(iommu.read(offset::COMMAND_HEAD, 4), 16);
}

#[test]
fn only_both_enables_run_it() {
    let mut iommu = running();
    for (control, state) in [(ON, QueueState::RUNNING), (ON & !1, QueueState::DISABLED), (1, QueueState::DISABLED)] {
        iommu.write(offset::CONTROL, 8, control);
        assert_eq!(iommu.queue().state, state, "{control:#x}");
        assert_eq!(iommu.read(offset::STATUS, 8) >> 4 & 1, u64::from(state == QueueState::RUNNING));
    }
}

#[test]
fn the_head_is_the_iommus_while_it_runs_and_a_new_base_empties_it() {
    let mut iommu = running();
    iommu.write(offset::COMMAND_HEAD, 4, 64);
    assert_eq!(iommu.read(offset::COMMAND_HEAD, 4), 0);
    iommu.write(offset::CONTROL, 8, 0);
    iommu.write(offset::COMMAND_HEAD, 4, 64 | 0xf);
    assert_eq!(iommu.read(offset::COMMAND_HEAD, 4), 64, "only the index is kept");
    iommu.write(offset::COMMAND_BASE, 4, 0x30_0000);
    assert_eq!((iommu.read(offset::COMMAND_HEAD, 4), iommu.queue().base), (0, 0x30_0000));
}

#[test]
fn a_buffer_that_cannot_be_is_not_fetched_from() {
    for (base, tail) in [(0x0700_0000_0010_0000u64, 0), (0x0800_0000_0010_0000, 256 * 16)] {
        let mut iommu = frontend();
        iommu.write(offset::COMMAND_BASE, 8, base);
        iommu.write(offset::COMMAND_TAIL, 8, tail);
        iommu.write(offset::CONTROL, 8, ON);
        let queue = iommu.queue();
        assert_eq!((queue.fault, queue.pending), (GuestFault::QUEUE_CONFIG, 0), "{base:#x}");
        iommu.advance(1);
        assert_eq!(iommu.read(offset::COMMAND_HEAD, 8), 0);
    }
}

#[test]
fn an_error_stops_it_until_it_is_disabled_and_enabled() {
    for (fault, code) in [
        (GuestFault::ILLEGAL_OPCODE, 5),
        (GuestFault::RESERVED_BITS, 5),
        (GuestFault::FETCH_ABORT, 6),
        (GuestFault::HOST_ERROR, 6),
        (GuestFault::ATC_TIMEOUT, 7),
    ] {
        let mut iommu = running();
        iommu.write(offset::COMMAND_TAIL, 4, 0x100);
        iommu.advance(2);
        let effects = iommu.fault(fault);
        assert_eq!((effects.store_count, effects.lines, effects.stores[0].gpa), (1, 1, 0x20_0000));
        let word = |at: usize| u64::from_le_bytes(effects.stores[0].bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(0) >> 60, word(8)), (code, BASE + 32), "the event names the command's address");
        assert_eq!((iommu.queue().state, iommu.read(offset::STATUS, 8)), (QueueState::STOPPED, 0xa));
        assert_eq!(iommu.fault(fault).store_count, 0, "told once");
        assert_eq!(iommu.write(offset::CONTROL, 8, ON).actions, Actions(0));
        assert_eq!(iommu.queue().state, QueueState::STOPPED, "writing the same again restarts nothing");
        iommu.write(offset::CONTROL, 8, ON & !(1 << 12));
        assert_eq!(iommu.write(offset::CONTROL, 8, ON).actions, Actions(Actions::KICK));
        let queue = iommu.queue();
        assert_eq!((queue.state, queue.head, queue.pending), (QueueState::RUNNING, 2, 14), "the head stayed");
    }
}

#[test]
fn a_wait_stores_and_interrupts_as_it_asks() {
    for (low, stores, lines, status) in [(0, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, COM_WAIT_INT), (7, 1, 1, COM_WAIT_INT)] {
        let mut iommu = running();
        iommu.write(offset::COMMAND_TAIL, 4, 32);
        let effects = iommu.sync_done(&[0x1000_0000_0123_8000 | low, 0x1234_5678_9abc_def0]);
        assert_eq!((effects.store_count, effects.lines), (stores, lines), "{low:#x}");
        assert_eq!((iommu.queue().head, iommu.read(offset::STATUS, 8) & COM_WAIT_INT), (1, status));
        if stores == 1 {
            assert_eq!((effects.stores[0].gpa, effects.stores[0].len), (0x123_8000, 8));
            assert_eq!(effects.stores[0].bytes[..8], 0x1234_5678_9abc_def0u64.to_le_bytes());
        }
    }
    let mut iommu = running();
    iommu.write(offset::CONTROL, 8, ON & !16);
    iommu.write(offset::COMMAND_TAIL, 4, 16);
    assert_eq!(iommu.sync_done(&[0x1000_0000_0000_0002, 0]).lines, 0, "ComWaitIntEn is off");
    assert_eq!(iommu.read(offset::STATUS, 8) & COM_WAIT_INT, COM_WAIT_INT);
    iommu.write(offset::STATUS, 4, COM_WAIT_INT);
    assert_eq!(iommu.read(offset::STATUS, 8) & COM_WAIT_INT, 0, "written 1 clears");
}
