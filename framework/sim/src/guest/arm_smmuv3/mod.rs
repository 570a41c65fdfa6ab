//! A guest with an SMMUv3 driver.

mod attack;
mod memory;
mod queue;
mod space;
mod words;

pub(crate) use memory::{GROUPS, LOAN, LOAN_SIZE, RAM, RAM_SIZE, SLOTS, slot};
pub(crate) use words::{machine_of, physical, registers_for};

use super::{GuestDriver, Machine, Stopped};
use crate::oracle::{Clause, Context, Effect, Entry, Language, Leaf, Mode};
use crate::plan::{Action, By, ContextScope, Scope, Signal, Target};
use memory::{BLOCK, PAGE, Pages, block, frame};
use queue::Queue;
use space::Space;
use std::collections::BTreeMap;
use std::time::Duration;
use viommu::simulation;
use words::{Command, at};

/// Its commands, as far as the oracle must know them.
pub(crate) const LANGUAGE: Language = Language {
    invalidation: words::invalidation,
    configures: words::configures,
    with_other_tag: words::with_other_tag,
};

/// Address spaces of a guest.
const SPACES: usize = 3;
/// The first ASID: other guests use the same ones.
const ASID: u16 = 1;
/// Invalidations address by address before a guest takes the whole space.
const MOST: usize = 40;

/// The guest.
pub(crate) struct Guest {
    machine: Machine,
    queue: Queue,
    pages: Pages,
    spaces: Vec<Space>,
    /// What each device's table entry says.
    entries: BTreeMap<u32, Entry>,
    /// The space of each context that a device of its own has.
    own: BTreeMap<u32, usize>,
    events: u64,
}

impl Guest {
    pub(crate) fn new(machine: Machine) -> Self {
        let queue = Queue::new(memory::COMMANDS, machine.plan.queue_log2, memory::MESSAGE);
        let (entries, own) = (BTreeMap::new(), BTreeMap::new());
        Self { machine, queue, pages: Pages::new(), spaces: Vec::new(), entries, own, events: 0 }
    }

    /// The machine, when the guest is done with it.
    pub(crate) fn into_machine(self) -> Machine {
        self.machine
    }

    fn push(&mut self, command: Command, effect: Option<Effect>) -> Result<(), Stopped> {
        self.queue.push(&self.machine, command, effect)
    }

    fn sync(&mut self, signal: Signal) -> Result<(), Stopped> {
        self.queue.sync(&self.machine, signal)?;
        self.recycle();
        Ok(())
    }

    /// Pages that hardware no longer reads are used for something that would be noticed.
    fn recycle(&mut self) {
        for page in self.pages.freed(self.queue.synced) {
            let trap = words::leaf(Pages::poison(), true, true);
            memory::PAGES.into_iter().for_each(|at| self.machine.store(page + 8 * at, &[trap]));
        }
    }

    fn shadow(&self, change: impl FnOnce(&mut crate::oracle::Shadow)) {
        self.machine.oracle.vm(self.machine.number(), change);
    }

    /// The contexts: one a space, then one a device.
    fn shared_context(space: usize) -> u64 {
        memory::CONTEXTS + 64 * space as u64
    }

    fn own_context(device: u32) -> u64 {
        memory::CONTEXTS + 64 * (16 + u64::from(device))
    }

    fn write_context(&self, address: u64, space: &Space) {
        self.machine.store(address, &words::cd(space.asid, space.root));
        self.shadow(|shadow| shadow.set_context(address, Context { root: space.root, tag: space.asid }));
    }

    fn write_entry(&mut self, virt_id: u32, words: [u64; 2], entry: Entry) {
        let at = memory::STREAM_TABLE + 64 * u64::from(virt_id);
        // Hardware may look at any moment: the second word first, unless the entry is in use.
        self.machine.store(at + 8, &words[1..]);
        self.machine.store(at, &words[..1]);
        self.entries.insert(virt_id, entry);
        self.shadow(|shadow| shadow.set_entry(virt_id, entry));
    }

