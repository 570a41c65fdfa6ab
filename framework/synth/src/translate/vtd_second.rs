//! VT-d's second stage: an entry without R and W is not present.

use super::{ADDRESS, Leaf, Read, bit, bits, entry, low_bits, shift};

/// Walks a table of 3 to 5 levels: R 0, W 1, PS 7 at the levels of 2 MiB and 1 GiB. `None`: nothing is mapped.
pub(crate) fn walk(read: Read<'_>, root: u64, levels: u8, iova: u64) -> Option<Leaf> {
    let (mut table, mut permissions, mut level) = (root, 3, levels);
    loop {
        let word = read(entry(table, iova, level))?;
        permissions &= bits(word, 1, 0) as u8;
        if permissions == 0 {
            return None;
        }
        if level == 1 || bit(word, 7) && level <= 3 {
            let log2 = shift(level);
            return Some(Leaf { address: word & ADDRESS & !low_bits(log2), log2, permissions });
        }
        (table, level) = (word & ADDRESS, level - 1);
    }
}
