//! The guest's device table, in its own memory.

use crate::spec::dte::{DTE_BYTES, DTE_WORDS};
use crate::spec::registers::DeviceTableBase;
use viommu_plugin::{GuestMemory, Lookup};

/// Reads the DTE of `device` into `dte`.
pub(super) fn lookup(base: DeviceTableBase, memory: &dyn GuestMemory, device: u32, dte: &mut [u64]) -> Lookup {
    let at = u64::from(device) * DTE_BYTES;
    if at >= base.bytes() {
        return Lookup::NO_ENTRY;
    }
    let mut bytes = [0; DTE_BYTES as usize];
    if memory.read(base.address() + at, &mut bytes).is_err() {
        return Lookup::UNREADABLE;
    }
    for (to, from) in dte.iter_mut().take(DTE_WORDS).zip(bytes.as_chunks::<8>().0) {
        *to = u64::from_le_bytes(*from);
    }
    Lookup::FOUND
}
