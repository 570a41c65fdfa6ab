//! Command buffer and event log: order, completion, errors, room.

use crate::machine::{COMMANDS, Dte, MEMORY_END, Machine, READ, RING_LOG2, all, devtab, pages, wait, wait_storing};
use amd_vi::spec::commands::{CompletionWait, Opcode};
use amd_vi::spec::events::EventCode;
use amd_vi::spec::registers::{CAPABILITY_HEADER, CapabilityHeader, Efr, RingBase, Status, offset};
use viommu_plugin::{Model, Register};

const STORE: u64 = 0x50_0000;

fn status(machine: &mut Machine) -> Status {
    machine.read(offset::STATUS).into()
}

#[test]
fn the_doorbell_only_records() {
    let mut machine = Machine::new();
    machine.place(&[wait_storing(STORE, 7), wait_storing(STORE + 8, 8)]);
    assert_eq!((machine.memory.get(STORE), machine.read(offset::COMMAND_HEAD)), (0, 0));
    assert_eq!(machine.iommu.step(1), 1);
    assert_eq!((machine.memory.get(STORE), machine.memory.get(STORE + 8)), (7, 0));
    assert_eq!(machine.read(offset::COMMAND_HEAD), 16);
    assert_eq!((machine.iommu.step(5), machine.iommu.step(5)), (1, 0));
    assert_eq!(machine.memory.get(STORE + 8), 8);
}

#[test]
fn the_ring_wraps() {
    let mut machine = Machine::new();
    for n in 1..=1000 {
        assert_eq!(machine.submit(&[wait_storing(STORE, n)]), 1);
        assert_eq!(machine.memory.get(STORE), n);
    }
    assert_eq!(machine.read(offset::COMMAND_HEAD), 16 * 1000 % (16 << RING_LOG2));
}

#[test]
fn completion_interrupts_until_acknowledged() {
    let mut machine = Machine::new();
    let interrupting = CompletionWait::from_words(wait()).with_i(true).words();
    machine.submit(&[wait()]);
    assert_eq!(machine.irqs(), 0);
    machine.submit(&[interrupting, interrupting]);
    assert!(status(&mut machine).com_wait_int());
    assert_eq!(machine.irqs(), 1, "one until software clears the bit");
    machine.write(offset::STATUS, Status::new().with_com_wait_int(true).into());
    machine.submit(&[interrupting]);
    assert_eq!(machine.irqs(), 2);
    machine.write(offset::STATUS, Status::new().with_com_wait_int(true).into());
    machine.write(offset::CONTROL, Machine::control().with_com_wait_int_en(false).into());
    machine.submit(&[interrupting]);
    assert_eq!((machine.irqs(), status(&mut machine).com_wait_int()), (2, true));
}

#[test]
fn an_illegal_command_stops_the_buffer_until_it_is_enabled_again() {
    for opcode in [0, 9, 10, 11, 15] {
        let mut machine = Machine::new();
        let illegal = [opcode << 60, 0];
        assert_eq!(machine.submit(&[wait_storing(STORE, 1), illegal, wait_storing(STORE, 2)]), 1);
        assert_eq!((machine.memory.get(STORE), machine.read(offset::COMMAND_HEAD)), (1, 16));
        assert!(!status(&mut machine).cmd_buf_run());
        let (event, address) = machine.events()[0];
        assert_eq!((EventCode(event.code()), address), (EventCode::ILLEGAL_COMMAND_ERROR, COMMANDS + 16));
        assert_eq!(machine.irqs(), 1);
        // Repaired in place, but still stopped.
        machine.memory.put(COMMANDS + 16, &wait());
        assert_eq!(machine.iommu.step(9), 0);
        machine.write(offset::CONTROL, Machine::control().with_cmd_buf_en(false).into());
        assert_eq!(machine.iommu.step(9), 0);
        machine.write(offset::CONTROL, Machine::control().into());
        assert!(status(&mut machine).cmd_buf_run());
        assert_eq!((machine.iommu.step(9), machine.memory.get(STORE)), (2, 2), "opcode {opcode}");
    }
}

