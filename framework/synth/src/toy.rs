//! A guest of the toy IOMMU (`examples/toy-iommu.md`), whose plugins are the examples of how to write one: a life of its
//! own, since nothing of this hardware is like the others', and a translator of twenty lines.

use crate::draw::Draw;
use crate::memory::{Memory, PAGE};
use crate::recorder::Bus;
use crate::translate::{ADDRESS, Leaf, READ, Request, Verdict, WRITE};
use viommu_trace::{Header, Role, Vendor};

/// The toy's code; private ones begin at 0x8000.
const VENDOR: Vendor = Vendor(0x8001);
const RAM: (u64, u64) = (0x4000_0000, 0x1000_0000);
/// Tables in the first part of RAM, what devices use in the rest.
const TABLES: u64 = 0x0100_0000;
const DATA: u64 = 0x0400_0000;

/// Registers (manual, 1).
const ID: u64 = 0x00;
const FEATURES: u64 = 0x08;
const CONTROL: u64 = 0x10;
const TABLE: u64 = 0x18;
const QUEUE: u64 = 0x20;
const TAIL: u64 = 0x28;
const HEAD: u64 = 0x30;

/// Events (manual, 4).
const NO_PAGE: u32 = 2;

const STREAMS: [(u32, &str); 5] = [(0x08, "edu"), (0x10, "disk"), (0x18, "net"), (0x20, "sound"), (0x300, "gpu")];
/// Page tables: fewer than devices, so that some share one.
const PAGE_TABLES: usize = 3;
const PAGES: u64 = 512;

/// What a device's entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Abort,
    Bypass,
    /// The page table of this index.
    Table(usize),
}

/// The guest, with its driver.
pub(crate) struct Toy {
    draw: Draw,
    memory: Memory,
    table: u64,
    queue: u64,
    flag: u64,
    tail: u64,
    on: bool,
    page_tables: [u64; PAGE_TABLES],
    entries: [Entry; STREAMS.len()],
}

/// The header of its recordings.
pub(crate) fn header() -> Header {
    let header = Header::new(VENDOR).ram(RAM.0, RAM.1).frame(0x0900_0000, 0x1000);
    STREAMS.into_iter().fold(header, |header, (stream, name)| header.device(name, stream))
}

