//! Tegra: queues that the guest drives itself, in the kernel's order, and the page of registers lent to it.

use crate::guest::{RAM, RAM_SIZE};
use crate::rig::{FIRST_STREAM, Machine, Rig, fails_anywhere};
use std::sync::Arc;
use tegra_vcmdq::spec::{CMDQV, CmdqAlloc, VCMDQ_STRIDE, VintfConfig, offset, page1, vintf, vintf_page1};
use viommu::uapi::Command;
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::drivers::{ArmSmmuv3, Tegra241};
use viommu_plugin_host::Plugin;

/// The guest's queues, 4 KiB each.
const OWN: u64 = RAM + 0x3_0000;

fn plugin() -> Plugin {
    Plugin::linked::<tegra_vcmdq::TegraVcmdq>()
}

/// As QEMU's SMMUv3 has it, with both stages.
const IDR: [u32; 6] = [0x0d44_101b, 0x0273_0010, 0, 0x1404, 0, 0x74];

fn rig() -> Rig {
    let driver = Arc::new(Tegra241::new(ArmSmmuv3::new(IDR), 2));
    let device = DeviceConfig { dirty_tracking: false, ..DeviceConfig::new(driver, FIRST_STREAM) };
    Rig::new(plugin, &crate::guest::memory(), vec![device], |options| options)
}

fn machine(rig: &Rig) -> Machine {
    let machine = rig.machine(rig.backend.guest_registers().to_vec()).unwrap();
    let write = |at, value: u64| machine.viommu.mmio_write(at, 4, value).unwrap();
    write(CMDQV + offset::CONFIG, 1);
    write(CMDQV + offset::VINTF + vintf::CONFIG, VintfConfig::new().with_en(true).into_bits().into());
    machine
}

/// CMDQ_ALLOC, then BASE: 256 commands.
fn ask(machine: &Machine, index: u64) {
    let alloc = CmdqAlloc::new().with_allocated(true).with_lvcmdq(index as u8).into_bits();
    machine.viommu.mmio_write(CMDQV + offset::CMDQ_ALLOC + 4 * index, 4, alloc.into()).unwrap();
    let base = CMDQV + vintf_page1(0) + VCMDQ_STRIDE * index + page1::BASE;
    machine.viommu.mmio_write(base, 8, (OWN + 0x1000 * index) | 8).unwrap();
}

fn give_back(machine: &Machine, index: u64) {
    machine.viommu.mmio_write(CMDQV + offset::CMDQ_ALLOC + 4 * index, 4, 0).unwrap();
}

/// Indexes of queues made since the last time.
fn made(rig: &Rig) -> Vec<u32> {
    rig.host.settle().unwrap();
    let calls = rig.log.take();
    calls.into_iter().filter(|(command, _)| *command == Command::HwQueueAlloc).map(|(_, index)| index).collect()
}

#[test]
fn queues_are_made_in_order_and_go_in_reverse() {
    let rig = rig();
    let machine = machine(&rig);
    rig.log.take();
    ask(&machine, 1);
    assert_eq!(made(&rig), [0; 0], "0 comes first");
    ask(&machine, 0);
    assert_eq!(made(&rig), [0, 1], "and the one that waited");
    give_back(&machine, 0);
    rig.host.settle().unwrap();
    let destroyed: Vec<_> =
        rig.log.take().into_iter().filter(|(command, _)| *command == Command::Destroy).map(|(_, id)| id).collect();
    assert_eq!(destroyed.len(), 2, "the one behind it too");
    assert!(destroyed[0] > destroyed[1], "last to first: {destroyed:?}");
    ask(&machine, 0);
    assert_eq!(made(&rig), [0, 1]);
    drop(machine);
    rig.down();
}

#[test]
fn memory_that_hardware_reads_commands_from_stays() {
    let rig = rig();
    let machine = machine(&rig);
    ask(&machine, 0);
    assert_eq!(made(&rig), [0]);
    let half = RAM_SIZE / 2;
    let error = machine.ioas.unmap(RAM, half).unwrap_err();
    assert_eq!(error.errno(), 16, "{error}");
    assert!(error.to_string().contains("IOAS_UNMAP") && error.to_string().contains("EBUSY"), "{error}");
    machine.ioas.unmap(RAM + half, half).unwrap();
    give_back(&machine, 0);
    rig.host.settle().unwrap();
    machine.ioas.unmap(RAM, half).unwrap();
    // Where nothing is mapped, hardware cannot read: the guest gets no queue, and its host goes on.
    ask(&machine, 0);
    made(&rig);
    machine.ioas.map(rig.piece(0, half, true)).unwrap();
    ask(&machine, 0);
    machine.viommu.mmio_read(CMDQV + offset::PARAM, 4).unwrap();
    drop(machine);
    rig.down();
}

