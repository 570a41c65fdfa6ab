//! A guest's second-stage tables (§9.8), followed in software.

use super::FoundAt;
use crate::spec::context::{LegacyContext0, LegacyContext1};
use crate::spec::pasid::{PasidEntry0, TranslationKind};
use crate::spec::pte::{INDEX_BITS, PTE_BYTES, SecondStageEntry};
use viommu_plugin::{EntryKey, GuestMapping, GuestMemory, KeyKind, WALK_READS, Walked};

/// Entries of a table.
const ENTRIES: usize = 1 << INDEX_BITS;

/// A second-stage table tree: where its root is, and how many levels it has.
pub(super) struct Tree {
    root: u64,
    levels: u32,
}

impl Tree {
    /// The tree that a key names, if it names one.
    pub(super) fn of(key: &EntryKey) -> Option<Self> {
        let [word0, word1, _, word3] = key.words;
        if key.kind != KeyKind::TRANSLATE {
            return None;
        }
        let (root, width) = if FoundAt::from_bits(word3).scalable() {
            let entry = PasidEntry0::from_bits(word0);
            if TranslationKind(entry.translation_kind()) != TranslationKind::SECOND_STAGE {
                return None;
            }
            (entry.address(), entry.address_width())
        } else {
            (LegacyContext0::from_bits(word0).address(), LegacyContext1::from_bits(word1).address_width())
        };
        (1..=3).contains(&width).then(|| Self { root, levels: u32::from(width) + 2 })
    }

    /// Last address of the tree.
    fn last(&self) -> u64 {
        (1 << (shift(self.levels) + INDEX_BITS)) - 1
    }
}

/// log2 of the bytes that one entry of a level covers. Level 1 holds pages.
const fn shift(level: u32) -> u32 {
    12 + INDEX_BITS * (level - 1)
}

struct Walk<'a> {
    memory: &'a dyn GuestMemory,
    first: u64,
    last: u64,
    out: &'a mut [GuestMapping],
    written: usize,
    /// Entries that may still be read.
    budget: u32,
}

/// Nothing more can be read or written: the address to go on at.
struct GoOn(u64);

/// The leaves of `key`'s table that overlap `first..=last`.
pub(super) fn mappings(
    key: &EntryKey,
    memory: &dyn GuestMemory,
    first: u64,
    last: u64,
    out: &mut [GuestMapping],
) -> Walked {
    let done = |written| Walked { written, done: 1, next: 0 };
    let Some(tree) = Tree::of(key) else { return done(0) };
    let last = last.min(tree.last());
    if first > last {
        return done(0);
    }
    let mut walk = Walk { memory, first, last, out, written: 0, budget: WALK_READS };
    match walk.table(tree.root, tree.levels, 0, 0b11) {
        Ok(()) => done(walk.written as u32),
        Err(GoOn(next)) => Walked { written: walk.written as u32, done: 0, next },
    }
}

impl Walk<'_> {
    /// The leaves below a table that covers addresses from `base`; `permissions` is what the way to it allows. A table
    /// that cannot be read has none.
    fn table(&mut self, table: u64, level: u32, base: u64, permissions: u32) -> Result<(), GoOn> {
        let size = 1u64 << shift(level);
        let index = |address: u64| ((address - base) >> shift(level)) as usize;
        let end = base + (size << INDEX_BITS) - 1;
        let (from, to) = (index(self.first.max(base)), index(self.last.min(end)));
        let mut bytes = [0; ENTRIES * PTE_BYTES as usize];
        let mut at = from;
        while at <= to {
            // As many as may be read; the rest of the table is another call's.
            let count = (to - at + 1).min(self.budget as usize);
            if count == 0 {
                return Err(GoOn(self.first.max(base + at as u64 * size)));
            }
            let part = &mut bytes[..count * PTE_BYTES as usize];
            self.budget -= count as u32;
            if self.memory.read(table + at as u64 * PTE_BYTES, part).is_err() {
                return Ok(());
            }
            for (entry, bytes) in part.as_chunks::<8>().0.iter().enumerate() {
                let address = base + (at + entry) as u64 * size;
                self.entry(u64::from_le_bytes(*bytes).into(), level, address, permissions)?;
            }
            at += count;
        }
        Ok(())
    }

    fn entry(&mut self, entry: SecondStageEntry, level: u32, address: u64, above: u32) -> Result<(), GoOn> {
        let permissions = above & (u32::from(entry.read()) | u32::from(entry.write()) << 1);
        if !(entry.read() || entry.write()) {
            return Ok(());
        }
        let size = 1u64 << shift(level);
        let leaf = level == 1 || entry.page_size();
        if !leaf {
            return self.table(entry.address() << 12, level - 1, address, permissions);
        }
        // Leaves of more than 1 GiB do not exist, and a large one is aligned: else the entry is not legal.
        let gpa = entry.address() << 12;
        if level > 3 || !gpa.is_multiple_of(size) || permissions == 0 {
            return Ok(());
        }
        let Some(slot) = self.out.get_mut(self.written) else { return Err(GoOn(self.first.max(address))) };
        *slot = GuestMapping { iova: address, gpa, length: size, permissions, reserved: 0 };
        self.written += 1;
        Ok(())
    }
}
