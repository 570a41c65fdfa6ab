//! The oracle: what a correct IOMMU answers, computed the slow way from nothing but memory and two or three registers.
//!
//! No cache, no state, one function a format, written from the formats' facts and from no model's code. A guest that
//! keeps its rules (a change is invalidated and waited for before its address is used again) has exactly this answer.

pub(crate) mod amd;
pub(crate) mod amd_guest;
pub(crate) mod amd_host;
pub(crate) mod arm;
pub(crate) mod vtd;
pub(crate) mod vtd_first;
pub(crate) mod vtd_second;

#[cfg(test)]
mod tests;

use viommu_trace::Outcome;

/// Bits 51:12 of a table entry: an address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The device reads.
pub(crate) const READ: u8 = 1;
/// The device writes.
pub(crate) const WRITE: u8 = 2;

/// Guest memory as words, where the guest has any.
pub(crate) type Read<'a> = &'a dyn Fn(u64) -> Option<u64>;

/// One piece of DMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) pasid: Option<u32>,
    pub(crate) iova: u64,
    /// 0 not known, [`READ`] or [`WRITE`].
    pub(crate) access: u8,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) output: u64,
    /// Bit 0 read, bit 1 write.
    pub(crate) permissions: Option<u8>,
    /// Arm's number of the stage, else 0.
    pub(crate) stage: u8,
    pub(crate) fault: u32,
}

impl Verdict {
    /// Passes untranslated.
    pub(crate) fn bypass(iova: u64) -> Self {
        Self { outcome: Outcome::Bypass, output: iova, permissions: None, stage: 0, fault: 0 }
    }
    /// The IOMMU is not enabled.
    pub(crate) fn disabled(iova: u64) -> Self {
        Self { outcome: Outcome::Disabled, ..Self::bypass(iova) }
    }
    /// Refused silently.
    pub(crate) fn abort() -> Self {
        Self { outcome: Outcome::Abort, ..Self::bypass(0) }
    }
    /// Refused with a fault of this code.
    pub(crate) fn fault(fault: u32) -> Self {
        Self { outcome: Outcome::Fault, fault, ..Self::bypass(0) }
    }
    /// What a walk found.
    pub(crate) fn of(leaf: Leaf, iova: u64) -> Self {
        let output = leaf.address | iova & low_bits(leaf.log2);
        Self { outcome: Outcome::Ok, output, permissions: Some(leaf.permissions), stage: 0, fault: 0 }
    }
}

/// The end of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// First address of the page.
    pub(crate) address: u64,
    /// log2 of the page's bytes.
    pub(crate) log2: u8,
    /// Bit 0 read, bit 1 write, granted by the entries of all levels.
    pub(crate) permissions: u8,
}

/// Ones below bit `log2`.
pub(crate) fn low_bits(log2: u8) -> u64 {
    (1 << log2) - 1
}

/// Bits `high:low` of a word.
pub(crate) fn bits(word: u64, high: u8, low: u8) -> u64 {
    word >> low & (u64::MAX >> (63 - (high - low)))
}

/// Whether bit `bit` of a word is 1.
pub(crate) fn bit(word: u64, bit: u8) -> bool {
    bits(word, bit, bit) == 1
}

/// Address of the entry for `iova` in a table of 512 entries at this level; level 1 is of 4 KiB pages.
pub(crate) fn entry(table: u64, iova: u64, level: u8) -> u64 {
    table + 8 * (iova >> shift(level) & 511)
}

/// log2 of the bytes that one entry of this level is for.
pub(crate) fn shift(level: u8) -> u8 {
    12 + 9 * (level - 1)
}
