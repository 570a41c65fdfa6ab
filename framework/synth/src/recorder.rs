//! The recording as it is written: memory before the record that it is for, as the format asks.

use crate::memory::Memory;
use crate::translate::{Request, Verdict};
use std::io::{self, Write};
use viommu_trace::{Header, Record, Role, Translation, Writer};

/// Writes records, and before each of them what changed in memory.
pub(crate) struct Recorder<W: Write> {
    writer: Writer<W>,
    /// The first error of the output; nothing is written after it.
    failed: Option<io::Error>,
}

/// What a guest does to its IOMMU, as far as a recording shows it.
pub(crate) trait Bus {
    /// The guest writes a register.
    fn write(&mut self, memory: &mut Memory, offset: u64, size: u8, value: u64);
    /// The guest reads a register, and gets this.
    fn read(&mut self, memory: &mut Memory, offset: u64, size: u8, value: u64);
    /// A device uses an address, and gets this.
    fn dma(&mut self, memory: &mut Memory, request: &Request, verdict: &Verdict);
    /// The IOMMU stores bytes in guest memory.
    fn store(&mut self, role: Role, gpa: u64, bytes: &[u8]);
    /// A phase of the guest's life begins.
    fn mark(&mut self, text: &str);
    /// The machine is reset.
    fn reset(&mut self);
}

impl<W: Write> Recorder<W> {
    /// Starts a recording.
    pub(crate) fn new(output: W, header: &Header, compressed: bool) -> io::Result<Self> {
        let writer = if compressed { Writer::zstd(output, header)? } else { Writer::plain(output, header)? };
        Ok(Self { writer, failed: None })
    }

    /// Ends the recording in good order.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self.failed {
            Some(error) => Err(error),
            None => self.writer.finish(),
        }
    }

    fn put(&mut self, record: &Record<'_>) {
        if self.failed.is_none() {
            self.failed = self.writer.write(record).err();
        }
    }

    fn after(&mut self, memory: &mut Memory, record: &Record<'_>) {
        for change in memory.take_changes() {
            self.put(&Record::Mem { role: change.role, gpa: change.gpa, bytes: &change.bytes });
        }
        self.put(record);
    }
}

impl<W: Write> Bus for Recorder<W> {
    fn write(&mut self, memory: &mut Memory, offset: u64, size: u8, value: u64) {
        self.after(memory, &Record::MmioWrite { offset, value, size });
    }

    fn read(&mut self, memory: &mut Memory, offset: u64, size: u8, value: u64) {
        self.after(memory, &Record::MmioRead { offset, value, size });
    }

    fn dma(&mut self, memory: &mut Memory, request: &Request, verdict: &Verdict) {
        let translation = Translation {
            stream: request.stream,
            pasid: request.pasid,
            iova: request.iova,
            output: verdict.output,
            mask: 0,
            outcome: verdict.outcome,
            access: request.access,
            permissions: verdict.permissions,
            stage: verdict.stage,
            fault: verdict.fault,
            cached: false,
            page_start: false,
        };
        self.after(memory, &Record::Translation(translation));
    }

    fn store(&mut self, role: Role, gpa: u64, bytes: &[u8]) {
        self.put(&Record::IommuWrite { role, gpa, bytes });
    }

    fn mark(&mut self, text: &str) {
        self.put(&Record::Mark(text.as_bytes()));
    }

    fn reset(&mut self) {
        self.put(&Record::Reset);
    }
}
