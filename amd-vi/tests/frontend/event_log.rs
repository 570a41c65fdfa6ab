//! The event log: records with the guest's number, overflow, restart.

use crate::{ON, running};
use amd_vi::spec::registers::offset;
use viommu_plugin::{Frontend, GuestFault};

/// IO_PAGE_FAULT of domain 9, the device's field zero.
const RECORD: [u64; 2] = [0x2020_0009_0000_0000, 0xdead_b000];
const LOG: u64 = 0x20_0000;

#[test]
fn a_record_names_the_guests_device() {
    let mut iommu = running();
    let effects = iommu.event(0x108, &RECORD);
    assert_eq!((effects.store_count, effects.lines, effects.stores[0].gpa, effects.stores[0].len), (1, 1, LOG, 16));
    assert_eq!(effects.stores[0].bytes[..8], (RECORD[0] | 0x108).to_le_bytes());
    assert_eq!(effects.stores[0].bytes[8..16], RECORD[1].to_le_bytes());
    assert_eq!((iommu.read(offset::EVENT_TAIL, 4), iommu.read(offset::STATUS, 8)), (16, 0x1a));
    assert_eq!(iommu.event(0x108, &RECORD).stores[0].gpa, LOG + 16);
    iommu.write(offset::STATUS, 4, 2);
    assert_eq!(iommu.read(offset::STATUS, 8), 0x18);
    iommu.write(offset::CONTROL, 8, ON & !8);
    assert_eq!(iommu.event(1, &RECORD).lines, 0, "EventIntEn is off");
    iommu.write(offset::CONTROL, 8, ON & !4);
    assert_eq!(iommu.event(1, &RECORD).store_count, 0, "the log is off");
}

#[test]
fn a_full_log_stops_until_it_is_enabled_anew() {
    let mut iommu = running();
    for _ in 0..255 {
        assert_eq!(iommu.event(1, &RECORD).store_count, 1);
    }
    let full = iommu.event(1, &RECORD);
    assert_eq!((full.store_count, full.lines), (0, 1));
    assert_eq!(iommu.read(offset::STATUS, 8), 0x13, "overflow, interrupt, not running");
    assert_eq!(iommu.event(1, &RECORD), Default::default(), "told once");
    iommu.write(offset::EVENT_HEAD, 4, iommu.read(offset::EVENT_TAIL, 4));
    assert_eq!(iommu.event(1, &RECORD).store_count, 0, "room alone does not restart it");
    iommu.write(offset::CONTROL, 8, ON & !4);
    iommu.write(offset::STATUS, 4, 3);
    iommu.write(offset::CONTROL, 8, ON);
    assert_eq!(iommu.read(offset::STATUS, 8), 0x18);
    assert_eq!(iommu.event(1, &RECORD).stores[0].gpa, LOG + 255 * 16);
    assert_eq!(iommu.read(offset::EVENT_TAIL, 4), 0, "and wraps");
}

#[test]
fn lost_records_show_as_overflow_and_a_log_without_memory_stops() {
    let mut iommu = running();
    assert_eq!(iommu.event_lost().lines, 1);
    assert_eq!(iommu.read(offset::STATUS, 8) & 9, 1);
    let mut iommu = running();
    assert_eq!(iommu.fault(GuestFault::EVENT_ABORT), Default::default());
    assert_eq!(iommu.read(offset::STATUS, 8), 0x10, "the command buffer runs on");
}

#[test]
fn a_log_that_cannot_be_takes_nothing() {
    let mut iommu = running();
    iommu.write(offset::EVENT_BASE, 8, 0x0300_0000_0020_0000);
    assert_eq!(iommu.event(1, &RECORD).store_count, 0);
    assert_eq!(iommu.read(offset::STATUS, 8) & 9, 1);
}
