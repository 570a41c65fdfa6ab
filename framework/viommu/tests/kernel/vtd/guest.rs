//! A guest with a VT-d unit: scalable mode with first-stage tables, or legacy mode with second-stage tables.

use crate::guest::RAM;
use crate::rig::{self, FIRST_ID, Machine, Rig};
use std::cell::Cell;
use std::time::Duration;
use viommu::plugin::Register;
use viommu::vm_memory::{Bytes, GuestAddress};

const ROOT: u64 = RAM + 0x1_0000;
const CONTEXT: u64 = RAM + 0x1_1000;
const UPPER_CONTEXT: u64 = RAM + 0x1_2000;
const STORE: u64 = RAM + 0x1_3000;
/// Two pages a device: PASID directory, PASID table.
const DIRECTORIES: u64 = RAM + 0x2_0000;
/// Five pages each: levels 4 to 1, and another of level 1.
const TABLES: u64 = RAM + 0x4_0000;
/// Where the pages are that tests map.
pub(crate) const PAGES: u64 = RAM + 0x10_0000;

// Registers, by their offsets in the frame; GCMD's bits.
const GCMD: u64 = 0x18;
const RTADDR: u64 = 0x20;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;
const TE: u64 = 1 << 31;
const SRTP: u64 = 1 << 30;
const QIE: u64 = 1 << 26;

