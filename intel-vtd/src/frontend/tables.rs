//! The guest's root, context and PASID tables (§3.4, §9.1 to §9.6), in its own memory.

use crate::codec::{ENTRY_WORDS, FoundAt};
use crate::features::{Features, Service};
use crate::spec::context::{
    LEGACY_CONTEXT_BYTES, ROOT_BYTES, RootEntry, SCALABLE_CONTEXT_BYTES, ScalableContext0, ScalableContext1,
};
use crate::spec::pasid::DirectoryEntry;
use crate::spec::registers::{RootTable, TableMode};
use std::collections::BTreeSet;
use viommu_plugin::{GuestMemory, Lookup};

/// Devices have 16-bit source-ids.
const SOURCE_IDS: u32 = 1 << 16;
const PAGE: u64 = 4096;

/// Whether the root table is of a kind whose guests are served pass-through only.
pub(super) fn second_stage_unserved(features: &Features, root: RootTable) -> bool {
    features.service() == Service::Nested && TableMode(root.mode()) == TableMode::LEGACY
}

/// Reads the entry of `source` into `entry`: see [`crate::codec`]'s entries for its words.
pub(super) fn lookup(
    features: &Features,
    root: RootTable,
    memory: &dyn GuestMemory,
    source: u32,
    entry: &mut [u64],
) -> Lookup {
    let mut path = Path { features, root, memory, pages: &mut |_| {} };
    match path.follow(source) {
        Ok(words) => {
            entry.iter_mut().zip(words).for_each(|(to, from)| *to = from);
            Lookup::FOUND
        }
        Err(lookup) => lookup,
    }
}

/// The pages in which the entries on the way to each of `sources` are or would be, ascending.
pub(super) fn pages(features: &Features, root: RootTable, memory: &dyn GuestMemory, sources: &[u32]) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    for &source in sources {
        // Whether there is an entry does not matter: how far the way goes does.
        let _ = Path { features, root, memory, pages: &mut |page| _ = pages.insert(page) }.follow(source);
    }
    pages
}

struct Path<'a> {
    features: &'a Features,
    root: RootTable,
    memory: &'a dyn GuestMemory,
    /// Sees the page of every entry that is read.
    pages: &'a mut dyn FnMut(u64),
}

impl Path<'_> {
    fn read<const WORDS: usize>(&mut self, address: u64) -> Result<[u64; WORDS], Lookup> {
        (self.pages)(address & !(PAGE - 1));
        let mut words = [0; WORDS];
        // No entry crosses a page; the largest has 64 bytes.
        let mut bytes = [0; 64];
        self.memory.read(address, &mut bytes[..8 * WORDS]).map_err(|_| Lookup::UNREADABLE)?;
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(words)
    }

    fn follow(&mut self, source: u32) -> Result<[u64; ENTRY_WORDS], Lookup> {
        if source >= SOURCE_IDS {
            return Err(Lookup::NO_ENTRY);
        }
        let (bus, function) = (u64::from(source >> 8), u64::from(source & 0xff));
        let root: [u64; 2] = self.read(self.root.address() + bus * ROOT_BYTES)?;
        match TableMode(self.root.mode()) {
            TableMode::LEGACY => self.legacy(root, function),
            TableMode::SCALABLE if self.features.ecap.scalable_mode() => self.scalable(root, function),
            // Reserved: every request faults.
            _ => Err(Lookup::NO_ENTRY),
        }
    }

    fn legacy(&mut self, root: [u64; 2], function: u64) -> Result<[u64; ENTRY_WORDS], Lookup> {
        let table = context_table(root[0])?;
        if root[1] != 0 {
            return Err(Lookup::NO_ENTRY);
        }
        let [low, high] = self.read(table + function * LEGACY_CONTEXT_BYTES)?;
        let mut entry = [0; ENTRY_WORDS];
        entry[..2].copy_from_slice(&[low, high]);
        Ok(entry)
    }

    /// A root entry has two tables here, of half of the bus's functions each.
    fn scalable(&mut self, root: [u64; 2], function: u64) -> Result<[u64; ENTRY_WORDS], Lookup> {
        let table = context_table(root[(function >> 7) as usize])?;
        let [low, high, rest @ ..] = self.read::<4>(table + (function & 0x7f) * SCALABLE_CONTEXT_BYTES)?;
        let (context, reserved) = (ScalableContext0::from_bits(low), ScalableContext1::from_bits(high).reserved());
        if !context.present() || context.reserved() != 0 || reserved != 0 || rest != [0; 2] {
            return Err(Lookup::NO_ENTRY);
        }
        // Requests without PASID are looked up as PASID 0: no guest is shown ECAP.RPS.
        let [directory] = self.read(context.address())?;
        let directory = DirectoryEntry::from_bits(directory);
        if !directory.present() || directory.reserved() != 0 {
            return Err(Lookup::NO_ENTRY);
        }
        let [word0, word1, word2, reserved @ ..] = self.read::<8>(directory.address())?;
        let found = FoundAt::new()
            .with_scalable(true)
            .with_fault_disable(context.fault_disable() || directory.fault_disable())
            .with_device_tlb_enable(context.device_tlb_enable());
        let mut entry = [word0, word1, word2, found.into_bits(), 0, 0, 0, 0, 0];
        entry[4..].copy_from_slice(&reserved);
        Ok(entry)
    }
}

fn context_table(root: u64) -> Result<u64, Lookup> {
    let root = RootEntry::from_bits(root);
    if root.present() && root.reserved() == 0 { Ok(root.address()) } else { Err(Lookup::NO_ENTRY) }
}
