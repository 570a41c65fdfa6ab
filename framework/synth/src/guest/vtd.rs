//! A guest's VT-d driver in legacy mode with second-stage tables, or in scalable mode with first-stage tables, with
//! Caching Mode shown: entries that were not present are announced too.

use super::queue::Queue;
use super::size::Size;
use super::space::{Range, Space};
use super::vtd_descriptors::*;
use super::{Attach, Domain, Driver, Machine};
use crate::draw::Draw;
use crate::memory::Memory;
use crate::tables::Format;
use crate::translate::vtd::{Registers, translate};
use crate::translate::{Request, Verdict};
use viommu_trace::Role;

const VERSION: u64 = 0x00;
const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;
const GCMD: u64 = 0x18;
const GSTS: u64 = 0x1c;
const RTADDR: u64 = 0x20;
const FSTS: u64 = 0x34;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;

/// GCMD and GSTS: translation, root table pointer, queued invalidation.
const TE: u64 = 1 << 31;
const RTP: u64 = 1 << 30;
const QIE: u64 = 1 << 26;

/// CAP.CM: Caching Mode.
const CACHING_MODE: u64 = 1 << 7;
/// CAP.FL5LP: first-stage tables of five levels.
const FIVE_LEVELS: u64 = 1 << 60;
/// ECAP.DT: device-TLBs.
const DEVICE_TLB: u64 = 1 << 2;
/// CAP.MAMV: the largest page-selective invalidation, 2^18 pages.
const MOST_PAGES: u8 = 18;
/// The domain-id of untranslated devices.
const UNTRANSLATED: u16 = 1;
/// The PASID of requests without one.
const RID_PASID: u32 = 0;

/// What the guest was shown, and what it made of it.
pub(crate) struct Vtd {
    scalable: bool,
    cap: u64,
    ecap: u64,
    /// Levels of page tables there are.
    levels: &'static [u8],
    queue: Queue,
    root: u64,
    status: u64,
    semaphore: u64,
    waits: u32,
}

impl Vtd {
    /// Scalable mode: CAP and ECAP as the recorded guests were shown them, with Caching Mode and device-TLBs.
    pub(crate) fn scalable(memory: &mut Memory, draw: &mut Draw) -> Self {
        let five = draw.chance(50);
        let cap = 0x81d2_008c_222f_0606 & !FIVE_LEVELS | CACHING_MODE | if five { FIVE_LEVELS } else { 0 };
        Self::new(memory, true, cap, 0x8800_00f0_0f4a | DEVICE_TLB, if five { &[4, 5] } else { &[4] })
    }

    /// Legacy mode, likewise.
    pub(crate) fn legacy(memory: &mut Memory) -> Self {
        let cap = 0x80d2_008c_222f_0606 | CACHING_MODE;
        Self::new(memory, false, cap, 0xf0_0f4a | DEVICE_TLB, &[3, 4])
    }

    fn new(memory: &mut Memory, scalable: bool, cap: u64, ecap: u64, levels: &'static [u8]) -> Self {
        let queue = Queue::new(memory, 256, if scalable { 4 } else { 2 });
        let root = memory.run(1, 1, Role::STREAM_TABLE);
        let semaphore = memory.run(1, 1, Role::STATUS);
        Self { scalable, cap, ecap, levels, queue, root, status: 0, semaphore, waits: 0 }
    }

    fn command(&mut self, machine: &mut Machine<'_>, bit: u64) {
        // RTP is a command, not a state: it is not written again.
        machine.bus.write(&mut machine.memory, GCMD, 4, self.status & !RTP | bit);
        self.status |= bit;
        machine.bus.read(&mut machine.memory, GSTS, 4, self.status);
    }

    fn send(&mut self, machine: &mut Machine<'_>, descriptor: [u64; 2]) {
        if self.queue.push(&mut machine.memory, &descriptor) {
            self.doorbell(machine);
        }
    }

    fn doorbell(&mut self, machine: &mut Machine<'_>) {
        if self.queue.ring(&mut machine.draw) {
            let tail = self.queue.tail % self.queue.entries * self.queue.words * 8;
            machine.bus.write(&mut machine.memory, IQT, 4, tail);
            for (address, bytes) in self.queue.stores.drain(..) {
                machine.bus.store(Role::STATUS, address, &bytes);
            }
        }
    }

    /// Address of a device's context entry; its table is made when it is first asked for.
    fn context(&self, machine: &mut Machine<'_>, stream: u32) -> u64 {
        let (bus, function) = (u64::from(stream >> 8), u64::from(stream & 0xff));
        let half = if self.scalable { 8 * (function >> 7) } else { 0 };
        let at = self.root + 16 * bus + half;
        if machine.memory.read(at) == Some(0) {
            let table = machine.memory.run(1, 1, Role::STREAM_TABLE);
            machine.memory.write(at, table | 1, Role::STREAM_TABLE);
        }
        let table = machine.memory.read(at).unwrap_or_default() & !0xfff;
        table + if self.scalable { 32 * (function & 0x7f) } else { 16 * function }
    }

