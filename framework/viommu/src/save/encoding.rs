//! [`SavedViommu`] as bytes. Bytes come from another host: no length in them is believed before it is checked.

use super::{GuestEntry, SavedHwQueue, SavedVdevice, SavedViommu};
use crate::objects::VIRT_ID_LIMIT;
use std::sync::Arc;
use viommu_plugin::{Register, StateError, StateReader, StateWriter};

const WHAT: &str = "saved vIOMMU";
const MAGIC: &[u8; 8] = b"VIOMMUSV";
/// The version written, and the newest one read.
const VERSION: u32 = 1;
/// Longest text, in bytes.
const TEXT_MAX: usize = 256;
/// Words of the longest table entry of any vendor.
const ENTRY_MAX: u8 = 16;

/// Which of the optional parts follow.
mod part {
    pub(super) const FRONTEND: u8 = 1;
    pub(super) const QUARANTINED: u8 = 2;
    pub(super) const EVENT_QUEUE: u8 = 4;
}

/// Kinds of entries.
mod kind {
    pub(super) const ABORT: u8 = 0;
    pub(super) const BYPASS: u8 = 1;
    pub(super) const WORDS: u8 = 2;
}

impl SavedViommu {
    /// The state as bytes of version 1.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut state = StateWriter::default();
        state.raw(MAGIC).u32(VERSION).counted(self.vendor.as_bytes());
        let parts = [
            (self.frontend.is_some(), part::FRONTEND),
            (self.quarantined.is_some(), part::QUARANTINED),
            (self.event_queue, part::EVENT_QUEUE),
        ];
        state.u8(parts.iter().filter(|(there, _)| *there).fold(0, |all, (_, bit)| all | bit));
        self.frontend.iter().for_each(|bytes| _ = state.counted(bytes));
        self.quarantined.iter().for_each(|reason| _ = state.counted(cut(reason).as_bytes()));
        state.u32(self.shown.len() as u32);
        for Register { offset, value } in &self.shown {
            state.u64(*offset).u64(*value);
        }
        state.u32(self.vdevices.len() as u32);
        for SavedVdevice { virt_id, entry } in &self.vdevices {
            state.u32(*virt_id);
            match entry {
                GuestEntry::Abort => _ = state.u8(kind::ABORT),
                GuestEntry::Bypass => _ = state.u8(kind::BYPASS),
                GuestEntry::Words(words) => {
                    state.u8(kind::WORDS).u8(words.len() as u8);
                    words.iter().for_each(|word| _ = state.u64(*word));
                }
            }
        }
        state.u32(self.hw_queues.len() as u32);
        for SavedHwQueue { iova, length } in &self.hw_queues {
            state.u64(*iova).u64(*length);
        }
        state.into_bytes()
    }

    /// The state that these bytes are.
    ///
    /// # Errors
    /// [`StateError`] with the field: bytes of something else, of a newer version, cut short, going on behind the end, or
    /// holding what [`SavedViommu::to_bytes`] never writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut state = StateReader::new(WHAT, bytes);
        if state.raw(MAGIC.len(), "magic")? != MAGIC {
            return Err(state.wrong("magic", "these bytes are something else"));
        }
        state.version(VERSION)?;
        let vendor = text(&mut state, "vendor")?;
        let parts = state.u8("parts")?;
        if parts & !(part::FRONTEND | part::QUARANTINED | part::EVENT_QUEUE) != 0 {
            return Err(state.wrong("parts", format!("{parts:#x} has bits of no part")));
        }
        let frontend = (parts & part::FRONTEND != 0).then(|| state.counted("frontend").map(<[u8]>::to_vec));
        let frontend = frontend.transpose()?;
        let quarantined = (parts & part::QUARANTINED != 0).then(|| text(&mut state, "quarantined")).transpose()?;
        let shown = (0..state.count(16, "ID registers")?)
            .map(|_| Ok(Register { offset: state.u64("ID register")?, value: state.u64("ID register")? }))
            .collect::<Result<_, _>>()?;
        let vdevices = vdevices(&mut state)?;
        let hw_queues = (0..state.count(16, "HW queues")?)
            .map(|_| Ok(SavedHwQueue { iova: state.u64("HW queue")?, length: state.u64("HW queue")? }))
            .collect::<Result<_, _>>()?;
        state.end()?;
        let event_queue = parts & part::EVENT_QUEUE != 0;
        Ok(Self { vendor, shown, frontend, quarantined, event_queue, vdevices, hw_queues })
    }
}

fn vdevices(state: &mut StateReader<'_>) -> Result<Vec<SavedVdevice>, StateError> {
    let count = state.count(5, "vdevices")?;
    let mut vdevices = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        let virt_id = state.u32("guest ID")?;
        if !(next..VIRT_ID_LIMIT).contains(&virt_id) {
            return Err(state.wrong("guest ID", format!("{virt_id} is not from {next} to {}", VIRT_ID_LIMIT - 1)));
        }
        next = virt_id + 1;
        let entry = match state.u8("kind of entry")? {
            kind::ABORT => GuestEntry::Abort,
            kind::BYPASS => GuestEntry::Bypass,
            kind::WORDS => GuestEntry::Words(words(state)?),
            other => return Err(state.wrong("kind of entry", format!("{other} is unknown"))),
        };
        vdevices.push(SavedVdevice { virt_id, entry });
    }
    Ok(vdevices)
}

fn words(state: &mut StateReader<'_>) -> Result<Arc<[u64]>, StateError> {
    let count = state.u8("words of an entry")?;
    if !(1..=ENTRY_MAX).contains(&count) {
        return Err(state.wrong("words of an entry", format!("{count} is not from 1 to {ENTRY_MAX}")));
    }
    (0..count).map(|_| state.u64("entry")).collect()
}

fn text(state: &mut StateReader<'_>, field: &'static str) -> Result<String, StateError> {
    let bytes = state.counted(field)?;
    if bytes.len() > TEXT_MAX {
        return Err(state.wrong(field, format!("{} bytes, at most {TEXT_MAX} are written", bytes.len())));
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| state.wrong(field, "not UTF-8"))
}

/// As much of a text as is written.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
