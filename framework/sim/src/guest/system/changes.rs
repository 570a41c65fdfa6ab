//! How a guest changes its tables, and tells.

use super::{Holder, System, Wanted};
use crate::guest::Stopped;
use crate::guest::iommu::Iommu;
use crate::guest::layout::{PAGE, SLOTS, frame, slot};
use crate::oracle::{Entry, Leaf};
use crate::plan::{By, ContextScope, Scope, Signal, Target};

impl<V: Iommu> System<V> {
    /// Maps pages where nothing is; what came.
    pub(super) fn map_pages(
        &mut self,
        space: usize,
        slots: impl Iterator<Item = usize>,
        mut from: u64,
        writable: bool,
    ) -> Vec<Leaf> {
        let mut new = Vec::new();
        for at in slots {
            let base = slot(at);
            let leaf = Leaf { base, log2: 12, output: frame(from), writable };
            if self.spaces[space].is_empty(base, PAGE) && self.put_in(space, leaf).is_some() {
                new.push(leaf);
            }
            from += 1;
        }
        new
    }

    fn put_in(&mut self, space: usize, leaf: Leaf) -> Option<()> {
        let announced = self.iommu.announces_maps();
        self.spaces[space].map(&self.machine, leaf, announced, &mut self.pages)
    }

    /// The first slot from this one on at which something is mapped; if nothing is, this one.
    pub(super) fn mapped_slot(&self, space: usize, from: usize) -> usize {
        let is_mapped = |at: &usize| self.spaces[space].leaves.values().any(|leaf| leaf.covers(slot(*at)));
        (from..from + SLOTS).map(|at| at % SLOTS).find(is_mapped).unwrap_or(from)
    }

    /// Takes out what is mapped at these slots; what it was.
    pub(super) fn unmap_slots(&mut self, space: usize, slots: impl Iterator<Item = usize>) -> Vec<Leaf> {
        let mut gone = Vec::new();
        for at in slots {
            let tree = &mut self.spaces[space];
            let found = tree.leaves.values().find(|leaf| leaf.covers(slot(at))).map(|leaf| leaf.base);
            gone.extend(found.and_then(|base| tree.unmap(&self.machine, base, &mut self.pages)));
        }
        gone
    }

    /// A block instead of everything that is in its group: out, table out, invalidated, in.
    pub(super) fn map_block(&mut self, space: usize, group: u64, output: u64, writable: bool) -> Result<(), Stopped> {
        let tree = &mut self.spaces[space];
        let mut gone = Vec::new();
        for base in tree.leaves_in(group) {
            gone.extend(tree.unmap(&self.machine, base, &mut self.pages));
        }
        let table = tree.detach_table(&self.machine, group, &mut self.pages);
        if table.is_some() || !gone.is_empty() {
            // The table itself may be cached: everything under it, and not only leaves.
            self.flush(space, By::Space)?;
            self.sync(Signal::Poll)?;
        }
        if let Some(table) = table {
            self.pages.release(table, self.queue.synced);
            self.recycle();
        }
        let leaf = Leaf { base: group, log2: 21, output, writable };
        match self.put_in(space, leaf) {
            Some(()) => self.announce_maps(space, &[leaf]),
            None => Ok(()),
        }
    }

    /// Another tree for a space: contexts, then tables.
    pub(super) fn replace_tree(&mut self, space: usize, by: By, scope: Scope) -> Result<(), Stopped> {
        let old = &self.spaces[space];
        let without = old.leaves.keys().next().copied();
        let Some(new) = old.copy(&self.machine, without, &mut self.pages) else { return Ok(()) };
        let old = std::mem::replace(&mut self.spaces[space], new);
        let own: Vec<_> = self.own.iter().filter(|(_, of)| **of == space).map(|(device, _)| *device).collect();
        for holder in own.into_iter().map(Holder::Device).chain([Holder::Space(space)]) {
            self.write_context(holder, space);
        }
        // Every device may have cached the context.
        let devices: Vec<_> = self.machine.plan.devices.iter().map(|device| device.virt_id).collect();
        let tag = self.iommu.tag(Holder::Space(space), space);
        for virt_id in devices {
            let tag = self.tag_of(virt_id).unwrap_or(tag);
            match scope {
                Scope::One => V::announce_context(self, virt_id, tag, ContextScope::One)?,
                Scope::Range => V::announce_context(self, virt_id, tag, ContextScope::Device)?,
                Scope::All => V::announce(self, virt_id, Scope::All, Some(tag))?,
            }
        }
        self.flush(space, by)?;
        self.sync(Signal::Poll)?;
        self.shadow(|shadow| shadow.forget_root(old.root));
        let synced = self.queue.synced;
        old.into_pages().into_iter().for_each(|page| self.pages.release(page, synced));
        self.recycle();
        Ok(())
    }

    pub(super) fn assign(&mut self, device: u8, to: Target, scope: Scope, sync: Signal) -> Result<(), Stopped> {
        let Some((number, virt_id)) = self.device(device) else { return Ok(()) };
        let left = self.tag_of(virt_id);
        let wanted = match to {
            Target::Abort => Wanted::Abort,
            Target::Invalid => Wanted::Invalid,
            Target::Bypass => Wanted::Bypass,
            Target::Space { space, shared } => {
                let space = usize::from(space) % super::SPACES;
                let own = self.iommu.context(Holder::Device(number));
                let mut address = self.iommu.context(Holder::Space(space));
                if !shared && self.is_settled(virt_id, own) {
                    address = own;
                    self.own.insert(number, space);
                    self.write_context(Holder::Device(number), space);
                }
                let Some(&context) = self.contexts.get(&address) else { return Ok(()) };
                Wanted::Context(address, context)
            }
        };
        self.write_entry(virt_id, wanted);
        V::announce(self, virt_id, scope, left)?;
        self.sync(sync)
    }

    /// Whether nothing leads to this context: it may be written at leisure.
    fn is_settled(&self, virt_id: u32, address: u64) -> bool {
        self.entries.get(&virt_id) != Some(&Entry::Context(address))
    }

    pub(super) fn change_context(&mut self, device: u8, space: usize, announce: ContextScope) -> Result<(), Stopped> {
        let Some((number, virt_id)) = self.device(device) else { return Ok(()) };
        let holder = Holder::Device(number);
        if self.is_settled(virt_id, self.iommu.context(holder)) {
            return Ok(());
        }
        self.own.insert(number, space);
        self.write_context(holder, space);
        let tag = self.iommu.tag(holder, space);
        V::announce_context(self, virt_id, tag, announce)?;
        if self.iommu.tag(holder, 0) == self.iommu.tag(holder, 1) {
            // The tag stayed, but what it stands for did not.
            V::flush(self, Some(tag))?;
        }
        self.sync(Signal::Poll)
    }

    pub(super) fn replace_table(&mut self, space: usize, group: u64, by: By) -> Result<(), Stopped> {
        let tree = &mut self.spaces[space];
        let Some(old) = tree.replace_table(&self.machine, group, &mut self.pages) else { return Ok(()) };
        self.flush(space, by)?;
        self.sync(Signal::Poll)?;
        self.pages.release(old, self.queue.synced);
        self.recycle();
        Ok(())
    }
}
