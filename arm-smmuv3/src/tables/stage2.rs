//! Stage-2 translation tables (VMSAv8-64, 4 KiB granule): map and unmap, with blocks of 2 MiB and 1 GiB.

use super::broken;
use crate::spec::pte::Descriptor;
use crate::spec::registers::address_bits;
use viommu_plugin::{Hardware, Refusal};

const PAGE: u64 = 4096;
/// Entries of one 4 KiB table.
const ENTRIES: u64 = 512;
/// Level whose entries are pages.
const LAST: u32 = 3;

/// The shape of stage 2: sizes of input and output addresses, and the level the walk starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    ipa_bits: u32,
    start: u32,
    output_size: u8,
}

impl Geometry {
    /// The largest for an SMMU with this IDR5.OAS; 48 bits at most. Input addresses of up to 43 bits start at
    /// level 1 (with up to 16 tables side by side), larger ones at level 0.
    pub fn new(oas: u8) -> Self {
        let output_size = oas.min(5);
        let ipa_bits = address_bits(output_size);
        Self { ipa_bits, start: if ipa_bits > 43 { 0 } else { 1 }, output_size }
    }
    /// Bits of an input address.
    pub fn ipa_bits(self) -> u32 {
        self.ipa_bits
    }
    /// Output size, coded as STE.S2PS.
    pub fn output_size(self) -> u8 {
        self.output_size
    }
    /// STE.S2T0SZ.
    pub fn t0sz(self) -> u8 {
        (64 - self.ipa_bits) as u8
    }
    /// STE.S2SL0 for the 4 KiB granule.
    pub fn sl0(self) -> u8 {
        (2 - self.start) as u8
    }
    /// Tables side by side at the start level.
    fn root_tables(self) -> u64 {
        (1 << self.ipa_bits.saturating_sub(shift(self.start) + 9)).max(1)
    }
}

/// log2 of the bytes that one entry of a level covers.
const fn shift(level: u32) -> u32 {
    12 + 9 * (LAST - level)
}

/// One stage-2 table tree.
///
/// A table that becomes empty leaves the tree at once, but its memory is freed only by the next change of this tree
/// or its end: the hardware may hold its address until the caller has invalidated.
#[derive(Debug)]
pub struct Stage2 {
    geometry: Geometry,
    root: u64,
    tag: u16,
    fwb: bool,
    unlinked: Vec<u64>,
}

