//! The mock's bits: registers, commands, table entries, events. There is no manual; this is it.

use viommu_plugin::{Refusal, Register};

/// Words of a command.
pub const COMMAND_WORDS: usize = 2;
/// Words of a table entry.
pub const ENTRY_WORDS: usize = 4;
/// Words of an event record.
pub const EVENT_WORDS: usize = 2;
/// IOTLB slots of a tag, and cache slots of a device; a page uses slot `page % 4`.
pub const SLOTS: u64 = 4;
/// log2 of a page.
pub const PAGE_LOG2: u32 = 12;

/// Read only: [`ID_VALUE`].
pub const ID: u64 = 0x00;
/// What [`ID`] reads as.
pub const ID_VALUE: u64 = 0xdead_beef;
/// Bit 0: the queue runs. Bit 1: the table decides; otherwise DMA passes.
pub const CONTROL: u64 = 0x08;
/// Address of the command queue; bits 4:0 are log2 of its commands, at most [`QUEUE_LOG2_MAX`].
pub const QUEUE_BASE: u64 = 0x10;
/// Index of the next free command, with a wrap bit.
pub const QUEUE_PROD: u64 = 0x18;
/// Index of the next command, with a wrap bit; bits 31:24 are why the queue stopped. Read only.
pub const QUEUE_CONS: u64 = 0x20;
/// A write starts a stopped queue again.
pub const QUEUE_ACK: u64 = 0x28;
/// Address of the table; bits 4:0 are log2 of its entries.
pub const TABLE_BASE: u64 = 0x30;
/// Address of the event queue; bits 4:0 are log2 of its records.
pub const EVENT_BASE: u64 = 0x38;
/// Index of the next free record, with a wrap bit; bit 31: a record was lost. Read only.
pub const EVENT_PROD: u64 = 0x40;
/// Index of the next record, with a wrap bit.
pub const EVENT_CONS: u64 = 0x48;
/// What a guest may use, a bit a feature: as given at creation, or [`FEATURES_VALUE`]. Read only.
pub const FEATURES: u64 = 0x50;
/// The features of the mock's hardware.
pub const FEATURES_VALUE: u64 = 0b11;
/// How this instance behaves: see [`crate::panic_in`] and [`crate::lie_in`]. Read only.
pub const BEHAVIOUR: u64 = 0xbad0;

/// log2 of the largest queue.
pub const QUEUE_LOG2_MAX: u32 = 16;
/// [`CONTROL`]: the queue runs.
pub const CONTROL_QUEUE: u64 = 1;
/// [`CONTROL`]: the table decides.
pub const CONTROL_TRANSLATE: u64 = 2;
/// [`QUEUE_CONS`]: first bit of the error.
pub const ERROR_SHIFT: u32 = 24;

/// Commands, in bits 7:0 of word 0.
pub mod opcode {
    /// Empties an IOTLB slot: its number in bits 33:32; all of them with bit 8. The tag is in bits 63:48.
    pub const INVALIDATE_IOTLB: u8 = 1;
    /// Empties a device's cache slot: its number in bits 33:32; word 1 is the stream.
    pub const INVALIDATE_CACHE: u8 = 2;
    /// The table entry of the stream in word 1 has changed.
    pub const CONFIG: u8 = 3;
    /// A hint.
    pub const PREFETCH: u8 = 4;
    /// Waits for all before it; word 1 is the address of a message, or 0.
    pub const SYNC: u8 = 5;
}

/// [`opcode::INVALIDATE_IOTLB`]: all slots.
pub const FLAG_ALL: u64 = 1 << 8;
/// Bits of a slot's number.
pub const SLOT_MASK: u64 = 3 << 32;
/// First bit of a slot's number.
pub const SLOT_SHIFT: u32 = 32;
/// First bit of the tag.
pub const TAG_SHIFT: u32 = 48;

/// Table entry, word 0: DMA is not aborted.
pub const ENTRY_VALID: u64 = 1;
/// Table entry, word 0: word 1 is not added to addresses.
pub const ENTRY_BYPASS: u64 = 2;
/// Table entry, word 0: word 2 is the address of stage-2 ranges, word 3 the tag. Not for guests.
pub const ENTRY_STAGE2: u64 = 4;

/// Bytes of a stage-2 range: {ipa, pa, length, flags: bit 0 valid, bit 1 write}.
pub const RANGE_BYTES: u64 = 32;
/// Ranges in a stage 2.
pub const RANGES: u64 = 128;

/// Event and error: the stream is beyond the table, or its entry is illegal.
pub const EVENT_BAD_ENTRY: u32 = 1;
/// Event: no stage-2 range holds the address.
pub const EVENT_STAGE2: u32 = 2;
/// Queue error: illegal command.
pub const ERROR_ILLEGAL: u32 = 1;
/// Queue error: the queue is not memory.
pub const ERROR_FETCH: u32 = 2;
/// Queue error: a device did not answer.
pub const ERROR_TIMEOUT: u32 = 3;

