//! A guest with an SMMUv3 driver.

mod attack;
mod words;

pub(super) use words::{messages_and_ranges, physical};

use super::format::{Format, VMSA};
use super::iommu::{Holder, Iommu, Look, Ring, Wait, Wanted};
use super::layout::{self, BLOCK, PAGE};
use super::system::{System, all_of, ends};
use super::{Machine, Stopped};
use crate::oracle::{Command, Context, Effect, Entry, Language, Leaf, Mode};
use crate::plan::{Attack, By, ContextScope, Scope, Signal, VmPlan};
use words::at;

/// Its commands, as far as the oracle must know them.
pub(super) const LANGUAGE: Language = Language {
    words: 2,
    invalidation: words::invalidation,
    domain: |_| None,
    configures: words::configures,
    with_other_tag: words::with_other_tag,
};

/// The first ASID: other guests use the same ones.
const ASID: u16 = 1;
/// log2 of the stream table's entries.
const STREAMS_LOG2: u64 = layout::DEVICES.ilog2() as u64;
const EVENTS_LOG2: u64 = 4;
/// The line of the command queue's SYNCs.
const SYNC_LINE: usize = 2;

/// What a driver knows of its SMMU.
pub(super) struct Smmu {
    queue_log2: u8,
    messages: bool,
    ranges: bool,
}

impl Smmu {
    /// CMDQ_BASE.
    fn command_base(&self) -> u64 {
        layout::COMMANDS | u64::from(self.queue_log2)
    }
}

impl System<Smmu> {
    /// As Linux cuts a range: powers of two, from the smallest.
    fn range(&mut self, asid: u16, first: u64, last: u64) -> Result<(), Stopped> {
        let (mut at, mut pages) = (first, (last - first) / PAGE + 1);
        while pages > 0 {
            let scale = u64::from(pages.trailing_zeros());
            let num = (pages >> scale).min(32);
            let bytes = PAGE * (num << scale);
            let effect = Effect::Leaves { tag: Some(asid), first: at, last: at + bytes - 1 };
            // One page alone needs a level, or the encoding is reserved.
            let ttl = if num == 1 && scale == 0 { 3 } else { 0 };
            self.push(words::tlbi_range(asid, at, num - 1, scale, ttl), &[effect])?;
            at += bytes;
            pages -= num << scale;
        }
        Ok(())
    }
}

impl Iommu for Smmu {
    fn new(plan: &VmPlan) -> Self {
        Self { queue_log2: plan.queue_log2, messages: plan.messages, ranges: plan.ranges }
    }

    fn format(&self) -> Format {
        VMSA
    }

    fn ring(&self) -> Ring {
        Ring { base: layout::COMMANDS, log2: self.queue_log2, words: 2, wraps: true }
    }

    fn doorbell(&self, index: u64) -> (u64, u32, u64) {
        (at::CMDQ_PROD, 4, index)
    }

    fn look(&self, machine: &Machine) -> Result<Look, Stopped> {
        let cons = machine.read(at::CMDQ_CONS, 4)?;
        let active = machine.read(at::GERROR, 4)? ^ machine.read(at::GERRORN, 4)?;
        let error = (active & words::CMDQ_ERR != 0).then_some(cons >> 24 & 0x7f == words::CERROR_ILL);
        Ok(Look { consumer: cons & 0xf_ffff, error })
    }

    fn acknowledge(&self, machine: &Machine) -> Result<(), Stopped> {
        let gerror = machine.read(at::GERROR, 4)?;
        machine.write(at::GERRORN, 4, gerror)
    }

    fn sync(&self, signal: Signal, number: u32) -> (Command, Wait) {
        let (address, data) = (layout::MESSAGE, number);
        match signal {
            Signal::Later => (words::sync_event(), Wait::Index),
            Signal::Poll => (words::sync(), Wait::Index),
            Signal::Interrupt if self.messages => (words::sync_interrupt(address, data), Wait::Store { address, data }),
            Signal::Interrupt => (words::sync_interrupt(0, 0), Wait::Interrupt),
        }
    }

