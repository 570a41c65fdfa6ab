//! The records of a trace, as values and as bytes.

use crate::Problem;

/// What a piece of guest memory is for. A hint; an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Role(pub u16);

impl Role {
    /// Not one of the others.
    pub const OTHER: Self = Self(0);
    /// Command or invalidation queue entry.
    pub const QUEUE: Self = Self(1);
    /// Stream, device, root or context table.
    pub const STREAM_TABLE: Self = Self(2);
    /// Context descriptor, PASID directory or table.
    pub const CONTEXT: Self = Self(3);
    /// Page table.
    pub const PAGE_TABLE: Self = Self(4);
    /// Event log entry.
    pub const EVENT: Self = Self(5);
    /// Interrupt remapping table.
    pub const INTERRUPT: Self = Self(6);
    /// Status word (wait descriptor, COMPLETION_WAIT store).
    pub const STATUS: Self = Self(7);
}

/// How a recorded translation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Translated.
    Ok = 0,
    /// Refused with a fault.
    Fault = 1,
    /// The stream is configured for identity.
    Bypass = 2,
    /// The stream is configured to abort; no event.
    Abort = 3,
    /// Translation is not enabled: identity.
    Disabled = 4,
}

/// What the recorded IOMMU answered to one piece of DMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Requester: StreamID, DeviceID, source-id.
    pub stream: u32,
    /// PASID or SubstreamID, if it had one.
    pub pasid: Option<u32>,
    /// Address the device used.
    pub iova: u64,
    /// Output address; 0 for faults and aborts.
    pub output: u64,
    /// Page mask where the IOMMU reports it (VT-d), else 0.
    pub mask: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Access requested: 0 unknown, 1 read, 2 write.
    pub access: u8,
    /// Permissions granted: bit 0 read, bit 1 write; `None` if unknown.
    pub permissions: Option<u8>,
    /// Arm: 1 stage 1, 2 stage 2; else 0.
    pub stage: u8,
    /// Fault code in the vendor's numbering.
    pub fault: u32,
    /// Answered from the recorded IOMMU's TLB.
    pub cached: bool,
    /// `output` is the start of the translated page, of whatever size (AMD).
    pub page_start: bool,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The guest wrote a register.
    MmioWrite {
        /// Offset in the register frame.
        offset: u64,
        /// Value.
        value: u64,
        /// Access size in bytes: 1, 2, 4, 8.
        size: u8,
    },
    /// The guest read a register.
    MmioRead {
        /// Offset in the register frame.
        offset: u64,
        /// Value it got.
        value: u64,
        /// Access size in bytes: 1, 2, 4, 8.
        size: u8,
    },
    /// From here on the guest's memory at `gpa` holds `bytes`.
    Mem {
        /// What for.
        role: Role,
        /// Guest physical address, a multiple of 8; `gpa + bytes.len()` does not overflow.
        gpa: u64,
        /// Contents, a multiple of 8 long.
        bytes: &'a [u8],
    },
    /// A DMA, and its answer.
    Translation(Translation),
    /// A phase of the guest's workload begins.
    Mark(&'a [u8]),
    /// Nanoseconds since the start, by the recording host's clock.
    Time(u64),
    /// The recorded IOMMU stored `bytes` in guest memory.
    IommuWrite {
        /// What for.
        role: Role,
        /// Guest physical address.
        gpa: u64,
        /// Contents.
        bytes: &'a [u8],
    },
    /// The recorded IOMMU raised an interrupt of its own.
    Irq {
        /// Arm: 0 EVTQ, 1 PRIQ, 2 CMD_SYNC, 3 GERROR.
        line: u16,
        /// Address and data, if it was a message.
        message: Option<(u64, u64)>,
    },
    /// A line of text of the recording emulator.
    Note(&'a [u8]),
    /// The recording ended in good order.
    End,
    /// The machine was reset: registers have their reset values, queues are empty. Memory stays.
    Reset,
    /// A type this reader does not know: to be skipped.
    Unknown {
        /// The type.
        kind: u8,
    },
}

/// The 8 bytes before a payload.
#[derive(Clone, Copy)]
pub(crate) struct Prefix {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) aux: u16,
    pub(crate) length: u32,
}

