//! The guest's stream table (§3.3.1): linear or two-level, in its own memory.

use crate::features::Features;
use crate::spec::registers::{StrtabBase, StrtabBaseCfg};
use crate::spec::ste::{L1_DESCRIPTOR_BYTES, L1StreamTable, STE_BYTES, STE_WORDS};
use viommu_plugin::{GuestMemory, Lookup, Unreadable};

/// Reads the STE of `stream` into `ste`.
pub(super) fn lookup(
    features: &Features,
    base: StrtabBase,
    cfg: StrtabBaseCfg,
    memory: &dyn GuestMemory,
    stream: u32,
    ste: &mut [u64],
) -> Lookup {
    match ste_address(features, base, cfg, memory, stream) {
        Ok(Some(address)) => read_ste(memory, address, ste),
        Ok(None) => Lookup::NO_ENTRY,
        Err(Unreadable) => Lookup::UNREADABLE,
    }
}

/// Where the STE is; `None` if the table does not reach that far.
fn ste_address(
    features: &Features,
    base: StrtabBase,
    cfg: StrtabBaseCfg,
    memory: &dyn GuestMemory,
    stream: u32,
) -> Result<Option<u64>, Unreadable> {
    // A table cannot be larger than the StreamIDs there are.
    let log2 = cfg.log2size().min(features.idr1.sidsize());
    if u64::from(stream) >> log2 != 0 {
        return Ok(None);
    }
    let stream = u64::from(stream);
    // Without two-level support, and for reserved values, FMT means linear.
    if features.idr0.st_level() == 0 || cfg.fmt() != StrtabBaseCfg::TWO_LEVEL {
        return Ok(Some(aligned(base.address(), STE_BYTES << log2) + stream * STE_BYTES));
    }
    // Reserved values of SPLIT mean 6.
    let split = if matches!(cfg.split(), 8 | 10) { cfg.split() } else { 6 };
    let l1_entries = 1 << log2.saturating_sub(split);
    let l1 = aligned(base.address(), (L1_DESCRIPTOR_BYTES * l1_entries).max(STE_BYTES));
    let descriptor = L1StreamTable::from_bits(memory.read_u64(l1 + (stream >> split) * L1_DESCRIPTOR_BYTES)?);
    // Reserved spans mean 0: no level-2 array.
    let in_span = match descriptor.span() {
        0 => false,
        span if span > split + 1 => false,
        span => stream & ((1 << split) - 1) < 1 << (span - 1),
    };
    if !in_span {
        return Ok(None);
    }
    let l2 = aligned(descriptor.l2_address(), STE_BYTES << (descriptor.span() - 1));
    Ok(Some(l2 + (stream & ((1 << split) - 1)) * STE_BYTES))
}

/// Hardware ignores the address bits below a table's size.
fn aligned(address: u64, size: u64) -> u64 {
    address & !(size - 1)
}

fn read_ste(memory: &dyn GuestMemory, address: u64, ste: &mut [u64]) -> Lookup {
    let mut bytes = [0; STE_BYTES as usize];
    if memory.read(address, &mut bytes).is_err() {
        return Lookup::UNREADABLE;
    }
    for (to, from) in ste.iter_mut().take(STE_WORDS).zip(bytes.as_chunks::<8>().0) {
        *to = u64::from_le_bytes(*from);
    }
    Lookup::FOUND
}
