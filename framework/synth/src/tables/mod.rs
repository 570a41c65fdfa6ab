//! What the guests' drivers write: page tables of all formats, the other way round from [`crate::translate`] and apart
//! from it.

mod format;

pub(crate) use format::Format;

use crate::draw::Draw;
use crate::memory::{Memory, PAGE};
use viommu_trace::Role;

/// A page table in guest memory.
pub(crate) struct Table {
    pub(crate) format: Format,
    pub(crate) root: u64,
    pub(crate) levels: u8,
}

/// A page that is to be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) gpa: u64,
    pub(crate) log2: u8,
    /// Bit 0 read, bit 1 write.
    pub(crate) permissions: u8,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(memory: &mut Memory, draw: &mut Draw, format: Format, levels: u8) -> Self {
        Self { format, root: memory.page(draw, Role::PAGE_TABLE), levels }
    }

    /// Maps `page` at `iova`, where nothing else is mapped; what is mapped exactly there is replaced. `false` if the
    /// tables there are of a form that cannot hold it, and nothing is changed. Table pages that are in nobody's way any
    /// more go to `unused`: the IOMMU may still know them.
    pub(crate) fn map(
        &self,
        memory: &mut Memory,
        draw: &mut Draw,
        iova: u64,
        page: Page,
        unused: &mut Vec<u64>,
    ) -> bool {
        let last = level_of(page.log2);
        if last > self.levels {
            return false;
        }
        let (mut table, mut level) = (self.root, self.levels);
        while level > last {
            let at = slot(table, iova, level);
            let word = memory.read(at).unwrap_or_default();
            match self.format.next(word, level) {
                Some((next, below)) if below >= last && skipped(iova, level, below) == 0 => {
                    (table, level) = (next, below)
                }
                Some(_) => return false,
                None if self.format.present(word) => return false,
                None => {
                    let mut below = level - 1;
                    while self.format.skips() && below > last && skipped(iova, level, below - 1) == 0 && draw.chance(60)
                    {
                        below -= 1;
                    }
                    let next = memory.page(draw, Role::PAGE_TABLE);
                    memory.write(at, self.format.table(next, below), Role::PAGE_TABLE);
                    (table, level) = (next, below);
                }
            }
        }
        let word = self.format.leaf(page, last);
        for index in 0..entries(page.log2) {
            let at = slot(table, iova, level) + 8 * index;
            if let Some((old, below)) = self.format.next(memory.read(at).unwrap_or_default(), level) {
                self.collect(memory, old, below, unused);
            }
            memory.write(at, word, Role::PAGE_TABLE);
        }
        true
    }

    /// Takes away what is mapped at `iova` with pages of this size. Tables that become empty by it are taken out when
    /// `prune` says so. log2 of the bytes around `iova` whose entries have changed.
    pub(crate) fn unmap(&self, memory: &mut Memory, iova: u64, log2: u8, prune: bool, unused: &mut Vec<u64>) -> u8 {
        let last = level_of(log2);
        let mut changed = log2;
        let (mut table, mut level, mut path) = (self.root, self.levels, Vec::new());
        while level > last {
            let at = slot(table, iova, level);
            let Some((next, below)) = self.format.next(memory.read(at).unwrap_or_default(), level) else { return log2 };
            path.push((at, next, level));
            (table, level) = (next, below);
        }
        for index in 0..entries(log2) {
            memory.write(slot(table, iova, level) + 8 * index, 0, Role::PAGE_TABLE);
        }
        for (at, page, level) in path.into_iter().rev().take_while(|_| prune) {
            if (page..page + PAGE).step_by(8).any(|word| memory.read(word) != Some(0)) {
                break;
            }
            memory.write(at, 0, Role::PAGE_TABLE);
            unused.push(page);
            changed = 12 + 9 * (level - 1);
        }
        changed
    }

    /// All pages of the table, its root too.
    pub(crate) fn pages(&self, memory: &Memory) -> Vec<u64> {
        let mut pages = Vec::new();
        self.collect(memory, self.root, self.levels, &mut pages);
        pages
    }

    fn collect(&self, memory: &Memory, table: u64, level: u8, pages: &mut Vec<u64>) {
        pages.push(table);
        for word in (table..table + PAGE).step_by(8).filter_map(|at| memory.read(at)) {
            if let Some((next, below)) = self.format.next(word, level) {
                self.collect(memory, next, below, pages);
            }
        }
    }
}

/// The level whose entries make pages of this size: several of them, where the size is not a level's own.
fn level_of(log2: u8) -> u8 {
    (log2 - 12) / 9 + 1
}

/// How many entries of its level a page of this size takes.
fn entries(log2: u8) -> u64 {
    1 << ((log2 - 12) % 9)
}

/// Address of the entry for `iova`.
fn slot(table: u64, iova: u64, level: u8) -> u64 {
    table + 8 * (iova >> (12 + 9 * (level - 1)) & 511)
}

/// The bits of `iova` that are indexes of levels between two.
fn skipped(iova: u64, level: u8, below: u8) -> u64 {
    let (from, to) = (12 + 9 * below, 12 + 9 * (level - 1));
    iova & ((1 << to) - 1) & !((1 << from) - 1)
}
