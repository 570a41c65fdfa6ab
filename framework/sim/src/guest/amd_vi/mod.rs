//! A guest with an AMD-Vi driver: nested with GCR3 tables, or shadowed with v1 tables and NpCache.

mod attack;
mod words;

use super::format::{AMD_V1, Format, LONG_MODE};
use super::iommu::{Holder, Iommu, Look, Ring, Wait, Wanted};
use super::layout::{self, PAGE};
use super::system::{System, all_of, ends};
use super::{Machine, Stopped};
use crate::oracle::{Command, Context, Effect, Entry, Language, Leaf, Mode};
use crate::plan::{Attack, By, ContextScope, Scope, Signal, VmPlan};
use words::at;

/// Its commands, as far as the oracle must know them.
pub(super) const LANGUAGE: Language = Language {
    words: 2,
    invalidation: words::invalidation,
    domain: words::domain,
    configures: words::configures,
    with_other_tag: words::with_other_tag,
};

/// The least that is no reserved length.
const RING_LOG2: u8 = 8;
/// Pages of the device table, less one.
const TABLE_SIZE: u64 = layout::DEVICES as u64 * 32 / PAGE - 1;
/// Domains of address spaces from here on, of devices with a context of their own from there on. Other guests use the
/// same ones.
const SPACE_DOMAIN: u16 = 1;
const DEVICE_DOMAIN: u16 = 17;
/// The general interrupt.
const LINE: usize = 0;
/// Kinds of [`Iommu::illegal`].
const ILLEGAL: u8 = 6;

/// What a driver knows of its IOMMU.
pub(super) struct AmdIommu {
    shadowed: bool,
    messages: bool,
}

impl AmdIommu {
    fn control(&self) -> u64 {
        let guest = if self.shadowed { 0 } else { words::GT_EN };
        words::EVENT_LOG_EN | words::COM_WAIT_INT_EN | words::CMD_BUF_EN | guest
    }

    /// GN: guest tables, of PASID 0.
    fn stage(&self) -> u64 {
        if self.shadowed { 0 } else { words::GN }
    }

    /// A log that was full, or missed something, stands still until it is enabled anew.
    fn restart_log(&self, machine: &Machine) -> Result<(), Stopped> {
        let on = self.control() | words::IOMMU_EN;
        machine.write(at::STATUS, 8, words::EVENT_OVERFLOW)?;
        machine.write(at::CONTROL, 8, on & !words::EVENT_LOG_EN)?;
        machine.write(at::CONTROL, 8, on)
    }

    fn everything_of(&self, domain: u16) -> Command {
        words::invalidate_pages(domain, words::EVERYTHING, words::SIZE | words::PDE | self.stage())
    }
}

impl System<AmdIommu> {
    fn invalidate_all(&mut self) -> Result<(), Stopped> {
        self.push(words::invalidate_all(), &[Effect::Entries { first: 0, last: u32::MAX }, all_of(None)])
    }

    fn entry(&mut self, virt_id: u32) -> Result<(), Stopped> {
        let effect = Effect::Entries { first: virt_id, last: virt_id };
        self.push(words::invalidate_devtab_entry(virt_id), &[effect])
    }

    /// The aligned power of two that holds the range.
    fn range(&mut self, domain: u16, first: u64, last: u64) -> Result<(), Stopped> {
        let log2 = (u64::BITS - (first ^ last).leading_zeros()).max(12);
        let base = first >> log2 << log2;
        let command = words::invalidate_range(domain, base, log2, self.iommu.stage());
        self.push(command, &[Effect::Leaves { tag: Some(domain), first: base, last: base | ((1 << log2) - 1) }])
    }
}

impl Iommu for AmdIommu {
    fn new(plan: &VmPlan) -> Self {
        Self { shadowed: plan.shadowed, messages: plan.messages }
    }

    fn format(&self) -> Format {
        if self.shadowed { AMD_V1 } else { LONG_MODE }
    }

    fn announces_maps(&self) -> bool {
        self.shadowed
    }

    fn ring(&self) -> Ring {
        Ring { base: layout::COMMANDS, log2: RING_LOG2, words: 2, wraps: false }
    }

