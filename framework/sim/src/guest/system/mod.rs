//! A guest operating system, whatever its IOMMU: what it keeps, and each action of the plan.

mod changes;
mod queue;

pub(super) use queue::Queue;

use super::iommu::{Holder, Iommu, Wanted};
use super::layout::{self, GROUPS, Pages, SLOTS, slot};
use super::space::Space;
use super::{GuestDriver, Machine, Stopped};
use crate::oracle::{Clause, Context, Effect, Entry, Leaf, Mode, Shadow};
use crate::plan::{Action, By, Scope, Signal};
use std::collections::BTreeMap;
use std::time::Duration;
use viommu::simulation;

/// Address spaces of a guest.
const SPACES: usize = 3;
/// Invalidations address by address before a guest takes the whole space.
const MOST: usize = 40;

/// The guest.
pub(super) struct System<V> {
    pub(super) machine: Machine,
    pub(super) iommu: V,
    pub(super) queue: Queue,
    pages: Pages,
    spaces: Vec<Space>,
    /// What each device's table entry says.
    entries: BTreeMap<u32, Entry>,
    /// What each context says.
    contexts: BTreeMap<u64, Context>,
    /// The space of each context that a device of its own has.
    own: BTreeMap<u32, usize>,
    /// Fault records read.
    pub(super) events: u64,
}

impl<V: Iommu> System<V> {
    pub(super) fn new(machine: Machine) -> Self {
        let iommu = V::new(&machine.plan);
        let queue = Queue::new(iommu.ring());
        let (entries, contexts, own) = Default::default();
        Self { machine, iommu, queue, pages: Pages::new(), spaces: Vec::new(), entries, contexts, own, events: 0 }
    }

    pub(super) fn shadow(&self, change: impl FnOnce(&mut Shadow)) {
        self.machine.oracle.vm(self.machine.number(), change);
    }

    /// Pages that hardware no longer reads are used for something that would be noticed.
    fn recycle(&mut self) {
        let trap = (self.iommu.format().leaf)(Pages::poison(), 1, true);
        for page in self.pages.freed(self.queue.synced) {
            layout::PAGES.into_iter().for_each(|at| self.machine.store(page + 8 * at, &[trap]));
        }
    }

