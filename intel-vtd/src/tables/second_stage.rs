//! Second-stage tables (§3.7, §9.8): map and unmap, with leaves of 2 MiB and 1 GiB where the hardware has them.

use super::broken;
use crate::spec::pte::{INDEX_BITS, PTE_BYTES, SecondStageEntry};
use crate::spec::registers::Cap;
use viommu_plugin::{Hardware, Refusal};

const PAGE: u64 = 4096;
/// Entries of a table.
const ENTRIES: u64 = 1 << INDEX_BITS;
/// Bits of an address that a paging entry can hold.
const OUTPUT_BITS: u32 = 52;

/// The shape of second-stage tables: how many levels, how much they translate, how large a leaf may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    levels: u32,
    input_bits: u32,
    /// Highest level with leaves.
    leaf_level: u32,
}

impl Geometry {
    /// Four levels if CAP.SAGAW has them, else three, else five; `None` if it has none. Addresses have no more bits than
    /// CAP.MGAW says.
    pub fn new(cap: Cap) -> Option<Self> {
        let levels = [4, 3, 5].into_iter().find(|levels| cap.second_stage_levels() >> (levels - 2) & 1 != 0)?;
        let input_bits = (12 + INDEX_BITS * levels).min(u32::from(cap.address_width()) + 1);
        let leaf_level = match cap.second_stage_leaves() & 0b11 {
            0b11 => 3,
            0b01 => 2,
            _ => 1,
        };
        Some(Self { levels, input_bits, leaf_level })
    }
    /// Bits of an input address.
    pub fn input_bits(self) -> u32 {
        self.input_bits
    }
    /// AW of a PASID table entry.
    pub fn address_width(self) -> u8 {
        (self.levels - 2) as u8
    }
}

/// log2 of the bytes that one entry of a level covers. Level 1 holds pages.
const fn shift(level: u32) -> u32 {
    12 + INDEX_BITS * (level - 1)
}

/// One second-stage table tree.
///
/// A table that becomes empty leaves the tree at once, but its memory is freed only by the next change of this tree
/// or its end: the hardware may hold its address until the caller has invalidated.
#[derive(Debug)]
pub struct SecondStage {
    geometry: Geometry,
    root: u64,
    tag: u16,
    unlinked: Vec<u64>,
}

impl SecondStage {
    /// An empty tree.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware, geometry: Geometry, tag: u16) -> Result<Self, Refusal> {
        Ok(Self { geometry, root: hardware.alloc(PAGE, PAGE)?, tag, unlinked: Vec::new() })
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
    /// Physical address of the top table.
    pub fn root(&self) -> u64 {
        self.root
    }
    /// Its domain-id.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// Maps `ipa..ipa+len` to `pa` with the largest leaves that fit. On an error nothing has changed.
    ///
    /// # Errors
    /// EINVAL misaligned or beyond the address sizes, EEXIST part of it is mapped, ENOMEM.
    pub fn map(&mut self, hardware: &dyn Hardware, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        self.check(ipa, len)?;
        let output_end = pa.checked_add(len).filter(|&end| end <= 1 << OUTPUT_BITS);
        if output_end.is_none() || !pa.is_multiple_of(PAGE) {
            return Err(invalid(format!("map to {pa:#x}+{len:#x}: misaligned or beyond the output size")));
        }
        if access & 3 == 0 {
            return Err(invalid("an entry without R and W maps nothing".into()));
        }
        self.free_unlinked(hardware);
        if self.any_leaf(hardware, self.root, self.geometry.levels, ipa, ipa + (len - 1))? {
            return Err(Refusal::new(Refusal::EEXIST, format!("second stage: part of {ipa:#x}+{len:#x} is mapped")));
        }
        let mut done = 0;
        while done < len {
            let (at, to) = (ipa + done, pa + done);
            let fits = |level: &u32| (at | to) & ((1 << shift(*level)) - 1) == 0 && len - done >= 1 << shift(*level);
            let level = (1..=self.geometry.leaf_level).rev().find(fits).unwrap_or(1);
            if let Err(refusal) = self.set_leaf(hardware, at, to, level, access) {
                // Also takes out tables that were made for leaves that never came.
                self.unmap(hardware, ipa, len)?;
                return Err(refusal);
            }
            done += 1 << shift(level);
        }
        Ok(())
    }

    /// Unmaps `ipa..ipa+len`; holes are passed over. The caller invalidates before it changes this tree again.
    ///
    /// # Errors
    /// EINVAL if misaligned, beyond the input size, or if it cuts a leaf. Then nothing has changed.
    pub fn unmap(&mut self, hardware: &dyn Hardware, ipa: u64, len: u64) -> Result<(), Refusal> {
        self.check(ipa, len)?;
        let last = ipa + (len - 1);
        for edge in [ipa, last] {
            if let Some(level) = self.leaf_level(hardware, edge)? {
                let leaf = (1 << shift(level)) - 1;
                if edge & !leaf < ipa || edge | leaf > last {
                    return Err(invalid(format!("unmap {ipa:#x}+{len:#x} cuts a leaf at {edge:#x}")));
                }
            }
        }
        self.free_unlinked(hardware);
        self.clear(hardware, self.root, self.geometry.levels, ipa, last)
    }

