//! The event queue: records, overflow, a guest that is ahead.

use crate::{frontend, with_msi, write};
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Effects, Frontend};

const EVENTQ_LINE: u32 = 1;
const OVFLG: u64 = 1 << 31;
const RECORD: [u64; 4] = [0x10, 1 << 35, 0xdead_0000, 0];

/// An enabled event queue of four records at 0x5c00_0000.
fn queue(mut smmu: ArmFrontend) -> ArmFrontend {
    smmu.write(offset::EVENTQ_BASE, 8, 0x5c00_0000 | 2);
    write(&mut smmu, offset::IRQ_CTRL, 4);
    write(&mut smmu, offset::CR0, 4);
    smmu
}

fn stored(effects: &Effects) -> Option<(u64, u64)> {
    (effects.store_count == 1).then(|| {
        let word0 = u64::from_le_bytes(effects.stores[0].bytes[..8].try_into().unwrap());
        (effects.stores[0].gpa, word0)
    })
}

#[test]
fn records_go_round_and_carry_the_guests_id() {
    let mut smmu = queue(frontend());
    for index in 0..9u64 {
        let effects = smmu.event(0x18, &RECORD);
        assert_eq!(stored(&effects), Some((0x5c00_0000 + index % 4 * 32, 0x18 << 32 | 0x10)));
        assert_eq!(effects.lines, EVENTQ_LINE);
        let prod = smmu.read(offset::EVENTQ_PROD, 4);
        assert_eq!(prod, (index + 1) % 8);
        write(&mut smmu, offset::EVENTQ_CONS, prod);
    }
}

#[test]
fn a_full_queue_overflows_once_until_acknowledged() {
    let mut smmu = queue(frontend());
    for _ in 0..4 {
        assert!(stored(&smmu.event(1, &RECORD)).is_some());
    }
    let lost = smmu.event(1, &RECORD);
    assert_eq!((stored(&lost), lost.lines), (None, EVENTQ_LINE));
    assert_eq!(smmu.read(offset::EVENTQ_PROD, 4), OVFLG | 4);
    assert_eq!((smmu.event(1, &RECORD).lines, smmu.event_lost().lines), (0, 0), "already told");
    write(&mut smmu, offset::EVENTQ_CONS, OVFLG | 4);
    assert_eq!(stored(&smmu.event(1, &RECORD)), Some((0x5c00_0000, 1 << 32 | 0x10)));
    assert_eq!(smmu.read(offset::EVENTQ_PROD, 4), OVFLG | 5);
    assert_eq!(smmu.event_lost().lines, EVENTQ_LINE);
    assert_eq!(smmu.read(offset::EVENTQ_PROD, 4), 5, "the flag toggles");
}

#[test]
fn a_disabled_queue_takes_nothing() {
    let mut smmu = queue(frontend());
    write(&mut smmu, offset::CR0, 0);
    assert_eq!((smmu.event(1, &RECORD), smmu.event_lost()), (Effects::default(), Effects::default()));
    write(&mut smmu, offset::CR0, 4);
    write(&mut smmu, offset::IRQ_CTRL, 0);
    let effects = smmu.event(1, &RECORD);
    assert_eq!((effects.store_count, effects.lines), (1, 0));
}

#[test]
fn a_guest_that_consumed_more_than_there_was_has_an_empty_queue() {
    let mut smmu = queue(frontend());
    smmu.event(1, &RECORD);
    write(&mut smmu, offset::EVENTQ_CONS, 3);
    assert_eq!(smmu.read(offset::EVENTQ_CONS, 4), 1);
    for index in 1..5u64 {
        assert_eq!(stored(&smmu.event(1, &RECORD)), Some((0x5c00_0000 + index % 4 * 32, 1 << 32 | 0x10)));
    }
    assert!(stored(&smmu.event(1, &RECORD)).is_none());
}

#[test]
fn records_of_other_lengths_are_cut_or_filled() {
    let mut smmu = queue(frontend());
    assert!(stored(&smmu.event(1, &[])).is_some());
    let effects = smmu.event(1, &[u64::MAX; 8]);
    assert_eq!((effects.store_count, effects.stores[0].len), (1, 32));
}

#[test]
fn an_event_interrupts_by_message_where_set() {
    let mut smmu = queue(with_msi());
    smmu.write(offset::EVENTQ_IRQ_CFG0, 8, 0x808_0040);
    write(&mut smmu, offset::EVENTQ_IRQ_CFG1, 76);
    let effects = smmu.event(1, &RECORD);
    assert_eq!((effects.lines, effects.msi_count, effects.msis[0].data), (0, 1, 76));
}
