//! An address space of the guest: a tree of tables with 4 KiB pages and 2 MiB blocks.

use super::Machine;
use super::format::Format;
use super::layout::{BLOCK, PAGE, Pages};
use crate::oracle::Leaf;
use std::collections::BTreeMap;

/// Offset of an address's entry in a table of a level.
fn index(iova: u64, level: u32) -> u64 {
    8 * (iova >> (3 + 9 * level) & 0x1ff)
}

/// The level of the table that a leaf is in.
fn level_of(log2: u8) -> u32 {
    if log2 == 12 { 1 } else { 2 }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A tree.
#[derive(Clone)]
pub(super) struct Space {
    format: Format,
    pub(super) root: u64,
    /// By first address.
    pub(super) leaves: BTreeMap<u64, Leaf>,
    /// Every page of the tree.
    pages: Vec<u64>,
}

impl Space {
    /// An empty tree.
    pub(super) fn new(machine: &Machine, format: Format, pages: &mut Pages) -> Option<Self> {
        let mut space = Self { format, root: 0, leaves: BTreeMap::new(), pages: Vec::new() };
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
    fn descriptor(&mut self, machine: &Machine, iova: u64, level: u32, pages: &mut Pages) -> Option<u64> {
        let mut table = self.root;
        for upper in (level + 1..=self.format.levels).rev() {
            let at = table + index(iova, upper);
            let word = machine.word(at);
            table = if (self.format.leads)(word) {
                word & ADDRESS
            } else {
                let page = self.page(machine, pages)?;
                machine.store(at, &[(self.format.table)(page, upper - 1)]);
                page
            };
        }
        Some(table + index(iova, level))
    }

    /// Whether anything is mapped in the range.
    pub(super) fn is_empty(&self, first: u64, length: u64) -> bool {
        !self.leaves.values().any(|leaf| leaf.base < first + length && leaf.base + (1 << leaf.log2) > first)
    }

    /// Maps a page or block where nothing is. If such must be announced, devices may be refused until it has been.
    pub(super) fn map(&mut self, machine: &Machine, leaf: Leaf, announced: bool, pages: &mut Pages) -> Option<()> {
        let level = level_of(leaf.log2);
        let at = self.descriptor(machine, leaf.base, level, pages)?;
        machine.store(at, &[(self.format.leaf)(leaf.output, level, leaf.writable)]);
        machine.oracle.vm(machine.number(), |shadow| shadow.map(self.root, leaf, announced));
        self.leaves.insert(leaf.base, leaf);
        Some(())
    }

    /// Takes a leaf out of the tables.
    pub(super) fn unmap(&mut self, machine: &Machine, base: u64, pages: &mut Pages) -> Option<Leaf> {
        let leaf = self.leaves.remove(&base)?;
        let at = self.descriptor(machine, base, level_of(leaf.log2), pages)?;
        machine.store(at, &[0]);
        machine.oracle.vm(machine.number(), |shadow| shadow.unmap(self.root, base));
        Some(leaf)
    }

    /// Other permissions for a leaf, in place.
    pub(super) fn protect(&mut self, machine: &Machine, base: u64, announced: bool, pages: &mut Pages) -> Option<()> {
        let mut leaf = *self.leaves.get(&base)?;
        let level = level_of(leaf.log2);
        let at = self.descriptor(machine, base, level, pages)?;
        leaf.writable = false;
        machine.store(at, &[(self.format.leaf)(leaf.output, level, false)]);
        machine.oracle.vm(machine.number(), |shadow| {
            shadow.unmap(self.root, base);
            shadow.map(self.root, leaf, announced);
        });
        self.leaves.insert(base, leaf);
        Some(())
    }

    /// Whether a table of the lowest level is at `group`.
    fn lowest(&mut self, machine: &Machine, group: u64, pages: &mut Pages) -> Option<(u64, u64)> {
        let at = self.descriptor(machine, group, 2, pages)?;
        let word = machine.word(at);
        (self.format.leads)(word).then_some((at, word & ADDRESS))
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
        machine.store(at, &[(self.format.table)(new, 1)]);
        self.pages.retain(|page| *page != old);
        Some(old)
    }

    /// A tree of its own with the same leaves but one.
    pub(super) fn copy(&self, machine: &Machine, without: Option<u64>, pages: &mut Pages) -> Option<Self> {
        let mut copy = Self::new(machine, self.format, pages)?;
        for leaf in self.leaves.values().filter(|leaf| Some(leaf.base) != without) {
            copy.map(machine, *leaf, false, pages)?;
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
