//! The physical stream table (§3.3.1): two-level where the hardware can, level-2 arrays on demand.

use super::{ABORT, Ste, broken};
use crate::spec::registers::{Idr0, Idr1, StrtabBase, StrtabBaseCfg};
use crate::spec::ste::{L1_DESCRIPTOR_BYTES, L1StreamTable, STE_BYTES, STE_WORDS};
use viommu_plugin::{Hardware, Refusal};

/// StreamID bits of a level-2 array.
const SPLIT: u32 = 8;
/// log2 of the largest level-1 table, in descriptors (1 MiB).
const L1_LOG2_MAX: u32 = 17;
/// log2 of the largest linear table, in STEs (4 MiB).
const LINEAR_LOG2_MAX: u32 = 16;

/// How StreamIDs find their STE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One array.
    Linear,
    /// Level-1 descriptors to arrays of 256 STEs.
    TwoLevel,
}

/// The stream table. An STE that was never written aborts.
#[derive(Debug)]
pub struct StreamTable {
    base: u64,
    log2_streams: u32,
    format: Format,
}

impl StreamTable {
    /// A table for as many streams as the hardware has and a table may hold, all aborting.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware, idr0: Idr0, idr1: Idr1) -> Result<Self, Refusal> {
        let sidsize = u32::from(idr1.sidsize());
        if idr0.st_level() == 0 || sidsize <= SPLIT {
            let log2_streams = sidsize.min(LINEAR_LOG2_MAX);
            let base = alloc_array(hardware, log2_streams)?;
            return Ok(Self { base, log2_streams, format: Format::Linear });
        }
        let log2_streams = sidsize.min(SPLIT + L1_LOG2_MAX);
        let bytes = (L1_DESCRIPTOR_BYTES << (log2_streams - SPLIT)).max(STE_BYTES);
        Ok(Self { base: hardware.alloc(bytes, bytes)?, log2_streams, format: Format::TwoLevel })
    }

    /// Linear or two-level.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Streams that have a place in the table.
    pub fn streams(&self) -> u32 {
        1 << self.log2_streams
    }

    /// Value of STRTAB_BASE.
    pub fn base_register(&self) -> StrtabBase {
        StrtabBase::new().with_addr(self.base >> 6).with_ra(true)
    }

    /// Value of STRTAB_BASE_CFG.
    pub fn cfg_register(&self) -> StrtabBaseCfg {
        let cfg = StrtabBaseCfg::new().with_log2size(self.log2_streams as u8);
        match self.format {
            Format::Linear => cfg.with_fmt(StrtabBaseCfg::LINEAR),
            Format::TwoLevel => cfg.with_fmt(StrtabBaseCfg::TWO_LEVEL).with_split(SPLIT as u8),
        }
    }

    /// Address of a stream's STE; `None` if its level-2 array does not exist, so that it has no STE yet.
    ///
    /// # Errors
    /// If the stream is beyond the table.
    pub fn find(&self, hardware: &dyn Hardware, stream: u32) -> Result<Option<u64>, Refusal> {
        self.check(stream)?;
        if self.format == Format::Linear {
            return Ok(Some(self.base + u64::from(stream) * STE_BYTES));
        }
        let descriptor = L1StreamTable::from_bits(read_u64(hardware, self.l1_entry(stream))?);
        let index = u64::from(stream & ((1 << SPLIT) - 1));
        Ok((descriptor.span() != 0).then(|| descriptor.l2_address() + index * STE_BYTES))
    }

    /// Address of a stream's STE, making its level-2 array if need be (the answer's second part): then the level-1
    /// descriptor must be invalidated too.
    ///
    /// # Errors
    /// If the stream is beyond the table, or there is no memory.
    pub fn find_or_make(&mut self, hardware: &dyn Hardware, stream: u32) -> Result<(u64, bool), Refusal> {
        if let Some(address) = self.find(hardware, stream)? {
            return Ok((address, false));
        }
        let array = alloc_array(hardware, SPLIT)?;
        let descriptor = L1StreamTable::new().with_span(SPLIT as u8 + 1).with_l2_ptr(array >> 6);
        hardware.write(self.l1_entry(stream), &descriptor.into_bits().to_le_bytes()).map_err(broken)?;
        Ok((array + u64::from(stream & ((1 << SPLIT) - 1)) * STE_BYTES, true))
    }

    fn check(&self, stream: u32) -> Result<(), Refusal> {
        if stream >> self.log2_streams != 0 {
            let bits = self.log2_streams;
            return Err(Refusal::new(
                Refusal::EINVAL,
                format!("StreamID {stream:#x} is beyond the stream table of {bits} bits"),
            ));
        }
        Ok(())
    }

    fn l1_entry(&self, stream: u32) -> u64 {
        self.base + u64::from(stream >> SPLIT) * L1_DESCRIPTOR_BYTES
    }
}

/// Reads an STE.
pub(crate) fn read_ste(hardware: &dyn Hardware, address: u64) -> Result<Ste, Refusal> {
    let mut bytes = [0; STE_BYTES as usize];
    hardware.read(address, &mut bytes).map_err(broken)?;
    let mut ste = [0; STE_WORDS];
    for (word, bytes) in ste.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(ste)
}

/// Writes one word of an STE, in one piece.
pub(crate) fn write_word(hardware: &dyn Hardware, ste: u64, word: usize, value: u64) -> Result<(), Refusal> {
    hardware.write(ste + 8 * word as u64, &value.to_le_bytes()).map_err(broken)
}

fn read_u64(hardware: &dyn Hardware, address: u64) -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    hardware.read(address, &mut bytes).map_err(broken)?;
    Ok(u64::from_le_bytes(bytes))
}

/// An array of STEs that abort.
fn alloc_array(hardware: &dyn Hardware, log2: u32) -> Result<u64, Refusal> {
    let bytes = STE_BYTES << log2;
    let array = hardware.alloc(bytes, bytes)?;
    let abort: Vec<u8> = ABORT.iter().flat_map(|word| word.to_le_bytes()).collect();
    hardware.write(array, &abort.repeat(1 << log2)).map_err(broken)?;
    Ok(array)
}