impl Prefix {
    pub(crate) fn parse(b: [u8; 8]) -> Self {
        let length = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        Self { kind: b[0], flags: b[1], aux: u16::from_le_bytes([b[2], b[3]]), length }
    }
}

const IRQ_IS_MESSAGE: u8 = 1;
const TRANSLATION_CACHED: u8 = 1;
const TRANSLATION_PAGE_START: u8 = 2;
const NO_PASID: u32 = u32::MAX;
const PERMISSIONS_UNKNOWN: u8 = 0xff;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (u64_at(bytes, at & !7) >> (8 * (at & 7))) as u32
}

impl<'a> Record<'a> {
    /// The format's name of the record's type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MmioWrite { .. } => "MMIO_WRITE",
            Self::MmioRead { .. } => "MMIO_READ",
            Self::Mem { .. } => "MEM",
            Self::Translation(_) => "TRANSLATION",
            Self::Mark(_) => "MARK",
            Self::Time(_) => "TIME",
            Self::IommuWrite { .. } => "IOMMU_WRITE",
            Self::Irq { .. } => "IRQ",
            Self::Note(_) => "NOTE",
            Self::End => "END",
            Self::Reset => "RESET",
            Self::Unknown { .. } => "unknown",
        }
    }

    pub(crate) fn parse(prefix: Prefix, payload: &'a [u8]) -> Result<Self, Problem> {
        let length = payload.len();
        let exactly = |record, want: usize, expected| {
            if length == want { Ok(()) } else { Err(Problem::Payload { record, length, expected }) }
        };
        Ok(match prefix.kind {
            1 | 2 => {
                let record = if prefix.kind == 1 { "MMIO_WRITE" } else { "MMIO_READ" };
                exactly(record, 16, "16")?;
                if !matches!(prefix.aux, 1 | 2 | 4 | 8) {
                    return Err(Problem::Field { record, field: "access size", value: prefix.aux.into() });
                }
                let (offset, value, size) = (u64_at(payload, 0), u64_at(payload, 8), prefix.aux as u8);
                if prefix.kind == 1 {
                    Self::MmioWrite { offset, value, size }
                } else {
                    Self::MmioRead { offset, value, size }
                }
            }
            3 => {
                if length < 8 || !length.is_multiple_of(8) {
                    return Err(Problem::Payload { record: "MEM", length, expected: "a multiple of 8, at least 8" });
                }
                let (gpa, bytes) = (u64_at(payload, 0), &payload[8..]);
                if !gpa.is_multiple_of(8) || gpa.checked_add(bytes.len() as u64).is_none() {
                    return Err(Problem::Field { record: "MEM", field: "address", value: gpa });
                }
                Self::Mem { role: Role(prefix.aux), gpa, bytes }
            }
            4 => {
                exactly("TRANSLATION", 40, "40")?;
                Self::Translation(Translation::parse(prefix.flags, payload)?)
            }
            5 => Self::Mark(payload),
            6 => {
                exactly("TIME", 8, "8")?;
                Self::Time(u64_at(payload, 0))
            }
            7 => {
                if length < 8 {
                    return Err(Problem::Payload { record: "IOMMU_WRITE", length, expected: "at least 8" });
                }
                Self::IommuWrite { role: Role(prefix.aux), gpa: u64_at(payload, 0), bytes: &payload[8..] }
            }
            8 if prefix.flags & IRQ_IS_MESSAGE != 0 => {
                exactly("IRQ", 16, "16 for a message")?;
                Self::Irq { line: prefix.aux, message: Some((u64_at(payload, 0), u64_at(payload, 8))) }
            }
            8 => {
                exactly("IRQ", 0, "0")?;
                Self::Irq { line: prefix.aux, message: None }
            }
            9 => Self::Note(payload),
            10 => {
                exactly("END", 0, "0")?;
                Self::End
            }
            11 => {
                exactly("RESET", 0, "0")?;
                Self::Reset
            }
            kind => Self::Unknown { kind },
        })
    }

    /// Appends the record as bytes to `out`. A record of an unknown type has no payload.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let (kind, flags, aux) = match self {
            Self::MmioWrite { size, .. } => (1, 0, u16::from(*size)),
            Self::MmioRead { size, .. } => (2, 0, u16::from(*size)),
            Self::Mem { role, .. } => (3, 0, role.0),
            Self::Translation(t) => (4, t.flags(), 0),
            Self::Mark(_) => (5, 0, 0),
            Self::Time(_) => (6, 0, 0),
            Self::IommuWrite { role, .. } => (7, 0, role.0),
            Self::Irq { line, message } => (8, if message.is_some() { IRQ_IS_MESSAGE } else { 0 }, *line),
            Self::Note(_) => (9, 0, 0),
            Self::End => (10, 0, 0),
            Self::Reset => (11, 0, 0),
            Self::Unknown { kind } => (*kind, 0, 0),
        };
        out.extend([kind, flags]);
        out.extend(aux.to_le_bytes());
        out.extend([0; 4]);
        match self {
            Self::MmioWrite { offset: first, value: second, .. }
            | Self::MmioRead { offset: first, value: second, .. }
            | Self::Irq { message: Some((first, second)), .. } => {
                out.extend(first.to_le_bytes());
                out.extend(second.to_le_bytes());
            }
            Self::Mem { gpa, bytes, .. } | Self::IommuWrite { gpa, bytes, .. } => {
                out.extend(gpa.to_le_bytes());
                out.extend(*bytes);
            }
            Self::Translation(t) => t.emit(out),
            Self::Mark(text) | Self::Note(text) => out.extend(*text),
            Self::Time(nanoseconds) => out.extend(nanoseconds.to_le_bytes()),
            Self::Irq { message: None, .. } | Self::End | Self::Reset | Self::Unknown { .. } => {}
        }
        let length = (out.len() - start - 8) as u32;
        out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    }
}