#[test]
fn commands_of_features_that_are_not_there_are_illegal() {
    let registers = [
        Register { offset: offset::EFR, value: Efr::new().into() },
        Register { offset: CAPABILITY_HEADER, value: CapabilityHeader::new().with_efr_sup(true).into_bits().into() },
    ];
    for opcode in [
        Opcode::INVALIDATE_IOTLB_PAGES,
        Opcode::PREFETCH_IOMMU_PAGES,
        Opcode::COMPLETE_PPR_REQUEST,
        Opcode::INVALIDATE_IOMMU_ALL,
    ] {
        let command = [u64::from(opcode.0) << 60, 0];
        assert_eq!(Machine::new().submit(&[command]), 1, "{opcode:?} with the feature");
        let mut machine = Machine::with(&registers, true, 0);
        assert_eq!(machine.submit(&[devtab(1), pages(1, 0, 64), command]), 2, "{opcode:?}");
        assert_eq!(EventCode(machine.events()[0].0.code()), EventCode::ILLEGAL_COMMAND_ERROR);
    }
}

#[test]
fn what_reaches_no_memory_is_a_hardware_error() {
    let mut machine = Machine::new();
    assert_eq!(machine.submit(&[wait_storing(MEMORY_END, 1), wait()]), 0);
    let (event, address) = machine.events()[0];
    assert_eq!((EventCode(event.code()), address), (EventCode::COMMAND_HARDWARE_ERROR, COMMANDS));
    let mut machine = Machine::new();
    let ring = RingBase::new().with_base(MEMORY_END >> 12).with_length(8);
    machine.write(offset::COMMAND_BASE, ring.into());
    assert_eq!(machine.submit(&[wait()]), 0);
    let (event, address) = machine.events()[0];
    assert_eq!((EventCode(event.code()), address), (EventCode::COMMAND_HARDWARE_ERROR, MEMORY_END));
}

#[test]
fn off_means_off() {
    let mut machine = Machine::new();
    for control in [Machine::control().with_cmd_buf_en(false), Machine::control().with_iommu_en(false)] {
        machine.write(offset::CONTROL, control.into());
        assert_eq!(machine.submit(&[all()]), 0);
        assert!(!status(&mut machine).cmd_buf_run());
    }
}

#[test]
fn a_full_event_log_loses_says_so_and_starts_again() {
    let mut machine = Machine::new();
    let root = machine.page();
    machine.set_dte(1, Dte::host(1, root, 3));
    let room = (1 << RING_LOG2) - 1;
    for n in 0..room {
        machine.dma(1, n << 12, READ);
    }
    assert_eq!(machine.events().len() as u64, room);
    assert!(!status(&mut machine).event_overflow() && status(&mut machine).event_log_run());
    let irqs = machine.irqs();
    assert_eq!(irqs, 1, "one until software acknowledges");
    machine.dma(1, 0, READ);
    machine.dma(1, 0, READ);
    assert!(status(&mut machine).event_overflow() && !status(&mut machine).event_log_run());
    assert_eq!((machine.events().len() as u64, machine.irqs()), (room, irqs + 1));
    // Software takes all, acknowledges, and turns the log off and on.
    let tail = machine.read(offset::EVENT_TAIL);
    machine.write(offset::EVENT_HEAD, tail);
    machine.write(offset::STATUS, Status::WRITE_1_TO_CLEAR);
    machine.dma(1, 0, READ);
    assert!(machine.events().is_empty(), "still stopped");
    machine.write(offset::CONTROL, Machine::control().with_event_log_en(false).into());
    machine.write(offset::CONTROL, Machine::control().into());
    machine.dma(1, 0x5000, READ);
    assert_eq!(machine.events().iter().map(|(_, address)| *address).collect::<Vec<_>>(), [0x5000]);
    assert!(!status(&mut machine).event_overflow());
}

#[test]
fn faults_without_a_log_are_not_remembered() {
    let mut machine = Machine::new();
    let root = machine.page();
    machine.set_dte(1, Dte::host(1, root, 3));
    machine.write(offset::CONTROL, Machine::control().with_event_log_en(false).into());
    machine.dma(1, 0, READ);
    machine.write(offset::CONTROL, Machine::control().into());
    assert!(machine.events().is_empty());
}
