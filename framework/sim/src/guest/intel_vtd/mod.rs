//! A guest with a VT-d driver in caching mode: nested in scalable mode, or shadowed in legacy mode.

mod attack;
mod words;

use super::format::{Format, LONG_MODE, SECOND_STAGE};
use super::iommu::{Holder, Iommu, Look, Ring, Wait, Wanted};
use super::layout::{self, PAGE};
use super::machine::SYNC_MESSAGE;
use super::system::{System, all_of, ends};
use super::{Machine, Stopped};
use crate::oracle::{Command, Context, Effect, Entry, Language, Leaf, Mode};
use crate::plan::{Attack, By, ContextScope, Scope, Signal, VmPlan};
use words::at;

/// Its commands, as far as the oracle must know them.
pub(super) const LANGUAGE: Language = Language {
    words: 4,
    invalidation: words::invalidation,
    domain: words::domain,
    configures: words::configures,
    with_other_tag: words::with_other_tag,
};

/// Domains of address spaces from here on, of devices with a context of their own from there on. Other guests use the
/// same ones.
const SPACE_DOMAIN: u16 = 1;
const DEVICE_DOMAIN: u16 = 17;
/// The domain of devices that are not translated.
const PASS_THROUGH: u16 = 100;
/// Root table, and behind it the context tables of bus 0.
const ROOT: u64 = layout::DEVICE_TABLE;
const CONTEXT_TABLE: u64 = ROOT + PAGE;
const UPPER_CONTEXT_TABLE: u64 = ROOT + 2 * PAGE;
/// Where messages go.
const MESSAGES: u64 = 0xfee0_0000;
/// Largest range that CAP.MAMV allows here, log2 of its bytes.
const LARGEST: u32 = 12 + 18;

/// What a driver knows of its remapping unit.
pub(super) struct Vtd {
    legacy: bool,
    messages: bool,
}

impl Vtd {
    /// The page of a device's PASID directory; its PASID table follows.
    fn directory(device: u32) -> u64 {
        layout::CONTEXT_PAGES + 2 * PAGE * u64::from(device)
    }

    /// log2 of the bytes of a descriptor.
    fn shift(&self) -> u32 {
        if self.legacy { 4 } else { 5 }
    }

    fn queue_address(&self) -> u64 {
        layout::COMMANDS | if self.legacy { 0 } else { words::WIDE }
    }

    fn root_address(&self) -> u64 {
        ROOT | if self.legacy { 0 } else { words::SCALABLE }
    }

    fn everything_of(&self, domain: u16) -> Command {
        if self.legacy { words::iotlb_domain(domain) } else { words::pasid_iotlb(domain) }
    }

    /// Root and context entries lead to tables from the start.
    fn store_tables(&self, machine: &Machine) {
        if self.legacy {
            return machine.store(ROOT, &[CONTEXT_TABLE | words::PRESENT, 0]);
        }
        machine.store(CONTEXT_TABLE, &[0; 1024]);
        machine.store(ROOT, &[CONTEXT_TABLE | words::PRESENT, UPPER_CONTEXT_TABLE | words::PRESENT]);
        for device in &machine.plan.devices {
            let directory = Self::directory(device.number);
            machine.store(directory, &[(directory + PAGE) | words::PRESENT]);
            let context = CONTEXT_TABLE + 32 * u64::from(device.virt_id);
            machine.store(context, &[directory | words::PRESENT, 0, 0, 0]);
        }
    }
}

impl System<Vtd> {
    /// The aligned power of two that holds the range.
    fn range(&mut self, domain: u16, first: u64, last: u64) -> Result<(), Stopped> {
        let log2 = (u64::BITS - (first ^ last).leading_zeros()).max(12);
        if log2 > LARGEST {
            return Vtd::flush(self, Some(domain));
        }
        let base = first >> log2 << log2;
        let legacy = self.iommu.legacy;
        let command = if legacy { words::iotlb_pages } else { words::pasid_iotlb_pages };
        let effect = Effect::Leaves { tag: Some(domain), first: base, last: base | ((1 << log2) - 1) };
        self.push(command(domain, base, log2), &[effect])
    }
}

impl Iommu for Vtd {
    fn new(plan: &VmPlan) -> Self {
        Self { legacy: plan.shadowed, messages: plan.messages }
    }

    fn format(&self) -> Format {
        if self.legacy { SECOND_STAGE } else { LONG_MODE }
    }

    fn announces_maps(&self) -> bool {
        self.legacy
    }

    /// One page.
    fn ring(&self) -> Ring {
        let shift = self.shift();
        Ring { base: layout::COMMANDS, log2: 12 - shift as u8, words: 1 << (shift - 3), wraps: false }
    }

