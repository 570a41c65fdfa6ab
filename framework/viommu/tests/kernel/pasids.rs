//! PASIDs of an Arm guest, in the table of context descriptors that its stream table entry leads to: what a device's DMA
//! with a PASID sees after the guest's SYNC.

use crate::guest::{self, CD_1, Guest, RAM, STE_STAGE_1, SYNC};
use crate::rig::put;
use crate::smmu::Smmu;
use crate::{Machine, VIRT_ID, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use viommu::objects::ViommuConfig;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Level-1 tables with blocks of 1 GiB.
const TABLES: [u64; 2] = [RAM + 0x2_1000, RAM + 0x2_2000];
/// STE.S1CDMax: four context descriptors.
const FOUR: u64 = 2 << 59;
const GIB: u64 = 1 << 30;

/// A device, and an SMMU that forgets nothing until it is told.
struct Device<'a> {
    world: &'a World,
    /// By PASID: ASID and table.
    descriptors: RefCell<BTreeMap<u64, (u64, u64)>>,
    /// By ASID and block.
    blocks: RefCell<BTreeMap<(u64, u64), u64>>,
}

impl<'a> Device<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, descriptors: RefCell::default(), blocks: RefCell::default() }
    }

    fn word(&self, gpa: u64) -> u64 {
        let memory: &GuestMemoryMmap = &self.world.memory;
        u64::from_le(memory.read_obj(GuestAddress(gpa)).unwrap())
    }

    /// Carries out what reached the hardware since the last time.
    fn obey(&self) {
        for [command, address] in self.world.smmu.take() {
            let (asid, pasid) = (command >> 48 & 0xffff, command >> 12 & 0xf_ffff);
            let (mut descriptors, mut blocks) = (self.descriptors.borrow_mut(), self.blocks.borrow_mut());
            match command as u8 {
                0x05 => _ = descriptors.remove(&pasid),
                0x06 => descriptors.clear(),
                0x10 | 0x30 => blocks.clear(),
                0x11 => blocks.retain(|(of, _), _| *of != asid),
                0x12 => _ = blocks.remove(&(asid, address >> 30)),
                _ => {}
            }
        }
    }

    /// Where DMA with a PASID (0: without) goes; `None` is a fault.
    fn dma(&self, pasid: u64, iova: u64) -> Option<u64> {
        self.obey();
        let entry = *self.world.smmu.seen.lock().unwrap().attached.last()?;
        if entry >> 1 & 7 != 5 || pasid >= 1 << (entry >> 59) {
            return None;
        }
        let read = || {
            let place = (entry & 0x000f_ffff_ffff_ffc0) + 64 * pasid;
            let word = self.word(place);
            (word >> 31 & 1 != 0).then(|| (word >> 48, self.word(place + 8) & 0x000f_ffff_ffff_fff0))
        };
        let known = self.descriptors.borrow().get(&pasid).copied();
        let (asid, table) = known.or_else(read)?;
        self.descriptors.borrow_mut().insert(pasid, (asid, table));
        let known = self.blocks.borrow().get(&(asid, iova >> 30)).copied();
        let walk = || {
            let block = self.word(table + 8 * (iova >> 30));
            (block & 1 != 0).then_some(block & 0x000f_ffff_c000_0000)
        };
        let block = known.or_else(walk)?;
        self.blocks.borrow_mut().insert((asid, iova >> 30), block);
        Some(block | iova & (GIB - 1))
    }
}

/// A descriptor of PASID `pasid` behind [`CD_1`].
fn describe(world: &World, pasid: u64, asid: u64, table: Option<u64>) {
    let valid = if table.is_some() { 1 << 31 } else { 0 };
    let word = 25 | 1 << 30 | valid | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | asid << 48;
    put(&world.memory, CD_1 + 64 * pasid, &[word, table.unwrap_or(0), 0, 0, 0, 0, 0, 0]);
}

fn block(world: &World, table: u64, at: u64, to: u64) {
    put(&world.memory, table + 8 * at, &[to | 1 << 11 | 1 << 10 | 1 << 6 | 1]);
}