    fn virt_id(&self, device: u8) -> u32 {
        let devices = &self.machine.plan.devices;
        devices.get(usize::from(device) % devices.len().max(1)).map_or(0, |device| device.virt_id)
    }

    /// Whether the action's device is one of this story.
    fn device(&self, device: u8) -> Option<(u32, u32)> {
        let number = u32::from(device);
        let found = self.machine.plan.devices.iter().find(|device| device.number == number)?;
        Some((found.number, found.virt_id))
    }

    /// Tells the hardware that leaves went away.
    fn invalidate(&mut self, asid: u16, leaves: &[Leaf], by: By) -> Result<(), Stopped> {
        let by = if leaves.len() > MOST { By::Space } else { by };
        let (Some(first), Some(last)) = (leaves.iter().map(|leaf| leaf.base).min(), leaves.iter().map(last).max())
        else {
            return Ok(());
        };
        let effect = |tag, first, last| Some(Effect::Leaves { tag, first, last });
        match by {
            By::All => self.push(words::tlbi_nh_all(), effect(None, 0, u64::MAX)),
            By::Space => self.push(words::tlbi_nh_asid(asid), effect(Some(asid), 0, u64::MAX)),
            By::Range if self.machine.plan.ranges && last - first < BLOCK => {
                self.machine.count("invalidate.range");
                self.range(asid, first, last)
            }
            By::AnySpace => leaves.iter().try_for_each(|leaf| {
                self.push(words::tlbi_address(None, leaf.base, true), effect(None, leaf.base, leaf.base))
            }),
            By::Address | By::Range => leaves.iter().try_for_each(|leaf| {
                self.push(words::tlbi_address(Some(asid), leaf.base, true), effect(Some(asid), leaf.base, leaf.base))
            }),
        }
    }

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
            self.push(words::tlbi_range(asid, at, num - 1, scale, ttl), Some(effect))?;
            at += bytes;
            pages -= num << scale;
        }
        Ok(())
    }

    /// Tells the hardware that table entries changed.
    fn announce(&mut self, virt_id: u32, scope: Scope) -> Result<(), Stopped> {
        match scope {
            Scope::One => {
                let effect = Effect::Entries { first: virt_id, last: virt_id };
                self.push(words::cfgi_ste(virt_id, true), Some(effect))
            }
            Scope::Range => {
                let first = virt_id & !7;
                let effect = Effect::Entries { first, last: first + 7 };
                self.push(words::cfgi_ste_range(virt_id, 2), Some(effect))
            }
            Scope::All => {
                let effect = Effect::Entries { first: 0, last: u32::MAX };
                self.push(words::cfgi_ste_range(0, 31), Some(effect))
            }
        }
    }

    fn map_pages(&mut self, space: usize, slots: impl Iterator<Item = usize>, mut from: u64, writable: bool) {
        for at in slots {
            let base = slot(at);
            let tree = &mut self.spaces[space];
            if tree.is_empty(base, PAGE) {
                let leaf = Leaf { base, log2: 12, output: frame(from), writable };
                let _ = tree.map(&self.machine, leaf, &mut self.pages);
            }
            from += 1;
        }
    }

    /// Takes out what is mapped at these slots; what it was.
    fn unmap_slots(&mut self, space: usize, slots: impl Iterator<Item = usize>) -> Vec<Leaf> {
        let mut gone = Vec::new();
        for at in slots {
            let tree = &mut self.spaces[space];
            let found = tree.leaves.values().find(|leaf| leaf.covers(slot(at))).map(|leaf| leaf.base);
            gone.extend(found.and_then(|base| tree.unmap(&self.machine, base, &mut self.pages)));
        }
        gone
    }

    /// A block instead of everything that is in its group: out, table out, invalidated, in.
    fn map_block(&mut self, space: usize, group: u64, output: u64, writable: bool) -> Result<(), Stopped> {
        let tree = &mut self.spaces[space];
        let mut gone = Vec::new();
        for base in tree.leaves_in(group) {
            gone.extend(tree.unmap(&self.machine, base, &mut self.pages));
        }
        let table = tree.detach_table(&self.machine, group, &mut self.pages);
        let asid = tree.asid;
        if table.is_some() || !gone.is_empty() {
            // The table itself may be cached: everything under it, and not only leaves.
            let effect = Effect::Leaves { tag: Some(asid), first: 0, last: u64::MAX };
            self.push(words::tlbi_nh_asid(asid), Some(effect))?;
            self.sync(Signal::Poll)?;
        }
        if let Some(table) = table {
            self.pages.release(table, self.queue.synced);
            self.recycle();
        }
        let leaf = Leaf { base: group, log2: 21, output, writable };
        let _ = self.spaces[space].map(&self.machine, leaf, &mut self.pages);
        Ok(())
    }

    /// Another tree for a space: contexts, then tables.
    fn replace_tree(&mut self, space: usize, by: By, scope: Scope) -> Result<(), Stopped> {
        let old = &self.spaces[space];
        let without = old.leaves.keys().next().copied();
        let Some(new) = old.copy(&self.machine, without, &mut self.pages) else { return Ok(()) };
        let (asid, root) = (old.asid, old.root);
        let old = std::mem::replace(&mut self.spaces[space], new);
        let own: Vec<_> = self.own.iter().filter(|(_, of)| **of == space).map(|(device, _)| *device).collect();
        let contexts = own.into_iter().map(Self::own_context).chain([Self::shared_context(space)]);
        for address in contexts.collect::<Vec<_>>() {
            self.write_context(address, &self.spaces[space]);
        }
        // Every device may have cached the context.
        let devices: Vec<_> = self.machine.plan.devices.iter().map(|device| device.virt_id).collect();
        for virt_id in devices {
            match scope {
                Scope::One => self.push(words::cfgi_cd(virt_id, true), Some(Effect::Contexts { virt_id }))?,
                Scope::Range => self.push(words::cfgi_cd_all(virt_id), Some(Effect::Contexts { virt_id }))?,
                Scope::All => self.announce(virt_id, Scope::All)?,
            }
        }
        let (command, tag) = match by {
            By::All => (words::tlbi_nsnh_all(), None),
            _ => (words::tlbi_nh_asid(asid), Some(asid)),
        };
        self.push(command, Some(Effect::Leaves { tag, first: 0, last: u64::MAX }))?;
        self.sync(Signal::Poll)?;
        self.shadow(|shadow| shadow.forget_root(root));
        let synced = self.queue.synced;
        old.into_pages().into_iter().for_each(|page| self.pages.release(page, synced));
        self.recycle();
        Ok(())
    }

    fn assign(&mut self, device: u8, to: Target, scope: Scope, sync: Signal) -> Result<(), Stopped> {
        let Some((number, virt_id)) = self.device(device) else { return Ok(()) };
        let (words, entry) = match to {
            Target::Abort => (words::ste_abort(), Entry::Abort),
            // Not valid: whatever is in the rest of it.
            Target::Invalid => ([0xffff_fff0, u64::MAX], Entry::Abort),
            // A pointer that is left over counts for nothing.
            Target::Bypass => (words::ste_bypass(Self::shared_context(0)), Entry::Bypass),
            Target::Space { space, shared } => {
                let space = usize::from(space) % SPACES;
                let mut address = Self::shared_context(space);
                if !shared && self.is_settled(virt_id, Self::own_context(number)) {
                    address = Self::own_context(number);
                    self.own.insert(number, space);
                    self.write_context(address, &self.spaces[space]);
                }
                (words::ste_stage_1(address), Entry::Context(address))
            }
        };
        self.write_entry(virt_id, words, entry);
        self.announce(virt_id, scope)?;
        self.sync(sync)
    }

    /// Whether nothing leads to this context: it may be written at leisure.
    fn is_settled(&self, virt_id: u32, address: u64) -> bool {
        self.entries.get(&virt_id) != Some(&Entry::Context(address))
    }

    fn change_context(&mut self, device: u8, space: u8, announce: ContextScope) -> Result<(), Stopped> {
        let Some((number, virt_id)) = self.device(device) else { return Ok(()) };
        let address = Self::own_context(number);
        if self.is_settled(virt_id, address) {
            return Ok(());
        }
        let space = usize::from(space) % SPACES;
        self.own.insert(number, space);
        self.write_context(address, &self.spaces[space]);
        let effect = Some(Effect::Contexts { virt_id });
        match announce {
            ContextScope::One => self.push(words::cfgi_cd(virt_id, true), effect)?,
            ContextScope::Device => self.push(words::cfgi_cd_all(virt_id), effect)?,
            ContextScope::Entry => self.announce(virt_id, Scope::One)?,
        }
        self.sync(Signal::Poll)
    }

    fn replace_table(&mut self, space: usize, group: u64, by: By) -> Result<(), Stopped> {
        let tree = &mut self.spaces[space];
        let Some(old) = tree.replace_table(&self.machine, group, &mut self.pages) else { return Ok(()) };
        let asid = tree.asid;
        let (command, tag) = match by {
            By::All => (words::tlbi_nh_all(), None),
            _ => (words::tlbi_nh_asid(asid), Some(asid)),
        };
        self.push(command, Some(Effect::Leaves { tag, first: 0, last: u64::MAX }))?;
        self.sync(Signal::Poll)?;
        self.pages.release(old, self.queue.synced);
        self.recycle();
        Ok(())
    }

    fn needless(&mut self, space: usize, count: u8, by: By) -> Result<(), Stopped> {
        let leaves: Vec<_> = (0..usize::from(count))
            .map(|at| Leaf { base: slot(at % SLOTS), log2: 12, output: 0, writable: false })
            .collect();
        let asid = self.spaces[space].asid;
        self.invalidate(asid, &leaves, by)
    }

    fn switch(&mut self, abort: bool, pause: u16) -> Result<(), Stopped> {
        let gbpa = words::GBPA_UPDATE | if abort { words::GBPA_ABORT } else { 0 };
        self.machine.write(at::GBPA, 4, gbpa)?;
        self.set_mode(if abort { Mode::Abort } else { Mode::Bypass }, words::EVENTQEN | words::CMDQEN)?;
        simulation::sleep(Duration::from_micros(pause.into()));
        self.set_mode(Mode::Translate, words::SMMUEN | words::EVENTQEN | words::CMDQEN)?;
        self.announce(0, Scope::All)?;
        self.sync(Signal::Poll)
    }

    fn set_mode(&mut self, mode: Mode, cr0: u64) -> Result<(), Stopped> {
        let number = self.machine.number();
        let began = self.machine.oracle.vm(number, |shadow| shadow.set_mode(mode)).unwrap_or_default();
        self.machine.write(at::CR0, 4, cr0)?;
        self.shadow(|shadow| shadow.mode_is_set(began));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Stopped> {
        self.shadow(|shadow| {
            shadow.set_mode(Mode::Bypass);
        });
        self.machine.reset()?;
        self.shadow(|shadow| shadow.was_reset());
        if let Some(order) = self.machine.oracle.lock().orders.get_mut(&self.machine.number()) {
            order.restart();
        }
        self.boot()
    }

    /// Commands that no guest may send, with an answer it can live with.
    fn illegal(&mut self, kind: u8) -> Result<(), Stopped> {
        let command = match kind {
            // An opcode that does not exist; stage 2's and EL2's own; a reserved bit; a size without a granule.
            0 => [0xff, 0],
            1 => [0x28, 0],
            2 => [0x20, 0],
            3 => [0x46 | 3 << 12, 0],
            4 => [0x10 | 1 << 9, 0],
            _ => [0x12 | 3 << 12, PAGE],
        };
        let before = self.queue.errors;
        self.push(command, None)?;
        self.sync(Signal::Poll)?;
        if self.queue.errors == before && self.machine.plan.correct {
            return Err(self.machine.violated(Clause::Order, format!("no error for the command {command:x?}")));
        }
        Ok(())
    }

    /// Every record names a device of this guest and a fault it had.
    fn read_events(&mut self) -> Result<(), Stopped> {
        let size = 1 << memory::EVENTS_LOG2;
        let prod = self.machine.read(at::EVENTQ_PROD, 4)?;
        let overflowed = prod & 1 << 31;
        let count = prod.wrapping_sub(self.events) & (2 * size - 1);
        for _ in 0..count.min(size) {
            let at = memory::EVENTS + 32 * (self.events & (size - 1));
            let (first, second, iova) = (self.machine.word(at), self.machine.word(at + 8), self.machine.word(at + 16));
            self.events += 1;
            self.machine.count("event.read");
            let virt_id = (first >> 32) as u32;
            let own = self.machine.plan.devices.iter().any(|device| device.virt_id == virt_id);
            let walked = (0x10..=0x13).contains(&(first & 0xff));
            let faulted = self.machine.oracle.lock().has_faulted(self.machine.number(), virt_id, iova);
            let foreign = !own || second >> 39 & 1 != 0 || walked && !faulted;
            if foreign && self.machine.plan.correct {
                let what = format!("event {first:#x} {second:#x} {iova:#x} is of no fault of this guest's devices");
                return Err(self.machine.violated(Clause::Events, what));
            }
        }
        self.machine.write(at::EVENTQ_CONS, 4, self.events & (2 * size - 1) | overflowed)
    }
}

