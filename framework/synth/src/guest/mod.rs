//! A guest's life: domains and devices, maps and unmaps, DMA. The vendors' drivers turn it into tables and commands.
//!
//! The guest keeps the rules that make every answer unique. What changed is stale from the store on until the IOMMU was
//! told of it *and* the guest has waited; stale addresses, and devices whose entry is stale, are not used. Everything
//! else is: above all addresses that were just used, taken away, announced, and mapped again to something else.

pub(crate) mod amd;
pub(crate) mod amd_commands;
pub(crate) mod arm;
pub(crate) mod queue;
pub(crate) mod size;
pub(crate) mod space;
pub(crate) mod vtd;
pub(crate) mod vtd_descriptors;

use crate::draw::Draw;
use crate::memory::Memory;
use crate::recorder::Bus;
use crate::translate::{READ, Request, Verdict, WRITE};
use space::{Limits, Space};

/// What a device is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attach {
    /// The domain of this index.
    Domain(usize),
    /// Untranslated DMA.
    Bypass,
    /// No DMA.
    Abort,
    /// A table entry that the IOMMU must refuse.
    Illegal,
}

/// A device.
pub(crate) struct Device {
    pub(crate) stream: u32,
    /// It has a translation cache of its own.
    pub(crate) ats: bool,
    pub(crate) attach: Attach,
    /// Its table entry changed and the IOMMU has not read it again yet.
    pub(crate) stale: bool,
}

/// A protection domain.
pub(crate) struct Domain {
    /// Its number: DomainID, DID, ASID.
    pub(crate) number: u16,
    /// Its address spaces; the first is that of requests without PASID.
    pub(crate) spaces: Vec<Space>,
    /// Pages of the tables from PASID to space, if there are any; the first is the root.
    pub(crate) pasids: Vec<u64>,
    /// What the domain's table entries say besides: levels of PASID tables.
    pub(crate) glx: u8,
}

/// What all parts of a guest share.
pub(crate) struct Machine<'a> {
    pub(crate) draw: Draw,
    pub(crate) memory: Memory,
    pub(crate) bus: &'a mut dyn Bus,
    pub(crate) limits: Limits,
    pub(crate) domains: Vec<Domain>,
    pub(crate) devices: Vec<Device>,
}