impl Stage2 {
    /// An empty tree.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware, geometry: Geometry, tag: u16, fwb: bool) -> Result<Self, Refusal> {
        let bytes = PAGE * geometry.root_tables();
        let root = hardware.alloc(bytes, bytes)?;
        Ok(Self { geometry, root, tag, fwb, unlinked: Vec::new() })
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
    /// Physical address of the start-level table.
    pub fn root(&self) -> u64 {
        self.root
    }
    /// Its VMID.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// Maps `ipa..ipa+len` to `pa` with the largest blocks that fit. On an error nothing has changed.
    ///
    /// # Errors
    /// EINVAL misaligned or beyond the address sizes, EEXIST part of it is mapped, ENOMEM.
    pub fn map(&mut self, hardware: &dyn Hardware, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        self.check(ipa, len)?;
        let output_end = pa.checked_add(len).filter(|&end| end <= 1 << address_bits(self.geometry.output_size));
        if output_end.is_none() || !pa.is_multiple_of(PAGE) {
            return Err(invalid(format!("map to {pa:#x}+{len:#x}: misaligned or beyond the output size")));
        }
        self.free_unlinked(hardware);
        if self.any_leaf(hardware, self.root, self.geometry.start, ipa, ipa + (len - 1))? {
            return Err(Refusal::new(Refusal::EEXIST, format!("stage 2: part of {ipa:#x}+{len:#x} is mapped")));
        }
        let mut done = 0;
        while done < len {
            let (at, to) = (ipa + done, pa + done);
            let level = (1..=LAST).find(|&level| fits(at | to, len - done, level)).unwrap_or(LAST);
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
    /// EINVAL if misaligned, beyond the input size, or if it cuts a block. Then nothing has changed.
    pub fn unmap(&mut self, hardware: &dyn Hardware, ipa: u64, len: u64) -> Result<(), Refusal> {
        self.check(ipa, len)?;
        let last = ipa + (len - 1);
        for edge in [ipa, last] {
            if let Some(level) = self.leaf_level(hardware, edge)? {
                let block = (1 << shift(level)) - 1;
                if edge & !block < ipa || edge | block > last {
                    return Err(invalid(format!("unmap {ipa:#x}+{len:#x} cuts a block at {edge:#x}")));
                }
            }
        }
        self.free_unlinked(hardware);
        self.clear(hardware, self.root, self.geometry.start, ipa, last)?;
        Ok(())
    }

    /// Frees all tables. The caller has flushed the tag.
    pub fn destroy(mut self, hardware: &dyn Hardware) {
        self.free_unlinked(hardware);
        self.free_below(hardware, self.root, self.geometry.start);
        hardware.free(self.root, PAGE * self.geometry.root_tables());
    }

    fn check(&self, ipa: u64, len: u64) -> Result<(), Refusal> {
        let end = ipa.checked_add(len).filter(|&end| end <= 1 << self.geometry.ipa_bits);
        if len == 0 || end.is_none() || !(ipa | len).is_multiple_of(PAGE) {
            let bits = self.geometry.ipa_bits;
            return Err(invalid(format!("{ipa:#x}+{len:#x}: empty, misaligned or beyond {bits} bits")));
        }
        Ok(())
    }

    /// Address of the entry of `ipa` in a table. The tables at the start level count as one.
    fn entry(&self, table: u64, level: u32, ipa: u64) -> u64 {
        let entries = if level == self.geometry.start { ENTRIES * self.geometry.root_tables() } else { ENTRIES };
        table + 8 * ((ipa >> shift(level)) & (entries - 1))
    }

    fn set_leaf(&self, hardware: &dyn Hardware, ipa: u64, pa: u64, level: u32, access: u32) -> Result<(), Refusal> {
        let mut table = self.root;
        for above in self.geometry.start..level {
            let entry = self.entry(table, above, ipa);
            let descriptor = read(hardware, entry)?;
            table = if descriptor.valid() {
                next_table(descriptor)
            } else {
                let new = hardware.alloc(PAGE, PAGE)?;
                let link = Descriptor::new().with_valid(true).with_table(true).with_address(new >> 12);
                write_descriptor(hardware, entry, link)?;
                new
            };
        }
        let attr = if self.fwb { Descriptor::MEM_ATTR_FWB_WB } else { Descriptor::MEM_ATTR_NORMAL_WB };
        let leaf = Descriptor::new()
            .with_valid(true)
            .with_table(level == LAST)
            .with_attr(attr)
            .with_ap((access & 3) as u8)
            .with_sh(Descriptor::SH_INNER)
            .with_af(true)
            .with_address(pa >> 12);
        write_descriptor(hardware, self.entry(table, level, ipa), leaf)
    }

    /// Level of the leaf that maps `ipa`.
    fn leaf_level(&self, hardware: &dyn Hardware, ipa: u64) -> Result<Option<u32>, Refusal> {
        let mut table = self.root;
        for level in self.geometry.start..=LAST {
            let descriptor = read(hardware, self.entry(table, level, ipa))?;
            if !descriptor.valid() {
                return Ok(None);
            }
            if is_leaf(descriptor, level) {
                return Ok(Some(level));
            }
            table = next_table(descriptor);
        }
        Ok(None)
    }

    /// Whether anything in `first..=last` (which lies below this table) is mapped.
    fn any_leaf(&self, hw: &dyn Hardware, table: u64, level: u32, first: u64, last: u64) -> Result<bool, Refusal> {
        for (entry, first, last) in self.pieces(table, level, first, last) {
            let descriptor = read(hw, entry)?;
            if descriptor.valid()
                && (is_leaf(descriptor, level) || self.any_leaf(hw, next_table(descriptor), level + 1, first, last)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Clears the leaves in `first..=last` and unlinks tables that become empty.
    fn clear(&mut self, hw: &dyn Hardware, table: u64, level: u32, first: u64, last: u64) -> Result<(), Refusal> {
        for (entry, first, last) in self.pieces(table, level, first, last) {
            let descriptor = read(hw, entry)?;
            if !descriptor.valid() {
                continue;
            }
            if !is_leaf(descriptor, level) {
                let below = next_table(descriptor);
                self.clear(hw, below, level + 1, first, last)?;
                if !is_empty(hw, below)? {
                    continue;
                }
                self.unlinked.push(below);
            }
            write_descriptor(hw, entry, Descriptor::new())?;
        }
        Ok(())
    }

    /// The entries of a table that `first..=last` touches, each with its part of the range.
    fn pieces(&self, table: u64, level: u32, first: u64, last: u64) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let size = shift(level);
        let base = self.entry(table, level, first);
        let start = first >> size;
        (start..=last >> size).map(move |index| {
            let from = first.max(index << size);
            (base + 8 * (index - start), from, last.min((index << size) | ((1 << size) - 1)))
        })
    }

    fn free_unlinked(&mut self, hardware: &dyn Hardware) {
        for table in self.unlinked.drain(..) {
            hardware.free(table, PAGE);
        }
    }

    fn free_below(&self, hardware: &dyn Hardware, table: u64, level: u32) {
        let entries = if level == self.geometry.start { ENTRIES * self.geometry.root_tables() } else { ENTRIES };
        if level == LAST {
            return;
        }
        for entry in 0..entries {
            // Unreadable tables are not freed: better lost than freed twice.
            let Ok(descriptor) = read(hardware, table + 8 * entry) else { continue };
            if descriptor.valid() && !is_leaf(descriptor, level) {
                self.free_below(hardware, next_table(descriptor), level + 1);
                hardware.free(next_table(descriptor), PAGE);
            }
        }
    }
}

/// Whether a leaf of `level` fits at addresses whose bits are in `addresses`.
fn fits(addresses: u64, len: u64, level: u32) -> bool {
    let size = 1 << shift(level);
    addresses & (size - 1) == 0 && len >= size
}

fn is_leaf(descriptor: Descriptor, level: u32) -> bool {
    level == LAST || !descriptor.table()
}

fn next_table(descriptor: Descriptor) -> u64 {
    descriptor.address() << 12
}

fn is_empty(hardware: &dyn Hardware, table: u64) -> Result<bool, Refusal> {
    let mut bytes = [0; PAGE as usize];
    hardware.read(table, &mut bytes).map_err(broken)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
}

fn read(hardware: &dyn Hardware, entry: u64) -> Result<Descriptor, Refusal> {
    let mut bytes = [0; 8];
    hardware.read(entry, &mut bytes).map_err(broken)?;
    Ok(Descriptor::from_bits(u64::from_le_bytes(bytes)))
}

fn write_descriptor(hardware: &dyn Hardware, entry: u64, descriptor: Descriptor) -> Result<(), Refusal> {
    hardware.write(entry, &descriptor.into_bits().to_le_bytes()).map_err(broken)
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Refusal::EINVAL, format!("stage 2: {text}"))
}
