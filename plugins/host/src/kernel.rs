//! A vendor's payloads of Linux's iommufd, called through the table. There is no instance, and so none to be dead.
//!
//! UNSAFETY: calls the kernel slots.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers::kernel as answers;
use crate::instance::{outcome, outcome_with};
use crate::table::Table;
use std::sync::Arc;
use viommu_plugin::{EntryKey, KernelEntries, KernelEvent, KernelFacts, Message, Register, TranslationMode};
use viommu_plugin::{HostInvalidation, VirtualInterface};

/// Registers that are asked for at first, before it is known how many there are.
const REGISTERS: usize = 32;
/// More registers than any frame has.
const REGISTERS_MAX: usize = 4096;

/// [`viommu_plugin::KernelAbi`] in a plugin. Cheap to clone; any thread. Every method fails with a [`CallError`] if the
/// plugin panics or answers what cannot be.
#[derive(Debug, Clone)]
pub struct KernelAbi {
    table: Arc<Table>,
}

/// Calls a slot, which needs no instance; a table without it was not made into a [`KernelAbi`].
macro_rules! call {
    ($this:ident.$slot:ident($($arg:expr),*)) => {
        match $this.table.entry.$slot {
            None => Err(CallError::Missing { slot: stringify!($slot) }),
            // SAFETY: the pointers are to memory that outlives the call, with the lengths beside them.
            Some(slot) => outcome(stringify!($slot), unsafe { slot($($arg),*) }),
        }
    };
}

fn one_or_none<T>(slot: &'static str, count: u64, value: T) -> Result<Option<T>, CallError> {
    match count {
        0 => Ok(None),
        1 => Ok(Some(value)),
        _ => Err(OutOfRange { slot, what: "neither one nor none" }),
    }
}

impl KernelAbi {
    pub(crate) fn of(table: &Arc<Table>) -> Option<Self> {
        // Loading made sure that a table with this slot has the others.
        table.entry.kernel_facts.map(|_| Self { table: table.clone() })
    }

    /// See [`viommu_plugin::KernelAbi::facts`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn facts(&self) -> Result<KernelFacts, CallError> {
        let mut facts = KernelFacts::default();
        call!(self.kernel_facts(&mut facts))?;
        answers::facts(facts).map_err(|what| OutOfRange { slot: "kernel_facts", what })
    }

    /// See [`viommu_plugin::KernelAbi::registers`].
    ///
    /// # Errors
    /// See [`KernelAbi`]; [`CallError::Refused`] names what the hardware lacks.
    pub fn registers(
        &self,
        hw_info: &[u8],
        capabilities: u64,
        mode: TranslationMode,
    ) -> Result<Vec<Register>, CallError> {
        const SLOT: &str = "kernel_registers";
        let slot = self.table.entry.kernel_registers.ok_or(CallError::Missing { slot: SLOT })?;
        let mut registers = vec![Register::default(); REGISTERS];
        loop {
            let (room, mut why) = (registers.len(), Message::default());
            let (info, len, out) = (hw_info.as_ptr(), hw_info.len(), registers.as_mut_ptr());
            // SAFETY: as in `call!`; `why` is ours.
            let answer = unsafe { slot(info, len, capabilities, mode, out, room, &mut why) };
            let count = usize::try_from(outcome_with(SLOT, answer, &why)?).unwrap_or(usize::MAX);
            if count > REGISTERS_MAX {
                return Err(OutOfRange { slot: SLOT, what: "more registers than a frame has" });
            }
            registers.resize(count, Register::default());
            if count <= room {
                return Ok(registers);
            }
        }
    }

    /// See [`viommu_plugin::KernelAbi::hwpt_data`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> Result<usize, CallError> {
        let written = call!(self.kernel_hwpt_data(key, data.as_mut_ptr(), data.len()))?;
        let inside = usize::try_from(written).ok().filter(|written| *written <= data.len());
        inside.ok_or(OutOfRange { slot: "kernel_hwpt_data", what: "more bytes written than there is room" })
    }

    /// See [`viommu_plugin::KernelAbi::entries`]. Words beyond the last whole command are not used.
    ///
    /// # Errors
    /// See [`KernelAbi`]. What is in `entries` then must not reach the kernel.
    pub fn entries(&self, commands: &[u64], entries: &mut [u8]) -> Result<KernelEntries, CallError> {
        let words = self.table.info.command_words;
        let (given, room) = (commands.len() / words * words, entries.len());
        let mut answer = KernelEntries::default();
        call!(self.kernel_entries(commands.as_ptr(), given, entries.as_mut_ptr(), room, &mut answer))?;
        let checked = answers::entries(answer, given, words, room);
        checked.map_err(|what| OutOfRange { slot: "kernel_entries", what })
    }

    /// See [`viommu_plugin::KernelAbi::repeatable`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn repeatable(&self, command: &[u64]) -> Result<bool, CallError> {
        match call!(self.kernel_repeatable(command.as_ptr(), command.len()))? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(OutOfRange { slot: "kernel_repeatable", what: "neither yes nor no" }),
        }
    }

    /// See [`viommu_plugin::KernelAbi::forget`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn forget(&self, what: &HostInvalidation, commands: &mut [u64]) -> Result<usize, CallError> {
        const SLOT: &str = "kernel_forget";
        let Some(slot) = self.table.entry.kernel_forget else { return Ok(0) };
        // SAFETY: as in `call!`.
        let written = outcome(SLOT, unsafe { slot(what, commands.as_mut_ptr(), commands.len()) })?;
        let size = self.table.info.command_words as u64;
        let inside =
            usize::try_from(written).ok().filter(|words| *words <= commands.len() && written.is_multiple_of(size));
        inside.ok_or(OutOfRange { slot: SLOT, what: "not whole commands, or more than there is room" })
    }

    /// See [`viommu_plugin::KernelAbi::event`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn event(&self, veventq_type: u32, payload: &[u8]) -> Result<Option<KernelEvent>, CallError> {
        const SLOT: &str = "kernel_event";
        let mut event = KernelEvent::default();
        let count = call!(self.kernel_event(veventq_type, payload.as_ptr(), payload.len(), &mut event))?;
        let found = one_or_none(SLOT, count, event)?;
        found.map(answers::event).transpose().map_err(|what| OutOfRange { slot: SLOT, what })
    }

    /// See [`viommu_plugin::KernelAbi::interface`].
    ///
    /// # Errors
    /// See [`KernelAbi`].
    pub fn interface(&self, viommu_data: &[u8]) -> Result<Option<VirtualInterface>, CallError> {
        const SLOT: &str = "kernel_interface";
        let (mut interface, frame) = (VirtualInterface::default(), self.table.info.frame_bytes);
        let count = call!(self.kernel_interface(viommu_data.as_ptr(), viommu_data.len(), &mut interface))?;
        let found = one_or_none(SLOT, count, interface)?;
        let checked = found.map(|interface| answers::interface(interface, frame)).transpose();
        checked.map_err(|what| OutOfRange { slot: SLOT, what })
    }
}