    fn interrupts(machine: &Machine) -> u32 {
        machine.lines.line_count(SYNC_LINE)
    }

    fn context(&self, holder: Holder) -> u64 {
        match holder {
            Holder::Space(space) => layout::CONTEXTS + 64 * space as u64,
            Holder::Device(device) => layout::CONTEXTS + 64 * (16 + u64::from(device)),
        }
    }

    fn tag(&self, _: Holder, space: usize) -> u16 {
        ASID + space as u16
    }

    fn has_contexts(&self) -> bool {
        true
    }

    fn store_context(&self, machine: &Machine, address: u64, context: Context) {
        machine.store(address, &words::cd(context.tag, context.root));
    }

    fn store_entry(&self, machine: &Machine, virt_id: u32, wanted: Wanted) -> Entry {
        let (words, entry) = match wanted {
            Wanted::Abort => (words::ste_abort(), Entry::Abort),
            // Not valid: whatever is in the rest of it.
            Wanted::Invalid => ([0xffff_fff0, u64::MAX], Entry::Abort),
            // A pointer that is left over counts for nothing.
            Wanted::Bypass => (words::ste_bypass(layout::CONTEXTS), Entry::Bypass),
            Wanted::Context(address, _) => (words::ste_stage_1(address), Entry::Context(address)),
        };
        let at = layout::DEVICE_TABLE + 64 * u64::from(virt_id);
        // Hardware may look at any moment: the second word first, unless the entry is in use.
        machine.store(at + 8, &words[1..]);
        machine.store(at, &words[..1]);
        entry
    }

    /// In Linux's order: tables, command queue, everything forgotten, event queue, on.
    fn boot(system: &mut System<Self>) -> Result<(), Stopped> {
        let machine = &system.machine;
        machine.write(at::CR0, 4, 0)?;
        machine.write(at::STRTAB_BASE, 8, layout::DEVICE_TABLE)?;
        machine.write(at::STRTAB_BASE_CFG, 4, STREAMS_LOG2)?;
        machine.write(at::CMDQ_BASE, 8, system.iommu.command_base())?;
        machine.write(at::CMDQ_PROD, 4, 0)?;
        machine.write(at::CMDQ_CONS, 4, 0)?;
        machine.write(at::CR0, 4, words::CMDQEN)?;
        Self::announce(system, 0, Scope::All, None)?;
        system.sync(Signal::Poll)?;
        system.push(words::tlbi_nsnh_all(), &[all_of(None)])?;
        system.sync(Signal::Poll)?;
        let machine = &system.machine;
        machine.write(at::EVENTQ_BASE, 8, layout::EVENTS | EVENTS_LOG2)?;
        machine.write(at::EVENTQ_PROD, 4, 0)?;
        machine.write(at::EVENTQ_CONS, 4, 0)?;
        machine.write(at::IRQ_CTRL, 4, 5)?;
        machine.write(at::CR0, 4, words::EVENTQEN | words::CMDQEN)?;
        system.set_mode(Mode::Translate)
    }

    fn switch(system: &mut System<Self>, mode: Mode) -> Result<(), Stopped> {
        let queues = words::EVENTQEN | words::CMDQEN;
        if mode == Mode::Translate {
            return system.machine.write(at::CR0, 4, words::SMMUEN | queues);
        }
        let gbpa = words::GBPA_UPDATE | if mode == Mode::Abort { words::GBPA_ABORT } else { 0 };
        system.machine.write(at::GBPA, 4, gbpa)?;
        system.machine.write(at::CR0, 4, queues)
    }

    fn off(&self, abort: bool) -> Mode {
        if abort { Mode::Abort } else { Mode::Bypass }
    }

