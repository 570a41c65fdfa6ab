//! AMD's guest tables ("v2"): GCR3 tables by PASID, then page tables as a processor's.

use super::{ADDRESS, Leaf, Read, bit, bits, entry, low_bits, shift};

/// The root of a PASID's page table: GLX + 1 levels of 512 entries, V 0, address 51:12.
pub(crate) fn root(read: Read<'_>, gcr3: u64, glx: u8, pasid: u32) -> Option<u64> {
    if u64::from(pasid) >> (9 * (glx + 1)) != 0 {
        return None;
    }
    let mut table = gcr3;
    for level in (0..=glx).rev() {
        let word = read(table + 8 * bits(u64::from(pasid) >> (9 * level), 8, 0))?;
        if !bit(word, 0) {
            return None;
        }
        table = word & ADDRESS;
    }
    Some(table)
}

/// Walks a page table of 4 or 5 levels: P 0, R/W 1, PS 7 at the levels of 2 MiB and 1 GiB, address 51:12. All pages of
/// these guests are user pages (U/S 2). `None` is an I/O page fault.
pub(crate) fn walk(read: Read<'_>, root: u64, levels: u8, iova: u64) -> Option<Leaf> {
    let sign = iova >> (shift(levels + 1) - 1);
    if sign != 0 && sign != u64::MAX >> (shift(levels + 1) - 1) {
        return None;
    }
    let (mut table, mut writable) = (root, true);
    for level in (1..=levels).rev() {
        let word = read(entry(table, iova, level))?;
        if !bit(word, 0) {
            return None;
        }
        writable &= bit(word, 1);
        if level == 1 || bit(word, 7) && level <= 3 {
            let log2 = shift(level);
            let permissions = if writable { 3 } else { 1 };
            return Some(Leaf { address: word & ADDRESS & !low_bits(log2), log2, permissions });
        }
        table = word & ADDRESS;
    }
    None
}
