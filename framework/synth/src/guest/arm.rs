//! A guest's SMMUv3 driver: linear stream table, one context descriptor a domain, range invalidations.

use super::queue::Queue;
use super::space::{Range, Space};
use super::{Attach, Domain, Driver, Machine};
use crate::draw::Draw;
use crate::memory::Memory;
use crate::tables::Format;
use crate::translate::arm::{Registers, translate};
use crate::translate::{Request, Verdict};
use viommu_trace::Role;

const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const CR1: u64 = 0x28;
const CR2: u64 = 0x2c;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;

/// Read-allocate and write-allocate hints of the base registers.
const HINT: u64 = 1 << 62;
/// CR0: SMMUEN, EVENTQEN, CMDQEN.
const SMMUEN: u64 = 1 << 0;
const EVENTQEN: u64 = 1 << 2;
const CMDQEN: u64 = 1 << 3;

/// CFGI_ALL, TLBI_NSNH_ALL, CMD_SYNC that wakes (CS 2).
const CFGI_ALL: [u64; 2] = [0x04, 0x1f];
const TLBI_ALL: [u64; 2] = [0x30, 0];
const SYNC: [u64; 2] = [0x46 | 2 << 12 | 3 << 22 | 0xf << 24, 0];

/// log2 of the entries of the stream table, and of the event queue.
const STREAMS_LOG2: u64 = 10;
const EVENTS_LOG2: u64 = 7;

/// What the guest was shown, and what it made of it.
pub(crate) struct Arm {
    /// IDR0, IDR1, IDR3, IDR5, IIDR by offset.
    id: [(u64, u64); 5],
    ranges: bool,
    queue: Queue,
    table: u64,
    control: u64,
}

impl Arm {
    /// The ID registers of the recorded guests, with ATS; range invalidations or not.
    pub(crate) fn new(memory: &mut Memory, draw: &mut Draw) -> Self {
        let ranges = draw.chance(70);
        let idr3 = if ranges { 0x1414 } else { 0x1014 };
        let id = [(0x00, 0xd44_141b), (0x04, 0x273_0010), (0x0c, idr3), (0x14, 0x74), (0x18, 0)];
        let queue = Queue::new(memory, 256, 2);
        let table = memory.run(64 << STREAMS_LOG2 >> 12, 64 << STREAMS_LOG2 >> 12, Role::STREAM_TABLE);
        Self { id, ranges, queue, table, control: 0 }
    }

    fn control(&mut self, machine: &mut Machine<'_>, bits: u64) {
        self.control |= bits;
        machine.bus.write(&mut machine.memory, CR0, 4, self.control);
        machine.bus.read(&mut machine.memory, CR0ACK, 4, self.control);
    }

    fn send(&mut self, machine: &mut Machine<'_>, command: [u64; 2]) {
        if self.queue.push(&mut machine.memory, &command) {
            self.doorbell(machine);
        }
    }

    fn doorbell(&mut self, machine: &mut Machine<'_>) {
        if self.queue.ring(&mut machine.draw) {
            // The bit above the index tells one round from the next.
            let tail = self.queue.tail % (2 * self.queue.entries);
            machine.bus.write(&mut machine.memory, CMDQ_PROD, 4, tail);
        }
    }

    /// STE: V, Config, CD pointer 51:6; S1DSS, cacheability and shareability, EATS 29:28, SHCFG 45:44.
    fn ste(&self, machine: &mut Machine<'_>, device: usize) -> [u64; 2] {
        let attributes = 0xd6;
        let ats = u64::from(machine.devices[device].ats) << 28;
        match machine.devices[device].attach {
            Attach::Domain(domain) => [1 | 5 << 1 | machine.domains[domain].pasids[0], attributes | ats],
            Attach::Bypass => [1 | 4 << 1, 1 << 44],
            Attach::Abort => [1, 0],
            Attach::Illegal => [0, 0],
        }
    }

    /// TLBI_NH_VA for a range: one command a run of pages, with the level of their leaves where it is known.
    fn pages(&mut self, machine: &mut Machine<'_>, asid: u16, range: &Range, leaf: bool) {
        let word0 = 0x12 | u64::from(asid) << 48;
        if !self.ranges {
            for page in (range.first..=range.last).step_by(4096) {
                self.send(machine, [word0, page | u64::from(leaf)]);
            }
            return;
        }
        // NUM + 1 times 2^SCALE pages; TG 4 KiB, no level hint.
        let mut pages = (range.last - range.first + 1) >> 12;
        let mut first = range.first;
        while pages > 0 {
            let scale = pages.trailing_zeros();
            let number = (pages >> scale) & 31;
            // A range of one page without anything else is not a range.
            let hint = u64::from(number == 1 && scale == 0 && leaf) * 3;
            let granule = if number == 1 && scale == 0 && !leaf { 0 } else { 1 << 10 };
            let word0 = word0 | (number - 1) << 12 | u64::from(scale) << 20;
            self.send(machine, [word0, first | granule | hint << 8 | u64::from(leaf)]);
            pages -= number << scale;
            first += number << scale << 12;
        }
    }

    /// ATC_INV for each device of a domain that has a cache: behind a wait for the TLB.
    fn device_caches(&mut self, machine: &mut Machine<'_>, domain: usize, range: Option<Range>) {
        let caches = machine.devices.iter().filter(|device| device.ats && device.attach == Attach::Domain(domain));
        let streams: Vec<u32> = caches.map(|device| device.stream).collect();
        if !streams.is_empty() {
            self.sync(machine);
        }
        streams.iter().for_each(|&stream| self.send(machine, atc_inv(stream, range)));
    }
}

