//! Shims of [`crate::KernelAbi`]. They need no instance, so there is none to be dead.

use super::{lent, lent_mut, panicked, refuse};
use crate::{
    EntryKey, HostInvalidation, KernelAbi, KernelEntries, KernelEvent, KernelFacts, Message, Refusal, Register,
    TranslationMode,
};
use crate::{Vendor, VirtualInterface};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Asks the vendor. Where it has no kernel payloads its slots are null, and this is not reached.
fn kernel<V: Vendor>(question: impl FnOnce(&'static dyn KernelAbi) -> i64) -> i64 {
    let Some(kernel) = V::KERNEL else { return -i64::from(Refusal::EOPNOTSUPP) };
    catch_unwind(AssertUnwindSafe(|| question(kernel))).unwrap_or_else(panicked)
}

pub(super) unsafe extern "C" fn facts<V: Vendor>(facts: *mut KernelFacts) -> i64 {
    kernel::<V>(|kernel| {
        // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
        unsafe { facts.write(kernel.facts()) };
        0
    })
}

pub(super) unsafe extern "C" fn registers<V: Vendor>(
    hw_info: *const u8,
    len: usize,
    capabilities: u64,
    mode: TranslationMode,
    registers: *mut Register,
    room: usize,
    why: *mut Message,
) -> i64 {
    kernel::<V>(|kernel| {
        // SAFETY: as in `facts`.
        let (hw_info, room, why) = unsafe { (lent(hw_info, len), lent_mut(registers, room), &mut *why) };
        match kernel.registers(hw_info, capabilities, mode) {
            Err(refusal) => refuse(why, &refusal),
            Ok(all) => {
                let fits = all.len().min(room.len());
                room[..fits].copy_from_slice(&all[..fits]);
                all.len() as i64
            }
        }
    })
}

pub(super) unsafe extern "C" fn hwpt_data<V: Vendor>(key: *const EntryKey, data: *mut u8, room: usize) -> i64 {
    // SAFETY: as in `facts`.
    kernel::<V>(|kernel| unsafe { kernel.hwpt_data(&*key, lent_mut(data, room)) as i64 })
}

pub(super) unsafe extern "C" fn entries<V: Vendor>(
    commands: *const u64,
    words: usize,
    entries: *mut u8,
    room: usize,
    answer: *mut KernelEntries,
) -> i64 {
    kernel::<V>(|kernel| {
        // SAFETY: as in `facts`.
        unsafe { answer.write(kernel.entries(lent(commands, words), lent_mut(entries, room))) };
        0
    })
}

pub(super) unsafe extern "C" fn repeatable<V: Vendor>(command: *const u64, words: usize) -> i64 {
    // SAFETY: as in `facts`.
    kernel::<V>(|kernel| unsafe { kernel.repeatable(lent(command, words)) }.into())
}

pub(super) unsafe extern "C" fn event<V: Vendor>(
    veventq_type: u32,
    payload: *const u8,
    len: usize,
    event: *mut KernelEvent,
) -> i64 {
    kernel::<V>(|kernel| {
        // SAFETY: as in `facts`.
        let payload = unsafe { lent(payload, len) };
        kernel.event(veventq_type, payload).map_or(0, |found| {
            // SAFETY: as in `facts`.
            unsafe { event.write(found) };
            1
        })
    })
}

pub(super) unsafe extern "C" fn interface<V: Vendor>(
    viommu_data: *const u8,
    len: usize,
    interface: *mut VirtualInterface,
) -> i64 {
    kernel::<V>(|kernel| {
        // SAFETY: as in `facts`.
        let data = unsafe { lent(viommu_data, len) };
        kernel.interface(data).map_or(0, |found| {
            // SAFETY: as in `facts`.
            unsafe { interface.write(found) };
            1
        })
    })
}

pub(super) unsafe extern "C" fn forget<V: Vendor>(
    what: *const HostInvalidation,
    commands: *mut u64,
    room: usize,
) -> i64 {
    // SAFETY: as in `facts`.
    kernel::<V>(|kernel| unsafe { kernel.forget(&*what, lent_mut(commands, room)) as i64 })
}
