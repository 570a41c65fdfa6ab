//! Two guests with the same numbers say random things to rings of their own. An oracle that knows no more than which pages
//! were seen, and which commands whose guest said, tells where every DMA must go: fresh where the guest flushed, and still
//! stale where only somebody else did. Each broken driver is noticed.

use crate::guest::{DEVICES, DOMAINS, Guest, identity, pages, plain};
use crate::machine::{self, Machine};
use amd_vi::driver::AmdDriver;
use amd_vi::spec::commands::Opcode;
use amd_vi::spec::size::ALL_LOG2;
use amd_vi::spec::viommu::{DidMap, PRIVATE_DOMAIN, VFCTL, VFCTL_END, VFCTL_STRIDE, control};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use viommu_plugin::{Driver, Hardware, Refusal, Unreadable};
use viommu_plugin_check::Random;

const PAGES: u64 = 8;
const STEPS: usize = 300;
/// Tags for guests' domains; below are the parents'.
const TAGS: Range<u32> = 10..15;

/// What a driver gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// DomID entries stay what they were preset to.
    DomainsNotMapped,
    /// They stay what they were when the domain is gone.
    DomainsNotRestored,
    /// They lead to the next tag.
    DomainsMisrouted,
    /// The translate DeviceID's register is another guest's.
    OtherGuestsMemory,
    /// A guest's tables leave the private address space, but not its caches.
    PrivateSpaceNotFlushed,
}

const WRONG: [Wrong; 5] = [
    Wrong::DomainsNotMapped,
    Wrong::DomainsNotRestored,
    Wrong::DomainsMisrouted,
    Wrong::OtherGuestsMemory,
    Wrong::PrivateSpaceNotFlushed,
];

/// The machine, between a driver and the hardware.
struct Between {
    machine: Machine,
    wrong: Wrong,
    /// Writes to each guest's DomainID map.
    presets: Mutex<HashMap<u64, u32>>,
}

impl Between {
    /// What becomes of a write to the DomainID map.
    fn domain_map(&self, guest: u64, map: DidMap) -> Option<DidMap> {
        let mut presets = self.presets.lock().unwrap();
        let count = presets.entry(guest).or_default();
        *count += 1;
        if *count <= 0x1_0000 {
            return Some(map);
        }
        let restores = map.host() < TAGS.start as u16;
        match self.wrong {
            Wrong::DomainsNotMapped if !restores => None,
            Wrong::DomainsNotRestored if restores => None,
            Wrong::DomainsMisrouted if !restores => Some(map.with_host(map.host() + 1)),
            _ => Some(map),
        }
    }
}