/// ATC_INV: 2^Size pages around a range, or everything.
fn atc_inv(stream: u32, range: Option<Range>) -> [u64; 2] {
    let word0 = 0x40 | u64::from(stream) << 32;
    let pages = range.and_then(|range| {
        let size = (0..52).find(|size| range.first >> (12 + size) == range.last >> (12 + size))?;
        Some(range.first >> (12 + size) << (12 + size) | size)
    });
    [word0, pages.unwrap_or(52)]
}

impl Driver for Arm {
    fn start(&mut self, machine: &mut Machine<'_>) {
        machine.bus.reset();
        for (offset, value) in self.id {
            machine.bus.read(&mut machine.memory, offset, 4, value);
        }
        for device in 0..machine.devices.len() {
            let at = self.table + 64 * u64::from(machine.devices[device].stream);
            machine.memory.write(at, 1, Role::STREAM_TABLE);
        }
        let events = machine.memory.run(32 << EVENTS_LOG2 >> 12, 32 << EVENTS_LOG2 >> 12, Role::EVENT);
        self.control(machine, 0);
        machine.bus.write(&mut machine.memory, CR1, 4, 0xd75);
        machine.bus.write(&mut machine.memory, CR2, 4, 0x6);
        machine.bus.write(&mut machine.memory, STRTAB_BASE, 8, self.table | HINT);
        machine.bus.write(&mut machine.memory, STRTAB_BASE_CFG, 4, STREAMS_LOG2);
        let log2 = u64::from(self.queue.entries.trailing_zeros());
        machine.bus.write(&mut machine.memory, CMDQ_BASE, 8, self.queue.base | HINT | log2);
        machine.bus.write(&mut machine.memory, CMDQ_PROD, 4, 0);
        machine.bus.write(&mut machine.memory, CMDQ_CONS, 4, 0);
        self.control(machine, CMDQEN);
        self.send(machine, CFGI_ALL);
        self.sync(machine);
        self.send(machine, TLBI_ALL);
        self.sync(machine);
        machine.bus.write(&mut machine.memory, EVENTQ_BASE, 8, events | HINT | EVENTS_LOG2);
        machine.bus.write(&mut machine.memory, EVENTQ_PROD, 4, 0);
        machine.bus.write(&mut machine.memory, EVENTQ_CONS, 4, 0);
        self.control(machine, EVENTQEN);
        self.control(machine, SMMUEN);
    }

    fn domain(&mut self, machine: &mut Machine<'_>, number: u16) -> Domain {
        let Machine { draw, memory, limits, .. } = machine;
        let space = Space::new(memory, draw, Format::Arm, 4, 0, limits);
        // CD of a 48-bit space: T0SZ 16, EPD1, V, IPS 44 bits, AA64, R, A, ASET, ASID 63:48; TTB0; MAIR.
        let cd = memory.page(draw, Role::CONTEXT);
        let word0 = 0x0000_e204_c000_3510 | u64::from(number) << 48;
        for (at, word) in (cd..).step_by(8).zip([word0, space.table.root, 0, 0xffff_ffff_f404_ff44]) {
            memory.write(at, word, Role::CONTEXT);
        }
        Domain { number, spaces: vec![space], pasids: vec![cd], glx: 0 }
    }

    fn attachments(&self) -> &'static [Attach] {
        &[Attach::Bypass, Attach::Abort, Attach::Illegal]
    }

    fn attach(&mut self, machine: &mut Machine<'_>, device: usize) {
        let stream = machine.devices[device].stream;
        let at = self.table + 64 * u64::from(stream);
        let cfgi = [0x03 | u64::from(stream) << 32, 1];
        // In steps, as drivers do when a valid entry changes in more than one word: not valid in between.
        machine.memory.write(at, 1, Role::STREAM_TABLE);
        self.send(machine, cfgi);
        self.sync(machine);
        let words = self.ste(machine, device);
        machine.memory.write(at + 8, words[1], Role::STREAM_TABLE);
        machine.memory.write(at, words[0], Role::STREAM_TABLE);
        if let Attach::Domain(_) = machine.devices[device].attach {
            self.send(machine, [0x05 | u64::from(stream) << 32, 1]);
        }
        self.send(machine, cfgi);
        self.sync(machine);
        if machine.devices[device].ats {
            self.send(machine, atc_inv(stream, None));
        }
    }

    fn invalidate(&mut self, machine: &mut Machine<'_>, domain: usize) {
        let (number, space) = (machine.domains[domain].number, &machine.domains[domain].spaces[0]);
        let (ranges, tables) = (space.stale.ranges.clone(), !space.stale.tables.is_empty());
        if ranges.is_empty() {
            return;
        }
        let large = ranges.iter().any(|range| range.last - range.first >= 0x10_0000);
        if machine.draw.chance(15) || large && !self.ranges {
            self.send(machine, [0x11 | u64::from(number) << 48, 0]);
            self.device_caches(machine, domain, None);
            return;
        }
        ranges.iter().for_each(|range| self.pages(machine, number, range, !tables));
        ranges.iter().for_each(|&range| self.device_caches(machine, domain, Some(range)));
    }

    fn forget(&mut self, machine: &mut Machine<'_>, domain: usize) {
        self.send(machine, [0x11 | u64::from(machine.domains[domain].number) << 48, 0]);
    }

    fn forget_all(&mut self, machine: &mut Machine<'_>) -> bool {
        self.send(machine, TLBI_ALL);
        (0..machine.domains.len()).for_each(|domain| self.device_caches(machine, domain, None));
        true
    }

    fn sync(&mut self, machine: &mut Machine<'_>) {
        self.send(machine, SYNC);
        self.doorbell(machine);
    }

    fn expected(&self, memory: &Memory, request: &Request) -> Verdict {
        translate(
            &|gpa| memory.read(gpa),
            Registers { enabled: self.control & SMMUEN != 0, table: self.table },
            request,
        )
    }
}
