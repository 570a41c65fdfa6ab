//! The fault recording registers: one record at a time, with its owner.

use super::VtdDriver;
use crate::spec::fault_reason::FaultReason;
use crate::spec::registers::{FAULT_RECORD_BYTES, FaultRecord1, FaultStatus, offset};
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
        let nested = self.is_nested(high.source_id().into());
        high.fault().then(|| classify(low, high, nested))
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

/// Whose affair a record is. A guest sees what its own first stage did wrong. The second stage is the host's, and so are
/// root, context and PASID tables: hardware never reads a guest's.
fn classify(low: u64, high: FaultRecord1, nested: bool) -> HostEvent {
    let guests = nested
        && matches!(
            FaultReason(high.reason()),
            FaultReason::SM_FS_UNREADABLE
                | FaultReason::SM_FS_NOT_PRESENT
                | FaultReason::SM_FS_RESERVED
                | FaultReason::SM_FS_ROOT_UNREADABLE
                | FaultReason::SM_NOT_CANONICAL
                | FaultReason::SM_FS_SUPERVISOR_ONLY
                | FaultReason::SM_FS_NO_EXECUTE
                | FaultReason::SM_NO_WRITE
                | FaultReason::SM_NO_READ
        );
    let owner = if guests { EventOwner::GUEST } else { EventOwner::HOST };
    let mut record = [0; 8];
    record[..2].copy_from_slice(&[low, high.with_source_id(0).into_bits()]);
    HostEvent { owner, stream: high.source_id().into(), code: high.reason().into(), words: 2, record }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reason: FaultReason, nested: bool) -> HostEvent {
        classify(0x7000, FaultRecord1::new().with_source_id(0x10).with_reason(reason.0).with_fault(true), nested)
    }

    #[test]
    fn first_stage_faults_are_the_guests() {
        let event = record(FaultReason::SM_FS_NOT_PRESENT, true);
        assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, 0x10, 0x71, 2));
        assert_eq!(event.record[..2], [0x7000, 1 << 63 | 0x71 << 32], "the source-id's field is zero");
    }

    #[test]
    fn second_stage_and_tables_are_the_hosts() {
        for (reason, nested) in [
            (FaultReason::SM_SS_UNREADABLE, true),
            (FaultReason::SM_FS_NO_READ, true),
            (FaultReason::SM_FS_ADDRESS_BEYOND, true),
            (FaultReason::SM_PASID_NOT_PRESENT, true),
            (FaultReason::SM_CONTEXT_NOT_PRESENT, false),
            (FaultReason::SM_NO_WRITE, false),
            (FaultReason(0xee), true),
        ] {
            assert_eq!(record(reason, nested).owner, EventOwner::HOST, "{reason:?}");
        }
    }
}
