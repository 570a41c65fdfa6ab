//! An address space of the guest: a tree of three levels with 4 KiB pages and 2 MiB blocks.

use super::memory::{BLOCK, PAGE, Pages};
use super::words;
use crate::guest::Machine;
use crate::oracle::Leaf;
use std::collections::BTreeMap;

/// Offsets of a walk.
fn index(iova: u64, level: u64) -> u64 {
    8 * (iova >> (39 - 9 * level) & 0x1ff)
}

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// A tree.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) asid: u16,
    pub(super) root: u64,
    /// By first address.
    pub(super) leaves: BTreeMap<u64, Leaf>,
    /// Every page of the tree.
    pages: Vec<u64>,
}

impl Space {
    /// An empty tree.
    pub(super) fn new(machine: &Machine, asid: u16, pages: &mut Pages) -> Option<Self> {
        let mut space = Self { asid, root: 0, leaves: BTreeMap::new(), pages: Vec::new() };
        space.root = space.page(machine, pages)?;
        Some(space)
    }

    fn page(&mut self, machine: &Machine, pages: &mut Pages) -> Option<u64> {
        let page = pages.take()?;
        machine.store(page, &[0; 512]);
        self.pages.push(page);
        Some(page)
    }

    /// Where the descriptor of `iova` at `level` is, with the tables above it.
    fn descriptor(&mut self, machine: &Machine, iova: u64, level: u64, pages: &mut Pages) -> Option<u64> {
        let mut table = self.root;
        for upper in 1..level {
            let at = table + index(iova, upper);
            let word = machine.word(at);
            table = if word & 3 == 3 {
                word & ADDRESS
            } else {
                let page = self.page(machine, pages)?;
                machine.store(at, &[words::table(page)]);
                page
            };
        }
        Some(table + index(iova, level))
    }

    /// Whether anything is mapped in the range.
    pub(super) fn is_empty(&self, first: u64, length: u64) -> bool {
        !self.leaves.values().any(|leaf| leaf.base < first + length && leaf.base + (1 << leaf.log2) > first)
    }

    /// Maps a page or block where nothing is.
    pub(super) fn map(&mut self, machine: &Machine, leaf: Leaf, pages: &mut Pages) -> Option<()> {
        let page = leaf.log2 == 12;
        let at = self.descriptor(machine, leaf.base, if page { 3 } else { 2 }, pages)?;
        machine.store(at, &[words::leaf(leaf.output, page, leaf.writable)]);
        machine.oracle.vm(machine.number(), |shadow| shadow.map(self.root, leaf));
        self.leaves.insert(leaf.base, leaf);
        Some(())
    }

    /// Takes a leaf out of the tables.
    pub(super) fn unmap(&mut self, machine: &Machine, base: u64, pages: &mut Pages) -> Option<Leaf> {
        let leaf = self.leaves.remove(&base)?;
        let at = self.descriptor(machine, base, if leaf.log2 == 12 { 3 } else { 2 }, pages)?;
        machine.store(at, &[0]);
        machine.oracle.vm(machine.number(), |shadow| shadow.unmap(self.root, base));
        Some(leaf)
    }

    /// Other permissions for a leaf, in place.
    pub(super) fn protect(&mut self, machine: &Machine, base: u64, pages: &mut Pages) -> Option<()> {
        let mut leaf = *self.leaves.get(&base)?;
        let page = leaf.log2 == 12;
        let at = self.descriptor(machine, base, if page { 3 } else { 2 }, pages)?;
        leaf.writable = false;
        machine.store(at, &[words::leaf(leaf.output, page, false)]);
        machine.oracle.vm(machine.number(), |shadow| {
            shadow.unmap(self.root, base);
            shadow.map(self.root, leaf);
        });
        self.leaves.insert(base, leaf);
        Some(())
    }

    /// Whether a table of the lowest level is at `group`.
    fn lowest(&mut self, machine: &Machine, group: u64, pages: &mut Pages) -> Option<(u64, u64)> {
        let at = self.descriptor(machine, group, 2, pages)?;
        let word = machine.word(at);
        (word & 3 == 3).then_some((at, word & ADDRESS))
    }

    /// Takes the (empty) table of the lowest level out; the page, which hardware may still read.
    pub(super) fn detach_table(&mut self, machine: &Machine, group: u64, pages: &mut Pages) -> Option<u64> {
        let (at, old) = self.lowest(machine, group, pages)?;
        machine.store(at, &[0]);
        self.pages.retain(|page| *page != old);
        Some(old)
    }

    /// Puts a copy in place of the table of the lowest level; the old page.
    pub(super) fn replace_table(&mut self, machine: &Machine, group: u64, pages: &mut Pages) -> Option<u64> {
        let (at, old) = self.lowest(machine, group, pages)?;
        let new = self.page(machine, pages)?;
        for offset in (0..PAGE).step_by(8) {
            let word = machine.word(old + offset);
            if word != 0 {
                machine.store(new + offset, &[word]);
            }
        }
        machine.store(at, &[words::table(new)]);
        self.pages.retain(|page| *page != old);
        Some(old)
    }

    /// A tree of its own with the same leaves but one.
    pub(super) fn copy(&self, machine: &Machine, without: Option<u64>, pages: &mut Pages) -> Option<Self> {
        let mut copy = Self::new(machine, self.asid, pages)?;
        for leaf in self.leaves.values().filter(|leaf| Some(leaf.base) != without) {
            copy.map(machine, *leaf, pages)?;
        }
        Some(copy)
    }

    /// All pages of the tree.
    pub(super) fn into_pages(self) -> Vec<u64> {
        self.pages
    }

    /// Slots of a group that are mapped by pages, or its block.
    pub(super) fn leaves_in(&self, group: u64) -> Vec<u64> {
        self.leaves.range(group..group + BLOCK).map(|(base, _)| *base).collect()
    }
}