    /// Frees all tables. The caller has flushed the tag.
    pub fn destroy(mut self, hardware: &dyn Hardware) {
        self.free_unlinked(hardware);
        free_below(hardware, self.root, self.geometry.levels);
        hardware.free(self.root, PAGE);
    }

    fn check(&self, ipa: u64, len: u64) -> Result<(), Refusal> {
        let end = ipa.checked_add(len).filter(|&end| end <= 1 << self.geometry.input_bits);
        if len == 0 || end.is_none() || !(ipa | len).is_multiple_of(PAGE) {
            let bits = self.geometry.input_bits;
            return Err(invalid(format!("{ipa:#x}+{len:#x}: empty, misaligned or beyond {bits} bits")));
        }
        Ok(())
    }

    fn set_leaf(&self, hardware: &dyn Hardware, ipa: u64, pa: u64, level: u32, access: u32) -> Result<(), Refusal> {
        let mut table = self.root;
        for above in (level + 1..=self.geometry.levels).rev() {
            let place = entry(table, above, ipa);
            let link = read(hardware, place)?;
            table = if present(link) {
                link.address() << 12
            } else {
                let new = hardware.alloc(PAGE, PAGE)?;
                let link = SecondStageEntry::new().with_read(true).with_write(true).with_address(new >> 12);
                write(hardware, place, link)?;
                new
            };
        }
        let leaf = SecondStageEntry::new()
            .with_read(access & 1 != 0)
            .with_write(access & 2 != 0)
            .with_page_size(level > 1)
            .with_address(pa >> 12);
        write(hardware, entry(table, level, ipa), leaf)
    }

    /// Level of the leaf that maps `ipa`.
    fn leaf_level(&self, hardware: &dyn Hardware, ipa: u64) -> Result<Option<u32>, Refusal> {
        let mut table = self.root;
        for level in (1..=self.geometry.levels).rev() {
            let found = read(hardware, entry(table, level, ipa))?;
            if !present(found) {
                return Ok(None);
            }
            if is_leaf(found, level) {
                return Ok(Some(level));
            }
            table = found.address() << 12;
        }
        Ok(None)
    }

    /// Whether anything in `first..=last` (which lies below this table) is mapped.
    fn any_leaf(&self, hw: &dyn Hardware, table: u64, level: u32, first: u64, last: u64) -> Result<bool, Refusal> {
        for (place, first, last) in pieces(table, level, first, last) {
            let found = read(hw, place)?;
            if present(found)
                && (is_leaf(found, level) || self.any_leaf(hw, found.address() << 12, level - 1, first, last)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Clears the leaves in `first..=last` and unlinks tables that become empty.
    fn clear(&mut self, hw: &dyn Hardware, table: u64, level: u32, first: u64, last: u64) -> Result<(), Refusal> {
        for (place, first, last) in pieces(table, level, first, last) {
            let found = read(hw, place)?;
            if !present(found) {
                continue;
            }
            if !is_leaf(found, level) {
                let below = found.address() << 12;
                self.clear(hw, below, level - 1, first, last)?;
                if !is_empty(hw, below)? {
                    continue;
                }
                self.unlinked.push(below);
            }
            write(hw, place, SecondStageEntry::new())?;
        }
        Ok(())
    }

    fn free_unlinked(&mut self, hardware: &dyn Hardware) {
        for table in self.unlinked.drain(..) {
            hardware.free(table, PAGE);
        }
    }
}

/// Address of the entry of `ipa` in a table.
fn entry(table: u64, level: u32, ipa: u64) -> u64 {
    table + PTE_BYTES * (ipa >> shift(level) & (ENTRIES - 1))
}

/// The entries of a table that `first..=last` touches, each with its part of the range.
fn pieces(table: u64, level: u32, first: u64, last: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let size = shift(level);
    (first >> size..=last >> size).map(move |index| {
        let from = first.max(index << size);
        (entry(table, level, from), from, last.min((index << size) | ((1 << size) - 1)))
    })
}

fn free_below(hardware: &dyn Hardware, table: u64, level: u32) {
    if level == 1 {
        return;
    }
    for index in 0..ENTRIES {
        // Unreadable tables are not freed: better lost than freed twice.
        let Ok(found) = read(hardware, table + PTE_BYTES * index) else { continue };
        if present(found) && !is_leaf(found, level) {
            free_below(hardware, found.address() << 12, level - 1);
            hardware.free(found.address() << 12, PAGE);
        }
    }
}

fn present(entry: SecondStageEntry) -> bool {
    entry.read() || entry.write()
}

fn is_leaf(entry: SecondStageEntry, level: u32) -> bool {
    level == 1 || entry.page_size()
}

fn is_empty(hardware: &dyn Hardware, table: u64) -> Result<bool, Refusal> {
    let mut bytes = [0; PAGE as usize];
    hardware.read(table, &mut bytes).map_err(broken)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
}

fn read(hardware: &dyn Hardware, place: u64) -> Result<SecondStageEntry, Refusal> {
    let mut bytes = [0; 8];
    hardware.read(place, &mut bytes).map_err(broken)?;
    Ok(SecondStageEntry::from_bits(u64::from_le_bytes(bytes)))
}

fn write(hardware: &dyn Hardware, place: u64, entry: SecondStageEntry) -> Result<(), Refusal> {
    hardware.write(place, &entry.into_bits().to_le_bytes()).map_err(broken)
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Refusal::EINVAL, format!("second stage: {text}"))
}
