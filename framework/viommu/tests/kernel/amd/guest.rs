//! A guest with an AMD IOMMU in its own (v1) tables, as Linux drives one that caches what is not present.

use crate::guest::RAM;
use crate::rig::{self, FIRST_ID, Machine, Rig};
use std::cell::Cell;
use std::time::Duration;
use viommu::plugin::Register;
use viommu::vm_memory::{Bytes, GuestAddress};

const DEVICE_TABLE: u64 = RAM + 0x1_0000;
const STORE: u64 = RAM + 0x2_0000;
/// Three pages a domain: levels 3 to 1.
const TABLES: u64 = RAM + 0x4_0000;
/// Where the pages are that tests map.
pub(crate) const PAGES: u64 = RAM + 0x10_0000;

// Registers, by their offsets in the frame.
const DEVICE_TABLE_BASE: u64 = 0x0;
const COMMAND_BASE: u64 = 0x8;
const CONTROL: u64 = 0x18;
const COMMAND_TAIL: u64 = 0x2008;
/// IommuEn, CmdBufEn.
const ON: u64 = 1 | 1 << 12;

/// IR, IW.
const RW: u64 = 3 << 61;

pub(crate) struct Guest<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) machine: Machine,
    tail: Cell<u64>,
    waits: Cell<u64>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(rig: &'a Rig) -> Self {
        Self::shown(rig, rig.backend.guest_registers().to_vec())
    }

    /// A guest that was shown these registers.
    pub(crate) fn shown(rig: &'a Rig, registers: Vec<Register>) -> Self {
        let machine = rig.machine(registers).unwrap();
        let guest = Self { rig, machine, tail: Cell::new(0), waits: Cell::new(0) };
        for (at, value) in
            [(DEVICE_TABLE_BASE, DEVICE_TABLE), (COMMAND_BASE, RAM | 8 << 56), (COMMAND_TAIL, 0), (CONTROL, ON)]
        {
            guest.machine.viommu.mmio_write(at, 8, value).unwrap();
        }
        guest
    }

    /// A guest that is up already.
    pub(crate) fn goes_on(rig: &'a Rig, machine: Machine, tail: u64, waits: u64) -> Self {
        Self { rig, machine, tail: Cell::new(tail), waits: Cell::new(waits) }
    }

    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.tail.get(), self.waits.get())
    }

    pub(crate) fn put(&self, gpa: u64, words: &[u64]) {
        rig::put(&self.rig.memory, gpa, words);
    }

    /// Writes a device's entry, in memory and nowhere else: translated in a domain.
    pub(crate) fn translated(&self, device: u32, domain: u16) {
        self.entry(device, [3 | 3 << 9 | root(domain) | RW, domain.into()]);
        for level in [2, 1] {
            let table = root(domain) + 0x1000 * (3 - level);
            self.put(table - 0x1000, &[1 | level << 9 | table | RW]);
        }
    }

    pub(crate) fn entry(&self, device: u32, words: [u64; 2]) {
        self.put(DEVICE_TABLE + 32 * u64::from(FIRST_ID + device), &[words[0], words[1], 0, 0]);
    }

    /// Changes a domain's page table, and nothing else: what `iova`, below 2 MiB, leads to.
    pub(crate) fn map(&self, domain: u16, iova: u64, page: Option<u64>) {
        self.leaf(domain, iova, page.map_or(0, |page| 1 | page | RW));
    }

    pub(crate) fn map_read_only(&self, domain: u16, iova: u64, page: u64) {
        self.leaf(domain, iova, 1 | page | 1 << 61);
    }

    pub(crate) fn leaf(&self, domain: u16, iova: u64, entry: u64) {
        self.put(root(domain) + 0x2000 + 8 * (iova >> 12), &[entry]);
    }

    /// Entry `index` of the table of level 3 or 2.
    pub(crate) fn upper(&self, domain: u16, level: u64, index: u64, entry: u64) {
        self.put(root(domain) + 0x1000 * (3 - level) + 8 * index, &[entry]);
    }

    /// Sends commands and a COMPLETION_WAIT that stores; whether the store came.
    pub(crate) fn send(&self, commands: &[[u64; 2]]) -> bool {
        self.waits.set(self.waits.get() + 1);
        let wait = [1 << 60 | STORE | 1, self.waits.get()];
        for command in commands.iter().chain([&wait]) {
            self.put(RAM + 16 * self.tail.get(), command);
            self.tail.set((self.tail.get() + 1) % 256);
        }
        let viommu = &self.machine.viommu;
        drop(viommu.mmio_write(COMMAND_TAIL, 8, self.tail.get() << 4));
        assert!(viommu.pipeline().wait_settled(Duration::from_secs(20)), "the guest's queue does not settle");
        u64::from_le(self.rig.memory.read_obj(GuestAddress(STORE)).unwrap()) == self.waits.get()
    }

    /// Announces a device's entry.
    pub(crate) fn announce(&self, device: u32) -> bool {
        self.send(&[[2 << 60 | u64::from(FIRST_ID + device), 0]])
    }

    /// Where the device's access goes.
    pub(crate) fn dma(&self, device: usize, iova: u64) -> Option<u64> {
        self.rig.reach(device, iova).map(|(gpa, _)| gpa)
    }
}

fn root(domain: u16) -> u64 {
    TABLES + 0x3000 * u64::from(domain)
}

/// The first level-1 table's address of a domain.
pub(crate) fn table(domain: u16, level: u64) -> u64 {
    root(domain) + 0x1000 * (3 - level)
}

/// INVALIDATE_IOMMU_PAGES of one page.
pub(crate) fn page(domain: u16, iova: u64) -> [u64; 2] {
    [3 << 60 | u64::from(domain) << 32, iova]
}

/// INVALIDATE_IOMMU_PAGES of all of a domain: S, PDE.
pub(crate) fn all(domain: u16) -> [u64; 2] {
    [3 << 60 | u64::from(domain) << 32, 0x7fff_ffff_ffff_f000 | 3]
}

/// INVALIDATE_IOTLB_PAGES of everything a device caches.
pub(crate) fn device_cache(device: u32) -> [u64; 2] {
    let device = u64::from(FIRST_ID + device);
    [4 << 60 | device | device << 32, 0x7fff_ffff_ffff_f001]
}
