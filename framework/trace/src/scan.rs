//! What a replay has to know before its first record.

use crate::{Outcome, Record, Trace, TraceError};
use std::collections::BTreeMap;
use std::path::Path;

/// Most distinct registers and streams kept, whatever a file holds; a register frame and a PCI segment have no more.
const MAX_KEPT: usize = 1 << 16;

/// Arm's stage 2 in [`crate::Translation::stage`]. Formats without that number say 0.
const STAGE_2: u8 = 2;

/// The first recorded read of a register: for an ID register, its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstRead {
    /// Offset in the register frame.
    pub offset: u64,
    /// Access size in bytes.
    pub size: u8,
    /// What the guest got.
    pub value: u64,
}

/// How often a stream occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamCounts {
    /// TRANSLATION records naming it.
    pub translations: u64,
    /// Of these: answered OK by the guest's own tables; on Arm, by stage 1.
    pub stage1: u64,
}

/// A trace read once from end to end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// First read of each register, by offset.
    pub first_reads: Vec<FirstRead>,
    /// All records.
    pub records: u64,
    /// TRANSLATION records.
    pub translations: u64,
    /// Streams that TRANSLATION records name.
    pub streams: BTreeMap<u32, StreamCounts>,
}

impl Scan {
    /// Scans the trace at `path`.
    ///
    /// # Errors
    /// As [`Trace::open`] and [`Trace::next`]: a trace that scans well can be read to its end.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        Self::of(Trace::open(path)?)
    }

    /// Scans the rest of `trace`.
    ///
    /// # Errors
    /// As [`Trace::next`].
    pub fn of(mut trace: Trace) -> Result<Self, TraceError> {
        let mut scan = Self::default();
        let mut reads = BTreeMap::new();
        while let Some(entry) = trace.next()? {
            scan.records += 1;
            match entry.record {
                Record::MmioRead { offset, value, size } if reads.len() < MAX_KEPT => {
                    reads.entry(offset).or_insert(FirstRead { offset, size, value });
                }
                Record::Translation(t) => {
                    scan.translations += 1;
                    if scan.streams.len() < MAX_KEPT || scan.streams.contains_key(&t.stream) {
                        let counts = scan.streams.entry(t.stream).or_default();
                        counts.translations += 1;
                        counts.stage1 += u64::from(t.outcome == Outcome::Ok && t.stage != STAGE_2);
                    }
                }
                _ => {}
            }
        }
        scan.first_reads = reads.into_values().collect();
        Ok(scan)
    }
}
