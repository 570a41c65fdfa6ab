//! VT-d's first stage: page tables as a processor's.

use super::{ADDRESS, Leaf, Read, bit, entry, low_bits, shift};

/// The address is not canonical.
const NOT_CANONICAL: u32 = 0x80;
/// An entry is not present.
const NOT_PRESENT: u32 = 0x71;

/// Walks a table of 4 or 5 levels: P 0, R/W 1, PS 7 at the levels of 2 MiB and 1 GiB. All pages of these guests are user
/// pages.
///
/// # Errors
/// The fault reason.
pub(crate) fn walk(read: Read<'_>, root: u64, levels: u8, iova: u64) -> Result<Leaf, u32> {
    let top = shift(levels + 1) - 1;
    if iova >> top != 0 && iova >> top != u64::MAX >> top {
        return Err(NOT_CANONICAL);
    }
    let (mut table, mut writable, mut level) = (root, true, levels);
    loop {
        let word = read(entry(table, iova, level)).filter(|&word| bit(word, 0)).ok_or(NOT_PRESENT)?;
        writable &= bit(word, 1);
        if level == 1 || bit(word, 7) && level <= 3 {
            let log2 = shift(level);
            let permissions = if writable { 3 } else { 1 };
            return Ok(Leaf { address: word & ADDRESS & !low_bits(log2), log2, permissions });
        }
        (table, level) = (word & ADDRESS, level - 1);
    }
}