    fn doorbell(&self, index: u64) -> (u64, u32, u64) {
        (at::IQT, 4, index << self.shift())
    }

    fn look(&self, machine: &Machine) -> Result<Look, Stopped> {
        let consumer = machine.read(at::IQH, 4)? >> self.shift();
        let status = machine.read(at::FSTS, 4)?;
        if status & words::OVERFLOW != 0 {
            machine.write(at::FSTS, 4, words::OVERFLOW)?;
        }
        let stopped = status & words::STOPPED != 0;
        // IQEI: a type that does not exist, a reserved bit. Anything else is not the descriptor's fault.
        let info = machine.read(at::IQERCD, 8)? & 0xf;
        Ok(Look { consumer, error: stopped.then_some(matches!(info, 3 | 4)) })
    }

    fn acknowledge(&self, machine: &Machine) -> Result<(), Stopped> {
        machine.write(at::FSTS, 4, words::STOPPED)
    }

    fn sync(&self, signal: Signal, number: u32) -> (Command, Wait) {
        let (address, data) = (layout::MESSAGE, number);
        match signal {
            Signal::Later => (words::wait(), Wait::Index),
            Signal::Interrupt if self.messages => (words::wait_interrupt(), Wait::Interrupt),
            _ => (words::wait_store(address, data), Wait::Store { address, data }),
        }
    }

    fn expect_interrupt(&self, machine: &Machine) -> Result<(), Stopped> {
        machine.write(at::ICS, 4, words::WAIT_COMPLETE)
    }

    fn interrupts(machine: &Machine) -> u32 {
        machine.lines.sync_messages()
    }

    /// What is in a context is in the device's entry here: these are numbers that stand for it.
    fn context(&self, holder: Holder) -> u64 {
        match holder {
            Holder::Space(space) => layout::CONTEXTS + 64 * space as u64,
            Holder::Device(device) => layout::CONTEXTS + 64 * (16 + u64::from(device)),
        }
    }

    fn tag(&self, holder: Holder, _: usize) -> u16 {
        match holder {
            Holder::Space(space) => SPACE_DOMAIN + space as u16,
            Holder::Device(device) => DEVICE_DOMAIN + device as u16,
        }
    }

    fn has_contexts(&self) -> bool {
        false
    }

    fn store_context(&self, _: &Machine, _: u64, _: Context) {}

    fn store_entry(&self, machine: &Machine, virt_id: u32, wanted: Wanted) -> Entry {
        let entry = match wanted {
            Wanted::Abort | Wanted::Invalid => Entry::Abort,
            Wanted::Bypass => Entry::Bypass,
            Wanted::Context(address, _) => Entry::Context(address),
        };
        if self.legacy {
            let words = match wanted {
                Wanted::Abort => [0; 2],
                Wanted::Invalid => words::context_entry::invalid(),
                Wanted::Bypass => words::context_entry::pass_through(PASS_THROUGH),
                Wanted::Context(_, Context { root, tag }) => words::context_entry::second_stage(root, tag),
            };
            machine.store(CONTEXT_TABLE + 16 * u64::from(virt_id), &words);
            return entry;
        }
        let words = match wanted {
            Wanted::Abort => [0; 3],
            Wanted::Invalid => words::pasid_entry::invalid(),
            Wanted::Bypass => words::pasid_entry::pass_through(PASS_THROUGH),
            Wanted::Context(_, Context { root, tag }) => words::pasid_entry::first_stage(root, tag),
        };
        // Devices that are none have no PASID table.
        let device = machine.plan.devices.iter().find(|device| device.virt_id == virt_id);
        if let Some(device) = device {
            machine.store(Self::directory(device.number) + PAGE, &words);
        }
        entry
    }

    /// In Linux's order: queue, root table, everything forgotten, on.
    fn boot(system: &mut System<Self>) -> Result<(), Stopped> {
        let (machine, iommu) = (&system.machine, &system.iommu);
        iommu.store_tables(machine);
        machine.write(at::GCMD, 4, 0)?;
        machine.write(at::FSTS, 4, words::STOPPED | words::OVERFLOW)?;
        machine.write(at::IQT, 4, 0)?;
        machine.write(at::IQA, 8, iommu.queue_address())?;
        machine.write(at::GCMD, 4, words::QIE)?;
        machine.write(at::IEDATA, 4, SYNC_MESSAGE.into())?;
        machine.write(at::IEADDR, 4, MESSAGES)?;
        machine.write(at::IEUADDR, 4, 0)?;
        machine.write(at::IECTL, 4, 0)?;
        machine.write(at::RTADDR, 8, iommu.root_address())?;
        machine.write(at::GCMD, 4, words::QIE | words::SRTP)?;
        Self::announce(system, 0, Scope::All, None)?;
        Self::flush(system, None)?;
        system.sync(Signal::Poll)?;
        system.set_mode(Mode::Translate)
    }

