//! A guest that drives its part of the IOMMU itself: which rings it asks for, and what it is told.

use super::AmdFrontend;
use crate::spec::registers::{RingBase, Status};
use viommu_plugin::{Effects, HwQueueKind, HwQueueRequest, NO_STREAM};

impl AmdFrontend {
    /// The rings that are enabled and can be: the log first, so that commands that stop and go on leave it alone.
    pub(super) fn rings(&self) -> [Option<HwQueueRequest>; 2] {
        let ring = |kind, base: RingBase, enabled: bool| {
            let legal = enabled && self.features.hw_viommu() && base.length() >= RingBase::LENGTH_LEAST;
            let length = 1 << (base.length() + RingBase::ENTRY_LOG2);
            legal.then(|| HwQueueRequest { kind, index: 0, iova: base.address(), length })
        };
        [
            ring(HwQueueKind::EVENT, self.events.base, self.events_enabled()),
            ring(HwQueueKind::COMMAND, self.command_base, self.commands_enabled()),
        ]
    }

    /// Hardware set bits of the guest's status. What a device did comes to the guest through its own log only.
    pub(super) fn own_ring_event(&self, virt_id: u32, record: &[u64]) -> Effects {
        let mut effects = Effects::default();
        if let (NO_STREAM, Some(&status)) = (virt_id, record.first()) {
            let status = Status::from(status);
            let log = status.event_log_int() || status.event_overflow();
            Self::interrupt(log && self.control.event_int_en(), &mut effects);
            Self::interrupt(status.com_wait_int() && self.control.com_wait_int_en(), &mut effects);
        }
        effects
    }
}