    /// Address of a device's PASID table entry; the way there is made when it is first asked for.
    fn pasid_entry(&self, machine: &mut Machine<'_>, device: usize) -> u64 {
        let context = self.context(machine, machine.devices[device].stream);
        if machine.memory.read(context) == Some(0) {
            let (directory, table) = (machine.memory.run(1, 1, Role::CONTEXT), machine.memory.run(1, 1, Role::CONTEXT));
            machine.memory.write(directory, table | 1, Role::CONTEXT);
            let device_tlb = u64::from(machine.devices[device].ats) << 2;
            machine.memory.write(context + 8, u64::from(RID_PASID), Role::STREAM_TABLE);
            machine.memory.write(context, directory | device_tlb | 1, Role::STREAM_TABLE);
        }
        let directory = machine.memory.read(context).unwrap_or_default() & !0xfff;
        (machine.memory.read(directory).unwrap_or_default() & !0xfff) + 64 * u64::from(RID_PASID)
    }

    /// Address and words of the entry that decides over a device, and the domain-id in it.
    fn entry(&self, machine: &mut Machine<'_>, device: usize) -> (u64, [u64; 3], u16) {
        let (stream, ats) = (machine.devices[device].stream, u64::from(machine.devices[device].ats));
        let attach = machine.devices[device].attach;
        let domain = match attach {
            Attach::Domain(domain) => {
                machine.domains.get(domain).map(|domain| (domain.number, &domain.spaces[0].table))
            }
            _ => None,
        };
        let domain = domain.map(|(number, table)| (number, table.root, u64::from(table.levels)));
        match (self.scalable, domain, attach) {
            (true, Some((number, root, levels)), _) => {
                let words = [1 | 1 << 6, u64::from(number), root | (levels - 4) << 2];
                (self.pasid_entry(machine, device), words, number)
            }
            (true, None, Attach::Bypass) => {
                (self.pasid_entry(machine, device), [1 | 2 << 2 | 4 << 6, u64::from(UNTRANSLATED), 0], UNTRANSLATED)
            }
            (true, None, _) => (self.pasid_entry(machine, device), [0; 3], 0),
            (false, Some((number, root, levels)), _) => {
                let words = [root | ats << 2 | 1, (levels - 2) | u64::from(number) << 8, 0];
                (self.context(machine, stream), words, number)
            }
            (false, None, Attach::Bypass) => {
                (self.context(machine, stream), [1 | 2 << 2, 2 | u64::from(UNTRANSLATED) << 8, 0], UNTRANSLATED)
            }
            (false, None, _) => (self.context(machine, stream), [0; 3], 0),
        }
    }

    /// The domain-id that an entry has in memory; 0 if it is not present.
    fn number_in(&self, memory: &Memory, at: u64) -> u16 {
        let word = |at: u64| memory.read(at).unwrap_or_default();
        match (word(at) & 1, self.scalable) {
            (0, _) => 0,
            (_, true) => word(at + 8) as u16,
            (_, false) => (word(at + 8) >> 8) as u16,
        }
    }

    /// Writes the entry that decides over a device. A legacy context entry has two words; a third were the next device's.
    fn write(&self, machine: &mut Machine<'_>, at: u64, words: [u64; 3]) {
        let (role, length) = if self.scalable { (Role::CONTEXT, 3) } else { (Role::STREAM_TABLE, 2) };
        for (at, &word) in (at..).step_by(8).zip(&words[..length]) {
            machine.memory.write(at, word, role);
        }
    }

    /// What the caches of a domain's devices have to forget: behind a wait for what the IOMMU has to.
    fn device_tlbs(&mut self, machine: &mut Machine<'_>, domain: usize, sizes: &[Size]) {
        let caches = machine.devices.iter().filter(|device| device.ats && device.attach == Attach::Domain(domain));
        let streams: Vec<u32> = caches.map(|device| device.stream).collect();
        if !streams.is_empty() {
            self.sync(machine);
        }
        for stream in streams {
            sizes.iter().for_each(|&size| self.send(machine, device_tlb(stream, size)));
        }
    }

    /// Tells the IOMMU that an entry which had this domain-id changed.
    fn announce(&mut self, machine: &mut Machine<'_>, stream: u32, number: u16) {
        if !self.scalable {
            self.send(machine, context_of(number, stream));
            self.send(machine, iotlb_of(number));
            return;
        }
        match machine.draw.below(8) {
            0 => self.send(machine, PASID_CACHE_ALL),
            1 => self.send(machine, pasid_cache_domain(number)),
            _ => self.send(machine, pasid_cache_of(number, RID_PASID)),
        }
        self.send(machine, piotlb_of(number, RID_PASID));
    }

    /// 2^am pages around a range, as far as one descriptor can say it.
    fn pages(range: &Range) -> Option<(u64, u8)> {
        (0..=MOST_PAGES)
            .find(|am| range.first >> (12 + am) == range.last >> (12 + am))
            .map(|am| (range.first >> (12 + am) << (12 + am), am))
    }
}

