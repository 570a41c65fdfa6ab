//! Why a request was refused, and the event log entry that tells software.

use crate::spec::events::{EVENT_WORDS, EventCode, EventWord0, flags};
use viommu_plugin::{Answer, Request, Status};

/// What [`Answer::fault`] says, in the numbers of the recordings.
pub mod code {
    /// No translation, or no permission.
    pub const PAGE: u32 = 1;
    /// The device table entry is illegal, absent, or does not allow this kind of request.
    pub const ENTRY: u32 = 2;
    /// The device table entry could not be read.
    pub const ENTRY_FETCH: u32 = 3;
    /// The entry's Mode is reserved, or has more levels than the IOMMU.
    pub const MODE: u32 = 4;
    /// A page table or GCR3 table could not be read.
    pub const TABLE_FETCH: u32 = 5;
}

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) event: EventCode,
    pub(crate) code: u32,
    /// Flags of the event, without those of the request.
    pub(crate) flags: u16,
    /// The stage it is of: 1 guest, 2 host, 0 neither.
    pub(crate) stage: u8,
    /// Host stage: the guest physical address that has no translation.
    pub(crate) ipa: u64,
    /// What could not be read, where that is the fault.
    pub(crate) unreadable: Option<u64>,
}

impl Fault {
    /// The device table entry is illegal.
    pub(crate) fn entry(code: u32, flags: u16) -> Self {
        Self { event: EventCode::ILLEGAL_DEV_TABLE_ENTRY, code, flags, stage: 0, ipa: 0, unreadable: None }
    }
    /// The device table entry at `address` could not be read.
    pub(crate) fn entry_fetch(address: u64) -> Self {
        let event = EventCode::DEV_TAB_HARDWARE_ERROR;
        Self { event, unreadable: Some(address), ..Self::entry(code::ENTRY_FETCH, 0) }
    }
    /// The entry does not allow requests with a PASID, or the PASID has more bits than PASmax.
    pub(crate) fn no_pasids() -> Self {
        Self { event: EventCode::INVALID_DEVICE_REQUEST, ..Self::entry(code::ENTRY, 0) }
    }
    /// `stage` has no translation ([`flags::PR`] clear) or no permission.
    pub(crate) fn page(stage: u8, flags: u16, ipa: u64) -> Self {
        let event = EventCode::IO_PAGE_FAULT;
        Self { event, stage, ipa, ..Self::entry(code::PAGE, flags) }
    }
    /// A table of `stage` could not be read at `address`.
    pub(crate) fn table_fetch(stage: u8, address: u64) -> Self {
        let event = EventCode::PAGE_TAB_HARDWARE_ERROR;
        Self { event, stage, unreadable: Some(address), ..Self::entry(code::TABLE_FETCH, 0) }
    }

    /// The answer to the device.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            status: Status::FAULT,
            stage: u32::from(self.stage),
            ipa: if self.stage == 2 && self.code == code::PAGE { self.ipa } else { 0 },
            fault: self.code,
            ..Answer::default()
        }
    }

    /// The event log entry; `domain` is that of the device's entry, as far as there is one. An access that only asks
    /// counts as a read. A guest's table that a request without PASID goes through is that of PASID 0 (GIOV).
    pub(crate) fn record(&self, request: &Request, domain: u16) -> [u64; EVENT_WORDS] {
        let pasid = if request.pasid == u32::MAX { 0 } else { request.pasid };
        let guest = match self.stage {
            1 => true,
            2 => false,
            _ => request.pasid != u32::MAX,
        };
        let word0 = EventWord0::new()
            .with_code(self.event.0)
            .with_device_id(request.stream as u16)
            .with_domain_id(if guest { pasid as u16 } else { domain })
            .with_pasid_high(if guest { (pasid >> 16 & 0xf) as u8 } else { 0 });
        let gn = if guest { flags::GN } else { 0 };
        let write = if request.access & 2 != 0 { flags::RW } else { 0 };
        let refused = if self.stage == 2 && self.code == code::PAGE { self.ipa } else { request.iova };
        [word0.with_flags(self.flags | gn | write).into(), self.unreadable.unwrap_or(refused)]
    }
}