    /// Every tag under which what a space maps may be cached.
    fn tags(&self, space: usize) -> Vec<u16> {
        let own = self.own.iter().filter(|(_, of)| **of == space).map(|(device, _)| Holder::Device(*device));
        let holders = own.chain([Holder::Space(space)]);
        let mut tags: Vec<_> = holders.map(|holder| self.iommu.tag(holder, space)).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn write_context(&mut self, holder: Holder, space: usize) {
        let address = self.iommu.context(holder);
        let context = Context { root: self.spaces[space].root, tag: self.iommu.tag(holder, space) };
        self.contexts.insert(address, context);
        self.iommu.store_context(&self.machine, address, context);
        if !self.iommu.has_contexts() {
            let led = self.entries.iter().filter(|(_, entry)| **entry == Entry::Context(address));
            for (virt_id, _) in led {
                self.iommu.store_entry(&self.machine, *virt_id, Wanted::Context(address, context));
            }
        }
        self.shadow(|shadow| shadow.set_context(address, context));
    }

    fn write_entry(&mut self, virt_id: u32, wanted: Wanted) {
        let entry = self.iommu.store_entry(&self.machine, virt_id, wanted);
        self.entries.insert(virt_id, entry);
        self.shadow(|shadow| shadow.set_entry(virt_id, entry));
    }

    /// The tag of the context that a device's table entry leads to.
    fn tag_of(&self, virt_id: u32) -> Option<u16> {
        match self.entries.get(&virt_id)? {
            Entry::Context(address) => self.contexts.get(address).map(|context| context.tag),
            _ => None,
        }
    }

    pub(super) fn virt_id(&self, device: u8) -> u32 {
        let devices = &self.machine.plan.devices;
        devices.get(usize::from(device) % devices.len().max(1)).map_or(0, |device| device.virt_id)
    }

    /// Whether the action's device is one of this story.
    fn device(&self, device: u8) -> Option<(u32, u32)> {
        let number = u32::from(device);
        let found = self.machine.plan.devices.iter().find(|device| device.number == number)?;
        Some((found.number, found.virt_id))
    }

    /// Tells the hardware that leaves of a space went away, or came.
    fn invalidate(&mut self, space: usize, leaves: &[Leaf], by: By) -> Result<(), Stopped> {
        if leaves.is_empty() {
            return Ok(());
        }
        let by = if leaves.len() > MOST { By::Space } else { by };
        self.tags(space).into_iter().try_for_each(|tag| V::invalidate(self, tag, leaves, by))
    }

    /// Everything of a space, tables included.
    fn flush(&mut self, space: usize, by: By) -> Result<(), Stopped> {
        match by {
            By::All => V::flush(self, None),
            _ => self.tags(space).into_iter().try_for_each(|tag| V::flush(self, Some(tag))),
        }
    }

    /// What was just mapped, where the hardware must be told.
    fn announce_maps(&mut self, space: usize, leaves: &[Leaf]) -> Result<(), Stopped> {
        if !self.iommu.announces_maps() || leaves.is_empty() {
            return Ok(());
        }
        self.machine.count("invalidate.mapped");
        self.invalidate(space, leaves, By::Range)?;
        self.sync(Signal::Poll)
    }

    fn needless(&mut self, space: usize, count: u8, by: By) -> Result<(), Stopped> {
        let leaves: Vec<_> = (0..usize::from(count))
            .map(|at| Leaf { base: slot(at % SLOTS), log2: 12, output: 0, writable: false })
            .collect();
        self.invalidate(space, &leaves, by)
    }

    fn switch(&mut self, abort: bool, pause: u16) -> Result<(), Stopped> {
        let off = self.iommu.off(abort);
        self.set_mode(off)?;
        simulation::sleep(Duration::from_micros(pause.into()));
        self.set_mode(Mode::Translate)?;
        V::announce(self, 0, Scope::All, None)?;
        self.sync(Signal::Poll)
    }

    pub(super) fn set_mode(&mut self, mode: Mode) -> Result<(), Stopped> {
        let number = self.machine.number();
        let began = self.machine.oracle.vm(number, |shadow| shadow.set_mode(mode)).unwrap_or_default();
        V::switch(self, mode)?;
        self.shadow(|shadow| shadow.mode_is_set(began));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Stopped> {
        self.shadow(|shadow| {
            shadow.set_mode(Mode::Bypass);
        });
        self.machine.reset()?;
        self.shadow(Shadow::was_reset);
        if let Some(order) = self.machine.oracle.lock().orders.get_mut(&self.machine.number()) {
            order.restart();
        }
        self.boot()
    }

    /// A command that no guest may send, with an answer it can live with.
    fn illegal(&mut self, kind: u8) -> Result<(), Stopped> {
        let command = self.iommu.illegal(kind);
        let before = self.queue.errors;
        self.push(command, &[])?;
        self.sync(Signal::Poll)?;
        if self.queue.errors == before && self.machine.plan.correct {
            return Err(self.machine.violated(Clause::Order, format!("no error for the command {command:x?}")));
        }
        Ok(())
    }

    /// A fault that the hardware reported, at some address of these, if it says where.
    pub(super) fn event(
        &self,
        virt_id: u32,
        iova: Option<(u64, u64)>,
        wrong: bool,
        record: &str,
    ) -> Result<(), Stopped> {
        self.machine.count("event.read");
        let own = self.machine.plan.devices.iter().any(|device| device.virt_id == virt_id);
        let oracle = self.machine.oracle.lock();
        let faulted = iova.is_none_or(|(first, last)| oracle.has_faulted(self.machine.number(), virt_id, first, last));
        drop(oracle);
        if (!own || wrong || !faulted) && self.machine.plan.correct {
            let what = format!("event {record} is of no fault of this guest's devices");
            return Err(self.machine.violated(Clause::Events, what));
        }
        Ok(())
    }
}

impl<V: Iommu> GuestDriver for System<V> {
    fn boot(&mut self) -> Result<(), Stopped> {
        self.iommu = V::new(&self.machine.plan);
        self.queue = Queue::new(self.iommu.ring());
        (self.pages, self.events) = (Pages::new(), 0);
        (self.entries, self.contexts, self.own) = Default::default();
        for virt_id in 0..layout::DEVICES {
            self.iommu.store_entry(&self.machine, virt_id, Wanted::Abort);
        }
        self.machine.store(layout::MESSAGE, &[0]);
        let format = self.iommu.format();
        let made = (0..SPACES).map(|_| Space::new(&self.machine, format, &mut self.pages));
        self.spaces = made.collect::<Option<_>>().ok_or(Stopped::OutOfService)?;
        (0..SPACES).for_each(|space| self.write_context(Holder::Space(space), space));
        V::boot(self)
    }

    fn act(&mut self, action: &Action) -> Result<(), Stopped> {
        self.machine.check()?;
        let of = |space: u8| usize::from(space) % SPACES;
        match *action {
            Action::Map { space, slot, count, frame, writable } => {
                let slots = (0..count).map(|at| usize::from(slot + at) % SLOTS);
                let new = self.map_pages(of(space), slots, frame.into(), writable);
                self.announce_maps(of(space), &new)
            }
            Action::MapBlock { space, group, block, writable } => {
                let output = layout::block(block.into());
                self.map_block(of(space), GROUPS[usize::from(group) % GROUPS.len()], output, writable)
            }
            Action::Unmap { space, slot, count, by, sync } => {
                let first = self.mapped_slot(of(space), slot.into());
                let slots = (0..usize::from(count)).map(|at| (first + at) % SLOTS);
                let gone = self.unmap_slots(of(space), slots);
                self.invalidate(of(space), &gone, by)?;
                self.sync(sync)
            }
            Action::Remap { space, slot: at, frame: to, by } => {
                let at = self.mapped_slot(of(space), at.into());
                let gone = self.unmap_slots(of(space), [at].into_iter());
                self.invalidate(of(space), &gone, by)?;
                self.sync(Signal::Poll)?;
                let new = self.map_pages(of(space), [at].into_iter(), to.into(), true);
                self.announce_maps(of(space), &new)
            }
            Action::Protect { space, slot: at, by, sync } => {
                let at = self.mapped_slot(of(space), at.into());
                let tree = &mut self.spaces[of(space)];
                let found = tree.leaves.values().find(|leaf| leaf.covers(slot(at))).copied();
                let Some(leaf) = found else { return Ok(()) };
                let announced = self.iommu.announces_maps();
                let _ = tree.protect(&self.machine, leaf.base, announced, &mut self.pages);
                self.invalidate(of(space), &[leaf], by)?;
                self.sync(sync)
            }
            Action::ReplaceTable { space, group, by } => {
                self.replace_table(of(space), GROUPS[usize::from(group) % GROUPS.len()], by)
            }
            Action::ReplaceTree { space, by, scope } => self.replace_tree(of(space), by, scope),
            Action::Assign { device, to, scope, sync } => self.assign(device, to, scope, sync),
            Action::ChangeContext { device, space, announce } => self.change_context(device, of(space), announce),
            Action::Needless { space, count, by } => self.needless(of(space), count, by),
            Action::Sync { signal } => self.sync(signal),
            Action::Strangers { stream } => {
                // None of its devices has such a number.
                for command in self.iommu.strangers(0x1000 | u32::from(stream), self.virt_id(0)) {
                    self.push(command, &[])?;
                }
                self.sync(Signal::Later)
            }
            Action::TwoDoorbells { space, count } => {
                self.needless(of(space), count.min(self.queue.room()), By::Address)?;
                self.ring_twice()
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
            Action::ReadEvents => V::read_events(self),
            Action::Idle { micros } => {
                simulation::sleep(Duration::from_micros(micros.into()));
                Ok(())
            }
            Action::Attack { what, word } => V::attack(self, what, word),
        }
    }

    fn finish(&mut self) -> Result<(), Stopped> {
        V::read_events(self)?;
        self.sync(Signal::Poll)
    }

    fn into_machine(self: Box<Self>) -> Machine {
        self.machine
    }
}

/// The first and the last address of leaves.
pub(super) fn ends(leaves: &[Leaf]) -> Option<(u64, u64)> {
    let first = leaves.iter().map(|leaf| leaf.base).min()?;
    let last = leaves.iter().map(Leaf::last).max()?;
    Some((first, last))
}

/// The effect of a command that invalidates everything of a tag.
pub(super) fn all_of(tag: Option<u16>) -> Effect {
    Effect::Leaves { tag, first: 0, last: u64::MAX }
}
