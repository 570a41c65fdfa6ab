//! The toy IOMMU's bits, by the sections of its manual.

use viommu_plugin::{Refusal, Register};

/// Registers (1).
pub(crate) const ID: u64 = 0x00;
pub(crate) const FEATURES: u64 = 0x08;
pub(crate) const CONTROL: u64 = 0x10;
pub(crate) const TABLE: u64 = 0x18;
pub(crate) const QUEUE: u64 = 0x20;
pub(crate) const TAIL: u64 = 0x28;
pub(crate) const HEAD: u64 = 0x30;
pub(crate) const RESUME: u64 = 0x38;
pub(crate) const EVENTS: u64 = 0x40;
pub(crate) const EVENT_TAIL: u64 = 0x48;
pub(crate) const EVENT_HEAD: u64 = 0x50;
/// Their names, in order of their offsets.
pub(crate) const NAMES: [&str; 11] =
    ["ID", "FEATURES", "CONTROL", "TABLE", "QUEUE", "TAIL", "HEAD", "RESUME", "EVENTS", "EVENT_TAIL", "EVENT_HEAD"];

pub(crate) const ID_VALUE: u64 = 0x0179_6f74;
pub(crate) const DEVICE_CACHE: u64 = 1;
pub(crate) const STAGE2: u64 = 2;
pub(crate) const CONTROL_TRANSLATE: u64 = 1;
pub(crate) const CONTROL_QUEUE: u64 = 2;
pub(crate) const CONTROL_EVENTS: u64 = 4;
pub(crate) const ERROR_SHIFT: u32 = 8;
pub(crate) const ERROR_ILLEGAL: u64 = 1;
pub(crate) const ERROR_FETCH: u64 = 2;
pub(crate) const ERROR_TIMEOUT: u64 = 3;
pub(crate) const ERROR_HOST: u64 = 4;
/// Bits of a queue's index; one less than its places.
pub(crate) const INDEX: u64 = 0xff;
pub(crate) const LOST: u64 = 0x100;
pub(crate) const LINE_EVENT: u32 = 0;
pub(crate) const LINE_ERROR: u32 = 1;

/// Bits 51:12: an address in a register or a table.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(crate) const PAGE: u64 = 0x1000;

/// Commands (2).
pub(crate) const COMMAND_WORDS: usize = 2;
pub(crate) const INVALIDATE_PAGE: u8 = 1;
pub(crate) const INVALIDATE_TAG: u8 = 2;
pub(crate) const INVALIDATE_DEVICE: u8 = 3;
pub(crate) const CHANGED: u8 = 4;
pub(crate) const WAIT: u8 = 5;
pub(crate) const ALL: u64 = 1 << 8;
pub(crate) const STORE: u64 = 1 << 8;
pub(crate) const TAG_SHIFT: u32 = 16;
pub(crate) const TAG: u64 = 0xffff << TAG_SHIFT;
pub(crate) const STREAM_SHIFT: u32 = 32;
pub(crate) const STREAM: u64 = 0xffff_ffff << STREAM_SHIFT;

/// Device table (3).
pub(crate) const ENTRY_WORDS: usize = 4;
pub(crate) const ENTRY_BYTES: u64 = 32;
pub(crate) const STREAMS: u32 = 4096;
pub(crate) const ENTRY_VALID: u64 = 1;
pub(crate) const ENTRY_TABLE: u64 = 2;
pub(crate) const ENTRY_STAGE2: u64 = 4;
pub(crate) const ENTRY_TAG_SHIFT: u32 = 48;
pub(crate) const PAGE_VALID: u64 = 1;
pub(crate) const PAGE_WRITE: u64 = 2;
pub(crate) const PAGES: u64 = 512;
pub(crate) const RANGES: u64 = 128;
pub(crate) const RANGE_BYTES: u64 = 32;
pub(crate) const RANGE_VALID: u64 = 1;
pub(crate) const RANGE_WRITE: u64 = 2;
pub(crate) const INPUT_END: u64 = 1 << 48;

/// Events (4).
pub(crate) const EVENT_WORDS: usize = 2;
pub(crate) const CODE_SHIFT: u32 = 32;
pub(crate) const BAD_ENTRY: u32 = 1;
pub(crate) const NO_PAGE: u32 = 2;
pub(crate) const NO_RANGE: u32 = 3;

/// FEATURES as it is handed in, or all of `known`.
pub(crate) fn features(registers: &[Register], known: u64) -> Result<u64, Refusal> {
    let mut features = known;
    for register in registers {
        match register.offset {
            ID if register.value != ID_VALUE => {
                return Err(Refusal::new(Refusal::EINVAL, "ID: this is no toy IOMMU"));
            }
            FEATURES if register.value & STAGE2 & !known != 0 => {
                let text = "FEATURES.STAGE2: a guest is not shown a second stage";
                return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
            }
            FEATURES if register.value & !known != 0 => {
                return Err(Refusal::new(Refusal::EINVAL, "FEATURES: a feature that there is not"));
            }
            FEATURES => features = register.value,
            _ => {}
        }
    }
    Ok(features)
}