pub(crate) struct Guest<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) machine: Machine,
    legacy: bool,
    tail: Cell<u64>,
    waits: Cell<u64>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(rig: &'a Rig) -> Self {
        Self::shown(rig, rig.backend.guest_registers().to_vec(), false)
    }

    /// A guest that was shown these registers.
    pub(crate) fn shown(rig: &'a Rig, registers: Vec<Register>, legacy: bool) -> Self {
        let machine = rig.machine(registers).unwrap();
        let guest = Self { rig, machine, legacy, tail: Cell::new(0), waits: Cell::new(0) };
        guest.put(ROOT, &[CONTEXT | 1, if legacy { 0 } else { UPPER_CONTEXT | 1 }]);
        guest.put(CONTEXT, &[0; 512]);
        if !legacy {
            for device in 0..rig.devices.len() as u64 {
                let directory = DIRECTORIES + 0x2000 * device;
                guest.put(CONTEXT + 32 * (u64::from(FIRST_ID) + device), &[directory | 1, 0, 0, 0]);
                guest.put(directory, &[(directory + 0x1000) | 1]);
                guest.put(directory + 0x1000, &[0; 8]);
            }
        }
        let (wide, scalable) = if legacy { (0, 0) } else { (1 << 11, 1 << 10) };
        for (at, size, value) in
            [(IQT, 4, 0), (IQA, 8, RAM | wide), (GCMD, 4, QIE), (RTADDR, 8, ROOT | scalable), (GCMD, 4, QIE | SRTP)]
        {
            guest.write(at, size, value);
        }
        let everything = if legacy { [1 | 1 << 4, 0] } else { [7 | 3 << 4, 0] };
        assert!(guest.send(&[everything, [2 | 1 << 4 | 3 << 6, 0]]));
        guest.write(GCMD, 4, QIE | TE);
        guest
    }

    pub(crate) fn translation(&self, on: bool) {
        self.write(GCMD, 4, QIE | if on { TE } else { 0 });
    }

    fn write(&self, at: u64, size: u32, value: u64) {
        self.machine.viommu.mmio_write(at, size, value).unwrap();
        assert!(self.machine.viommu.pipeline().wait_settled(Duration::from_secs(20)));
    }

    fn put(&self, gpa: u64, words: &[u64]) {
        rig::put(&self.rig.memory, gpa, words);
    }

    /// Makes tables number `table`: of levels 4 to 2, the first entries lead on.
    pub(crate) fn tables(&self, table: u64) -> u64 {
        let root = TABLES + 0x5000 * table;
        for level in 0..3 {
            self.put(root + 0x1000 * level, &[(root + 0x1000 * (level + 1)) | 0x27]);
        }
        root
    }

    /// Changes tables, and nothing else: what `iova`, below 2 MiB, leads to.
    pub(crate) fn map(&self, table: u64, iova: u64, page: Option<u64>) {
        self.put(TABLES + 0x5000 * table + 0x3000 + 8 * (iova >> 12), &[page.map_or(0, |page| page | 0x67)]);
    }

    /// The other table of level 1, in which `iova` leads to `page`, takes the place of the first.
    pub(crate) fn swap_lowest(&self, table: u64, iova: u64, page: u64) {
        let root = TABLES + 0x5000 * table;
        self.put(root + 0x4000 + 8 * (iova >> 12), &[page | 0x67]);
        self.put(root + 0x2000, &[(root + 0x4000) | 0x27]);
    }

    /// Writes what is said of a device, and does not announce it: translated by these tables in a domain.
    pub(crate) fn translated(&self, device: u64, table: u64, domain: u16) {
        let root = self.tables(table);
        if self.legacy {
            self.entry(device, [root | 1, 2 | u64::from(domain) << 8, 0]);
        } else {
            self.entry(device, [1 | 1 << 6, domain.into(), root]);
        }
    }

    /// The first words of its PASID table entry, or its legacy context entry.
    pub(crate) fn entry(&self, device: u64, words: [u64; 3]) {
        if self.legacy {
            self.put(CONTEXT + 16 * (u64::from(FIRST_ID) + device), &words[..2]);
        } else {
            self.put(DIRECTORIES + 0x2000 * device + 0x1000, &words);
        }
    }

    /// Sends descriptors and a wait that stores; whether the store came.
    pub(crate) fn send(&self, descriptors: &[[u64; 2]]) -> bool {
        self.waits.set(self.waits.get() + 1);
        let wait = [5 | 1 << 5 | 1 << 6 | self.waits.get() << 32, STORE];
        let shift = if self.legacy { 4 } else { 5 };
        for descriptor in descriptors.iter().chain([&wait]) {
            self.put(RAM + (self.tail.get() << shift), &[descriptor[0], descriptor[1], 0, 0][..1 << (shift - 3)]);
            self.tail.set((self.tail.get() + 1) % (0x1000 >> shift));
        }
        let viommu = &self.machine.viommu;
        drop(viommu.mmio_write(IQT, 4, self.tail.get() << shift));
        assert!(viommu.pipeline().wait_settled(Duration::from_secs(20)), "the guest's queue does not settle");
        u32::from_le(self.rig.memory.read_obj(GuestAddress(STORE)).unwrap()) == self.waits.get() as u32
    }

    /// Announces the entries of a domain's devices: PASID cache and IOTLB, or context cache and IOTLB.
    pub(crate) fn announce(&self, device: u64, domain: u16) -> bool {
        let domain = u64::from(domain) << 16;
        if self.legacy {
            let source = (u64::from(FIRST_ID) + device) << 32;
            return self.send(&[[1 | 3 << 4 | domain | source, 0], [2 | 2 << 4 | 3 << 6 | domain, 0]]);
        }
        self.send(&[[7 | 1 << 4 | domain, 0], [6 | 2 << 4 | domain, 0]])
    }
}

/// PASID-based IOTLB invalidation of one page of a domain, with the hint that only leaves changed or without.
pub(crate) fn page(domain: u16, iova: u64, leaves: bool) -> [u64; 2] {
    [6 | 3 << 4 | u64::from(domain) << 16, iova | u64::from(leaves) << 6]
}

/// All of a domain.
pub(crate) fn all(domain: u16) -> [u64; 2] {
    [6 | 2 << 4 | u64::from(domain) << 16, 0]
}

/// The same in legacy mode, of one page.
pub(crate) fn legacy_page(domain: u16, iova: u64) -> [u64; 2] {
    [2 | 3 << 4 | 3 << 6 | u64::from(domain) << 16, iova]
}
