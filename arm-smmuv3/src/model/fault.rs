//! Why a request was refused, and the event record that tells software (§7.3).

use crate::spec::events::{EVENT_WORDS, EventId, EventWord0, EventWord1, FaultClass};
use viommu_plugin::{Answer, Request, Status};

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) event: EventId,
    /// The stage it is of; 0 configuration.
    pub(crate) stage: u8,
    /// What access failed.
    pub(crate) class: FaultClass,
    /// The IPA without translation (stage 2), or the address that could not be fetched.
    pub(crate) address: u64,
    /// Whether software is told (CD.R, STE.S2R, CR2.RECINVSID).
    pub(crate) recorded: bool,
}

impl Fault {
    /// Something is wrong with the configuration.
    pub(crate) fn configuration(event: EventId) -> Self {
        Self { event, stage: 0, class: FaultClass::IN, address: 0, recorded: true }
    }
    /// A configuration structure at `address` could not be read.
    pub(crate) fn fetch(event: EventId, address: u64) -> Self {
        Self { address, ..Self::configuration(event) }
    }

    /// Stage 1 is bypassed, and the address is larger than what is behind it takes (§3.4): stage 1's fault all the same.
    pub(crate) fn beyond_size() -> Self {
        Self { stage: 1, ..Self::configuration(EventId::F_ADDR_SIZE) }
    }

    /// Whether it is one of the four translation faults, F_TRANSLATION to F_PERMISSION.
    fn of_translation(&self) -> bool {
        (EventId::F_TRANSLATION..=EventId::F_PERMISSION).contains(&self.event)
    }

    /// The answer to the device.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            status: Status::FAULT,
            stage: u32::from(self.stage),
            ipa: if self.stage == 2 && self.of_translation() { self.address } else { 0 },
            fault: u32::from(self.event.0),
            ..Answer::default()
        }
    }

    /// The event record. An access that only asks counts as a read.
    pub(crate) fn record(&self, request: &Request) -> [u64; EVENT_WORDS] {
        let substream = request.pasid != u32::MAX;
        let word0 = EventWord0::new()
            .with_id(self.event.0)
            .with_ssv(substream)
            .with_substream_id(if substream { request.pasid & 0xf_ffff } else { 0 })
            .with_stream_id(request.stream);
        let walked = self.of_translation() || self.event == EventId::F_WALK_EABT;
        if !walked {
            return [word0.into(), 0, 0, self.address & 0x000f_ffff_ffff_fff8];
        }
        let word1 = EventWord1::new()
            .with_rnw(request.access & 2 == 0)
            .with_s2(self.stage == 2)
            .with_class(self.class.0)
            // Tables are only read here (§7.3.16).
            .with_ttrnw(self.event == EventId::F_PERMISSION && self.class == FaultClass::TTD);
        let address = match self.of_translation() {
            true => self.address & 0x000f_ffff_ffff_f000,
            false => self.address & 0x000f_ffff_ffff_fff8,
        };
        [word0.into(), word1.into(), request.iova, address]
    }
}