/// The bits that a command may have; none if there is no such command.
pub(crate) fn allowed(command: [u64; 2], features: u64) -> Option<[u64; 2]> {
    let address = !(PAGE - 1);
    Some(match command[0] as u8 {
        INVALIDATE_PAGE => [0xff | TAG, address],
        INVALIDATE_TAG => [0xff | TAG, 0],
        INVALIDATE_DEVICE if features & DEVICE_CACHE == 0 => return None,
        INVALIDATE_DEVICE => [0xff | STREAM | ALL, if command[0] & ALL != 0 { 0 } else { address }],
        CHANGED => [0xff | STREAM, 0],
        WAIT => [0xff | STORE, if command[0] & STORE != 0 { !7 } else { 0 }],
        _ => return None,
    })
}

/// Whether an entry with VALID is legal.
pub(crate) fn is_legal(entry: &[u64], features: u64) -> bool {
    let stage2 = features & STAGE2 != 0 && entry[0] & ENTRY_STAGE2 != 0;
    let tag = ENTRY_STAGE2 | 0xffff << ENTRY_TAG_SHIFT;
    let flags = ENTRY_VALID | ENTRY_TABLE | if stage2 { tag } else { 0 };
    let table = if entry[0] & ENTRY_TABLE != 0 { ADDRESS } else { 0 };
    let ranges = if stage2 { ADDRESS } else { 0 };
    entry[0] & !flags == 0 && entry[1] & !table == 0 && entry[2] & !ranges == 0 && entry[3] == 0
}

/// Words from their bytes.
pub(crate) fn words<const N: usize>(bytes: &[[u8; 8]; N]) -> [u64; N] {
    bytes.map(u64::from_le_bytes)
}

/// The registers of a guest's or of the physical IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) values: [u64; NAMES.len()],
}

impl Frame {
    /// As after a reset.
    pub(crate) fn new(features: u64) -> Self {
        let mut values = [0; NAMES.len()];
        values[0] = ID_VALUE;
        values[1] = features;
        Self { values }
    }

    /// The register at `offset`; zero if there is none.
    pub(crate) fn get(&self, offset: u64) -> u64 {
        self.values.get((offset / 8) as usize).copied().filter(|_| offset.is_multiple_of(8)).unwrap_or(0)
    }

    fn at(&mut self, offset: u64) -> &mut u64 {
        &mut self.values[(offset / 8) as usize]
    }

    pub(crate) fn read(&self, offset: u64, size: u32) -> u64 {
        match size {
            4 => self.get(offset) & 0xffff_ffff,
            8 => self.get(offset),
            _ => 0,
        }
    }

    /// Whether the register took the value.
    pub(crate) fn write(&mut self, offset: u64, size: u32, value: u64) -> bool {
        let value = match size {
            4 => value & 0xffff_ffff,
            8 => value,
            _ => return false,
        };
        let mask = match offset {
            CONTROL => CONTROL_TRANSLATE | CONTROL_QUEUE | CONTROL_EVENTS,
            TABLE | QUEUE | EVENTS => ADDRESS,
            TAIL => INDEX,
            EVENT_HEAD => {
                if value & LOST != 0 {
                    *self.at(EVENT_TAIL) &= !LOST;
                }
                INDEX
            }
            RESUME => {
                *self.at(HEAD) &= INDEX;
                return true;
            }
            _ => return false,
        };
        *self.at(offset) = value & mask;
        true
    }

    /// Why the queue stopped; 0 if it did not.
    pub(crate) fn error(&self) -> u64 {
        self.get(HEAD) >> ERROR_SHIFT
    }

    pub(crate) fn pending(&self) -> u32 {
        (self.get(TAIL).wrapping_sub(self.get(HEAD)) & INDEX) as u32
    }

    pub(crate) fn advance(&mut self, commands: u32) {
        let head = self.get(HEAD);
        *self.at(HEAD) = head & !INDEX | (head + u64::from(commands)) & INDEX;
    }

    pub(crate) fn stop(&mut self, error: u64) {
        *self.at(HEAD) = self.get(HEAD) & INDEX | error << ERROR_SHIFT;
    }

    pub(crate) fn lose(&mut self) {
        *self.at(EVENT_TAIL) |= LOST;
    }

    /// Takes the next place of the event queue: its address. If there is none, LOST says so.
    pub(crate) fn event_place(&mut self) -> Option<u64> {
        if self.get(CONTROL) & CONTROL_EVENTS == 0 {
            return None;
        }
        let (base, tail) = (self.get(EVENTS), self.get(EVENT_TAIL));
        let (place, next) = (tail & INDEX, (tail + 1) & INDEX);
        if base == 0 || next == self.get(EVENT_HEAD) {
            self.lose();
            return None;
        }
        *self.at(EVENT_TAIL) = tail & LOST | next;
        Some(base + place * 8 * EVENT_WORDS as u64)
    }
}