fn last(leaf: &Leaf) -> u64 {
    leaf.base + ((1 << leaf.log2) - 1)
}

impl GuestDriver for Guest {
    fn boot(&mut self) -> Result<(), Stopped> {
        let plan = &self.machine.plan;
        self.queue = Queue::new(memory::COMMANDS, plan.queue_log2, memory::MESSAGE);
        (self.pages, self.events) = (Pages::new(), 0);
        (self.entries, self.own) = Default::default();
        for stream in 0..1 << memory::STREAMS_LOG2 {
            self.machine.store(memory::STREAM_TABLE + 64 * stream, &words::ste_abort());
        }
        self.machine.store(memory::MESSAGE, &[0]);
        let made = (0..SPACES).map(|space| Space::new(&self.machine, ASID + space as u16, &mut self.pages));
        self.spaces = made.collect::<Option<_>>().ok_or(Stopped::OutOfService)?;
        for (space, tree) in self.spaces.iter().enumerate() {
            self.write_context(Self::shared_context(space), tree);
        }
        // In Linux's order: tables, command queue, everything forgotten, event queue, on.
        self.machine.write(at::CR0, 4, 0)?;
        self.machine.write(at::STRTAB_BASE, 8, memory::STREAM_TABLE)?;
        self.machine.write(at::STRTAB_BASE_CFG, 4, memory::STREAMS_LOG2)?;
        self.machine.write(at::CMDQ_BASE, 8, self.queue.register())?;
        self.machine.write(at::CMDQ_PROD, 4, 0)?;
        self.machine.write(at::CMDQ_CONS, 4, 0)?;
        self.machine.write(at::CR0, 4, words::CMDQEN)?;
        self.announce(0, Scope::All)?;
        self.sync(Signal::Poll)?;
        self.push(words::tlbi_nsnh_all(), Some(Effect::Leaves { tag: None, first: 0, last: u64::MAX }))?;
        self.sync(Signal::Poll)?;
        self.machine.write(at::EVENTQ_BASE, 8, memory::EVENTS | memory::EVENTS_LOG2)?;
        self.machine.write(at::EVENTQ_PROD, 4, 0)?;
        self.machine.write(at::EVENTQ_CONS, 4, 0)?;
        self.machine.write(at::IRQ_CTRL, 4, 5)?;
        self.machine.write(at::CR0, 4, words::EVENTQEN | words::CMDQEN)?;
        self.set_mode(Mode::Translate, words::SMMUEN | words::EVENTQEN | words::CMDQEN)
    }

