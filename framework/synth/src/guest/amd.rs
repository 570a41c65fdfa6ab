//! A guest's AMD-Vi driver: the register sequence and order of commands that Linux has, with guest tables ("v2") or host
//! tables ("v1").

use super::amd_commands::{
    INVALIDATE_IOMMU_ALL, completion_wait, invalidate_devtab_entry, invalidate_iommu_pages, invalidate_iotlb_pages,
};
use super::queue::Queue;
use super::size::Size;
use super::space::{Range, Space};
use super::{Attach, Domain, Driver, Machine};
use crate::memory::Memory;
use crate::tables::Format;
use crate::translate::amd::{Registers, translate};
use crate::translate::{Request, Verdict};
use viommu_trace::Role;

const DEVICE_TABLE: u64 = 0x00;
const COMMAND_BASE: u64 = 0x08;
const EVENT_BASE: u64 = 0x10;
const CONTROL: u64 = 0x18;
const EFR: u64 = 0x30;
const EFR2: u64 = 0x1a0;
const COMMAND_HEAD: u64 = 0x2000;
const COMMAND_TAIL: u64 = 0x2008;
const EVENT_HEAD: u64 = 0x2010;
const EVENT_TAIL: u64 = 0x2018;

/// Entries of the device table: DeviceIDs below 0x400.
const DEVICES: u64 = 0x400;
/// The DTE bits that are set in a valid entry that translates: V, TV, IR, IW.
const VALID: u64 = 0b11 | 3 << 61;

/// What the guest was shown, and what it made of it.
pub(crate) struct Amd {
    /// Guest tables; otherwise host tables.
    pub(crate) guest_tables: bool,
    pub(crate) efr: u64,
    pub(crate) efr2: u64,
    /// Levels of page tables there are.
    pub(crate) levels: &'static [u8],
    /// Most levels of GCR3 tables less one.
    pub(crate) glx: u8,
    queue: Queue,
    table: u64,
    control: u64,
    semaphore: u64,
    waits: u64,
}

impl Amd {
    /// A driver with its queue and tables in memory, nothing of it known to the IOMMU.
    pub(crate) fn new(memory: &mut Memory, guest_tables: bool, efr: u64, efr2: u64, levels: &'static [u8]) -> Self {
        let queue = Queue::new(memory, 512, 2);
        let table = memory.run(DEVICES * 32 / 4096, 8, Role::STREAM_TABLE);
        let semaphore = memory.run(1, 1, Role::STATUS);
        let glx = (efr >> 14 & 3) as u8;
        Self { guest_tables, efr, efr2, levels, glx, queue, table, control: 0, semaphore, waits: 0 }
    }

    /// CONTROL is read, changed and written for every bit, as Linux does.
    fn enable(&mut self, machine: &mut Machine<'_>, bits: u64) {
        machine.bus.read(&mut machine.memory, CONTROL, 8, self.control);
        self.control |= bits;
        machine.bus.write(&mut machine.memory, CONTROL, 8, self.control);
    }

    fn halves(machine: &mut Machine<'_>, offset: u64, value: u64) {
        machine.bus.write(&mut machine.memory, offset, 4, value & 0xffff_ffff);
        machine.bus.write(&mut machine.memory, offset + 4, 4, value >> 32);
    }

    fn send(&mut self, machine: &mut Machine<'_>, command: [u64; 2]) {
        if self.queue.push(&mut machine.memory, &command) {
            self.doorbell(machine);
        }
    }

    fn doorbell(&mut self, machine: &mut Machine<'_>) {
        if self.queue.ring(&mut machine.draw) {
            let tail = self.queue.tail % self.queue.entries * 16;
            machine.bus.write(&mut machine.memory, COMMAND_TAIL, 4, tail);
            for (address, bytes) in self.queue.stores.drain(..) {
                machine.bus.store(Role::STATUS, address, &bytes);
            }
        }
    }

    fn devtab(&mut self, machine: &mut Machine<'_>, stream: u32, words: [u64; 3]) {
        for (word, value) in (0..).zip(words) {
            machine.memory.write(self.table + 32 * u64::from(stream) + 8 * word, value, Role::STREAM_TABLE);
        }
        self.send(machine, invalidate_devtab_entry(stream));
    }

