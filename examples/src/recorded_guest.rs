//! A recorded guest: what its CPUs did to its IOMMU and what its devices asked of it, in order.

use crate::Story;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use viommu::plugin::Register;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_trace::{Header, Record, Scan, Trace, Translation, Vendor};

/// What has to be known of a vendor's register frame: its ID registers, and registers in which a guest reads what follows
/// from what it wrote.
#[derive(Debug, Clone)]
struct Frame {
    id: RangeInclusive<u64>,
    acknowledgements: &'static [u64],
}

/// SMMU_IDR0..5, IIDR, AIDR; CR0ACK and IRQ_CTRLACK (IHI 0070, 6.3).
const SMMUV3: Frame = Frame { id: 0..=0x1f, acknowledgements: &[0x24, 0x54] };
/// VER, CAP, ECAP (VT-d specification, 11.4).
const VTD: Frame = Frame { id: 0..=0x17, acknowledgements: &[] };

fn frame(vendor: Vendor) -> Frame {
    if vendor == Vendor::INTEL_VTD { VTD } else { SMMUV3 }
}

/// A recording, and what has to be known of it before its first record.
#[derive(Debug, Clone)]
pub struct RecordedGuest {
    path: PathBuf,
    header: Header,
    scan: Scan,
}

impl RecordedGuest {
    /// The recording `name` of this repository's `traces/`.
    ///
    /// # Errors
    /// As [`RecordedGuest::open`].
    pub fn named(name: &str) -> Story<Self> {
        Self::open(format!("{}/../traces/{name}.gtrace.zst", env!("CARGO_MANIFEST_DIR")))
    }

    /// The recording that the `nth` argument of the program is the path of; without it, the one that is `named`.
    ///
    /// # Errors
    /// As [`RecordedGuest::open`].
    pub fn argument_or(nth: usize, named: &str) -> Story<Self> {
        std::env::args_os().nth(nth).map_or_else(|| Self::named(named), Self::open)
    }

    /// The recording at `path`.
    ///
    /// # Errors
    /// If it is not a whole trace.
    pub fn open(path: impl Into<PathBuf>) -> Story<Self> {
        let path = path.into();
        let header = Trace::open(&path)?.header().clone();
        let scan = Scan::open(&path)?;
        Ok(Self { path, header, scan })
    }

    /// Where RAM and registers are in the guest, and which devices it was started with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The name of the plugin of its IOMMU's vendor.
    ///
    /// # Errors
    /// If it is nobody's that we know.
    pub fn plugin_name(&self) -> Story<&'static str> {
        self.header.vendor.name().ok_or_else(|| "no plugin is known for this vendor".into())
    }

    /// The ID registers that the guest was shown: what it saw when it looked first.
    pub fn id_registers(&self) -> Vec<Register> {
        let id = frame(self.header.vendor).id;
        let reads = self.scan.first_reads.iter().filter(|read| id.contains(&read.offset));
        reads.map(|read| Register { offset: read.offset, value: read.value }).collect()
    }

    /// From the power button on, with `memory` as the guest's RAM.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn play(&self, memory: &Arc<GuestMemoryMmap>) -> Story<Playback> {
        let frame = frame(self.header.vendor);
        Ok(Playback { trace: Trace::open(&self.path)?, memory: memory.clone(), frame, written: Vec::new() })
    }
}

/// What a guest does next.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A CPU writes a register of the IOMMU.
    Write {
        /// Offset in the register frame.
        offset: u64,
        /// Bytes.
        size: u32,
        /// What.
        value: u64,
    },
    /// A CPU reads a register whose value does not depend on how fast the IOMMU is.
    Read {
        /// Offset in the register frame.
        offset: u64,
        /// Bytes.
        size: u32,
        /// What it read when it was recorded.
        value: u64,
    },
    /// A device does one piece of DMA.
    Dma(Translation),
    /// The machine is reset.
    Reset,
}

/// A guest that runs.
#[derive(Debug)]
pub struct Playback {
    trace: Trace,
    memory: Arc<GuestMemoryMmap>,
    frame: Frame,
    written: Vec<(u64, u64)>,
}

impl Playback {
    /// What the guest's CPUs wrote to memory since this was last asked, as addresses and bytes: a VMM sees it where it
    /// write-protected the page.
    pub fn take_written(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.written)
    }

    /// The next step, with the guest's memory as it was then; `None` when the guest is through.
    ///
    /// # Errors
    /// If the file has changed.
    pub fn step(&mut self) -> Story<Option<Step>> {
        while let Some(entry) = self.trace.next()? {
            match entry.record {
                // What is not RAM (an MSI doorbell) is not kept.
                Record::Mem { gpa, bytes, .. } if self.memory.write_slice(bytes, GuestAddress(gpa)).is_ok() => {
                    self.written.push((gpa, bytes.len() as u64));
                }
                Record::MmioWrite { offset, value, size } => {
                    return Ok(Some(Step::Write { offset, size: size.into(), value }));
                }
                Record::MmioRead { offset, value, size }
                    if self.frame.id.contains(&offset) || self.frame.acknowledgements.contains(&offset) =>
                {
                    return Ok(Some(Step::Read { offset, size: size.into(), value }));
                }
                Record::Translation(dma) => return Ok(Some(Step::Dma(dma))),
                Record::Reset => return Ok(Some(Step::Reset)),
                _ => {}
            }
        }
        Ok(None)
    }
}