/// A guest's driver of its IOMMU.
pub(crate) trait Driver {
    /// Brings the IOMMU up; all devices are `Attach::Abort` or as the reset left them.
    fn start(&mut self, machine: &mut Machine<'_>);
    /// Makes the tables of a new domain of this number.
    fn domain(&mut self, machine: &mut Machine<'_>, number: u16) -> Domain;
    /// What devices can be given besides a domain.
    fn attachments(&self) -> &'static [Attach];
    /// Writes the device's table entry for its new attachment and tells the IOMMU.
    fn attach(&mut self, machine: &mut Machine<'_>, device: usize);
    /// Tells the IOMMU of everything that is stale in a domain.
    fn invalidate(&mut self, machine: &mut Machine<'_>, domain: usize);
    /// Tells the IOMMU to forget everything of a domain that is no more.
    fn forget(&mut self, machine: &mut Machine<'_>, domain: usize);
    /// Tells the IOMMU to forget everything of everybody; `false` if there is no such command.
    fn forget_all(&mut self, machine: &mut Machine<'_>) -> bool;
    /// Waits for everything it was told.
    fn sync(&mut self, machine: &mut Machine<'_>);
    /// What a correct IOMMU answers now.
    fn expected(&self, memory: &Memory, request: &Request) -> Verdict;
}

/// What a guest does next.
#[derive(Clone, Copy)]
enum Step {
    Map,
    Unmap,
    Replace,
    Dma,
    Reuse,
    Flush,
    FlushAll,
    Attach,
    Recreate,
}

const STEPS: [(u64, Step); 9] = [
    (24, Step::Map),
    (12, Step::Unmap),
    (6, Step::Replace),
    (40, Step::Dma),
    (10, Step::Reuse),
    (12, Step::Flush),
    (1, Step::FlushAll),
    (4, Step::Attach),
    (2, Step::Recreate),
];

/// How many domains a guest has, and the number of the first: smaller ones have other uses in drivers.
const DOMAINS: u16 = 4;
const FIRST_DOMAIN: u16 = 3;

/// Lives for `steps` steps.
pub(crate) fn live(machine: &mut Machine<'_>, driver: &mut dyn Driver, steps: u32) {
    machine.bus.mark("synthetic guest: start");
    driver.start(machine);
    for number in 0..DOMAINS {
        let domain = driver.domain(machine, FIRST_DOMAIN + number);
        machine.domains.push(domain);
    }
    for device in 0..machine.devices.len() {
        let attach = match device {
            0..=2 => Attach::Domain(device.saturating_sub(1)),
            _ => any_attach(machine, driver),
        };
        change(machine, driver, device, attach);
    }
    let Machine { draw, memory, limits, domains, .. } = machine;
    for space in domains.iter_mut().flat_map(|domain| &mut domain.spaces) {
        (0..12).for_each(|_| space.map(memory, draw, limits));
    }
    settle(machine, driver);
    machine.bus.mark("synthetic guest: work");
    for _ in 0..steps {
        step(machine, driver);
    }
    settle(machine, driver);
    (0..machine.devices.len()).for_each(|device| (0..8).for_each(|_| dma(machine, driver, device)));
}

fn step(machine: &mut Machine<'_>, driver: &mut dyn Driver) {
    let domain = machine.draw.index(machine.domains.len());
    let space = machine.draw.index(machine.domains[domain].spaces.len());
    let Machine { draw, memory, limits, domains, devices, .. } = machine;
    let space = &mut domains[domain].spaces[space];
    match draw.weighted(&STEPS) {
        Step::Map => (0..=draw.below(3)).for_each(|_| space.map(memory, draw, limits)),
        Step::Unmap => (0..=draw.below(2)).for_each(|_| space.unmap(memory, draw, limits)),
        Step::Replace => space.replace(memory, draw, limits),
        Step::Dma => {
            let device = draw.index(devices.len());
            (0..=machine.draw.below(6)).for_each(|_| dma(machine, driver, device));
        }
        Step::Reuse => reuse(machine, driver),
        Step::Flush if draw.chance(70) => flush(machine, driver, domain),
        Step::Flush => settle(machine, driver),
        Step::FlushAll => {
            if driver.forget_all(machine) {
                driver.sync(machine);
                settled(machine, |_, _| true);
            }
        }
        Step::Attach => {
            let device = draw.index(devices.len());
            let attach = any_attach(machine, driver);
            change(machine, driver, device, attach);
            if machine.draw.chance(70) {
                settle(machine, driver);
            }
        }
        Step::Recreate => recreate(machine, driver, domain),
    }
}

fn any_attach(machine: &mut Machine<'_>, driver: &dyn Driver) -> Attach {
    if machine.draw.chance(70) {
        Attach::Domain(machine.draw.index(machine.domains.len()))
    } else {
        machine.draw.pick(driver.attachments())
    }
}

/// Gives a device something else. What its old domain owes the IOMMU is told first, while the device is still known to
/// be in it: caches of devices are told one by one.
fn change(machine: &mut Machine<'_>, driver: &mut dyn Driver, device: usize, attach: Attach) {
    if let Attach::Domain(domain) = machine.devices[device].attach {
        flush(machine, driver, domain);
    }
    machine.devices[device].attach = attach;
    machine.devices[device].stale = true;
    driver.attach(machine, device);
}

/// Tells the IOMMU what is stale in a domain, and waits.
fn flush(machine: &mut Machine<'_>, driver: &mut dyn Driver, domain: usize) {
    driver.invalidate(machine, domain);
    driver.sync(machine);
    // The wait is for everything: devices that changed, too. Other domains have not been told of.
    settled(machine, |index, _| index == domain);
}

fn settle(machine: &mut Machine<'_>, driver: &mut dyn Driver) {
    (0..machine.domains.len()).for_each(|domain| driver.invalidate(machine, domain));
    driver.sync(machine);
    settled(machine, |_, _| true);
}

fn settled(machine: &mut Machine<'_>, which: impl Fn(usize, &Domain) -> bool) {
    machine.devices.iter_mut().for_each(|device| device.stale = false);
    for index in 0..machine.domains.len() {
        if which(index, &machine.domains[index]) {
            let Machine { memory, domains, .. } = machine;
            domains[index].spaces.iter_mut().for_each(|space| space.settle(memory));
        }
    }
}

/// Takes the devices out of a domain, gives all of it back, and makes a new domain of the same number: other tables, and
/// whatever the IOMMU did not forget is wrong now.
fn recreate(machine: &mut Machine<'_>, driver: &mut dyn Driver, domain: usize) {
    let inside: Vec<usize> =
        (0..machine.devices.len()).filter(|&device| machine.devices[device].attach == Attach::Domain(domain)).collect();
    flush(machine, driver, domain);
    inside.iter().for_each(|&device| change(machine, driver, device, Attach::Abort));
    driver.sync(machine);
    settled(machine, |_, _| false);
    driver.forget(machine, domain);
    driver.sync(machine);
    let number = machine.domains[domain].number;
    let mut pages = std::mem::take(&mut machine.domains[domain].pasids);
    let tables = machine.domains[domain].spaces.iter().flat_map(|space| space.table.pages(&machine.memory));
    pages.extend(tables);
    pages.into_iter().for_each(|page| machine.memory.give_back(page));
    machine.domains[domain] = driver.domain(machine, number);
    for device in inside {
        let again = if machine.draw.chance(80) { Attach::Domain(domain) } else { any_attach(machine, driver) };
        change(machine, driver, device, again);
    }
    settle(machine, driver);
}

/// A device uses a page; the page is taken away, the IOMMU told; another page comes to the same address, and the device
/// uses it again. An IOMMU that was not told, or told of something else, gives the first page.
fn reuse(machine: &mut Machine<'_>, driver: &mut dyn Driver) {
    let device = machine.draw.index(machine.devices.len());
    let Attach::Domain(domain) = machine.devices[device].attach else { return };
    let index = machine.draw.index(machine.domains[domain].spaces.len());
    let Machine { draw, domains, .. } = machine;
    let Some((iova, page)) = domains[domain].spaces[index].any(draw) else { return };
    let at = iova + (draw.below(1 << page.log2) & !7);
    dma_at(machine, driver, device, index, at);
    let Machine { draw, memory, limits, domains, .. } = machine;
    domains[domain].spaces[index].unmap_at(memory, draw, limits, iova);
    flush(machine, driver, domain);
    dma_at(machine, driver, device, index, at);
    let Machine { draw, memory, limits, domains, .. } = machine;
    domains[domain].spaces[index].map_at(memory, draw, limits, iova, page.log2);
    if !machine.domains[domain].spaces[index].is_settled(at) {
        flush(machine, driver, domain);
    }
    dma_at(machine, driver, device, index, at);
}

/// Addresses that are not memory's: interrupt messages of PCs, and HyperTransport's.
const RESERVED: [std::ops::RangeInclusive<u64>; 2] = [0xfee0_0000..=0xfeef_ffff, 0xfd_0000_0000..=0xff_ffff_ffff];

/// A device uses some address.
fn dma(machine: &mut Machine<'_>, driver: &dyn Driver, device: usize) {
    let Machine { draw, domains, devices, limits, .. } = machine;
    let (space, iova) = match devices[device].attach {
        Attach::Domain(domain) => {
            let space = draw.index(domains[domain].spaces.len());
            (space, domains[domain].spaces[space].address(draw))
        }
        _ => (0, limits.data.0 + (draw.below(0x1000_0000) & !7)),
    };
    dma_at(machine, driver, device, space, iova);
}

/// A device uses an address in one of its domain's spaces, if it may.
fn dma_at(machine: &mut Machine<'_>, driver: &dyn Driver, device: usize, space: usize, iova: u64) {
    let Machine { draw, memory, bus, domains, devices, .. } = machine;
    let device = &devices[device];
    let mut pasid = None;
    if let Attach::Domain(domain) = device.attach {
        let space = &domains[domain].spaces[space];
        if !space.is_settled(iova) {
            return;
        }
        pasid = (space.pasid != 0).then_some(space.pasid);
    }
    if device.stale || RESERVED.iter().any(|range| range.contains(&iova)) {
        return;
    }
    let request = Request { stream: device.stream, pasid, iova, access: draw.pick(&[READ, WRITE]) };
    let verdict = driver.expected(memory, &request);
    bus.dma(memory, &request, &verdict);
}