    fn doorbell(&self, index: u64) -> (u64, u32, u64) {
        (at::COMMAND_TAIL, 8, index << 4)
    }

    /// Why the buffer stopped is in the event log, if there was room: the guest looks at the command itself.
    fn look(&self, machine: &Machine) -> Result<Look, Stopped> {
        let consumer = machine.read(at::COMMAND_HEAD, 8)? >> 4;
        let status = machine.read(at::STATUS, 8)?;
        if status & words::EVENT_OVERFLOW != 0 {
            self.restart_log(machine)?;
        }
        let runs = status & words::CMD_BUF_RUN != 0;
        let place = layout::COMMANDS + 16 * consumer;
        let command = [machine.word(place), machine.word(place + 8), 0, 0];
        let illegal = || (0..ILLEGAL).any(|kind| self.illegal(kind) == command);
        Ok(Look { consumer, error: (!runs).then(illegal) })
    }

    fn acknowledge(&self, machine: &Machine) -> Result<(), Stopped> {
        let on = self.control() | words::IOMMU_EN;
        machine.write(at::CONTROL, 8, on & !words::CMD_BUF_EN)?;
        machine.write(at::CONTROL, 8, on)
    }

    fn sync(&self, signal: Signal, number: u32) -> (Command, Wait) {
        let (address, data) = (layout::MESSAGE, number);
        match signal {
            Signal::Later => (words::completion_wait(), Wait::Index),
            Signal::Interrupt if !self.messages => (words::completion_wait_interrupt(), Wait::Interrupt),
            _ => (words::completion_wait_store(address, data.into()), Wait::Store { address, data }),
        }
    }

    fn expect_interrupt(&self, machine: &Machine) -> Result<(), Stopped> {
        machine.write(at::STATUS, 8, words::COM_WAIT_INT)
    }

    fn interrupts(machine: &Machine) -> u32 {
        machine.lines.line_count(LINE)
    }

    /// A GCR3 table each.
    fn context(&self, holder: Holder) -> u64 {
        match holder {
            Holder::Space(space) => layout::CONTEXT_PAGES + PAGE * space as u64,
            Holder::Device(device) => layout::CONTEXT_PAGES + PAGE * (4 + u64::from(device)),
        }
    }

    fn tag(&self, holder: Holder, _: usize) -> u16 {
        match holder {
            Holder::Space(space) => SPACE_DOMAIN + space as u16,
            Holder::Device(device) => DEVICE_DOMAIN + device as u16,
        }
    }

    fn has_contexts(&self) -> bool {
        !self.shadowed
    }

    fn store_context(&self, machine: &Machine, address: u64, context: Context) {
        if !self.shadowed {
            machine.store(address, &[context.root | 1]);
        }
    }

    fn store_entry(&self, machine: &Machine, virt_id: u32, wanted: Wanted) -> Entry {
        let (words, entry) = match wanted {
            Wanted::Abort => (words::dte::abort(), Entry::Abort),
            // V = 0: not translated, whatever is in the rest of it.
            Wanted::Invalid => ([0xffff_fff0, u64::MAX], Entry::Bypass),
            Wanted::Bypass => (words::dte::bypass(), Entry::Bypass),
            Wanted::Context(address, context) if self.shadowed => {
                (words::dte::v1(context.root, context.tag), Entry::Context(address))
            }
            Wanted::Context(address, context) => (words::dte::gcr3(address, context.tag), Entry::Context(address)),
        };
        machine.store(layout::DEVICE_TABLE + 32 * u64::from(virt_id), &[words[0], words[1], 0, 0]);
        entry
    }

    /// Nothing runs before the IOMMU does, commands neither: everything is forgotten after it is on.
    fn boot(system: &mut System<Self>) -> Result<(), Stopped> {
        let machine = &system.machine;
        machine.write(at::CONTROL, 8, 0)?;
        machine.write(at::DEVICE_TABLE_BASE, 8, layout::DEVICE_TABLE | TABLE_SIZE)?;
        machine.write(at::COMMAND_BASE, 8, words::ring_base(layout::COMMANDS, RING_LOG2.into()))?;
        machine.write(at::EVENT_BASE, 8, words::ring_base(layout::EVENTS, RING_LOG2.into()))?;
        system.set_mode(Mode::Translate)?;
        system.invalidate_all()?;
        system.sync(Signal::Poll)
    }