    fn read_events(system: &mut System<Self>) -> Result<(), Stopped> {
        let size = 1 << EVENTS_LOG2;
        let prod = system.machine.read(at::EVENTQ_PROD, 4)?;
        let overflowed = prod & 1 << 31;
        let count = prod.wrapping_sub(system.events) & (2 * size - 1);
        for _ in 0..count.min(size) {
            let at = layout::EVENTS + 32 * (system.events & (size - 1));
            let machine = &system.machine;
            let (first, second, iova) = (machine.word(at), machine.word(at + 8), machine.word(at + 16));
            system.events += 1;
            let walked = (0x10..=0x13).contains(&(first & 0xff));
            let wrong = second >> 39 & 1 != 0;
            let record = format!("{first:#x} {second:#x} {iova:#x}");
            system.event((first >> 32) as u32, walked.then_some((iova, iova)), wrong, &record)?;
        }
        system.machine.write(at::EVENTQ_CONS, 4, system.events & (2 * size - 1) | overflowed)
    }

    fn invalidate(system: &mut System<Self>, asid: u16, leaves: &[Leaf], by: By) -> Result<(), Stopped> {
        let Some((first, last)) = ends(leaves) else { return Ok(()) };
        let of = |tag, leaf: &Leaf| Effect::Leaves { tag, first: leaf.base, last: leaf.base };
        match by {
            By::All => system.push(words::tlbi_nh_all(), &[all_of(None)]),
            By::Space => Self::flush(system, Some(asid)),
            By::Range if system.iommu.ranges && last - first < BLOCK => {
                system.machine.count("invalidate.range");
                system.range(asid, first, last)
            }
            By::AnySpace => leaves
                .iter()
                .try_for_each(|leaf| system.push(words::tlbi_address(None, leaf.base, true), &[of(None, leaf)])),
            By::Address | By::Range => leaves.iter().try_for_each(|leaf| {
                system.push(words::tlbi_address(Some(asid), leaf.base, true), &[of(Some(asid), leaf)])
            }),
        }
    }

    fn flush(system: &mut System<Self>, tag: Option<u16>) -> Result<(), Stopped> {
        system.push(tag.map_or(words::tlbi_nsnh_all(), words::tlbi_nh_asid), &[all_of(tag)])
    }

    fn announce(system: &mut System<Self>, virt_id: u32, scope: Scope, _: Option<u16>) -> Result<(), Stopped> {
        match scope {
            Scope::One => {
                let effect = Effect::Entries { first: virt_id, last: virt_id };
                system.push(words::cfgi_ste(virt_id, true), &[effect])
            }
            Scope::Range => {
                let first = virt_id & !7;
                let effect = Effect::Entries { first, last: first + 7 };
                system.push(words::cfgi_ste_range(virt_id, 2), &[effect])
            }
            Scope::All => {
                let effect = Effect::Entries { first: 0, last: u32::MAX };
                system.push(words::cfgi_ste_range(0, 31), &[effect])
            }
        }
    }

    fn announce_context(system: &mut System<Self>, virt_id: u32, tag: u16, scope: ContextScope) -> Result<(), Stopped> {
        let effect = [Effect::Contexts { virt_id }];
        match scope {
            ContextScope::One => system.push(words::cfgi_cd(virt_id, true), &effect),
            ContextScope::Device => system.push(words::cfgi_cd_all(virt_id), &effect),
            ContextScope::Entry => Self::announce(system, virt_id, Scope::One, Some(tag)),
        }
    }

    fn strangers(&self, stream: u32, own: u32) -> Vec<Command> {
        let (cd, ste) = (words::cfgi_cd(stream, true), words::cfgi_ste(stream, true));
        vec![cd, words::cfgi_cd_all(stream), ste, words::prefetch(own)]
    }

    fn illegal(&self, kind: u8) -> Command {
        match kind {
            // An opcode that does not exist; stage 2's and EL2's own; a reserved bit; a size without a granule.
            0 => [0xff, 0, 0, 0],
            1 => [0x28, 0, 0, 0],
            2 => [0x20, 0, 0, 0],
            3 => [0x46 | 3 << 12, 0, 0, 0],
            4 => [0x10 | 1 << 9, 0, 0, 0],
            _ => [0x12 | 3 << 12, PAGE, 0, 0],
        }
    }

    fn attack(system: &mut System<Self>, what: Attack, word: u64) -> Result<(), Stopped> {
        system.attack(what, word)
    }
}
