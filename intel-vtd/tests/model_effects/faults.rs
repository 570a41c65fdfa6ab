//! Fault recording registers, FSTS and the fault event.

use crate::machine::*;
use intel_vtd::spec::fault_reason::FaultReason;
use intel_vtd::spec::registers::{FaultRecord0, FaultRecord1, FaultStatus, offset};
use viommu_plugin::{Model, Register, Request};

/// Where CAP.FRO of the model's own values puts the first record.
const RECORDS: u64 = 0x220;
const MESSAGE: u64 = 0x60_0000;

/// Devices 1 to 31 with a context entry, but no PASID table entry; events unmasked.
fn machine(registers: &[Register]) -> Machine {
    let mut m = Machine::with(registers, false, 0);
    for stream in 1..32 {
        m.put_context(stream, true);
    }
    m.write(offset::FEDATA, 4, 0x31);
    m.write(offset::FEADDR, 4, MESSAGE);
    m.write(offset::FECTL, 4, 0);
    m
}

fn record(m: &mut Machine, index: u64) -> (FaultRecord0, FaultRecord1) {
    let at = RECORDS + 16 * index;
    (m.unit.mmio_read(at, 8).into(), m.unit.mmio_read(at + 8, 8).into())
}

fn status(m: &mut Machine) -> FaultStatus {
    m.read(offset::FSTS).into()
}

/// Takes the message, if there was one.
fn message(m: &mut Machine) -> u64 {
    let data = m.memory.get(MESSAGE);
    m.memory.put(MESSAGE, &[0]);
    data
}

#[test]
fn a_record_says_who_where_and_why() {
    let mut m = machine(&[]);
    m.request(Request { stream: 1, pasid: 5, iova: 0x1_2345_6789, access: 1, flags: 0 });
    let (low, high) = record(&mut m, 0);
    assert_eq!((low.page(), high.source_id(), high.pasid_present(), high.pasid()), (0x12_3456, 1, true, 5));
    assert!(high.fault() && high.read());
    assert_eq!(high.reason(), FaultReason::SM_PASID_NOT_PRESENT.0);
    m.access(2, 0x5000, 2);
    let (low, high) = record(&mut m, 1);
    assert_eq!((low.page(), high.source_id(), high.pasid_present(), high.read()), (5, 2, false, false));
}

#[test]
fn one_message_until_software_has_looked() {
    let mut m = machine(&[]);
    m.ask(1, 0);
    assert_eq!((message(&mut m), status(&mut m).pending()), (0x31, true));
    m.ask(2, 0);
    assert_eq!(message(&mut m), 0, "PPF was set");
    m.write(RECORDS + 12, 4, 1 << 31);
    assert_eq!((status(&mut m).pending(), status(&mut m).first_register()), (true, 1), "the second is left");
    m.write(RECORDS + 28, 4, 0);
    assert!(record(&mut m, 1).1.fault(), "F is cleared by 1");
    m.write(RECORDS + 24, 8, 1 << 63);
    assert_eq!(u32::from(status(&mut m)), 0);
    m.ask(1, 0);
    assert_eq!((message(&mut m), status(&mut m).first_register()), (0x31, 2));
}

#[test]
fn a_device_has_one_record_at_a_time() {
    let mut m = machine(&[]);
    for _ in 0..100 {
        m.ask(1, 0x1000);
    }
    assert!(!record(&mut m, 1).1.fault() && !status(&mut m).overflow());
    m.write(RECORDS + 12, 4, 1 << 31);
    m.ask(1, 0x2000);
    assert_eq!(record(&mut m, 1).0.page(), 2);
}

#[test]
fn the_ninth_fault_of_eight_overflows() {
    let mut m = machine(&[]);
    for stream in 1..=8 {
        m.ask(stream, 0);
    }
    assert!(!status(&mut m).overflow());
    for stream in 9..20 {
        m.ask(stream, 0);
    }
    assert!(status(&mut m).overflow());
    let recorded: Vec<u16> = (0..8).map(|index| record(&mut m, index).1.source_id()).collect();
    assert_eq!(recorded, [1, 2, 3, 4, 5, 6, 7, 8], "the first eight stay");
    m.write(RECORDS + 12, 4, 1 << 31);
    m.ask(9, 0);
    assert!(!record(&mut m, 0).1.fault(), "nothing is recorded while PFO is set");
    m.write(offset::FSTS, 4, 1);
    m.ask(9, 0);
    assert_eq!((record(&mut m, 0).1.source_id(), status(&mut m).overflow()), (9, false));
}

#[test]
fn a_masked_event_is_pending_and_goes_when_nothing_is_left_to_tell() {
    const PENDING: u32 = 1 << 30;
    let mut m = machine(&[]);
    m.write(offset::FECTL, 4, 1 << 31);
    m.ask(1, 0);
    assert_eq!((message(&mut m), m.read(offset::FECTL) & PENDING), (0, PENDING));
    m.write(offset::FECTL, 4, 0);
    assert_eq!((message(&mut m), m.read(offset::FECTL)), (0x31, 0));
    m.write(RECORDS + 12, 4, 1 << 31);
    m.write(offset::FECTL, 4, 1 << 31);
    m.ask(1, 0);
    m.write(RECORDS + 28, 4, 1 << 31);
    assert_eq!(m.read(offset::FECTL) & PENDING, 0);
    m.write(offset::FECTL, 4, 0);
    assert_eq!(message(&mut m), 0);
    m.write(offset::FEADDR, 4, 0);
    m.ask(1, 0);
    assert_eq!(m.memory.irqs(), [0], "without an address: the line");
    m.write(RECORDS + 44, 4, 1 << 31);
    m.write(offset::FEADDR, 4, 0x1000);
    m.write(offset::FEUADDR, 4, 0xffff_0000);
    m.ask(1, 0);
    assert!(status(&mut m).pending(), "a message that reaches nothing is lost");
}

/// CAP can place the records where the frame ends: they are out of reach, and nothing else is harmed.
#[test]
fn records_beyond_the_frame() {
    let registers = identity(|cap, ecap| (cap.with_fault_offset(0x3ff).with_fault_registers(255), ecap));
    let mut m = machine(&registers);
    for stream in 1..32 {
        m.ask(stream, 0);
        m.write(0xffc, 4, u64::MAX);
    }
    assert_eq!(m.unit.mmio_read(offset::CAP, 8), registers[0].value);
}
