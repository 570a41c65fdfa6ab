//! Why a request was refused, and the fault record that tells software (§7.2).

use crate::spec::fault_reason::FaultReason;
use crate::spec::registers::{FaultRecord0, FaultRecord1};
use viommu_plugin::{Answer, Request, Status};

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: FaultReason,
    /// The stage it is of; 0 configuration.
    pub(crate) stage: u8,
    /// The address that the second stage does not translate.
    pub(crate) input: u64,
    /// Whether software is told (no FPD on the way).
    pub(crate) recorded: bool,
}

impl Fault {
    /// Something is wrong with the configuration.
    pub(crate) fn configuration(reason: FaultReason) -> Self {
        Self { reason, stage: 0, input: 0, recorded: true }
    }

    /// As it is, but not recorded where `fault_disable`.
    pub(crate) fn unless(self, fault_disable: bool) -> Self {
        Self { recorded: self.recorded && !fault_disable, ..self }
    }

    /// The answer to the device.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            status: Status::FAULT,
            stage: u32::from(self.stage),
            ipa: if self.stage == 2 { self.input } else { 0 },
            fault: u32::from(self.reason.0),
            ..Answer::default()
        }
    }

    /// The fault record. A request that only asks counts as a read.
    pub(crate) fn record(&self, request: &Request) -> (FaultRecord0, FaultRecord1) {
        let pasid = request.pasid != u32::MAX;
        let high = FaultRecord1::new()
            .with_source_id(request.stream as u16)
            .with_pasid_present(pasid)
            .with_pasid(if pasid { request.pasid & 0xf_ffff } else { 0 })
            .with_reason(self.reason.0)
            .with_read(request.access & 2 == 0)
            .with_fault(true);
        (FaultRecord0::new().with_page(request.iova >> 12), high)
    }
}
