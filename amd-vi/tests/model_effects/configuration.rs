//! Device table entries: what they may say, and that they are read once.

use crate::machine::{DEVICE_TABLE, Dte, MEMORY_END, Machine, READ, RW, WRITE, devtab};
use amd_vi::model::code;
use amd_vi::spec::dte::{DteWord0, DteWord1, DteWord2};
use amd_vi::spec::events::EventCode;
use amd_vi::spec::registers::{CAPABILITY_HEADER, Efr, offset};
use viommu_plugin::{Model, Register, Status};

#[test]
fn off_means_identity() {
    let mut machine = Machine::new();
    machine.write(offset::CONTROL, 0);
    let answer = machine.dma(9, 0x1234, WRITE);
    assert_eq!((answer.status, answer.output, answer.permissions), (Status::DISABLED, 0x1234, 3));
}

#[test]
fn validity_bits() {
    let mut machine = Machine::new();
    assert_eq!(machine.dma(1, 0x1234, READ).status, Status::BYPASS, "V=0");
    machine.set_dte(2, Dte(DteWord0::new().with_v(true), DteWord1::new(), DteWord2::new()));
    assert_eq!(machine.dma(2, 0x1234, READ).status, Status::ABORT, "TV=0");
    machine.set_dte(3, Dte::identity(1));
    let answer = machine.dma(3, 0x1234, READ);
    assert_eq!((answer.status, answer.output, answer.permissions), (Status::BYPASS, 0x1234, 3));
    let Dte(word0, word1, word2) = Dte::identity(1);
    machine.set_dte(4, Dte(word0.with_iw(false), word1, word2));
    assert_eq!(machine.dma(4, 0x1234, READ).permissions, 1);
    assert!(machine.events().is_empty());
    assert_eq!(machine.dma(4, 0x1234, WRITE).fault, code::PAGE, "identity without IW");
    assert_eq!(machine.events().len(), 1);
}

#[test]
fn an_entry_is_read_once_until_named() {
    let mut machine = Machine::new();
    for (device, before) in [(1, None), (2, Some(Dte::identity(1)))] {
        if let Some(before) = before {
            machine.set_dte(device, before);
        }
        machine.dma(device, 0, READ);
        let root = machine.page();
        machine.map_host(root, 3, 0x1000, 0x9000, 12, RW);
        machine.set_dte(device, Dte::host(1, root, 3));
        assert_eq!(machine.dma(device, 0x1000, READ).output, 0x1000, "the old entry");
        machine.submit(&[devtab(device as u16 + 8)]);
        assert_eq!(machine.dma(device, 0x1000, READ).output, 0x1000, "another device was named");
        machine.submit(&[devtab(device as u16)]);
        assert_eq!(machine.dma(device, 0x1000, READ).output, 0x9000);
    }
}

#[test]
fn illegal_entries_are_refused_and_not_cached() {
    let mut machine = Machine::new();
    let root = machine.page();
    let nested = Dte::host(1, root, 4).nested(0x5000, 0, false);
    let cases = [
        (Dte(Dte::identity(1).0.with_mode(7), nested.1, nested.2), code::MODE),
        (Dte(nested.0.with_glx(3), nested.1, nested.2), code::ENTRY),
        (Dte(nested.0, nested.1, nested.2.with_guest_paging_mode(2)), code::ENTRY),
    ];
    for (count, (dte, fault)) in cases.into_iter().enumerate() {
        machine.set_dte(1, dte);
        let answer = machine.dma(1, 0x1000, READ);
        assert_eq!((answer.status, answer.fault), (Status::FAULT, fault), "case {count}");
        let (event, _) = *machine.events().last().unwrap();
        assert_eq!(EventCode(event.code()), EventCode::ILLEGAL_DEV_TABLE_ENTRY);
        assert_eq!(machine.events().len(), count + 1);
    }
    machine.set_dte(1, Dte::identity(1));
    assert_eq!(machine.dma(1, 0x1000, READ).status, Status::BYPASS, "without any command");
}

#[test]
fn guest_translation_needs_gt_en() {
    let mut machine = Machine::new();
    machine.write(offset::CONTROL, Machine::control().with_gt_en(false).into());
    let root = machine.page();
    machine.set_dte(1, Dte::host(1, root, 4).nested(0x5000, 0, false));
    assert_eq!(machine.dma(1, 0x1000, READ).fault, code::ENTRY);
}

#[test]
fn levels_beyond_the_features_are_illegal() {
    let efr = Efr::new().with_gt_sup(true);
    let mut machine = Machine::with(&[Register { offset: offset::EFR, value: efr.into() }], false, 0);
    let root = machine.page();
    let four = Dte::host(1, root, 4);
    for (dte, fault) in [
        (Dte::host(1, root, 5), code::MODE),
        (four.nested(0x5000, 1, false), code::ENTRY),
        (four.nested(0x5000, 0, true), code::ENTRY),
        (four, code::PAGE),
    ] {
        machine.set_dte(1, dte);
        assert_eq!(machine.dma(1, 0x1000, READ).fault, fault);
    }
}

#[test]
fn no_efr_no_features() {
    let header = Register { offset: CAPABILITY_HEADER, value: 0 };
    let mut machine = Machine::with(&[header], false, 0);
    assert_eq!((machine.read(offset::EFR), machine.read(offset::EFR2)), (0, 0));
    assert_eq!(machine.iommu.mmio_read(offset::CONTROL, 8) & 1 << 16, 0, "GTEn does not stick");
}

#[test]
fn outside_the_table_or_of_memory() {
    let mut machine = Machine::new();
    // One page holds 128 entries.
    assert_eq!(machine.dma(127, 0, READ).status, Status::BYPASS);
    for device in [128, 0x1_0000, u32::MAX] {
        assert_eq!(machine.dma(device, 0, READ).fault, code::ENTRY, "{device:#x}");
    }
    machine.write(offset::DEVICE_TABLE_BASE, DEVICE_TABLE | 1);
    assert_eq!(machine.dma(128, 0, READ).status, Status::BYPASS);
    machine.write(offset::DEVICE_TABLE_BASE, MEMORY_END);
    assert_eq!(machine.dma(1, 0, READ).fault, code::ENTRY_FETCH);
    let (event, address) = *machine.events().last().unwrap();
    assert_eq!((EventCode(event.code()), address), (EventCode::DEV_TAB_HARDWARE_ERROR, MEMORY_END + 32));
}

#[test]
fn suppressed_page_faults_are_not_logged() {
    let mut machine = Machine::new();
    let root = machine.page();
    let Dte(word0, word1, word2) = Dte::host(1, root, 3);
    machine.set_dte(1, Dte(word0, word1.with_sa(true), word2));
    assert_eq!(machine.dma(1, 0, READ).fault, code::PAGE);
    assert!(machine.events().is_empty());
}