impl Driver for Vtd {
    fn start(&mut self, machine: &mut Machine<'_>) {
        machine.bus.reset();
        machine.bus.read(&mut machine.memory, CAP, 8, self.cap);
        machine.bus.read(&mut machine.memory, ECAP, 8, self.ecap);
        machine.bus.read(&mut machine.memory, VERSION, 4, 0x10);
        machine.bus.read(&mut machine.memory, GSTS, 4, 0);
        machine.bus.read(&mut machine.memory, FSTS, 4, 0);
        machine.bus.write(&mut machine.memory, IQT, 4, 0);
        let pages = self.queue.entries * self.queue.words * 8 / 4096;
        let base = self.queue.base | u64::from(pages.trailing_zeros()) | u64::from(self.scalable) << 11;
        machine.bus.write(&mut machine.memory, IQA, 8, base);
        self.command(machine, QIE);
        for device in 0..machine.devices.len() {
            self.entry(machine, device);
        }
        machine.bus.write(&mut machine.memory, RTADDR, 8, self.root | u64::from(self.scalable) << 10);
        self.command(machine, RTP);
        self.send(machine, CONTEXT_ALL);
        if self.scalable {
            self.send(machine, PASID_CACHE_ALL);
        }
        self.send(machine, IOTLB_ALL);
        self.sync(machine);
        self.command(machine, TE);
    }

    fn domain(&mut self, machine: &mut Machine<'_>, number: u16) -> Domain {
        let Machine { draw, memory, limits, .. } = machine;
        let format = if self.scalable { Format::VtdFirst } else { Format::VtdSecond };
        let levels = draw.pick(self.levels);
        let space = Space::new(memory, draw, format, levels, 0, limits);
        Domain { number, spaces: vec![space], pasids: Vec::new(), glx: 0 }
    }

    fn attachments(&self) -> &'static [Attach] {
        &[Attach::Bypass, Attach::Abort]
    }

    fn attach(&mut self, machine: &mut Machine<'_>, device: usize) {
        let stream = machine.devices[device].stream;
        let (at, words, number) = self.entry(machine, device);
        let old = self.number_in(&machine.memory, at);
        if old != 0 && machine.draw.chance(60) {
            self.write(machine, at, [0; 3]);
            self.announce(machine, stream, old);
            self.write(machine, at, words);
            self.announce(machine, stream, number);
        } else {
            self.write(machine, at, words);
            self.announce(machine, stream, if old != 0 { old } else { number });
        }
        if machine.devices[device].ats {
            self.sync(machine);
            self.send(machine, device_tlb(stream, Size::ALL));
        }
    }

    fn invalidate(&mut self, machine: &mut Machine<'_>, domain: usize) {
        let (number, space) = (machine.domains[domain].number, &machine.domains[domain].spaces[0]);
        let (ranges, tables) = (space.stale.ranges.clone(), !space.stale.tables.is_empty());
        if ranges.is_empty() {
            return;
        }
        let hint = !tables && machine.draw.chance(70);
        let style = machine.draw.below(10);
        let mut sizes = Vec::new();
        for range in &ranges {
            match Self::pages(range).filter(|_| style > 1) {
                Some((address, am)) => {
                    let descriptor = match self.scalable {
                        true => piotlb_pages(number, RID_PASID, address, am, hint),
                        false => iotlb_pages(number, address, am, hint),
                    };
                    self.send(machine, descriptor);
                    sizes.push(Size::covering(range.first, range.last));
                }
                None => {
                    let descriptor = match (self.scalable, style) {
                        (_, 0) => IOTLB_ALL,
                        (true, _) => piotlb_of(number, RID_PASID),
                        (false, _) => iotlb_of(number),
                    };
                    self.send(machine, descriptor);
                    sizes = vec![Size::ALL];
                    break;
                }
            }
        }
        self.device_tlbs(machine, domain, &sizes);
    }

    fn forget(&mut self, machine: &mut Machine<'_>, domain: usize) {
        let number = machine.domains[domain].number;
        self.send(machine, if self.scalable { piotlb_of(number, RID_PASID) } else { iotlb_of(number) });
    }

    fn forget_all(&mut self, machine: &mut Machine<'_>) -> bool {
        self.send(machine, CONTEXT_ALL);
        if self.scalable {
            self.send(machine, PASID_CACHE_ALL);
        }
        self.send(machine, IOTLB_ALL);
        for domain in 0..machine.domains.len() {
            self.device_tlbs(machine, domain, &[Size::ALL]);
        }
        true
    }

    fn sync(&mut self, machine: &mut Machine<'_>) {
        self.waits += 1;
        let (address, value) = (self.semaphore, self.waits);
        self.queue.stores.push((address, value.to_le_bytes().to_vec()));
        self.send(machine, wait(address, value));
        self.doorbell(machine);
    }

    fn expected(&self, memory: &Memory, request: &Request) -> Verdict {
        let root = self.root | u64::from(self.scalable) << 10;
        translate(&|gpa| memory.read(gpa), Registers { enabled: self.status & TE != 0, root }, request)
    }
}