/// The registers that hold something, with their names.
pub const NAMES: [(u64, &str); 11] = [
    (ID, "ID"),
    (CONTROL, "CONTROL"),
    (QUEUE_BASE, "QUEUE_BASE"),
    (QUEUE_PROD, "QUEUE_PROD"),
    (QUEUE_CONS, "QUEUE_CONS"),
    (QUEUE_ACK, "QUEUE_ACK"),
    (TABLE_BASE, "TABLE_BASE"),
    (EVENT_BASE, "EVENT_BASE"),
    (EVENT_PROD, "EVENT_PROD"),
    (EVENT_CONS, "EVENT_CONS"),
    (FEATURES, "FEATURES"),
];

/// The registers whose values change: what a frontend saves.
pub const HELD: [(u64, &str); 8] = [
    (CONTROL, "CONTROL"),
    (QUEUE_BASE, "QUEUE_BASE"),
    (QUEUE_PROD, "QUEUE_PROD"),
    (QUEUE_CONS, "QUEUE_CONS"),
    (TABLE_BASE, "TABLE_BASE"),
    (EVENT_BASE, "EVENT_BASE"),
    (EVENT_PROD, "EVENT_PROD"),
    (EVENT_CONS, "EVENT_CONS"),
];

/// Whether a mock with the features `here` serves a guest that was shown `shown`.
pub fn covers(here: u64, shown: u64) -> Result<(), Refusal> {
    let lacking = shown & !here;
    if lacking == 0 {
        return Ok(());
    }
    let bit = lacking.trailing_zeros();
    let text = format!("FEATURES bit {bit}: the guest was shown 1, this host has 0");
    Err(Refusal::new(Refusal::EOPNOTSUPP, text))
}

/// The features that `registers` lists.
pub fn features(registers: &[Register]) -> u64 {
    let listed = registers.iter().find(|register| register.offset == FEATURES);
    listed.map_or(FEATURES_VALUE, |register| register.value)
}

/// Address and log2 of a base register.
pub fn base(register: u64) -> (u64, u32) {
    (register & !0xfff, ((register & 0x1f) as u32).min(QUEUE_LOG2_MAX))
}

/// The register frame, of a guest or of the hardware.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    values: [u64; NAMES.len()],
}

impl Frame {
    /// The value of the register at `offset`; zero if there is none.
    pub fn get(&self, offset: u64) -> u64 {
        match offset {
            ID => ID_VALUE,
            _ => self.values.get((offset / 8) as usize).copied().filter(|_| offset.is_multiple_of(8)).unwrap_or(0),
        }
    }

    /// Sets the register at `offset`, if there is one.
    pub fn set(&mut self, offset: u64, value: u64) {
        if let (0, Some(register)) = (offset % 8, self.values.get_mut((offset / 8) as usize)) {
            *register = value;
        }
    }

    /// A write from outside: `false` if the register is read only or there is none.
    pub fn write(&mut self, offset: u64, size: u32, value: u64) -> bool {
        let value = if size == 4 { value & 0xffff_ffff } else { value };
        let writable = matches!(offset, CONTROL | QUEUE_BASE | QUEUE_PROD | TABLE_BASE | EVENT_BASE | EVENT_CONS);
        match (size, offset) {
            (4 | 8, QUEUE_ACK) => self.set(QUEUE_CONS, self.get(QUEUE_CONS) & !(0xff << ERROR_SHIFT)),
            (4 | 8, _) if writable => self.set(offset, value),
            _ => return false,
        }
        true
    }

    /// Consumer index without the error.
    pub fn cons(&self) -> u64 {
        self.get(QUEUE_CONS) & 0xff_ffff
    }

    /// Why the queue stopped; 0 if it did not.
    pub fn error(&self) -> u32 {
        (self.get(QUEUE_CONS) >> ERROR_SHIFT) as u32
    }

    /// Stops the queue.
    pub fn stop(&mut self, error: u32) {
        self.set(QUEUE_CONS, self.cons() | u64::from(error) << ERROR_SHIFT);
    }

    /// Commands between head and tail; more than the queue holds if the registers contradict each other.
    pub fn pending(&self) -> u64 {
        let (_, log2) = base(self.get(QUEUE_BASE));
        self.get(QUEUE_PROD).wrapping_sub(self.cons()) & ((2 << log2) - 1)
    }

    /// Moves the head past `commands`.
    pub fn advance(&mut self, commands: u64) {
        let (_, log2) = base(self.get(QUEUE_BASE));
        let error = u64::from(self.error()) << ERROR_SHIFT;
        self.set(QUEUE_CONS, (self.cons() + commands) & ((2 << log2) - 1) | error);
    }

    /// Takes the next free place of the event queue: its address; `None` marks the loss of a record.
    pub fn event_place(&mut self) -> Option<u64> {
        let (address, log2) = base(self.get(EVENT_BASE));
        let (prod, mask) = (self.get(EVENT_PROD) & 0xff_ffff, (2 << log2) - 1);
        if address == 0 || prod.wrapping_sub(self.get(EVENT_CONS)) & mask >= 1 << log2 {
            self.set(EVENT_PROD, prod | 1 << 31);
            return None;
        }
        self.set(EVENT_PROD, (prod + 1) & mask);
        Some(address + (prod & ((1 << log2) - 1)) * 8 * EVENT_WORDS as u64)
    }
}