    fn act(&mut self, action: &Action) -> Result<(), Stopped> {
        self.machine.check()?;
        let of = |space: u8| usize::from(space) % SPACES;
        match *action {
            Action::Map { space, slot, count, frame, writable } => {
                let slots = (0..count).map(|at| usize::from(slot + at) % SLOTS);
                self.map_pages(of(space), slots, frame.into(), writable);
                Ok(())
            }
            Action::MapBlock { space, group, block: at, writable } => {
                self.map_block(of(space), GROUPS[usize::from(group) % GROUPS.len()], block(at.into()), writable)
            }
            Action::Unmap { space, slot, count, by, sync } => {
                let slots = (0..count).map(|at| usize::from(slot + at) % SLOTS);
                let gone = self.unmap_slots(of(space), slots);
                let asid = self.spaces[of(space)].asid;
                self.invalidate(asid, &gone, by)?;
                self.sync(sync)
            }
            Action::Remap { space, slot: at, frame: to, by } => {
                let gone = self.unmap_slots(of(space), [at.into()].into_iter());
                let asid = self.spaces[of(space)].asid;
                self.invalidate(asid, &gone, by)?;
                self.sync(Signal::Poll)?;
                self.map_pages(of(space), [at.into()].into_iter(), to.into(), true);
                Ok(())
            }
            Action::Protect { space, slot: at, by, sync } => {
                let tree = &mut self.spaces[of(space)];
                let found = tree.leaves.values().find(|leaf| leaf.covers(slot(at.into()))).copied();
                let Some(leaf) = found else { return Ok(()) };
                let _ = tree.protect(&self.machine, leaf.base, &mut self.pages);
                let asid = tree.asid;
                self.invalidate(asid, &[leaf], by)?;
                self.sync(sync)
            }
            Action::ReplaceTable { space, group, by } => {
                self.replace_table(of(space), GROUPS[usize::from(group) % GROUPS.len()], by)
            }
            Action::ReplaceTree { space, by, scope } => self.replace_tree(of(space), by, scope),
            Action::Assign { device, to, scope, sync } => self.assign(device, to, scope, sync),
            Action::ChangeContext { device, space, announce } => self.change_context(device, space, announce),
            Action::Needless { space, count, by } => self.needless(of(space), count, by),
            Action::Sync { signal } => self.sync(signal),
            Action::Strangers { stream } => {
                // None of its devices has such a number.
                let stream = 0x1000 | u32::from(stream);
                for command in [words::cfgi_cd(stream, true), words::cfgi_cd_all(stream), words::cfgi_ste(stream, true)]
                {
                    self.push(command, None)?;
                }
                self.push(words::prefetch(self.virt_id(0)), None)?;
                self.sync(Signal::Later)
            }
            Action::TwoDoorbells { space, count } => {
                let most = (1 << self.machine.plan.queue_log2) - 1;
                self.needless(of(space), count.min(most), By::Address)?;
                self.queue.ring_twice(&self.machine)
            }
            Action::Illegal { kind } => self.illegal(kind),
            Action::Switch { abort, pause } => self.switch(abort, pause),
            Action::Reset => self.reset(),
            Action::Remove { device } => {
                self.machine.remove(device.into());
                Ok(())
            }
            Action::Add { device } => self.machine.add(device.into()),
            Action::TakeMemory => {
                self.machine.take_memory();
                Ok(())
            }
            Action::GiveMemory => {
                self.machine.give_memory();
                Ok(())
            }
            Action::ReadEvents => self.read_events(),
            Action::Idle { micros } => {
                simulation::sleep(Duration::from_micros(micros.into()));
                Ok(())
            }
            Action::Attack { what, word } => self.attack(what, word),
        }
    }

    fn finish(&mut self) -> Result<(), Stopped> {
        self.read_events()?;
        self.sync(Signal::Poll)
    }
}
