//! AMD's host page tables ("v1"): Next Level in each entry, so levels can be left out and pages have any power of two.

use super::{ADDRESS, Leaf, Read, bit, bits, entry, low_bits, shift};

/// Walks from a root of `levels` levels.
///
/// An entry: PR 0, Next Level 11:9 (0 a page of the level's size, 7 a page whose size is in its address), address 51:12,
/// IR 61, IW 62. `None` is an I/O page fault.
pub(crate) fn walk(read: Read<'_>, root: u64, levels: u8, iova: u64) -> Option<Leaf> {
    if levels < 6 && iova >> shift(levels + 1) != 0 {
        return None;
    }
    let (mut table, mut level, mut permissions) = (root, levels, 3);
    loop {
        let word = read(entry(table, iova, level))?;
        if !bit(word, 0) {
            return None;
        }
        permissions &= bits(word, 62, 61) as u8;
        let next = bits(word, 11, 9) as u8;
        let log2 = match next {
            0 => shift(level),
            7 => 13 + (word >> 12).trailing_ones() as u8,
            _ if next >= level => return None,
            _ => {
                // Levels that are left out have index 0.
                if iova & (low_bits(shift(level)) & !low_bits(shift(next + 1))) != 0 {
                    return None;
                }
                (table, level) = (word & ADDRESS, next);
                continue;
            }
        };
        return Some(Leaf { address: word & ADDRESS & !low_bits(log2), log2, permissions });
    }
}