    fn switch(system: &mut System<Self>, mode: Mode) -> Result<(), Stopped> {
        let on = if mode == Mode::Translate { words::TE } else { 0 };
        system.machine.write(at::GCMD, 4, words::QIE | on)
    }

    fn off(&self, _: bool) -> Mode {
        Mode::Bypass
    }

    fn read_events(system: &mut System<Self>) -> Result<(), Stopped> {
        let cap = system.machine.read(at::CAP, 8)?;
        // FRO and NFR.
        let (first, count) = ((cap >> 24 & 0x3ff) << 4, (cap >> 40 & 0xff) + 1);
        for record in (0..count).map(|index| first + 16 * index) {
            let high = system.machine.read(record + 8, 8)?;
            if high >> 63 == 0 {
                continue;
            }
            let low = system.machine.read(record, 8)?;
            system.event(high as u32 & 0xffff, Some((low, low | (PAGE - 1))), false, &format!("{low:#x} {high:#x}"))?;
            system.machine.write(record + 12, 4, 1 << 31)?;
        }
        system.machine.write(at::FSTS, 4, words::OVERFLOW)
    }

    fn invalidate(system: &mut System<Self>, domain: u16, leaves: &[Leaf], by: By) -> Result<(), Stopped> {
        match by {
            By::All => Self::flush(system, None),
            By::Space => Self::flush(system, Some(domain)),
            // Of a domain, whatever the PASID.
            By::AnySpace => system.push(words::iotlb_domain(domain), &[all_of(Some(domain))]),
            By::Range => {
                let Some((first, last)) = ends(leaves) else { return Ok(()) };
                system.machine.count("invalidate.range");
                system.range(domain, first, last)
            }
            By::Address => leaves.iter().try_for_each(|leaf| system.range(domain, leaf.base, leaf.last())),
        }
    }

    fn flush(system: &mut System<Self>, tag: Option<u16>) -> Result<(), Stopped> {
        let command = tag.map_or(words::iotlb(), |domain| system.iommu.everything_of(domain));
        system.push(command, &[all_of(tag)])
    }

    fn announce(system: &mut System<Self>, virt_id: u32, scope: Scope, left: Option<u16>) -> Result<(), Stopped> {
        let domain = left.unwrap_or(0);
        let command = match (system.iommu.legacy, scope) {
            (true, Scope::One) => words::context_cache_device(domain, virt_id),
            (true, Scope::Range) => words::context_cache_domain(domain),
            (true, Scope::All) => words::context_cache(),
            (false, Scope::One) => words::pasid_cache_pasid(domain),
            (false, Scope::Range) => words::pasid_cache_domain(domain),
            (false, Scope::All) => words::pasid_cache(),
        };
        let (first, last) = if scope == Scope::All { (0, u32::MAX) } else { (virt_id, virt_id) };
        system.push(command, &[Effect::Entries { first, last }])?;
        left.map_or(Ok(()), |domain| Self::flush(system, Some(domain)))
    }

    /// A context is part of the entry.
    fn announce_context(system: &mut System<Self>, virt_id: u32, tag: u16, scope: ContextScope) -> Result<(), Stopped> {
        let scope = match scope {
            ContextScope::One => Scope::One,
            ContextScope::Device => Scope::Range,
            ContextScope::Entry => Scope::All,
        };
        Self::announce(system, virt_id, scope, Some(tag))
    }

    fn strangers(&self, stream: u32, _: u32) -> Vec<Command> {
        let domain = stream as u16;
        if self.legacy {
            let device = words::context_cache_device(domain, stream);
            return vec![device, words::iotlb_pages(domain, 0, 12), words::iotlb_domain(domain)];
        }
        vec![words::pasid_cache_pasid(domain), words::pasid_iotlb_pages(domain, 0, 12), words::pasid_iotlb(domain)]
    }

    fn illegal(&self, kind: u8) -> Command {
        match kind {
            // Types that do not exist; reserved bits and granularities.
            0 => [0, 1, 0, 0],
            1 => [0xf, 0, 0, 0],
            2 => [0xa, 0, 0, 0],
            3 => [5 | 1 << 12, 0, 0, 0],
            4 => [2 | 2 << 4 | 1 << 12, 0, 0, 0],
            _ => [1 | 3 << 4 | 1 << 60, 0, 0, 0],
        }
    }

    fn attack(system: &mut System<Self>, what: Attack, word: u64) -> Result<(), Stopped> {
        system.attack(what, word)
    }
}