impl Hardware for Between {
    fn mmio_read(&self, at: u64, size: u32) -> u64 {
        self.machine.mmio_read(at, size)
    }
    fn mmio_write(&self, at: u64, size: u32, mut value: u64) {
        if (VFCTL..VFCTL_END).contains(&at) {
            let (guest, register) = ((at - VFCTL) / VFCTL_STRIDE, (at - VFCTL) % VFCTL_STRIDE);
            match register {
                control::DOMAIN_MAP => match self.domain_map(guest, value.into()) {
                    Some(map) => value = map.into(),
                    None => return,
                },
                control::MISC if self.wrong == Wrong::OtherGuestsMemory && guest == 2 && value != 0 => {
                    value = self.machine.mmio_read(VFCTL + VFCTL_STRIDE + control::MISC, 8);
                }
                _ => {}
            }
        }
        self.machine.mmio_write(at, size, value);
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        Hardware::read(&self.machine, pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        Hardware::write(&self.machine, pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        self.machine.alloc(len, align)
    }
    fn free(&self, pa: u64, len: u64) {
        self.machine.free(pa, len);
    }
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let private = u64::from(Opcode::INVALIDATE_IOMMU_PAGES.0) << 28 | u64::from(PRIVATE_DOMAIN);
        if self.wrong == Wrong::PrivateSpaceNotFlushed && commands[0] >> 32 == private {
            return Ok(());
        }
        self.machine.issue(commands)
    }
}

/// What the oracle knows of a guest.
#[derive(Default)]
struct Known {
    /// What the tables say, by domain and page.
    table: HashMap<(usize, u64), u64>,
    /// What was seen and not flushed since.
    seen: HashMap<(usize, u64), u64>,
}

/// One random command, and what it makes the guest's devices forget.
fn command(random: &mut Random, known: &mut Known) -> [u64; 2] {
    let domain = random.below(2) as usize;
    let page = random.below(PAGES);
    let number = DOMAINS[domain];
    match random.below(8) {
        0 | 1 => {
            known.seen.remove(&(domain, page));
            pages(number, true, page << 12, 12)
        }
        2 => {
            known.seen.retain(|(of, at), _| *of != domain || at / 4 != page / 4);
            pages(number, true, (page / 4) << 14, 14)
        }
        3 => {
            known.seen.retain(|(of, _), _| *of != domain);
            pages(number, true, 0, ALL_LOG2)
        }
        4 => {
            known.seen.retain(|(of, _), _| *of != domain);
            pages(number, false, 0, ALL_LOG2)
        }
        5 => {
            known.seen.clear();
            plain(Opcode::INVALIDATE_IOMMU_ALL, 0)
        }
        // Domains that the guest has not: the host's own numbers are among them.
        6 => pages(10 + random.below(8) as u16, random.below(2) == 0, 0, ALL_LOG2),
        _ => plain(Opcode::INVALIDATE_DEVTAB_ENTRY, random.below(300) as u32),
    }
}

/// Tags that nobody has. One may have been the other guest's before.
fn free(guests: &[Guest]) -> Vec<u32> {
    let used: Vec<_> = guests.iter().flat_map(|guest| guest.tags).flatten().collect();
    TAGS.filter(|tag| !used.contains(tag)).collect()
}

/// The first thing that is wrong.
fn run(seed: u64, wrong: Wrong) -> Result<(), String> {
    let mut random = Random::new(seed);
    let machine = machine::with(&identity(), false);
    let between = Between { machine: machine.clone(), wrong, presets: Mutex::default() };
    let mut driver = AmdDriver::new(Box::new(between)).unwrap();
    let mut guests: Vec<Guest> = (1..=2).map(|parent| Guest::new(&machine, &mut driver, parent)).collect();
    let mut known = [Known::default(), Known::default()];
    for (guest, known) in guests.iter_mut().zip(&mut known) {
        for (domain, page) in (0..2).flat_map(|domain| (0..PAGES).map(move |page| (domain, page))) {
            guest.map(domain, page, 0x10_0000 + (page << 12));
            known.table.insert((domain, page), 0x10_0000 + (page << 12));
        }
        (0..2).for_each(|domain| guest.attach(&mut driver, domain, 8 + 2 * guest.parent + domain as u32));
    }
    for step in 0..STEPS {
        let which = random.below(2) as usize;
        let (guest, known) = (&mut guests[which], &mut known[which]);
        let (domain, page) = (random.below(2) as usize, random.below(PAGES));
        match random.below(20) {
            0..5 => {
                let gpa = 0x10_0000 + (random.below(0x80) << 12);
                guest.map(domain, page, gpa);
                known.table.insert((domain, page), gpa);
            }
            5..8 => {
                let commands: Vec<_> = (0..random.below(4)).map(|_| command(&mut random, known)).collect();
                if !guest.sync(&commands) {
                    return Err(format!("step {step}: guest {which}'s COMPLETION_WAIT does not come"));
                }
            }
            8 => {
                guest.release(&mut driver, domain);
                known.seen.retain(|(of, _), _| *of != domain);
                let free = free(&guests);
                let tag = free[random.below(free.len() as u64) as usize];
                guests[which].attach(&mut driver, domain, tag);
            }
            9 if random.below(8) == 0 => {
                let old = guests.remove(which);
                let parent = old.parent;
                old.destroy(&mut driver);
                let new = Guest::new(&machine, &mut driver, parent);
                known.seen.clear();
                guests.insert(which, new);
                let free = free(&guests);
                for ((domain, page), gpa) in &known.table {
                    guests[which].map(*domain, *page, *gpa);
                }
                (0..2).for_each(|domain| guests[which].attach(&mut driver, domain, free[domain]));
            }
            _ => {
                let device = DEVICES[random.below(3) as usize];
                let at = (usize::from(device % 2), page);
                let right = *known.seen.entry(at).or_insert(known.table[&at]);
                let found = guest.reaches(device, page);
                if found != Some(right) {
                    return Err(format!("step {step}: guest {which}, {at:?}: {found:x?}, not {right:x}"));
                }
            }
        }
    }
    if let Some(event) = driver.event() {
        return Err(format!("the host is told of {event:x?}"));
    }
    Ok(())
}

#[test]
fn every_dma_goes_where_its_own_guest_says() {
    for seed in 1..=6 {
        run(seed, Wrong::Nothing).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn what_a_driver_gets_wrong_shows() {
    for wrong in WRONG {
        let found = (1..=12).find_map(|seed| run(seed, wrong).err().map(|what| (seed, what)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{wrong:?} is not noticed"));
        println!("{wrong:?}: seed {seed}: {what}");
    }
}
