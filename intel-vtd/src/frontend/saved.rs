//! The register frame as bytes (docs/saved-state.md): every register that holds a value, in the order of the frame.

use super::event::Event;
use super::faults::{Faults, LATCHED};
use super::queue::{INDEX_BITS, Queue};
use super::{Global, VtdFrontend};
use crate::features::Features;
use crate::spec::registers::{
    CompletionStatus, ContextCommand, EventControl, FaultRecord0, FaultStatus, IotlbCommand, QueueError, offset,
    register_name,
};
use viommu_plugin::{Refusal, Register, StateError, StateReader, StateWriter, same_registers};

const WHAT: &str = "saved VT-d registers";
/// The version written, and the newest one read.
const VERSION: u32 = 1;

/// The ID registers, in the order in which they are saved.
const IDENTITY: [(u64, &str); 3] = [(offset::VER, "VER"), (offset::CAP, "CAP"), (offset::ECAP, "ECAP")];
/// What GSTS can show.
const STATUS: u32 = Global::new()
    .with_translation(true)
    .with_root_table(true)
    .with_queued_invalidation(true)
    .with_interrupt_remapping(true)
    .with_interrupt_table(true)
    .with_compatibility_interrupts(true)
    .into_bits();
const EVENT_CONTROL: u32 = EventControl::new().with_mask(true).with_pending(true).into_bits();

impl VtdFrontend {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut state = StateWriter::new(VERSION);
        for register in self.features.registers() {
            state.u64(register.value);
        }
        state.u32(self.status.into_bits()).u64(self.root_register.into()).u64(self.root.into());
        state.u64(self.context_command.into());
        state.u32(self.faults.latched.into_bits());
        put_event(&mut state, &self.faults.event);
        let Queue { address, head, tail, error } = self.queue;
        state.u32(head).u32(tail).u64(address.into());
        state.u32(self.completion.into_bits());
        put_event(&mut state, &self.completion_event);
        state.u64(error.into()).u64(self.interrupt_table.into());
        self.page_requests.iter().for_each(|register| _ = state.u64(*register));
        put_event(&mut state, &self.page_request_event);
        state.u64(self.invalidate_address).u64(self.iotlb_command.into());
        state.u32(self.faults.next as u32);
        self.faults.records.iter().flatten().for_each(|word| _ = state.u64(*word));
        state.into_bytes()
    }

    /// The frontend of `bytes`, which shows what this one shows.
    ///
    /// # Errors
    /// As [`viommu_plugin::Frontend::restore`].
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Result<Self, Refusal> {
        let (mut state, _) = StateReader::versioned(WHAT, bytes, VERSION)?;
        self.check_identity(&mut state)?;
        let state = &mut state;
        let mut restored = Self::with_features(self.features);
        restored.status = state.u32_within(STATUS, "GSTS")?.into();
        restored.root_register = state.u64("RTADDR")?.into();
        restored.root = state.u64("RTADDR as taken")?.into();
        restored.context_command = done(state, "CCMD", ContextCommand::new().with_invalidate(true).into())?.into();
        let latched: FaultStatus = state.u32_within(LATCHED.into_bits(), "FSTS")?.into();
        let fault_event = take_event(state, "FECTL", "FEADDR")?;
        let (head, tail) = (state.u32_within(INDEX_BITS, "IQH")?, state.u32_within(INDEX_BITS, "IQT")?);
        let queue = Queue { address: state.u64("IQA")?.into(), head, tail, error: QueueError::new() };
        // A head is where a descriptor begins, and 0 while the queue is off: it was never anywhere else.
        let size = if queue.address.wide() && self.features.ecap.scalable_mode() { 32 } else { 16 };
        let end = if restored.status.queued_invalidation() { queue.address.bytes() } else { 1 };
        if u64::from(head) >= end || head % size != 0 {
            return Err(state.wrong("IQH", format!("{head:#x}, which is no place in the queue")).into());
        }
        restored.completion =
            state.u32_within(CompletionStatus::new().with_wait_complete(true).into_bits(), "ICS")?.into();
        restored.completion_event = take_event(state, "IECTL", "IEADDR")?;
        restored.queue = Queue { error: state.u64("IQERCD")?.into(), ..queue };
        restored.interrupt_table = state.u64("IRTA")?.into();
        for register in &mut restored.page_requests {
            *register = state.u64("PQH, PQT, PQA")?;
        }
        restored.page_request_event = take_event(state, "PECTL", "PEADDR")?;
        restored.invalidate_address = state.u64("IVA")?;
        restored.iotlb_command = done(state, "IOTLB", IotlbCommand::new().with_invalidate(true).into())?.into();
        restored.faults = take_faults(state, restored.faults.count(), latched, fault_event)?;
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

/// A command register, whose commands are complete as soon as they are given: `busy` is never 1.
fn done(state: &mut StateReader<'_>, name: &'static str, busy: u64) -> Result<u64, StateError> {
    let value = state.u64(name)?;
    if value & busy == 0 { Ok(value) } else { Err(state.wrong(name, "is busy, which it never is")) }
}

fn put_event(state: &mut StateWriter, event: &Event) {
    for at in [0, 4, 8, 12] {
        state.u32(event.read(at));
    }
}

fn take_event(state: &mut StateReader<'_>, control: &'static str, address: &'static str) -> Result<Event, StateError> {
    let control = state.u32_within(EVENT_CONTROL, control)?.into();
    let data = state.u32("event data")?;
    Ok(Event { control, data, address: state.u32_within(!3, address)?, upper_address: state.u32("upper address")? })
}

/// The fault records, which are the last in a saved state.
fn take_faults(
    state: &mut StateReader<'_>,
    count: usize,
    latched: FaultStatus,
    event: Event,
) -> Result<Faults, StateError> {
    let next = state.u32("next fault record")? as usize;
    if next >= count {
        return Err(state.wrong("next fault record", format!("{next} of {count}")));
    }
    let mut faults = Faults { latched, event, next, ..Faults::new(count as u32) };
    for [low, high] in &mut faults.records {
        *low = state.u64("FRCD")?;
        if FaultRecord0::from_bits(*low).page() << 12 != *low {
            return Err(state.wrong("FRCD", format!("{low:#x} is not the address of a page")));
        }
        *high = state.u64("FRCD")?;
    }
    state.clone().end()?;
    Ok(faults)
}
