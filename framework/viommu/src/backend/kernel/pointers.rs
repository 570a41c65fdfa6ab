//! Which fields of arguments are pointers, and how many bytes the kernel may touch behind each: what makes a call with
//! lent memory safe.

use crate::uapi::{Command, flags, selftest};

/// A pointer field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    /// Its offset in the argument.
    pub(super) offset: usize,
    /// Bytes that the kernel may read or write behind it, as the argument's other fields say.
    pub(super) extent: u64,
    /// The kernel keeps it beyond the call: only memory that stays may be there.
    pub(super) stays: bool,
}

/// The pointer fields of this command's argument. Fields behind the end of a short argument are zero to the kernel.
pub(super) fn of(code: u32, argument: &[u8]) -> Vec<Pointer> {
    let word = |at: usize| -> u64 { u64::from(u32::from_ne_bytes(bytes(argument, at))) };
    let long = |at: usize| u64::from_ne_bytes(bytes(argument, at));
    let one = |offset, extent| vec![Pointer { offset, extent, stays: false }];
    let Some(command) = Command::from_code(code) else {
        return match code {
            flags::VFIO_DEVICE_BIND_IOMMUFD => one(16, 16),
            _ => Vec::new(),
        };
    };
    match command {
        Command::IoasAllowIovas => one(16, word(8).saturating_mul(16)),
        Command::IoasIovaRanges => one(16, word(8).saturating_mul(16)),
        Command::IoasMap => vec![Pointer { offset: 16, extent: long(24), stays: true }],
        Command::HwptAlloc => one(32, word(28)),
        Command::GetHwInfo => one(16, word(12)),
        Command::HwptGetDirtyBitmap => one(40, bitmap_bytes(long(24), long(32))),
        Command::HwptInvalidate => one(8, word(20).saturating_mul(word(24))),
        Command::ViommuAlloc => one(32, word(24)),
        Command::Test => test(word(4) as u32, &word, &long),
        _ => Vec::new(),
    }
}

/// The mock driver's operations.
fn test(op: u32, word: &dyn Fn(usize) -> u64, long: &dyn Fn(usize) -> u64) -> Vec<Pointer> {
    let at = |offset, extent, stays| vec![Pointer { offset, extent, stays }];
    match op {
        selftest::op::MD_CHECK_MAP => at(32, long(24), false),
        selftest::op::MD_CHECK_REFS => at(24, long(16), false),
        selftest::op::ACCESS_PAGES => at(40, long(32), true),
        selftest::op::ACCESS_RW => at(32, long(24), false),
        selftest::op::DIRTY => at(48, bitmap_bytes(long(32), long(40)).max(word(16)), false),
        _ => Vec::new(),
    }
}

/// Bytes of a bitmap with a bit a page, in whole words.
fn bitmap_bytes(length: u64, page: u64) -> u64 {
    length.checked_div(page).unwrap_or(0).saturating_add(1).div_ceil(64).saturating_mul(8)
}

/// `N` bytes at `at`, zero where the argument has none.
fn bytes<const N: usize>(argument: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, from) in bytes.iter_mut().zip(argument.iter().skip(at)) {
        *byte = *from;
    }
    bytes
}