impl Translation {
    fn parse(flags: u8, payload: &[u8]) -> Result<Self, Problem> {
        let field = |field, value: u8| Problem::Field { record: "TRANSLATION", field, value: value.into() };
        let [status, access, permissions, stage] = [payload[32], payload[33], payload[34], payload[35]];
        let outcome = match status {
            0 => Outcome::Ok,
            1 => Outcome::Fault,
            2 => Outcome::Bypass,
            3 => Outcome::Abort,
            4 => Outcome::Disabled,
            _ => return Err(field("status", status)),
        };
        if access > 2 {
            return Err(field("access", access));
        }
        if permissions > 3 && permissions != PERMISSIONS_UNKNOWN {
            return Err(field("permissions", permissions));
        }
        let pasid = u32_at(payload, 4);
        Ok(Self {
            stream: u32_at(payload, 0),
            pasid: (pasid != NO_PASID).then_some(pasid),
            iova: u64_at(payload, 8),
            output: u64_at(payload, 16),
            mask: u64_at(payload, 24),
            outcome,
            access,
            permissions: (permissions != PERMISSIONS_UNKNOWN).then_some(permissions),
            stage,
            fault: u32_at(payload, 36),
            cached: flags & TRANSLATION_CACHED != 0,
            page_start: flags & TRANSLATION_PAGE_START != 0,
        })
    }

    fn flags(&self) -> u8 {
        let flag = |set, bit| if set { bit } else { 0 };
        flag(self.cached, TRANSLATION_CACHED) | flag(self.page_start, TRANSLATION_PAGE_START)
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.stream.to_le_bytes());
        out.extend(self.pasid.unwrap_or(NO_PASID).to_le_bytes());
        out.extend(self.iova.to_le_bytes());
        out.extend(self.output.to_le_bytes());
        out.extend(self.mask.to_le_bytes());
        out.extend([self.outcome as u8, self.access, self.permissions.unwrap_or(PERMISSIONS_UNKNOWN), self.stage]);
        out.extend(self.fault.to_le_bytes());
    }
}
