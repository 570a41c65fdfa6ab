//! A plugin's table, read with care: size and major through a raw pointer, then a copy of what both sides know.
//!
//! UNSAFETY: reads the table behind the exported symbol, and text behind its pointers.
#![expect(unsafe_code)]

use crate::{LoadError, PluginInfo};
use std::path::{Path, PathBuf};
use viommu_plugin::abi::{ABI_MAJOR, PluginEntry, Text};

/// Longest text taken from a plugin, in bytes.
const TEXT_MAX: usize = 256;

/// The host's copy of a plugin's table, checked. Slots that the plugin does not know are `None`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) entry: PluginEntry,
    pub(crate) info: PluginInfo,
}

impl Table {
    /// Copies and checks the table at `symbol`.
    ///
    /// # Safety
    /// `symbol` leads to a table that begins with its size and ABI version, has that many bytes, and lives for ever.
    pub(crate) unsafe fn read(symbol: *const PluginEntry, path: Option<&Path>) -> Result<Self, LoadError> {
        let place = || path.map_or_else(|| PathBuf::from("linked plugin"), Path::to_path_buf);
        // 1. Size and major, which every version has in the same place. Unaligned reads: nothing is known yet.
        // SAFETY: the symbol leads to at least these two numbers.
        let (size, major) = unsafe {
            let words = symbol.cast::<u32>();
            (words.read_unaligned(), words.add(1).read_unaligned())
        };
        if major != ABI_MAJOR {
            return Err(LoadError::WrongMajor { path: place(), found: major, ours: ABI_MAJOR });
        }
        if size < PluginEntry::SIZE_MIN {
            let needed = PluginEntry::SIZE_MIN;
            return Err(LoadError::ShortTable { path: place(), found: size, needed, major });
        }
        // 2. The bytes that both sides know; the rest of ours stays zero, which is "no such slot". Half a slot is none.
        let mut entry = std::mem::MaybeUninit::<PluginEntry>::zeroed();
        let slots = (size - PluginEntry::SIZE_MIN) as usize / size_of::<usize>();
        let whole = PluginEntry::SIZE_MIN as usize + slots * size_of::<usize>();
        let both = whole.min(size_of::<PluginEntry>());
        // SAFETY: the plugin has `size` bytes, we have ours; zero is valid for every field, and what the plugin
        // compiled as this type is too.
        let entry = unsafe {
            std::ptr::copy_nonoverlapping(symbol.cast::<u8>(), entry.as_mut_ptr().cast::<u8>(), both);
            entry.assume_init()
        };
        // 3. Slots, then facts.
        if let Some(slot) = missing(&entry) {
            return Err(LoadError::MissingSlot { path: place(), slot });
        }
        let info = facts(&entry, path).map_err(|what| LoadError::BadFact { path: place(), what })?;
        Ok(Self { entry, info })
    }
}

/// Text from a plugin, which lives as long as the library is mapped: for ever. `Err` if it is not text.
pub(crate) fn text(text: Text) -> Result<Option<&'static str>, &'static str> {
    if text.bytes.is_null() {
        return Ok(None);
    }
    if text.len > TEXT_MAX {
        return Err("text too long");
    }
    // SAFETY: not null, and the plugin promises that its text lives as long as the library, which stays mapped.
    let bytes = unsafe { std::slice::from_raw_parts(text.bytes.cast::<u8>(), text.len) };
    std::str::from_utf8(bytes).map(Some).map_err(|_| "text is not UTF-8")
}

/// The first slot that a part on offer lacks.
fn missing(entry: &PluginEntry) -> Option<&'static str> {
    macro_rules! need {
        ($create:ident: $($slot:ident)*) => {
            if entry.$create.is_some() {
                $(if entry.$slot.is_none() {
                    return Some(stringify!($slot));
                })*
            }
        };
    }
    need!(frontend_create: frontend_destroy frontend_read frontend_write frontend_queue frontend_advance
        frontend_fault frontend_sync_done frontend_event frontend_event_lost frontend_mode frontend_entry
        frontend_reset frontend_register_name frontend_trouble);
    need!(codec_create: codec_destroy codec_rewrite codec_configuration codec_entry_key codec_opcode
        codec_opcode_name codec_describe);
    need!(driver_create: driver_destroy driver_info driver_guest_registers driver_stage2_create driver_stage2_map
        driver_stage2_unmap driver_stage2_destroy driver_attach driver_detach driver_encode driver_queue_fault
        driver_queue_resume driver_event);
    need!(model_create: model_destroy model_mmio_read model_mmio_write model_step model_translate model_explain
        model_stats model_atc_unresponsive model_reset);
    need!(kernel_facts: kernel_registers kernel_hwpt_data kernel_entries kernel_repeatable kernel_event
        kernel_interface);
    None
}

fn facts(entry: &PluginEntry, path: Option<&Path>) -> Result<PluginInfo, String> {
    let word = |what: &str, given: Text| match text(given) {
        Ok(Some(text)) if !text.is_empty() => Ok(text.to_owned()),
        Ok(_) => Err(format!("its {what} is empty")),
        Err(wrong) => Err(format!("its {what}: {wrong}")),
    };
    let count = |what: &str, given: u32, max: usize| match given as usize {
        count if (1..=max).contains(&count) => Ok(count),
        count => Err(format!("its {what} is {count}, not 1 to {max}")),
    };
    let name = word("name", entry.name)?;
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(format!("its name {name:?} is not made of a-z, 0-9 and '-'"));
    }
    if !(8..=1 << 32).contains(&entry.frame_bytes) {
        return Err(format!("its register frame has {} bytes, not 8 to 2^32", entry.frame_bytes));
    }
    let offered = [
        ("frontend", entry.frontend_create.is_some()),
        ("codec", entry.codec_create.is_some()),
        ("driver", entry.driver_create.is_some()),
        ("model", entry.model_create.is_some()),
    ];
    Ok(PluginInfo {
        name,
        version: word("version", entry.version)?,
        vendor: entry.vendor,
        abi_major: entry.abi_major,
        abi_minor: entry.abi_minor,
        path: path.map(Path::to_path_buf),
        command_words: count("command", entry.command_words, 8)?,
        entry_words: count("table entry", entry.entry_words, 16)?,
        event_words: count("event record", entry.event_words, 8)?,
        frame_bytes: entry.frame_bytes,
        stream_name: word("stream name", entry.stream_name)?,
        parts: offered.into_iter().filter_map(|(part, there)| there.then_some(part)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_slot_is_no_slot() {
        let whole = PluginEntry::of::<mock_plugin::Mock>();
        assert!(whole.frontend_save.is_some(), "the first slot behind those of 1.0");
        for beyond in 0..16 {
            let table = PluginEntry { size: PluginEntry::SIZE_MIN + beyond, ..whole };
            // SAFETY: a whole table, longer than it says.
            let table = unsafe { Table::read(&table, None) }.expect("it has every slot of 1.0");
            assert_eq!(table.entry.frontend_save.is_some(), beyond >= 8, "{beyond} bytes beyond 1.0");
            assert!(table.entry.frontend_restore.is_none(), "{beyond} bytes beyond 1.0");
        }
    }
}
