//! The register frame as bytes (docs/saved-state.md): every register that holds a value, in the order of the frame, the
//! plain ones last.

use super::event_log::EventLog;
use super::{AmdFrontend, PLAIN, STATUS_HELD, pointer};
use crate::features::Features;
use crate::spec::registers::{CAPABILITY_HEADER, RingPointer, Status, offset, register_name};
use viommu_plugin::{Refusal, Register, StateError, StateReader, StateWriter, same_registers};

const WHAT: &str = "saved AMD-Vi registers";
/// The version written, and the newest one read.
const VERSION: u32 = 1;

/// The ID registers, in the order in which they are saved.
const IDENTITY: [(u64, &str); 3] =
    [(offset::EFR, "EFR"), (offset::EFR2, "EFR2"), (CAPABILITY_HEADER, "CAPABILITY_HEADER")];

impl AmdFrontend {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut state = StateWriter::new(VERSION);
        for register in self.features.registers() {
            state.u64(register.value);
        }
        state.u64(self.device_table.into_bits()).u64(self.command_base.into_bits()).u64(self.events.base.into_bits());
        state.u64(self.control.into_bits());
        for pointer in [self.command_head, self.command_tail, self.events.head, self.events.tail] {
            state.u64(pointer.into_bits());
        }
        state.u64(self.status.into_bits()).u8(self.stopped.into()).u8(self.events.stopped.into());
        for value in self.plain {
            state.u64(value);
        }
        state.into_bytes()
    }

    /// The frontend of `bytes`, which shows what this one shows.
    ///
    /// # Errors
    /// As [`viommu_plugin::Frontend::restore`].
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Result<Self, Refusal> {
        let (mut state, _) = StateReader::versioned(WHAT, bytes, VERSION)?;
        self.check_identity(&mut state)?;
        let mut restored = Self::with_features(self.features);
        restored.device_table = state.u64("DEVICE_TABLE_BASE")?.into();
        restored.command_base = state.u64("COMMAND_BASE")?.into();
        let event_base = state.u64("EVENT_BASE")?.into();
        restored.control = state.u64("CONTROL")?.into();
        restored.command_head = take_pointer(&mut state, "COMMAND_HEAD")?;
        restored.command_tail = take_pointer(&mut state, "COMMAND_TAIL")?;
        let head = take_pointer(&mut state, "EVENT_HEAD")?;
        let tail = take_pointer(&mut state, "EVENT_TAIL")?;
        restored.status = Status::from_bits(state.u64_within(STATUS_HELD.into_bits(), "STATUS")?);
        let commands = restored.commands_enabled();
        restored.stopped = take_stopped(&mut state, "command buffer stopped", commands)?;
        let events = restored.events_enabled();
        let stopped = take_stopped(&mut state, "event log stopped", events)?;
        restored.events = EventLog { base: event_base, head, tail, stopped };
        for (value, at) in restored.plain.iter_mut().zip(PLAIN) {
            *value = state.u64(register_name(at).unwrap_or("MSI"))?;
        }
        state.end()?;
        Ok(restored)
    }

    /// The guest must find what it was shown: first whether that is more than this frontend offers, by field; then
    /// whether it is anything else, by register.
    fn check_identity(&self, state: &mut StateReader<'_>) -> Result<(), Refusal> {
        let mut shown = Vec::with_capacity(IDENTITY.len());
        for (offset, name) in IDENTITY {
            shown.push(Register { offset, value: state.u64(name)? });
        }
        self.features.covers(&Features::new(&shown)?)?;
        same_registers(&self.features.registers(), &shown, register_name)
    }
}

fn take_pointer(state: &mut StateReader<'_>, name: &'static str) -> Result<RingPointer, StateError> {
    let value = state.u64(name)?;
    let pointer = pointer(value);
    if pointer.into_bits() == value { Ok(pointer) } else { Err(state.wrong(name, format!("{value:#x} is no pointer"))) }
}

/// Whether a ring stopped, which only one that is enabled can.
fn take_stopped(state: &mut StateReader<'_>, name: &'static str, enabled: bool) -> Result<bool, StateError> {
    match state.u8(name)? {
        0 => Ok(false),
        1 if enabled => Ok(true),
        value => Err(state.wrong(name, format!("{value}, while it is {}", if enabled { "on" } else { "off" }))),
    }
}
