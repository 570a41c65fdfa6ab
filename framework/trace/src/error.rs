//! What can be wrong with a trace file.

use std::fmt;
use std::io;
use thiserror::Error;

/// A trace that cannot be read, or not further: which file, where in it, and why.
#[derive(Debug)]
pub struct TraceError {
    file: Box<str>,
    record: Option<u64>,
    offset: u64,
    problem: Problem,
}

impl TraceError {
    pub(crate) fn new(file: &str, record: Option<u64>, offset: u64, problem: Problem) -> Self {
        Self { file: file.into(), record, offset, problem }
    }

    /// The file, as it was named when it was opened.
    pub fn file(&self) -> &str {
        &self.file
    }
    /// The record it happened at, counted from 0 after the header; `None` in the header.
    pub fn record(&self) -> Option<u64> {
        self.record
    }
    /// Byte offset in the decompressed file of that record, or of the header.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record {
            Some(record) => write!(f, "{}: record {record} at offset {:#x}: {}", self.file, self.offset, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Open(e) | Problem::Read(e) => Some(e),
            Problem::Json(e) => Some(e),
            _ => None,
        }
    }
}

/// Kinds of trouble with a trace.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// The file cannot be read, or its compressed data is damaged.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The magic is missing.
    #[error("not a trace: it does not start with \"GIOMMUTR\"")]
    NotATrace,
    /// A format version this reader does not know.
    #[error("a trace of format version {0}, and this program reads version 1")]
    Version(u16),
    /// A vendor code that no format assigns.
    #[error("unknown vendor {0} (1 is Arm SMMUv3, 2 AMD-Vi, 3 Intel VT-d)")]
    UnknownVendor(u16),
    /// A header that contradicts itself.
    #[error("malformed header: {0}")]
    Header(&'static str),
    /// The header's description is not JSON, or not an object.
    #[error("malformed header: its description is not a JSON object: {0}")]
    Json(serde_json::Error),
    /// The file ends within the header.
    #[error("cut short: the file ends within the header")]
    CutInHeader,
    /// The file ends within the 8 bytes that start a record.
    #[error("cut short: the file ends {have} bytes into the start of a record")]
    CutInRecord {
        /// Bytes there are, of 8.
        have: usize,
    },
    /// The file ends at the end of a record, but the recording's END is missing.
    #[error("cut short: the file ends without the recording's END record")]
    NoEnd,
    /// The compressed stream ends early.
    #[error("cut short: the compressed stream ends before its end mark")]
    CutInCompression,
    /// A record says it has more bytes than the file has left.
    #[error(
        "a record of {length} bytes is longer than the file, which has {left} bytes left: it is cut short, or the \
         length is wrong"
    )]
    LongerThanFile {
        /// Payload bytes the record claims.
        length: u32,
        /// Payload bytes there are.
        left: u64,
    },
    /// A record longer than this reader accepts.
    #[error("a record of {length} bytes, and at most {limit} are accepted")]
    TooLong {
        /// Payload bytes of the record.
        length: u32,
        /// The limit, [`crate::MAX_RECORD`].
        limit: u32,
    },
    /// A payload length that the record's type cannot have.
    #[error("malformed {record} record: {length} bytes of payload, expected {expected}")]
    Payload {
        /// The record type's name.
        record: &'static str,
        /// Payload bytes of the record.
        length: usize,
        /// What the format asks for.
        expected: &'static str,
    },
    /// A field value that the format does not define.
    #[error("malformed {record} record: {field} is {value:#x}")]
    Field {
        /// The record type's name.
        record: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl Problem {
    /// Whether the recording is incomplete, rather than wrong.
    pub fn is_cut_short(&self) -> bool {
        matches!(
            self,
            Self::CutInHeader
                | Self::CutInRecord { .. }
                | Self::NoEnd
                | Self::CutInCompression
                | Self::LongerThanFile { .. }
        )
    }
}