    /// The table entry for an attachment, with an interrupt part that is none of the translation's business.
    fn entry(&self, machine: &mut Machine<'_>, device: usize) -> [u64; 3] {
        let Machine { draw, domains, devices, .. } = machine;
        let interrupts = draw.pick(&[0, 1, 1 | 9 << 1 | 0x7f_f000 | 2 << 60, 3 << 56]);
        let ats = u64::from(devices[device].ats) << 32;
        match devices[device].attach {
            Attach::Domain(domain) => {
                let Domain { number, spaces, pasids, glx } = &domains[domain];
                let table = &spaces[0].table;
                if !self.guest_tables {
                    let word0 = VALID | u64::from(table.levels) << 9 | table.root;
                    return [word0, u64::from(*number) | ats, interrupts];
                }
                let gcr3 = pasids[0];
                let word0 = VALID | 1 << 54 | 1 << 55 | u64::from(*glx) << 56 | (gcr3 >> 12 & 7) << 58;
                let word1 = u64::from(*number) | ats | (gcr3 >> 15 & 0xffff) << 16 | gcr3 >> 31 << 43;
                [word0, word1, interrupts | u64::from(table.levels == 5) << 54]
            }
            Attach::Bypass => {
                // Not valid, whatever else it says; or valid and without tables, in a domain of its own.
                let word0 = draw.pick(&[0, 0x55_5000, VALID]);
                [word0, if word0 == VALID { (100 + device as u64) | ats } else { 0 }, interrupts]
            }
            // As Linux blocks a device; the rest of the entry does not count.
            Attach::Abort => [draw.pick(&[1, 1 | 3 << 61, 1 | 4 << 9 | 0x1000]), 100 + device as u64, interrupts],
            Attach::Illegal => {
                let guest = VALID | 3 << 54 | 1 << 58;
                let (word0, paging) = match self.guest_tables {
                    true => draw.pick(&[(VALID | 7 << 9 | 0x1000, 0), (guest | 3 << 56, 0), (guest, 2), (guest, 3)]),
                    false => (VALID | 7 << 9 | 0x1000, 0),
                };
                [word0, 200 + device as u64, interrupts | paging << 54]
            }
        }
    }

    /// What a device's own cache has to forget, for each device of a domain that has one.
    fn device_caches(&mut self, machine: &mut Machine<'_>, domain: usize, pasid: u32, size: Size) {
        let caches = machine.devices.iter().filter(|device| device.ats && device.attach == Attach::Domain(domain));
        let streams: Vec<u32> = caches.map(|device| device.stream).collect();
        let pasid = self.guest_tables.then_some(pasid);
        streams.iter().for_each(|&stream| self.send(machine, invalidate_iotlb_pages(stream, pasid, size)));
    }
}

impl Driver for Amd {
    fn start(&mut self, machine: &mut Machine<'_>) {
        for device in 0..machine.devices.len() {
            let at = self.table + 32 * u64::from(machine.devices[device].stream);
            machine.memory.write(at, 3, Role::STREAM_TABLE);
        }
        for bits in [1 << 1, 1 << 10, 1 << 7] {
            self.enable(machine, bits);
        }
        Self::halves(machine, DEVICE_TABLE, self.table | (DEVICES * 32 / 4096 - 1));
        Self::halves(machine, COMMAND_BASE, self.queue.base | 9 << 56);
        self.enable(machine, 0);
        machine.bus.write(&mut machine.memory, COMMAND_HEAD, 4, 0);
        machine.bus.write(&mut machine.memory, COMMAND_TAIL, 4, 0);
        self.enable(machine, 1 << 12);
        if self.guest_tables {
            self.enable(machine, 1 << 16 | 1 << 58);
        }
        self.enable(machine, 1);
        self.send(machine, INVALIDATE_IOMMU_ALL);
        self.sync(machine);
        let events = machine.memory.run(2, 2, Role::EVENT);
        Self::halves(machine, EVENT_BASE, events | 9 << 56);
        machine.bus.write(&mut machine.memory, EVENT_HEAD, 4, 0);
        machine.bus.write(&mut machine.memory, EVENT_TAIL, 4, 0);
        self.enable(machine, 1 << 2);
        machine.bus.read(&mut machine.memory, EFR, 8, self.efr);
        machine.bus.read(&mut machine.memory, EFR2, 8, self.efr2);
    }

    fn domain(&mut self, machine: &mut Machine<'_>, number: u16) -> Domain {
        let Machine { draw, memory, limits, .. } = machine;
        let levels = draw.pick(self.levels);
        if !self.guest_tables {
            let space = Space::new(memory, draw, Format::AmdHost, levels, 0, limits);
            return Domain { number, spaces: vec![space], pasids: Vec::new(), glx: 0 };
        }
        let glx = draw.below(u64::from(self.glx) + 1) as u8;
        let mut pasids = vec![memory.page(draw, Role::CONTEXT)];
        let others = (0..draw.pick(&[0, 0, 1, 2])).map(|_| 1 + draw.below((1 << (9 * (glx + 1)).min(16)) - 1) as u32);
        let mut numbers: Vec<u32> = std::iter::once(0).chain(others).collect();
        numbers.dedup();
        let mut spaces = Vec::new();
        for pasid in numbers {
            let space = Space::new(memory, draw, Format::AmdGuest, levels, pasid, limits);
            let mut table = pasids[0];
            for level in (0..=glx).rev() {
                let at = table + 8 * (u64::from(pasid) >> (9 * level) & 511);
                if level == 0 {
                    memory.write(at, space.table.root | 1, Role::CONTEXT);
                } else if memory.read(at) == Some(0) {
                    table = memory.page(draw, Role::CONTEXT);
                    pasids.push(table);
                    memory.write(at, table | 1, Role::CONTEXT);
                } else {
                    table = memory.read(at).unwrap_or_default() & !0xfff;
                }
            }
            spaces.push(space);
        }
        Domain { number, spaces, pasids, glx }
    }

