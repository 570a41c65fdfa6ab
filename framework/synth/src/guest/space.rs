//! One address space of a guest: what is mapped, what was just unmapped, and what no device may use at the moment.

use crate::draw::Draw;
use crate::memory::Memory;
use crate::tables::{Format, Page, Table};
use std::collections::BTreeMap;

/// Addresses whose translation changed and which the IOMMU has not been told of, or has not forgotten yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What the IOMMU has to be told of a space.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    pub(crate) ranges: Vec<Range>,
    /// Table pages that the IOMMU may still know: to be used again only when it was told to forget tables too.
    pub(crate) tables: Vec<u64>,
}

/// An address space.
pub(crate) struct Space {
    pub(crate) table: Table,
    /// PASID of its requests; 0 is requests without one.
    pub(crate) pasid: u32,
    maps: BTreeMap<u64, Page>,
    /// Where pages were mapped a short while ago.
    former: Vec<(u64, u8)>,
    /// Places where the guest puts its pages.
    bases: Vec<u64>,
    pub(crate) stale: Stale,
}

/// How many former places are remembered.
const FORMER: usize = 12;
/// Most pages mapped at once.
const MAPPED: usize = 48;

/// What the guest's hardware and memory allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bits of a device's address that its tables translate (AMD v1: at most).
    pub(crate) iova_bits: u8,
    /// First and last guest physical address that devices are given.
    pub(crate) data: (u64, u64),
    /// Whether the IOMMU may remember that nothing is mapped, so that new pages have to be announced.
    pub(crate) announces_new: bool,
    /// Whether a mapped page may be replaced by another in place, and an empty table by a page; otherwise only what is
    /// not present may become anything else (Arm's break before make).
    pub(crate) in_place: bool,
}

impl Space {
    /// An empty space.
    pub(crate) fn new(
        memory: &mut Memory,
        draw: &mut Draw,
        format: Format,
        levels: u8,
        pasid: u32,
        limits: &Limits,
    ) -> Self {
        let table = Table::new(memory, draw, format, levels);
        let bits = limits.iova_bits.min(11 + 9 * levels);
        let mut bases = vec![0x1000_0000, (1 << bits.min(32)) - 0x4000_0000, 0x4000_0000];
        bases.extend((0..2).map(|_| draw.below(1 << bits) & !0x3fff_ffff));
        Self { table, pasid, maps: BTreeMap::new(), former: Vec::new(), bases, stale: Stale::default() }
    }

    /// Whether a device may use this address: nothing about it is on its way to the IOMMU.
    pub(crate) fn is_settled(&self, iova: u64) -> bool {
        !self.stale.ranges.iter().any(|range| (range.first..=range.last).contains(&iova))
    }

    /// Maps a page somewhere, often where one was before.
    pub(crate) fn map(&mut self, memory: &mut Memory, draw: &mut Draw, limits: &Limits) {
        if self.maps.len() >= MAPPED {
            return;
        }
        let (iova, log2) = if !self.former.is_empty() && draw.chance(60) {
            self.former[draw.index(self.former.len())]
        } else {
            let log2 = draw.pick(self.table.format.sizes());
            (draw.pick(&self.bases).wrapping_add(draw.below(64) << log2) & !((1 << log2) - 1), log2)
        };
        self.map_at(memory, draw, limits, iova, log2);
    }

    /// Maps a page of this size at this address, if that is possible.
    pub(crate) fn map_at(&mut self, memory: &mut Memory, draw: &mut Draw, limits: &Limits, iova: u64, log2: u8) {
        let last = iova.wrapping_add((1 << log2) - 1);
        let top = limits.iova_bits.min(if self.table.levels == 6 { 63 } else { 12 + 9 * self.table.levels });
        let taken = last >> top != 0
            || self.overlaps(iova, last)
            || self.stale.ranges.iter().any(|range| range.first <= last && iova <= range.last);
        if taken {
            return;
        }
        let page = Self::target(draw, self.table.format, log2, limits);
        let before = self.stale.tables.len();
        if self.table.map(memory, draw, iova, page, &mut self.stale.tables) {
            self.maps.insert(iova, page);
            if limits.announces_new || self.stale.tables.len() > before {
                self.stale.ranges.push(Range { first: iova, last });
            }
        }
    }

    /// Takes a page away.
    pub(crate) fn unmap(&mut self, memory: &mut Memory, draw: &mut Draw, limits: &Limits) {
        if let Some((iova, _)) = self.any(draw) {
            self.unmap_at(memory, draw, limits, iova);
        }
    }

    /// Takes away the page at this address.
    pub(crate) fn unmap_at(&mut self, memory: &mut Memory, draw: &mut Draw, limits: &Limits, iova: u64) {
        let Some(page) = self.maps.remove(&iova) else { return };
        let prune = !limits.in_place || draw.chance(40);
        let changed = self.table.unmap(memory, iova, page.log2, prune, &mut self.stale.tables);
        let bytes = (1 << changed) - 1;
        self.stale.ranges.push(Range { first: iova & !bytes, last: iova | bytes });
        self.former.push((iova, page.log2));
        if self.former.len() > FORMER {
            self.former.remove(0);
        }
    }

    /// Puts another page where one is, or the same with other permissions.
    pub(crate) fn replace(&mut self, memory: &mut Memory, draw: &mut Draw, limits: &Limits) {
        let Some((iova, old)) = self.any(draw).filter(|_| limits.in_place) else { return };
        let mut page = Self::target(draw, self.table.format, old.log2, limits);
        if draw.chance(30) {
            page.gpa = old.gpa;
        }
        if self.table.map(memory, draw, iova, page, &mut self.stale.tables) {
            self.maps.insert(iova, page);
            self.stale.ranges.push(Range { first: iova, last: iova + (1 << page.log2) - 1 });
        }
    }

    /// An address for a device to use: mapped, mapped a short while ago, or neither.
    pub(crate) fn address(&self, draw: &mut Draw) -> u64 {
        let (base, log2) = match draw.below(10) {
            0 => (draw.pick(&self.bases).wrapping_add(draw.below(64) << 12), 12),
            1 | 2 if !self.former.is_empty() => self.former[draw.index(self.former.len())],
            _ => self.any(draw).map_or((draw.pick(&self.bases), 12), |(iova, page)| (iova, page.log2)),
        };
        base.wrapping_add(draw.below(1 << log2) & !7)
    }

    /// The IOMMU has forgotten: the pages of tables can be used again.
    pub(crate) fn settle(&mut self, memory: &mut Memory) {
        self.stale.ranges.clear();
        self.stale.tables.drain(..).for_each(|page| memory.give_back(page));
    }

    /// A page that is mapped.
    pub(crate) fn any(&self, draw: &mut Draw) -> Option<(u64, Page)> {
        self.maps.iter().nth(draw.index(self.maps.len().max(1))).map(|(&iova, &page)| (iova, page))
    }

    fn overlaps(&self, first: u64, last: u64) -> bool {
        let before = self.maps.range(..=last).next_back();
        before.is_some_and(|(&iova, page)| iova + ((1 << page.log2) - 1) >= first)
    }

    fn target(draw: &mut Draw, format: Format, log2: u8, limits: &Limits) -> Page {
        let (first, last) = limits.data;
        let slots = (last - first + 1) >> log2;
        Page { gpa: first + (draw.below(slots) << log2), log2, permissions: draw.pick(format.permissions()) }
    }
}
