//! Fault status, event control and fault recording registers.

use bitfield_struct::bitfield;

/// FSTS, §11.4.7.4. All but PPF and FRI are cleared by writing 1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FaultStatus {
    /// PFO: a fault found no free recording register.
    pub overflow: bool,
    /// PPF: some recording register has F set. Read-only.
    pub pending: bool,
    /// AFO.
    pub advanced_overflow: bool,
    /// APF.
    pub advanced_pending: bool,
    /// IQE: bad descriptor; the queue stands still.
    pub queue_error: bool,
    /// ICE: bad completion from a device.
    pub completion_error: bool,
    /// ITE: a device did not answer an invalidation in time; the queue stands still.
    pub time_out: bool,
    /// PRO: page request overflow (before PRS had it).
    pub page_request_overflow: bool,
    /// FRI: index of the first recording register with a fault. Read-only.
    pub first_register: u8,
    __: u16,
}

/// FECTL (§11.4.7.5), IECTL (§11.4.9.5) and PECTL (§11.4.12): the control of one event's message.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventControl {
    #[bits(30)]
    __: u32,
    /// IP: a message is held back. Read-only.
    pub pending: bool,
    /// IM: messages are held back. 1 after reset.
    pub mask: bool,
}

/// Bytes in a fault recording register.
pub const FAULT_RECORD_BYTES: u64 = 16;

/// Low half of FRCD, §11.4.7.9.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecord0 {
    #[bits(12)]
    __: u16,
    /// FI\[63:12\]: page of the faulting address.
    #[bits(52)]
    pub page: u64,
}

/// High half of FRCD, §11.4.7.9.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecord1 {
    /// SID.
    pub source_id: u16,
    #[bits(12)]
    __: u16,
    /// T2: with T1, the type (0 write, T1 read, T2 page request, both atomic).
    pub type_2: bool,
    /// PRIV: the request was privileged.
    pub privileged: bool,
    /// EXE: the request was to execute.
    pub execute: bool,
    /// PP: there is a PASID.
    pub pasid_present: bool,
    /// FR, see [`FaultReason`](crate::spec::fault_reason::FaultReason).
    pub reason: u8,
    /// PV: the PASID.
    #[bits(20)]
    pub pasid: u32,
    /// AT of the request: 0 untranslated, 1 translation request, 2 translated.
    #[bits(2)]
    pub address_type: u8,
    /// T1: a read.
    pub read: bool,
    /// F: there is a fault; cleared by writing 1.
    pub fault: bool,
}
