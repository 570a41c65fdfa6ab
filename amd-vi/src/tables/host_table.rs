//! Host page tables (v1): map and unmap, with pages of 4 KiB, 2 MiB and 1 GiB.

use super::broken;
use crate::spec::pte::{HostPte, PTE_BYTES, span_log2};
use crate::spec::registers::Efr;
use viommu_plugin::{Hardware, Refusal};

const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;
/// Level of the largest pages: 1 GiB.
const LARGEST: u8 = 3;
/// Bits of a physical address in a table.
const OUTPUT_BITS: u32 = 52;

/// The shape of the host's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    levels: u8,
}

impl Geometry {
    /// As many levels as EFR.HATS offers: 4, 5 or 6.
    pub fn new(efr: Efr) -> Self {
        Self { levels: 4 + efr.hats().min(2) }
    }
    /// Levels of a table: DTE.Mode.
    pub fn levels(self) -> u8 {
        self.levels
    }
    /// Bits of an input address. Six levels have 66; the highest bit of a word is left out.
    pub fn input_bits(self) -> u32 {
        (u32::from(span_log2(self.levels)) + 9).min(63)
    }
}

/// One tree of tables.
///
/// A table that becomes empty leaves the tree at once, but its memory is freed only by the next change of this tree
/// or its end: the hardware may hold its address until the caller has invalidated.
#[derive(Debug)]
pub struct HostTable {
    geometry: Geometry,
    root: u64,
    tag: u16,
    unlinked: Vec<u64>,
}

/// One table with the first input address that it maps.
#[derive(Debug, Clone, Copy)]
struct Table {
    pa: u64,
    level: u8,
    base: u64,
}

impl Table {
    fn entry(self, index: u64) -> u64 {
        self.pa + index * PTE_BYTES
    }
    /// The table that its entry `index` points to.
    fn below(self, index: u64, pte: HostPte) -> Self {
        Self { pa: pte.pointer(), level: self.level - 1, base: self.base + (index << span_log2(self.level)) }
    }
    /// Entries that `first..=last` touches.
    fn indices(self, first: u64, last: u64) -> std::ops::RangeInclusive<u64> {
        let log2 = span_log2(self.level);
        let index = |at: u64| (at.saturating_sub(self.base) >> log2).min(ENTRIES - 1);
        index(first)..=index(last)
    }
}

