//! Host physical addresses.

use crate::guest::{LOAN_SIZE, Loans, RAM_SIZE};
use std::sync::{Arc, Mutex};

/// The driver's tables and queues.
pub(super) const DMA: u64 = 0x1_0000_0000;
pub(super) const DMA_SIZE: u64 = 64 << 20;
/// The first machine's memory.
const RAM: u64 = 0x1_4000_0000;
/// Memory that is lent.
const LENT: u64 = 0x1_8000_0000;

/// Where a machine's memory is.
pub(super) fn ram(vm: u32) -> u64 {
    RAM + u64::from(vm) * 4 * RAM_SIZE
}

/// Memory that is lent, to so many machines: its address and length.
pub(super) fn lent(vms: usize) -> (u64, u64) {
    (LENT, vms as u64 * LOAN_SIZE)
}

/// Less than every machine could use.
pub(super) fn loans(vms: usize) -> Loans {
    Loans(Arc::new(Mutex::new((0..vms as u64).map(|at| LENT + at * LOAN_SIZE).collect())))
}

/// An address where something is that a guest would like to reach.
pub(crate) fn somewhere(word: u64) -> u64 {
    let offset = word >> 8 & (RAM_SIZE - 1);
    match word >> 4 & 7 {
        0 | 1 => DMA + (offset & 0xf_ffff),
        2 => LENT + offset,
        number => ram(number as u32 - 3) + offset,
    }
}
