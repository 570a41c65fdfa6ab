//! The guest's device table, in its own memory.

use crate::spec::dte::{DTE_BYTES, DTE_WORDS};
use crate::spec::registers::DeviceTableBase;
use crate::spec::viommu::PAGE;
use std::collections::BTreeSet;
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

/// The pages that hold the DTEs of `devices`, ascending, without the first `from`; how many were written.
pub(super) fn pages(base: DeviceTableBase, devices: &[u32], from: u32, out: &mut [u64]) -> u32 {
    let at = |device: &u32| Some(u64::from(*device) * DTE_BYTES).filter(|at| *at < base.bytes());
    let pages: BTreeSet<u64> = devices.iter().filter_map(at).map(|at| (base.address() + at) & !(PAGE - 1)).collect();
    let some = pages.into_iter().skip(from as usize);
    out.iter_mut().zip(some).map(|(slot, page)| *slot = page).count() as u32
}
