//! Fault records: one register and several, overflow, the message.

use crate::{NOTHING, frontend, messages, showing, write};
use intel_vtd::features::Features;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::spec::registers::offset;
use viommu_plugin::Frontend;

const FRCD: u64 = 0x220;
const PFO: u64 = 1;
const PPF: u64 = 2;
/// A read that found no first-stage entry.
const RECORD: [u64; 2] = [0xdead_0000, 1 << 62 | 0x71 << 32];

/// Fault messages let through.
fn unit(mut unit: VtdFrontend) -> VtdFrontend {
    write(&mut unit, offset::FEDATA, 0x20);
    write(&mut unit, offset::FEADDR, 0xfee0_2000);
    write(&mut unit, offset::FEUADDR, 1);
    write(&mut unit, offset::FECTL, 0);
    unit
}

/// As the recorded guests handle one: F is cleared, the rest of the record stays.
#[test]
fn a_record_carries_the_guests_id_and_stays_until_f_is_cleared() {
    let mut unit = unit(frontend());
    assert_eq!(messages(&unit.event(0x18, &RECORD)), [(0x1_fee0_2000, 0x20)]);
    assert_eq!(unit.read(offset::FSTS, 4), PPF);
    assert_eq!((unit.read(FRCD, 8), unit.read(FRCD + 8, 4)), (0xdead_0000, 0x18));
    assert_eq!(unit.read(FRCD + 12, 4), 0xc000_0071);
    write(&mut unit, FRCD + 12, 0x4000_0071);
    assert_eq!(unit.read(FRCD + 12, 4), 0xc000_0071, "0 clears nothing");
    write(&mut unit, FRCD + 12, 1 << 31);
    assert_eq!((unit.read(FRCD + 12, 4), unit.read(offset::FSTS, 4)), (0x4000_0071, 0));
}

#[test]
fn without_room_a_fault_is_lost_and_that_is_told_once() {
    let mut unit = unit(frontend());
    unit.event(1, &RECORD);
    assert_eq!(unit.event(2, &RECORD), NOTHING, "the message for the first was sent");
    assert_eq!(unit.read(offset::FSTS, 4), PPF | PFO);
    write(&mut unit, FRCD + 12, 1 << 31);
    assert_eq!(unit.event(3, &RECORD), NOTHING, "nothing is recorded until the overflow is acknowledged");
    assert_eq!(unit.read(offset::FSTS, 4), PFO);
    write(&mut unit, offset::FSTS, 0x83);
    assert_eq!(unit.read(offset::FSTS, 4), 0);
    assert_eq!(messages(&unit.event(3, &RECORD)).len(), 1);
    write(&mut unit, FRCD + 12, 1 << 31);
    assert_eq!(messages(&unit.event_lost()).len(), 1);
    assert_eq!((unit.read(offset::FSTS, 4), unit.event_lost()), (PFO, NOTHING));
}

#[test]
fn several_registers_go_round_and_the_oldest_is_named() {
    let features = Features::default();
    let mut unit = unit(showing(features.cap.with_fault_registers(2), features.ecap));
    let first = |unit: &VtdFrontend| unit.read(offset::FSTS, 4) >> 8;
    for id in 1..=3 {
        unit.event(id, &RECORD);
    }
    assert_eq!(first(&unit), 0);
    write(&mut unit, FRCD + 12, 1 << 31);
    assert_eq!(first(&unit), 1);
    unit.event(4, &RECORD);
    assert_eq!((first(&unit), unit.read(FRCD + 8, 4), unit.read(FRCD + 24, 4)), (1, 4, 2));
    write(&mut unit, FRCD + 28, 1 << 31);
    assert_eq!(first(&unit), 2);
    assert_eq!(unit.read(offset::FSTS, 4) & PFO, 0);
}

#[test]
fn a_masked_message_waits_until_the_mask_or_the_fault_goes() {
    let mut unit = unit(frontend());
    write(&mut unit, offset::FECTL, 1 << 31);
    assert_eq!(unit.event(1, &RECORD), NOTHING);
    assert_eq!(unit.read(offset::FECTL, 4), 3 << 30);
    assert_eq!(messages(&unit.write(offset::FECTL, 4, 0)).len(), 1);
    write(&mut unit, FRCD + 12, 1 << 31);
    write(&mut unit, offset::FECTL, 1 << 31);
    unit.event(1, &RECORD);
    write(&mut unit, FRCD + 12, 1 << 31);
    assert_eq!(unit.read(offset::FECTL, 4), 1 << 31, "nothing to tell of any more");
}

#[test]
fn records_of_other_lengths_are_cut_or_filled() {
    for record in [&[][..], &[u64::MAX; 8]] {
        let mut unit = unit(frontend());
        unit.event(0x12, record);
        assert_eq!((unit.read(FRCD, 4) & 0xfff, unit.read(FRCD + 8, 4) as u16), (0, 0x12));
        assert_eq!(unit.read(FRCD + 12, 4) >> 31, 1);
    }
}