    fn switch(system: &mut System<Self>, mode: Mode) -> Result<(), Stopped> {
        let on = if mode == Mode::Translate { words::IOMMU_EN } else { 0 };
        system.machine.write(at::CONTROL, 8, system.iommu.control() | on)
    }

    fn off(&self, _: bool) -> Mode {
        Mode::Bypass
    }

    fn read_events(system: &mut System<Self>) -> Result<(), Stopped> {
        let tail = system.machine.read(at::EVENT_TAIL, 8)? >> 4;
        while system.events != tail && tail < 1 << RING_LOG2 {
            let at = layout::EVENTS + 16 * system.events;
            let (record, iova) = (system.machine.word(at), system.machine.word(at + 8));
            system.events = (system.events + 1) & ((1 << RING_LOG2) - 1);
            // ILLEGAL_COMMAND_ERROR and COMMAND_HARDWARE_ERROR name a command.
            if !matches!(record >> 60, 5 | 6) {
                let walked = record >> 60 == 2;
                let text = format!("{record:#x} {iova:#x}");
                system.event(record as u32 & 0xffff, walked.then_some((iova, iova)), false, &text)?;
            }
        }
        system.machine.write(at::EVENT_HEAD, 8, system.events << 4)
    }

    fn invalidate(system: &mut System<Self>, domain: u16, leaves: &[Leaf], by: By) -> Result<(), Stopped> {
        match by {
            By::All => system.invalidate_all(),
            By::Space => Self::flush(system, Some(domain)),
            By::Range => {
                let Some((first, last)) = ends(leaves) else { return Ok(()) };
                system.machine.count("invalidate.range");
                system.range(domain, first, last)
            }
            By::Address | By::AnySpace => {
                leaves.iter().try_for_each(|leaf| system.range(domain, leaf.base, leaf.last()))
            }
        }
    }

    fn flush(system: &mut System<Self>, tag: Option<u16>) -> Result<(), Stopped> {
        match tag {
            Some(domain) => system.push(system.iommu.everything_of(domain), &[all_of(tag)]),
            None => system.invalidate_all(),
        }
    }

    fn announce(system: &mut System<Self>, virt_id: u32, scope: Scope, left: Option<u16>) -> Result<(), Stopped> {
        match scope {
            Scope::One => system.entry(virt_id)?,
            Scope::Range => {
                let devices: Vec<_> = system.machine.plan.devices.iter().map(|device| device.virt_id).collect();
                devices.into_iter().try_for_each(|virt_id| system.entry(virt_id))?;
            }
            Scope::All => return system.invalidate_all(),
        }
        left.map_or(Ok(()), |domain| Self::flush(system, Some(domain)))
    }

    /// As Linux announces a GCR3 entry: everything of the domain is invalidated.
    fn announce_context(system: &mut System<Self>, virt_id: u32, tag: u16, scope: ContextScope) -> Result<(), Stopped> {
        if system.iommu.shadowed || scope != ContextScope::One {
            system.entry(virt_id)?;
        }
        system.push(system.iommu.everything_of(tag), &[Effect::Contexts { virt_id }, all_of(Some(tag))])
    }

    fn strangers(&self, stream: u32, own: u32) -> Vec<Command> {
        let (entry, interrupts) = (words::invalidate_devtab_entry(stream), words::invalidate_interrupt_table(stream));
        vec![entry, interrupts, words::invalidate_pages(stream as u16, 0, 0), words::prefetch(own)]
    }

    fn illegal(&self, kind: u8) -> Command {
        match kind {
            // Opcodes that do not exist, or are the host's; reserved bits.
            0 => [0, 1, 0, 0],
            1 => [0xb << 60, 0, 0, 0],
            2 => [9 << 60, 0, 0, 0],
            3 => [0xa << 60, 0, 0, 0],
            4 => [1 << 60 | 1 << 55, 0, 0, 0],
            _ => [2 << 60 | 1 << 16, 0, 0, 0],
        }
    }

    fn attack(system: &mut System<Self>, what: Attack, word: u64) -> Result<(), Stopped> {
        system.attack(what, word)
    }
}
