//! SMMUv3: from a StreamID to an answer, stage 1 with 4 KiB granule.

use super::{ADDRESS, Leaf, Read, Request, Verdict, bit, bits, entry, low_bits, shift};

/// C_BAD_STE.
const BAD_STE: u32 = 0x04;
/// F_TRANSLATION.
const TRANSLATION: u32 = 0x10;
/// F_PERMISSION.
const PERMISSION: u32 = 0x13;
/// Levels of a table for 48 bits.
const LEVELS: u8 = 4;

/// The registers that a translation depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// CR0.SMMUEN.
    pub(crate) enabled: bool,
    /// Linear stream table.
    pub(crate) table: u64,
}

/// What becomes of a request without SubstreamID.
///
/// STE: V 0, Config 3:1 (0 abort, 4 bypass, 5 stage 1), CD 51:6. CD: TTB0 in bits 51:4 of the second word.
pub(crate) fn translate(read: Read<'_>, registers: Registers, request: &Request) -> Verdict {
    let Request { stream, iova, access, .. } = *request;
    if !registers.enabled {
        return Verdict::disabled(iova);
    }
    let ste = read(registers.table + 64 * u64::from(stream)).unwrap_or_default();
    match (bit(ste, 0), bits(ste, 3, 1)) {
        (false, _) => return Verdict::fault(BAD_STE),
        (true, 0) => return Verdict::abort(),
        (true, 4) => return Verdict::bypass(iova),
        _ => {}
    }
    let root = read((ste & ADDRESS & !0x3f) + 8).unwrap_or_default() & ADDRESS;
    match walk(read, root, iova) {
        Some(leaf) if access & !leaf.permissions == 0 => Verdict { stage: 1, ..Verdict::of(leaf, iova) },
        Some(_) => Verdict::fault(PERMISSION),
        None => Verdict::fault(TRANSLATION),
    }
}

/// Walks 48 bits: valid 0; bit 1 tells tables from blocks above the last level, and is 1 in it; AP[2] 7 read-only.
pub(crate) fn walk(read: Read<'_>, root: u64, iova: u64) -> Option<Leaf> {
    if iova >> shift(LEVELS + 1) != 0 {
        return None;
    }
    let (mut table, mut level) = (root, LEVELS);
    loop {
        let word = read(entry(table, iova, level)).filter(|&word| bit(word, 0))?;
        if level == 1 || !bit(word, 1) {
            let log2 = shift(level);
            let permissions = if bit(word, 7) { 1 } else { 3 };
            return Some(Leaf { address: word & ADDRESS & !low_bits(log2), log2, permissions });
        }
        (table, level) = (word & ADDRESS, level - 1);
    }
}