    fn attachments(&self) -> &'static [Attach] {
        &[Attach::Bypass, Attach::Abort, Attach::Illegal]
    }

    fn attach(&mut self, machine: &mut Machine<'_>, device: usize) {
        let stream = machine.devices[device].stream;
        if machine.draw.chance(30) {
            // In two steps, as between tables of different levels.
            self.devtab(machine, stream, [1, 0, 0]);
            self.sync(machine);
        }
        let words = self.entry(machine, device);
        self.devtab(machine, stream, words);
        if machine.devices[device].ats {
            let spaces = machine.domains.iter().flat_map(|domain| &domain.spaces);
            let mut pasids: Vec<u32> = spaces.map(|space| space.pasid).filter(|_| self.guest_tables).collect();
            pasids.sort_unstable();
            pasids.dedup();
            for pasid in pasids {
                self.send(machine, invalidate_iotlb_pages(stream, Some(pasid), Size::ALL));
            }
            self.send(machine, invalidate_iotlb_pages(stream, None, Size::ALL));
        }
    }

    fn invalidate(&mut self, machine: &mut Machine<'_>, domain: usize) {
        let number = machine.domains[domain].number;
        for index in 0..machine.domains[domain].spaces.len() {
            let space = &machine.domains[domain].spaces[index];
            let (ranges, pasid) = (space.stale.ranges.clone(), space.pasid);
            let tables = !space.stale.tables.is_empty() || machine.draw.chance(20);
            if ranges.is_empty() {
                continue;
            }
            let gn = self.guest_tables.then_some(pasid);
            let sizes = match machine.draw.below(10) {
                // With GN = 0 and everything: guest tables too.
                0 if self.guest_tables => {
                    self.send(machine, invalidate_iommu_pages(number, None, true, Size::ALL));
                    vec![Size::ALL]
                }
                0 | 1 => vec![Size::ALL],
                2 | 3 => {
                    let first = ranges.iter().map(|range| range.first).min().unwrap_or(0);
                    vec![Size::covering(first, ranges.iter().map(|range| range.last).max().unwrap_or(u64::MAX))]
                }
                4 if ranges.iter().all(|range| range.last - range.first < 0x8000) => {
                    let pages = |range: &Range| (range.first..=range.last).step_by(4096);
                    ranges.iter().flat_map(pages).map(|page| Size::covering(page, page)).collect()
                }
                _ => ranges.iter().map(|range| Size::covering(range.first, range.last)).collect(),
            };
            for &size in &sizes {
                self.send(machine, invalidate_iommu_pages(number, gn, tables, size));
            }
            for size in sizes {
                self.device_caches(machine, domain, pasid, size);
            }
        }
    }

    fn forget(&mut self, machine: &mut Machine<'_>, domain: usize) {
        let number = machine.domains[domain].number;
        if self.guest_tables {
            let pasids: Vec<u32> = machine.domains[domain].spaces.iter().map(|space| space.pasid).collect();
            for pasid in pasids {
                self.send(machine, invalidate_iommu_pages(number, Some(pasid), true, Size::ALL));
            }
        }
        self.send(machine, invalidate_iommu_pages(number, None, true, Size::ALL));
    }

    fn forget_all(&mut self, machine: &mut Machine<'_>) -> bool {
        self.send(machine, INVALIDATE_IOMMU_ALL);
        for domain in 0..machine.domains.len() {
            for space in 0..machine.domains[domain].spaces.len() {
                let pasid = machine.domains[domain].spaces[space].pasid;
                self.device_caches(machine, domain, pasid, Size::ALL);
            }
        }
        true
    }

    fn sync(&mut self, machine: &mut Machine<'_>) {
        self.waits += 1;
        let value = self.waits;
        self.queue.stores.push((self.semaphore, value.to_le_bytes().to_vec()));
        self.send(machine, completion_wait(self.semaphore, value));
        self.doorbell(machine);
    }

    fn expected(&self, memory: &Memory, request: &Request) -> Verdict {
        let registers = Registers { enabled: self.control & 1 == 1, table: self.table };
        translate(&|gpa| memory.read(gpa), registers, request)
    }
}
