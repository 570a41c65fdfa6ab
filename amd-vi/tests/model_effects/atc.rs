//! Devices' own caches, and devices that do not answer.

use crate::machine::{
    COMMANDS, Dte, GuestTables, Machine, NO_PASID, READ, RW, WRITE, all, devtab, guest_pages, iotlb, pages,
    wait_storing,
};
use amd_vi::spec::events::EventCode;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Answer, Model, Status};

const FROM_ATC: u32 = 2;
const STORE: u64 = 0x50_0000;

/// Devices 1 (with ATS), 2 (with ATS) and 3 (without) of domain 1; pages 0 to 15.
fn machine() -> (Machine, u64) {
    let mut machine = Machine::with(&[], true, 0);
    let root = machine.page();
    for page in 0..16 {
        machine.map_host(root, 3, page << 12, 0x100_0000 + (page << 12), 12, RW);
    }
    let dte = Dte::host(1, root, 3);
    machine.set_dte(1, dte.with_ats());
    machine.set_dte(2, dte.with_ats());
    machine.set_dte(3, dte);
    for device in 1..=3 {
        for page in 0..16 {
            machine.dma(device, page << 12, READ);
        }
    }
    (machine, root)
}

fn from_atc(answer: Answer) -> bool {
    answer.flags & FROM_ATC != 0
}

#[test]
fn only_its_own_command_empties_a_devices_cache() {
    let (mut machine, root) = machine();
    machine.map_host(root, 3, 0x3000, 0x900_0000, 12, RW);
    machine.submit(&[pages(1, 0, 64), all(), devtab(1)]);
    assert_eq!(machine.dma(3, 0x3000, READ).output, 0x900_0000, "no cache of its own");
    let stale = machine.dma(1, 0x3000, READ);
    assert_eq!((stale.output, from_atc(stale)), (0x100_3000, true));
    machine.submit(&[iotlb(1, NO_PASID, 0x3000, 12)]);
    assert_eq!(machine.dma(1, 0x3000, READ).output, 0x900_0000);
    assert!(from_atc(machine.dma(1, 0x4000, READ)), "its neighbour was not named");
    assert_eq!(machine.dma(2, 0x3000, READ).output, 0x100_3000, "nor the other device");
    let stats = machine.iommu.stats();
    assert_eq!((stats.atc_hits, stats.atc_misses), (3, 33));
}

#[test]
fn sizes_and_pasids() {
    let (mut machine, _) = machine();
    machine.submit(&[iotlb(1, 0, 0, 64)]);
    assert!(from_atc(machine.dma(1, 0, READ)), "with a PASID is not without");
    machine.submit(&[iotlb(1, NO_PASID, 0x4000, 14)]);
    let forgotten: Vec<u64> = (0..16).filter(|page| !from_atc(machine.dma(1, page << 12, READ))).collect();
    assert_eq!(forgotten, [4, 5, 6, 7]);
}

/// Linux invalidates what a device asked for without PASID, and got from guest tables (GIOV), as PASID 0's.
#[test]
fn without_pasid_is_pasid_0_where_a_guest_table_answered() {
    let mut machine = Machine::with(&[], true, 0);
    let (gcr3, root) = (machine.page(), machine.page());
    let tables = GuestTables { root, levels: 4, shift: 0 };
    machine.set_gcr3(gcr3, 0, 0, root, 0);
    for page in [1, 2] {
        machine.map_guest(tables, page << 12, 0x100_0000 + (page << 12), 12, true);
    }
    machine.set_dte(1, Dte::identity(1).nested(gcr3, 0, false).with_ats());
    let cached = |machine: &mut Machine| [1, 2].map(|page: u64| from_atc(machine.dma(1, page << 12, READ)));
    assert_eq!(cached(&mut machine), [false; 2]);
    assert_eq!(cached(&mut machine), [true; 2]);
    machine.submit(&[iotlb(1, 7, 0, 64)]);
    assert_eq!(cached(&mut machine), [true; 2], "another PASID's");
    machine.map_guest(tables, 0x1000, 0x900_0000, 12, true);
    machine.submit(&[pages(1, 0, 64), guest_pages(1, 0, 0, 64), iotlb(1, 0, 0x1000, 12)]);
    assert_eq!(machine.dma(1, 0x1000, READ).output, 0x900_0000);
    assert!(from_atc(machine.dma(1, 0x2000, READ)), "its neighbour was not named");
    machine.submit(&[iotlb(1, NO_PASID, 0x2000, 12)]);
    assert!(!from_atc(machine.dma(1, 0x2000, READ)), "without a PASID is without");
}

#[test]
fn an_entry_that_does_not_grant_is_asked_for_again() {
    let (mut machine, root) = machine();
    machine.map_host(root, 3, 0x8000_0000, 0x900_0000, 12, 1);
    assert_eq!(machine.dma(1, 0x8000_0000, READ).status, Status::OK);
    assert_eq!(machine.dma(1, 0x8000_0000, WRITE).status, Status::FAULT);
    machine.map_host(root, 3, 0x8000_0000, 0x900_0000, 12, RW);
    assert_eq!(machine.dma(1, 0x8000_0000, WRITE).status, Status::OK);
}

#[test]
fn a_device_that_does_not_answer_is_logged_and_has_forgotten_nothing() {
    let (mut machine, _) = machine();
    machine.iommu.atc_unresponsive(1, true);
    let commands = [iotlb(2, NO_PASID, 0, 64), iotlb(1, NO_PASID, 0, 64), wait_storing(STORE, 5)];
    assert_eq!(machine.submit(&commands), 2);
    assert_eq!(machine.memory.get(STORE), 0, "nobody is told that the device forgot");
    assert_eq!(machine.read(offset::COMMAND_HEAD), 32, "stopped behind the command");
    let (event, address) = machine.events()[0];
    assert_eq!((EventCode(event.code()), event.device_id()), (EventCode::IOTLB_INV_TIMEOUT, 1));
    assert_eq!((machine.events().len(), address), (1, COMMANDS + 16));
    assert!(from_atc(machine.dma(1, 0, READ)) && !from_atc(machine.dma(2, 0, READ)));
    machine.iommu.atc_unresponsive(1, false);
    for control in [Machine::control().with_cmd_buf_en(false), Machine::control()] {
        machine.write(offset::CONTROL, control.into());
    }
    assert_eq!((machine.iommu.step(9), machine.memory.get(STORE)), (1, 5), "it goes on where it stopped");
    machine.submit(&[iotlb(1, NO_PASID, 0, 64)]);
    assert!(!from_atc(machine.dma(1, 0, READ)));
}

#[test]
fn without_a_timeout_the_buffer_waits_for_the_device() {
    let (mut machine, _) = machine();
    machine.write(offset::CONTROL, Machine::control().with_inv_timeout(0).into());
    machine.iommu.atc_unresponsive(1, true);
    assert_eq!(machine.submit(&[devtab(9), iotlb(1, NO_PASID, 0, 64), wait_storing(STORE, 5)]), 1);
    assert_eq!((machine.iommu.step(9), machine.memory.get(STORE), machine.events().len()), (0, 0, 0));
    machine.iommu.atc_unresponsive(1, false);
    assert_eq!((machine.iommu.step(9), machine.memory.get(STORE)), (2, 5));
    assert!(!from_atc(machine.dma(1, 0, READ)));
}
