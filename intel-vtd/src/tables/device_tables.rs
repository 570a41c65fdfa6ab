//! Root, context and PASID tables (§3.4): one context table for half a bus, and for each device that was ever attached a
//! PASID directory of one entry and a PASID table of which PASID 0, that of requests without one, is used.

use super::{PasidEntry, broken};
use crate::spec::context::{ROOT_BYTES, RootEntry, SCALABLE_CONTEXT_BYTES, ScalableContext0};
use crate::spec::pasid::{DirectoryEntry, ENTRY_BYTES, ENTRY_WORDS};
use crate::spec::registers::{RootTable, TableMode};
use viommu_plugin::{Hardware, Refusal};

const PAGE: u64 = 4096;
/// Devices have 16-bit source-ids.
const SOURCE_IDS: u32 = 1 << 16;

/// The root table. A device without tables aborts.
#[derive(Debug)]
pub struct Tables {
    root: u64,
}

/// One device's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceTables {
    /// Address of its context entry.
    pub context: u64,
    /// Address of the PASID table entry of requests without PASID.
    pub entry: u64,
}

impl Tables {
    /// A root table in which every device aborts.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware) -> Result<Self, Refusal> {
        Ok(Self { root: hardware.alloc(PAGE, PAGE)? })
    }

    /// Devices that have a place in the tables.
    pub fn streams(&self) -> u32 {
        SOURCE_IDS
    }

    /// Value of RTADDR.
    pub fn root_register(&self) -> RootTable {
        RootTable::new().with_mode(TableMode::SCALABLE.0).with_root_table(self.root >> 12)
    }

    /// A device's tables, if it ever had any.
    ///
    /// # Errors
    /// If the stream is no source-id.
    pub fn find(&self, hardware: &dyn Hardware, stream: u32) -> Result<Option<DeviceTables>, Refusal> {
        let root = RootEntry::from_bits(read_word(hardware, self.root_entry(stream)?)?);
        if !root.present() {
            return Ok(None);
        }
        let context = root.address() + u64::from(stream & 0x7f) * SCALABLE_CONTEXT_BYTES;
        let word0 = ScalableContext0::from_bits(read_word(hardware, context)?);
        if !word0.present() {
            return Ok(None);
        }
        let directory = DirectoryEntry::from_bits(read_word(hardware, word0.address())?);
        Ok(Some(DeviceTables { context, entry: directory.address() }))
    }

    /// A device's tables, made if need be: then (the answer's second part) its context entry is new to the hardware, and
    /// its PASID table entry aborts.
    ///
    /// # Errors
    /// If the stream is no source-id, or there is no memory.
    pub fn find_or_make(&mut self, hardware: &dyn Hardware, stream: u32) -> Result<(DeviceTables, bool), Refusal> {
        if let Some(tables) = self.find(hardware, stream)? {
            return Ok((tables, false));
        }
        let root = self.root_entry(stream)?;
        let mut context_table = RootEntry::from_bits(read_word(hardware, root)?);
        if !context_table.present() {
            let table = hardware.alloc(PAGE, PAGE)?;
            context_table = RootEntry::new().with_present(true).with_context_table(table >> 12);
            write_word(hardware, root, 0, context_table.into())?;
        }
        // A PASID table of 64 entries, and behind it a directory, of which the smallest has 128.
        let table = hardware.alloc(2 * PAGE, PAGE)?;
        let directory = table + PAGE;
        let entry = DirectoryEntry::new().with_present(true).with_table(table >> 12);
        write_word(hardware, directory, 0, entry.into())?;
        let context = context_table.address() + u64::from(stream & 0x7f) * SCALABLE_CONTEXT_BYTES;
        // RID_PASID is 0, as are the other words. The word with P is the last to be written.
        let word0 = ScalableContext0::new().with_present(true).with_directory(directory >> 12);
        write_word(hardware, context, 0, word0.into())?;
        Ok((DeviceTables { context, entry: table }, true))
    }

    /// Address of the half of a root entry that leads to the stream's context table.
    fn root_entry(&self, stream: u32) -> Result<u64, Refusal> {
        if stream >= SOURCE_IDS {
            return Err(Refusal::new(Refusal::EINVAL, format!("source-id {stream:#x} has more than 16 bits")));
        }
        Ok(self.root + u64::from(stream >> 8) * ROOT_BYTES + u64::from(stream >> 7 & 1) * 8)
    }
}

impl DeviceTables {
    /// The PASID table entry.
    ///
    /// # Errors
    /// If its memory is gone.
    pub fn read_entry(self, hardware: &dyn Hardware) -> Result<PasidEntry, Refusal> {
        let mut bytes = [0; ENTRY_BYTES as usize];
        hardware.read(self.entry, &mut bytes).map_err(broken)?;
        let mut entry = [0; ENTRY_WORDS];
        for (word, bytes) in entry.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(entry)
    }

    /// Word 0 of the context entry.
    ///
    /// # Errors
    /// If its memory is gone.
    pub fn read_context(self, hardware: &dyn Hardware) -> Result<ScalableContext0, Refusal> {
        read_word(hardware, self.context).map(ScalableContext0::from_bits)
    }
}

/// Writes one word of an entry, in one piece.
pub(crate) fn write_word(hardware: &dyn Hardware, entry: u64, word: usize, value: u64) -> Result<(), Refusal> {
    hardware.write(entry + 8 * word as u64, &value.to_le_bytes()).map_err(broken)
}

fn read_word(hardware: &dyn Hardware, address: u64) -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    hardware.read(address, &mut bytes).map_err(broken)?;
    Ok(u64::from_le_bytes(bytes))
}