#[test]
fn the_page_of_registers_is_lent_whole_and_keeps_its_viommu() {
    let rig = rig();
    let machine = machine(&rig);
    let place = machine.viommu.page().expect("registers to map");
    assert_eq!(place.length, 0x1_0000);
    for (offset, length) in
        [(place.offset, 0x1000), (place.offset + 0x1000, 0x1_0000), (place.offset, 0x2_0000), (0, 0x1_0000)]
    {
        assert_eq!(machine.viommu.map_page(offset, length).unwrap_err().errno(), 6, "{length:#x} at {offset:#x}");
    }
    let page = machine.viommu.map_page(place.offset, place.length).unwrap();
    let mapping = rig.dispatcher.mmap(place.offset, place.length).unwrap();
    page.write(0x40, 8, 0x1122_3344_5566_7788);
    assert_eq!(
        (mapping.read(0x40), mapping.read(0x44)),
        (Some(0x5566_7788), Some(0x1122_3344)),
        "the hardware's registers"
    );
    assert_eq!(page.read(0x40, 8), 0x1122_3344_5566_7788);
    assert_eq!((page.read(0x1_0000, 4), page.read(0xffff, 4)), (0, 0), "nothing outside");
    drop(mapping);
    let Machine { viommu, vdevices, devices, ioas } = machine;
    drop(vdevices);
    rig.host.settle().unwrap();
    let busy = viommu.clone().destroy().unwrap_err();
    assert_eq!(busy.errno(), 16, "{busy}");
    assert!(busy.to_string().contains("mapping"), "{busy}");
    drop(page);
    viommu.destroy().unwrap();
    drop((devices, ioas));
    rig.down();
}

#[test]
fn more_guests_than_interfaces_are_refused_and_one_that_goes_makes_room() {
    let driver = Arc::new(Tegra241::new(ArmSmmuv3::new(IDR), 2));
    let device = DeviceConfig { dirty_tracking: false, ..DeviceConfig::new(driver, FIRST_STREAM) };
    let rig = Rig::new(plugin, &crate::guest::memory(), vec![device], |options| options);
    let shown = || viommu::objects::ViommuConfig::new(rig.backend.guest_registers().to_vec(), rig.memory.clone());
    let make = || rig.host.ioas()?.nest_parent()?.viommu(shown());
    // Four, of which one is the host's.
    let mut there: Vec<_> = (0..3).map(|_| make().unwrap()).collect();
    let error = make().unwrap_err();
    assert_eq!(error.errno(), 28, "{error}");
    assert!(error.to_string().contains("VIOMMU_ALLOC") && error.to_string().contains("ENOSPC"), "{error}");
    there.pop();
    rig.host.settle().unwrap();
    there.push(make().unwrap());
    drop(there);
    rig.down();
}

#[test]
fn a_set_up_with_queues_that_fails_anywhere_leaves_nothing() {
    let rig = rig();
    fails_anywhere(&rig, |rig| {
        let machine = rig.machine(rig.backend.guest_registers().to_vec())?;
        let write = |at, size, value: u64| machine.viommu.mmio_write(at, size, value);
        write(CMDQV + offset::CONFIG, 4, 1)?;
        write(CMDQV + offset::VINTF + vintf::CONFIG, 4, VintfConfig::new().with_en(true).into_bits().into())?;
        for index in 0..2 {
            let alloc = CmdqAlloc::new().with_allocated(true).with_lvcmdq(index as u8).into_bits();
            write(CMDQV + offset::CMDQ_ALLOC + 4 * index, 4, alloc.into())?;
            let base = CMDQV + vintf_page1(0) + VCMDQ_STRIDE * index + page1::BASE;
            write(base, 8, (OWN + 0x1000 * index) | 8)?;
        }
        let events = machine.viommu.event_queue()?;
        rig.host.settle()?;
        drop((events, machine));
        Ok(())
    });
    rig.down();
}
