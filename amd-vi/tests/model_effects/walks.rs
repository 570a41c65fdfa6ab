//! Host tables alone: levels, sizes, permissions, and what is wrong with a table.

use crate::machine::{Dte, MEMORY_END, Machine, READ, RW, WRITE};
use amd_vi::model::code;
use amd_vi::spec::events::{EventCode, flags};
use amd_vi::spec::pte::HostPte;
use viommu_plugin::Status;

const DEVICE: u32 = 5;
const DOMAIN: u16 = 7;

fn machine(levels: u8) -> (Machine, u64) {
    let mut machine = Machine::new();
    let root = machine.page();
    machine.set_dte(DEVICE, Dte::host(DOMAIN, root, levels));
    (machine, root)
}

#[test]
fn every_mode_translates_to_its_limit() {
    for levels in 1..=6 {
        let (mut machine, root) = machine(levels);
        let top = 12 + 9 * u32::from(levels);
        let last = 1u64.checked_shl(top).map_or(u64::MAX, |size| size - 1);
        machine.map_host(root, levels, last & !0xfff, 0x55_5000, 12, RW);
        let answer = machine.dma(DEVICE, last - 0xf, WRITE);
        assert_eq!((answer.status, answer.output), (Status::OK, 0x55_5ff0), "{levels} levels");
        assert_eq!((answer.stage, answer.leaf_log2, answer.permissions), (2, 12, 3));
        if top < 64 {
            let beyond = machine.dma(DEVICE, last + 1, READ);
            assert_eq!((beyond.status, beyond.fault), (Status::FAULT, code::PAGE), "{levels} levels");
        }
    }
}

#[test]
fn leaves_of_every_size() {
    let (mut machine, root) = machine(4);
    for log2 in 12..=38 {
        let gpa = 1 << 40 | u64::from(log2) << 41;
        machine.map_host(root, 4, gpa, 0x40_0000_0000, log2, RW);
        let inside = (1 << log2) - 8;
        let answer = machine.dma(DEVICE, gpa + inside, READ);
        let expected = (Status::OK, 0x40_0000_0000 + inside, u32::from(log2));
        assert_eq!((answer.status, answer.output, answer.leaf_log2), expected, "2^{log2}");
    }
}

#[test]
fn levels_may_be_left_out() {
    let (mut machine, root) = machine(4);
    let leaves = machine.page();
    let entry = HostPte::new().with_pr(true).with_ir(true).with_iw(true);
    machine.memory.put(root, &[entry.with_next_level(1).with_address(leaves >> 12).into()]);
    machine.memory.put(leaves + 8 * 3, &[entry.with_address(0x777).into()]);
    assert_eq!(machine.dma(DEVICE, 0x3008, READ).output, 0x77_7008);
    // The bits of levels 3 and 2 have to be zero.
    for gpa in [0x20_3008, 0x4000_3008] {
        assert_eq!(machine.dma(DEVICE, gpa, READ).fault, code::PAGE, "{gpa:#x}");
    }
}

#[test]
fn permissions_of_every_level_and_of_the_entry_count() {
    let (mut machine, root) = machine(3);
    machine.map_host(root, 3, 0x1000, 0x9000, 12, 1);
    let refused = machine.dma(DEVICE, 0x1000, WRITE);
    assert_eq!((refused.status, refused.fault, refused.ipa), (Status::FAULT, code::PAGE, 0x1000));
    let (event, address) = machine.events()[0];
    assert_eq!((EventCode(event.code()), event.domain_id(), address), (EventCode::IO_PAGE_FAULT, DOMAIN, 0x1000));
    assert_eq!(event.flags(), flags::PR | flags::PE | flags::RW);
    assert_eq!(machine.dma(DEVICE, 0x1000, READ).permissions, 1);
    // Another device of the domain may only write; the TLB entry is shared.
    let Dte(word0, word1, word2) = Dte::host(DOMAIN, root, 3);
    machine.set_dte(6, Dte(word0.with_ir(false), word1, word2));
    assert_eq!(machine.dma(6, 0x1000, READ).status, Status::FAULT);
    assert_eq!(machine.dma(DEVICE, 0x1000, READ).status, Status::OK);
    // A directory without IW.
    machine.map_host(root, 3, 0x4000_0000, 0x9000, 12, RW);
    let directory = machine.memory.get(root + 8);
    machine.memory.put(root + 8, &[HostPte::from(directory).with_iw(false).into()]);
    assert_eq!(machine.dma(DEVICE, 0x4000_0000, WRITE).status, Status::FAULT);
    assert_eq!(machine.dma(DEVICE, 0x4000_0000, READ).permissions, 1);
}

#[test]
fn broken_tables_fault() {
    let (mut machine, root) = machine(3);
    let entry = HostPte::new().with_pr(true).with_ir(true).with_iw(true);
    // To itself, upwards, and pages of a size that level 3 has not.
    for next in [3, 4, 6] {
        machine.memory.put(root, &[entry.with_next_level(next).with_address(root >> 12).into()]);
        assert_eq!(machine.dma(DEVICE, 0, READ).fault, code::PAGE, "Next Level {next}");
    }
    for field in [0x0000, 0x3ff, 0xff_ffff_ffff] {
        machine.memory.put(root, &[entry.with_next_level(7).with_address(field).into()]);
        assert_eq!(machine.dma(DEVICE, 0, READ).fault, code::PAGE, "{field:#x}");
    }
    assert!(machine.events().iter().all(|(event, _)| event.flags() == flags::PR | flags::RZ));
    machine.memory.put(root, &[entry.with_next_level(2).with_address(MEMORY_END >> 12).into()]);
    assert_eq!(machine.dma(DEVICE, 0, READ).fault, code::TABLE_FETCH);
    let (event, address) = *machine.events().last().unwrap();
    assert_eq!((EventCode(event.code()), address), (EventCode::PAGE_TAB_HARDWARE_ERROR, MEMORY_END));
}

#[test]
fn explain_tells_every_step_and_changes_nothing() {
    let (mut machine, root) = machine(3);
    machine.map_host(root, 3, 0x1000, 0x9000, 12, RW);
    let text = machine.explain(DEVICE, u32::MAX, 0x1234);
    for part in ["DTE 0x5", "host L3", "host L2", "host L1", "is at 0x9234", "DomainID 7"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(machine.explain(DEVICE, u32::MAX, 0x2000).contains("IO_PAGE_FAULT"));
    assert_eq!(machine.dma(DEVICE, 0x1000, READ).flags, 0, "nothing was cached");
    assert!(machine.events().is_empty());
}