impl HostTable {
    /// An empty tree.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware, geometry: Geometry, tag: u16) -> Result<Self, Refusal> {
        Ok(Self { geometry, root: hardware.alloc(PAGE, PAGE)?, tag, unlinked: Vec::new() })
    }

    /// Its levels.
    pub fn levels(&self) -> u8 {
        self.geometry.levels
    }
    /// Physical address of the root table.
    pub fn root(&self) -> u64 {
        self.root
    }
    /// Its DomainID.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    fn top(&self) -> Table {
        Table { pa: self.root, level: self.geometry.levels, base: 0 }
    }

    /// Maps `iova..iova+len` to `pa` with the largest pages that fit; `access` bit 0 allows reads, bit 1 writes. On an
    /// error nothing has changed.
    ///
    /// # Errors
    /// EINVAL misaligned, beyond the address sizes, or no access; EEXIST part of it is mapped; ENOMEM.
    pub fn map(&mut self, hw: &dyn Hardware, iova: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        let last = self.check(iova, len)?;
        let end = pa.checked_add(len).filter(|&end| end <= 1 << OUTPUT_BITS);
        if end.is_none() || !pa.is_multiple_of(PAGE) {
            return Err(invalid(format!("map to {pa:#x}+{len:#x}: misaligned or beyond {OUTPUT_BITS} bits")));
        }
        if access & 3 == 0 || access > 3 {
            return Err(invalid(format!("access {access:#x} is neither to read nor to write")));
        }
        self.free_unlinked(hw);
        if any_leaf(hw, self.top(), iova, last)? {
            return Err(Refusal::new(Refusal::EEXIST, format!("host table: part of {iova:#x}+{len:#x} is mapped")));
        }
        let mut done = 0;
        while done < len {
            let (at, to) = (iova + done, pa + done);
            let fits =
                |level: &u8| (at | to).is_multiple_of(1 << span_log2(*level)) && len - done >= 1 << span_log2(*level);
            let level = (1..=LARGEST).rev().find(fits).unwrap_or(1);
            if let Err(refusal) = self.set_leaf(hw, at, to, level, access) {
                // Also takes out tables that were made for leaves that never came.
                self.unmap(hw, iova, len)?;
                return Err(refusal);
            }
            done += 1 << span_log2(level);
        }
        Ok(())
    }

    /// Unmaps `iova..iova+len`; holes are passed over. The caller invalidates before it changes this tree again.
    ///
    /// # Errors
    /// EINVAL if misaligned, beyond the input size, or if it cuts a page. Then nothing has changed.
    pub fn unmap(&mut self, hw: &dyn Hardware, iova: u64, len: u64) -> Result<(), Refusal> {
        let last = self.check(iova, len)?;
        for edge in [iova, last] {
            if let Some(level) = self.leaf_level(hw, edge)? {
                let page = (1 << span_log2(level)) - 1;
                if edge & !page < iova || edge | page > last {
                    return Err(invalid(format!("unmap {iova:#x}+{len:#x} cuts a page at {edge:#x}")));
                }
            }
        }
        self.free_unlinked(hw);
        let top = self.top();
        self.clear(hw, top, iova, last)
    }

    /// Frees all tables. The caller has flushed the tag.
    pub fn destroy(mut self, hw: &dyn Hardware) {
        self.free_unlinked(hw);
        free_below(hw, self.top());
        hw.free(self.root, PAGE);
    }

    /// The last address of a range.
    fn check(&self, iova: u64, len: u64) -> Result<u64, Refusal> {
        let bits = self.geometry.input_bits();
        let end = iova.checked_add(len).filter(|&end| end <= 1 << bits);
        match end {
            Some(end) if len > 0 && (iova | len).is_multiple_of(PAGE) => Ok(end - 1),
            _ => Err(invalid(format!("{iova:#x}+{len:#x}: empty, misaligned or beyond {bits} bits"))),
        }
    }

    fn set_leaf(&self, hw: &dyn Hardware, iova: u64, pa: u64, level: u8, access: u32) -> Result<(), Refusal> {
        let mut table = self.top();
        while table.level > level {
            let index = *table.indices(iova, iova).start();
            let mut pte = read(hw, table.entry(index))?;
            if !pte.pr() {
                let new = hw.alloc(PAGE, PAGE)?;
                pte = allowing(HostPte::new().with_next_level(table.level - 1).with_address(new >> 12), 3);
                write(hw, table.entry(index), pte)?;
            }
            table = table.below(index, pte);
        }
        let leaf = HostPte::new().with_next_level(HostPte::PAGE).with_address(pa >> 12).with_fc(true);
        write(hw, table.entry(*table.indices(iova, iova).start()), allowing(leaf, access))
    }

    /// Level of the leaf that maps `iova`.
    fn leaf_level(&self, hw: &dyn Hardware, iova: u64) -> Result<Option<u8>, Refusal> {
        let mut table = self.top();
        loop {
            let index = *table.indices(iova, iova).start();
            let pte = read(hw, table.entry(index))?;
            if !pte.pr() {
                return Ok(None);
            }
            if is_leaf(pte) {
                return Ok(Some(table.level));
            }
            table = table.below(index, pte);
        }
    }

    /// Clears the leaves in `first..=last` and unlinks tables that become empty.
    fn clear(&mut self, hw: &dyn Hardware, table: Table, first: u64, last: u64) -> Result<(), Refusal> {
        for index in table.indices(first, last) {
            let pte = read(hw, table.entry(index))?;
            if !pte.pr() {
                continue;
            }
            if !is_leaf(pte) {
                let below = table.below(index, pte);
                self.clear(hw, below, first, last)?;
                if !is_empty(hw, below.pa)? {
                    continue;
                }
                self.unlinked.push(below.pa);
            }
            write(hw, table.entry(index), HostPte::new())?;
        }
        Ok(())
    }

    fn free_unlinked(&mut self, hw: &dyn Hardware) {
        for table in self.unlinked.drain(..) {
            hw.free(table, PAGE);
        }
    }
}

/// Whether anything in `first..=last` is mapped.
fn any_leaf(hw: &dyn Hardware, table: Table, first: u64, last: u64) -> Result<bool, Refusal> {
    for index in table.indices(first, last) {
        let pte = read(hw, table.entry(index))?;
        if pte.pr() && (is_leaf(pte) || any_leaf(hw, table.below(index, pte), first, last)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn free_below(hw: &dyn Hardware, table: Table) {
    for index in 0..ENTRIES {
        // Unreadable tables are not freed: better lost than freed twice.
        let Ok(pte) = read(hw, table.entry(index)) else { continue };
        if pte.pr() && !is_leaf(pte) {
            free_below(hw, table.below(index, pte));
            hw.free(pte.pointer(), PAGE);
        }
    }
}

/// The entry, present, with these permissions.
fn allowing(pte: HostPte, access: u32) -> HostPte {
    pte.with_pr(true).with_ir(access & 1 != 0).with_iw(access & 2 != 0)
}

fn is_leaf(pte: HostPte) -> bool {
    pte.next_level() == HostPte::PAGE
}

fn is_empty(hw: &dyn Hardware, table: u64) -> Result<bool, Refusal> {
    let mut bytes = [0; PAGE as usize];
    hw.read(table, &mut bytes).map_err(broken)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
}

fn read(hw: &dyn Hardware, entry: u64) -> Result<HostPte, Refusal> {
    let mut bytes = [0; 8];
    hw.read(entry, &mut bytes).map_err(broken)?;
    Ok(HostPte::from_bits(u64::from_le_bytes(bytes)))
}

fn write(hw: &dyn Hardware, entry: u64, pte: HostPte) -> Result<(), Refusal> {
    hw.write(entry, &pte.into_bits().to_le_bytes()).map_err(broken)
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Refusal::EINVAL, format!("host table: {text}"))
}
