//! The guest's table entries: where its registers say they are, and what they ask for.

use super::Pipeline;
use crate::Cause;
use crate::save::GuestEntry;
use viommu_plugin::{EntryKey, KeyKind, Lookup, Mode};
use vm_memory::GuestMemoryMmap;

impl Pipeline {
    /// What `virt_id`'s DMA should do now: the guest's mode, and if that is "translate" its table entry.
    ///
    /// # Errors
    /// If the plugin failed.
    pub fn desired_entry(&self, virt_id: u32) -> Result<GuestEntry, Cause> {
        let mut entry = vec![0; self.plugin.entry_words];
        let found = {
            let registers = self.registers()?;
            match registers.mode()? {
                Mode::TRANSLATE => registers.entry(&GuestView(&self.memory), virt_id, &mut entry)?,
                Mode::BYPASS => return Ok(GuestEntry::Bypass),
                _ => return Ok(GuestEntry::Abort),
            }
        };
        Ok(if found == Lookup::FOUND { GuestEntry::Words(entry.into()) } else { GuestEntry::Abort })
    }

    /// What an entry asks for, in canonical form.
    ///
    /// # Errors
    /// As [`Pipeline::entry_key`].
    pub fn key_of(&self, entry: &GuestEntry) -> Result<EntryKey, Cause> {
        match entry {
            GuestEntry::Abort => Ok(EntryKey::default()),
            GuestEntry::Bypass => Ok(EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() }),
            GuestEntry::Words(words) => self.entry_key(words),
        }
    }

    /// What a guest table entry asks for.
    ///
    /// # Errors
    /// If it has the wrong number of words, or the plugin failed.
    pub fn entry_key(&self, words: &[u64]) -> Result<EntryKey, Cause> {
        let expected = self.plugin.entry_words;
        if words.len() != expected {
            return Err(Cause::Invalid(format!("a table entry has {expected} words, not {}", words.len())));
        }
        Ok(self.codec.entry_key(words)?)
    }

    /// Guest physical pages (4 KiB), ascending, in which a write of the guest may make table entries of `virt_ids` valid
    /// without a command that says so; `most` at most.
    ///
    /// # Errors
    /// If there is no frontend, or the plugin failed.
    pub fn watched_pages(&self, virt_ids: &[u32], most: usize) -> Result<Vec<u64>, Cause> {
        Ok(self.registers()?.watched(&GuestView(&self.memory), virt_ids, most)?)
    }
}

/// The guest's memory as a frontend reads it.
pub(super) struct GuestView<'a>(pub(super) &'a GuestMemoryMmap);

impl viommu_plugin::GuestMemory for GuestView<'_> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), viommu_plugin::Unreadable> {
        use vm_memory::{Bytes, GuestAddress};
        self.0.read_slice(bytes, GuestAddress(gpa)).map_err(|_| viommu_plugin::Unreadable)
    }
}