impl Toy {
    /// A guest before it starts.
    pub(crate) fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let mut memory = Memory::new(RAM.0 + TABLES);
        let table = memory.run(32, 1, Role::STREAM_TABLE);
        let queue = memory.run(1, 1, Role::QUEUE);
        let flag = memory.run(1, 1, Role::STATUS);
        let page_tables = std::array::from_fn(|_| memory.page(&mut draw, Role::PAGE_TABLE));
        let entries = [Entry::Abort; STREAMS.len()];
        Self { draw, memory, table, queue, flag, tail: 0, on: false, page_tables, entries }
    }

    /// Lives for `steps` steps.
    pub(crate) fn live(mut self, bus: &mut dyn Bus, steps: u32) {
        bus.mark("toy guest: start");
        bus.read(&mut self.memory, ID, 8, 0x0179_6f74);
        bus.read(&mut self.memory, FEATURES, 8, 1);
        // Off, it passes everything.
        self.dma(bus, 0);
        bus.write(&mut self.memory, TABLE, 8, self.table);
        bus.write(&mut self.memory, QUEUE, 8, self.queue);
        bus.write(&mut self.memory, CONTROL, 4, 2);
        bus.write(&mut self.memory, CONTROL, 4, 3);
        self.on = true;
        for device in 0..STREAMS.len() {
            self.attach(bus, device, Entry::Table(device % PAGE_TABLES));
        }
        bus.mark("toy guest: work");
        for _ in 0..steps {
            let device = self.draw.index(STREAMS.len());
            match self.draw.below(20) {
                0 => {
                    let page_table = self.draw.index(PAGE_TABLES);
                    let entry =
                        self.draw.weighted(&[(6, Entry::Table(page_table)), (1, Entry::Abort), (1, Entry::Bypass)]);
                    self.attach(bus, device, entry);
                }
                1..=6 => self.change(bus),
                _ => (0..4).for_each(|_| self.dma(bus, device)),
            }
        }
        bus.read(&mut self.memory, HEAD, 8, self.tail % 256);
    }

    fn send(&mut self, command: [u64; 2]) {
        for (word, value) in (0..).zip(command) {
            self.memory.write(self.queue + self.tail % 256 * 16 + 8 * word, value, Role::QUEUE);
        }
        self.tail += 1;
    }

    /// Waits for what was sent; sometimes with a word stored.
    fn wait(&mut self, bus: &mut dyn Bus) {
        let command = if self.draw.chance(50) { [5 | 1 << 8, self.flag] } else { [5, 0] };
        self.send(command);
        bus.write(&mut self.memory, TAIL, 4, self.tail % 256);
        if command[1] != 0 {
            bus.store(Role::STATUS, self.flag, &1_u64.to_le_bytes());
        }
    }

    /// Gives a device another entry, and forgets what it cached.
    fn attach(&mut self, bus: &mut dyn Bus, device: usize, entry: Entry) {
        let stream = u64::from(STREAMS[device].0);
        let words = match entry {
            // Not valid, whatever else it says.
            Entry::Abort => [self.draw.pick(&[0, 2, 1 << 40]), 0],
            Entry::Bypass => [1, 0],
            Entry::Table(index) => [3, self.page_tables[index]],
        };
        for (word, value) in (0..).zip(words) {
            self.memory.write(self.table + 32 * stream + 8 * word, value, Role::STREAM_TABLE);
        }
        self.send([4 | stream << 32, 0]);
        self.wait(bus);
        self.send([3 | 1 << 8 | stream << 32, 0]);
        self.wait(bus);
        self.entries[device] = entry;
    }

    /// Changes a few pages of a table, tells of those that were there, and waits.
    fn change(&mut self, bus: &mut dyn Bus) {
        let index = self.draw.index(PAGE_TABLES);
        let mut gone = Vec::new();
        for _ in 0..=self.draw.below(6) {
            let page = self.draw.pick(&[3, 4, 5, 6, 7, 8, 255, 256, PAGES - 1]);
            let place = self.page_tables[index] + 8 * page;
            if self.memory.read(place) != Some(0) && !gone.contains(&page) {
                gone.push(page);
            }
            let target = RAM.0 + DATA + self.draw.below(0x4000) * PAGE;
            let to = if self.draw.chance(30) { 0 } else { target | 1 | self.draw.below(2) << 1 };
            self.memory.write(place, to, Role::PAGE_TABLE);
        }
        match (gone.is_empty(), self.draw.chance(20)) {
            (true, _) => return,
            (false, true) => self.send([2, 0]),
            (false, false) => gone.iter().for_each(|page| self.send([1, page * PAGE])),
        }
        self.wait(bus);
        let users = (0..STREAMS.len()).filter(|&device| self.entries[device] == Entry::Table(index));
        let users: Vec<u64> = users.map(|device| u64::from(STREAMS[device].0)).collect();
        for stream in users {
            gone.iter().for_each(|page| self.send([3 | stream << 32, page * PAGE]));
        }
        self.wait(bus);
    }

    fn dma(&mut self, bus: &mut dyn Bus, device: usize) {
        let page = self.draw.pick(&[3, 4, 5, 6, 7, 8, 255, 256, PAGES - 1, PAGES, PAGES + 3]);
        let iova = match self.entries[device] {
            Entry::Table(_) => page * PAGE + self.draw.below(PAGE),
            _ => RAM.0 + DATA + self.draw.below(0x1000_0000 - DATA),
        };
        let request = Request { stream: STREAMS[device].0, pasid: None, iova, access: self.draw.pick(&[READ, WRITE]) };
        let verdict = self.expected(&request);
        bus.dma(&mut self.memory, &request, &verdict);
    }

    /// What a correct IOMMU answers: from memory, every time.
    fn expected(&self, request: &Request) -> Verdict {
        let word = |place| self.memory.read(place).unwrap_or_default();
        let entry = self.table + 32 * u64::from(request.stream);
        if !self.on {
            return Verdict::disabled(request.iova);
        }
        match word(entry) & 3 {
            1 => Verdict::bypass(request.iova),
            3 if request.iova / PAGE >= PAGES => Verdict::fault(NO_PAGE),
            3 => {
                let leaf = word(word(entry + 8) + request.iova / PAGE * 8);
                let permissions = if leaf & 2 != 0 { READ | WRITE } else { READ };
                if leaf & 1 == 0 || request.access & !permissions != 0 {
                    return Verdict::fault(NO_PAGE);
                }
                Verdict::of(Leaf { address: leaf & ADDRESS, log2: 12, permissions }, request.iova)
            }
            _ => Verdict::abort(),
        }
    }
}
