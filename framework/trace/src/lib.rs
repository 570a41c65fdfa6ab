//! Reads and writes *gtrace* files: what a guest did to its IOMMU, in order, and what the IOMMU that it was recorded
//! on answered.
//!
//! ```text
//!   .gtrace ───────────┐
//!                      ├─► Trace ─► Entry { number, offset, record } ─► Record::{MmioWrite, Mem, Translation, ..}
//!   .gtrace.zst ─zstd──┘     │
//!                            └─► Header { vendor, RAM, register frame, devices }
//! ```
//!
//! Reading is streaming: one record is in memory at a time, whatever the length of the trace, and a file is trusted in
//! nothing. A recording that does not end with its `END` record is reported as cut short.
//!
//! ```
//! use viommu_trace::{Header, Record, Trace, Vendor, Writer};
//!
//! let header = Header::new(Vendor::ARM_SMMUV3).ram(0x4000_0000, 0x1000_0000).frame(0x0905_0000, 0x2_0000);
//! let mut writer = Writer::zstd(Vec::new(), &header)?;
//! writer.write(&Record::MmioWrite { offset: 0x98, value: 1, size: 4 })?;
//! let file = writer.finish()?;
//!
//! let mut trace = Trace::from_reader("example", std::io::Cursor::new(file))?;
//! assert_eq!(trace.header().vendor, Vendor::ARM_SMMUV3);
//! let first = trace.next()?.unwrap();
//! assert_eq!(first.record, Record::MmioWrite { offset: 0x98, value: 1, size: 4 });
//! assert_eq!(trace.next()?.unwrap().record, Record::End);
//! assert!(trace.next()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod header;
mod reader;
mod record;
mod scan;
mod writer;

pub use error::{Problem, TraceError};
pub use header::{Device, Header, Vendor};
pub use reader::{Entry, MAX_RECORD, Trace};
pub use record::{Outcome, Record, Role, Translation};
pub use scan::{FirstRead, Scan, StreamCounts};
pub use writer::Writer;
