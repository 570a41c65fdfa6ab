//! The fault recording registers: one record at a time, with its owner.

use super::VtdDriver;
use crate::spec::fault_reason::FaultReason;
use crate::spec::registers::{FAULT_RECORD_BYTES, FaultRecord1, FaultStatus, offset};
use crate::tables::GuestTables;
use viommu_plugin::{EventOwner, HostEvent};

impl VtdDriver {
    /// Takes the oldest record. Lost records are reported once the registers are empty: what is still in them is older.
    pub(super) fn next_event(&mut self) -> Option<HostEvent> {
        let status = FaultStatus::from_bits(self.hardware.mmio_read(offset::FSTS, 4) as u32);
        if !status.pending() {
            return self.lost(status);
        }
        let count = u32::from(self.identity.cap.fault_registers()) + 1;
        // Where the hardware says that they begin: whoever drove it before may have left the index anywhere.
        let index = u32::from(status.first_register()).min(count - 1);
        let at = self.identity.cap.fault_register(index);
        let low = self.hardware.mmio_read(at, 8);
        let high = FaultRecord1::from_bits(self.hardware.mmio_read(at + 8, 8));
        let fault = FaultRecord1::new().with_fault(true).into_bits() >> 32;
        self.hardware.mmio_write(at + FAULT_RECORD_BYTES - 4, 4, fault);
        let tables = self.guests.get(&high.source_id().into()).copied();
        high.fault().then(|| classify(low, high, tables))
    }

    /// Acknowledges an overflow.
    fn lost(&self, status: FaultStatus) -> Option<HostEvent> {
        status.overflow().then(|| {
            let overflow = FaultStatus::new().with_overflow(true).into_bits();
            self.hardware.mmio_write(offset::FSTS, 4, overflow.into());
            HostEvent { owner: EventOwner::LOST, ..HostEvent::default() }
        })
    }
}

/// Whose affair a record is. A guest sees what its own tables did wrong: its first stage, or the copy of its second
/// stage, with the reason that its own mode has for it. Otherwise the second stage is the host's, and so are root, context
/// and PASID tables: hardware never reads a guest's.
fn classify(low: u64, high: FaultRecord1, tables: Option<GuestTables>) -> HostEvent {
    let reason = match tables {
        Some(GuestTables::FirstStage) => first_stage(high),
        Some(GuestTables::SecondStage) => copied(high),
        Some(GuestTables::LegacySecondStage) => copied(high).map(|reason| legacy(reason, high.read())),
        None => None,
    };
    let owner = if reason.is_some() { EventOwner::GUEST } else { EventOwner::HOST };
    let high = high.with_reason(reason.map_or(high.reason(), |reason| reason.0));
    let mut record = [0; 8];
    record[..2].copy_from_slice(&[low, high.with_source_id(0).into_bits()]);
    HostEvent { owner, stream: high.source_id().into(), code: high.reason().into(), words: 2, record }
}

/// The reason, if it is one of a first stage.
fn first_stage(record: FaultRecord1) -> Option<FaultReason> {
    let reason = FaultReason(record.reason());
    matches!(
        reason,
        FaultReason::SM_FS_UNREADABLE
            | FaultReason::SM_FS_NOT_PRESENT
            | FaultReason::SM_FS_RESERVED
            | FaultReason::SM_FS_ROOT_UNREADABLE
            | FaultReason::SM_NOT_CANONICAL
            | FaultReason::SM_FS_SUPERVISOR_ONLY
            | FaultReason::SM_FS_NO_EXECUTE
            | FaultReason::SM_NO_WRITE
            | FaultReason::SM_NO_READ
    )
    .then_some(reason)
}

/// The reason, if it is what a second stage says of an address that it does not map.
fn copied(record: FaultRecord1) -> Option<FaultReason> {
    let reason = FaultReason(record.reason());
    matches!(
        reason,
        FaultReason::SM_SS_NO_PERMISSION
            | FaultReason::SM_BEYOND_MGAW
            | FaultReason::SM_NO_WRITE
            | FaultReason::SM_NO_READ
    )
    .then_some(reason)
}

/// The same in legacy mode.
fn legacy(reason: FaultReason, read: bool) -> FaultReason {
    match (reason, read) {
        (FaultReason::SM_BEYOND_MGAW, _) => FaultReason::BEYOND_MGAW,
        (_, true) => FaultReason::NO_READ,
        (_, false) => FaultReason::NO_WRITE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reason: FaultReason, read: bool, tables: Option<GuestTables>) -> HostEvent {
        let high = FaultRecord1::new().with_source_id(0x10).with_reason(reason.0).with_read(read).with_fault(true);
        classify(0x7000, high, tables)
    }

    #[test]
    fn first_stage_faults_are_the_guests() {
        let event = record(FaultReason::SM_FS_NOT_PRESENT, false, Some(GuestTables::FirstStage));
        assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, 0x10, 0x71, 2));
        assert_eq!(event.record[..2], [0x7000, 1 << 63 | 0x71 << 32], "the source-id's field is zero");
    }

    #[test]
    fn what_a_copy_does_not_map_is_the_guests_with_its_own_modes_reason() {
        for (reason, read, legacy) in [
            (FaultReason::SM_SS_NO_PERMISSION, true, FaultReason::NO_READ),
            (FaultReason::SM_SS_NO_PERMISSION, false, FaultReason::NO_WRITE),
            (FaultReason::SM_BEYOND_MGAW, true, FaultReason::BEYOND_MGAW),
        ] {
            let event = record(reason, read, Some(GuestTables::SecondStage));
            assert_eq!((event.owner, event.code), (EventOwner::GUEST, reason.0.into()));
            let event = record(reason, read, Some(GuestTables::LegacySecondStage));
            assert_eq!((event.owner, event.code), (EventOwner::GUEST, legacy.0.into()));
            assert_eq!(event.record[1] >> 32 & 0xff, legacy.0.into());
        }
    }

    #[test]
    fn second_stage_and_tables_are_the_hosts() {
        for (reason, tables) in [
            (FaultReason::SM_SS_NO_PERMISSION, Some(GuestTables::FirstStage)),
            (FaultReason::SM_FS_NO_READ, Some(GuestTables::FirstStage)),
            (FaultReason::SM_FS_ADDRESS_BEYOND, Some(GuestTables::FirstStage)),
            (FaultReason::SM_PASID_NOT_PRESENT, Some(GuestTables::FirstStage)),
            (FaultReason::SM_SS_UNREADABLE, Some(GuestTables::LegacySecondStage)),
            (FaultReason::SM_SS_NO_PERMISSION, None),
            (FaultReason::SM_CONTEXT_NOT_PRESENT, None),
            (FaultReason::SM_NO_WRITE, None),
            (FaultReason(0xee), Some(GuestTables::FirstStage)),
        ] {
            assert_eq!(record(reason, true, tables).owner, EventOwner::HOST, "{reason:?}");
        }
    }
}