fn machine(world: &World) -> Machine {
    let shown = world.backend.guest_registers().to_vec();
    let machine = world.machine_with(ViommuConfig { registers: shown, ..guest::config(&world.memory) });
    for (pasid, table) in TABLES.into_iter().enumerate() {
        describe(world, pasid as u64, pasid as u64 + 1, Some(table));
        block(world, table, 0, RAM);
    }
    (2..4).for_each(|pasid| describe(world, pasid, 0, None));
    machine.guest.enable();
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1 | FOUR);
    machine
}

fn cfgi_cd(pasid: u64) -> [u64; 2] {
    [5 | pasid << 12 | u64::from(VIRT_ID) << 32, 1]
}

fn world() -> World {
    World::new(Smmu { ssid_bits: 8, ..Smmu::default() }, |options| options)
}

#[test]
fn each_pasid_is_translated_by_its_own_descriptor_until_the_guest_says_otherwise() {
    let world = world();
    let machine = machine(&world);
    let device = Device::new(&world);
    let send = |commands: &[[u64; 2]]| {
        machine.guest.send(&[commands, &[SYNC]].concat());
        assert!(machine.guest.all_taken());
    };
    assert_eq!([0, 1].map(|pasid| device.dma(pasid, 0x5000)), [Some(RAM + 0x5000); 2]);
    assert_eq!([2, 4].map(|pasid| device.dma(pasid, 0x5000)), [None; 2], "no descriptor; beyond S1CDMax");

    // One PASID's table changes: its ASID is invalidated, and no other.
    block(&world, TABLES[0], 0, 2 * GIB);
    block(&world, TABLES[1], 0, 3 * GIB);
    assert_eq!([0, 1].map(|pasid| device.dma(pasid, 0)), [Some(RAM); 2], "stale");
    send(&[[0x11 | 2 << 48, 0]]);
    assert_eq!([0, 1].map(|pasid| device.dma(pasid, 0)), [Some(RAM), Some(3 * GIB)]);
    send(&[[0x12 | 1 << 48, 0]]);
    assert_eq!(device.dma(0, 0), Some(2 * GIB));

    // A PASID is attached: nothing was cached of a descriptor that was not valid.
    describe(&world, 2, 3, Some(TABLES[1]));
    send(&[cfgi_cd(2)]);
    assert_eq!(device.dma(2, 0), Some(3 * GIB));
    // Replaced by other tables.
    describe(&world, 1, 1, Some(TABLES[0]));
    assert_eq!(device.dma(1, 0), Some(3 * GIB), "stale");
    send(&[cfgi_cd(1), [0x11 | 2 << 48, 0]]);
    assert_eq!([1, 2].map(|pasid| device.dma(pasid, 0)), [Some(2 * GIB), Some(3 * GIB)]);
    // Detached.
    describe(&world, 1, 0, None);
    assert_eq!(device.dma(1, 0), Some(2 * GIB), "stale");
    send(&[[6 | u64::from(VIRT_ID) << 32, 0]]);
    assert_eq!([0, 1, 2].map(|pasid| device.dma(pasid, 0)), [Some(2 * GIB), None, Some(3 * GIB)]);
}

#[test]
fn a_descriptor_behind_an_entry_that_is_announced_unchanged_is_read_anew() {
    let world = world();
    let machine = machine(&world);
    let device = Device::new(&world);
    assert_eq!(device.dma(1, 0), Some(RAM));
    describe(&world, 1, 7, None);
    assert_eq!(device.dma(1, 0), Some(RAM), "stale");
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1 | FOUR);
    assert_eq!((device.dma(0, 0), device.dma(1, 0)), (Some(RAM), None));
}

#[test]
fn a_device_without_a_name_has_no_descriptors_to_forget() {
    let world = world();
    let machine = machine(&world);
    world.smmu.take();
    let stranger = [5 | 1 << 12 | 99u64 << 32, 1];
    machine.guest.send(&[stranger, SYNC]);
    assert!(machine.guest.all_taken());
    assert_eq!(world.smmu.take(), [[0; 2]; 0], "the kernel would refuse it: nothing is sent");
    let _: &Guest = &machine.guest;
}
