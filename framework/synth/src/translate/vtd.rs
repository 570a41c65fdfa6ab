//! VT-d: from a source-id to an answer, in legacy and scalable mode.

use super::{ADDRESS, Read, Request, Verdict, WRITE, bit, bits, shift, vtd_first, vtd_second};

/// The context entry is not present; of legacy mode.
const CONTEXT_NOT_PRESENT: u32 = 0x02;
/// The address is beyond what the tables translate.
const BEYOND: u32 = 0x04;
/// No write permission, or nothing there to write.
const NO_WRITE: u32 = 0x05;
/// No read permission, or nothing there to read.
const NO_READ: u32 = 0x06;
/// The PASID table entry is not present.
const PASID_NOT_PRESENT: u32 = 0x59;
/// A write to what the first stage makes read-only.
const FIRST_STAGE_READ_ONLY: u32 = 0x85;

/// The registers that a translation depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// GSTS.TES.
    pub(crate) enabled: bool,
    /// RTADDR: root table, translation table mode 11:10.
    pub(crate) root: u64,
}

/// What becomes of a request without PASID.
pub(crate) fn translate(read: Read<'_>, registers: Registers, request: &Request) -> Verdict {
    if !registers.enabled {
        return Verdict::disabled(request.iova);
    }
    let (bus, function) = (u64::from(request.stream >> 8), u64::from(request.stream & 0xff));
    let root = (registers.root & ADDRESS) + 16 * bus;
    let word = |gpa: u64| read(gpa).unwrap_or_default();
    if bits(registers.root, 11, 10) == 0 {
        legacy(read, (word(root) & ADDRESS) + 16 * function, request)
    } else {
        let half = word(root + 8 * (function >> 7));
        scalable(read, (half & ADDRESS) + 32 * (function & 0x7f), request)
    }
}

/// Context entry: P 0, translation type 3:2 (2 untranslated), table 63:12; address width in bits 2:0 of the second word
/// (1 three levels).
fn legacy(read: Read<'_>, context: u64, request: &Request) -> Verdict {
    let Request { iova, access, .. } = *request;
    let (low, high) = (read(context).unwrap_or_default(), read(context + 8).unwrap_or_default());
    if !bit(low, 0) {
        return Verdict::fault(CONTEXT_NOT_PRESENT);
    }
    if bits(low, 3, 2) == 2 {
        return Verdict::bypass(iova);
    }
    let levels = bits(high, 2, 0) as u8 + 2;
    if iova >> shift(levels + 1) != 0 {
        return Verdict::fault(BEYOND);
    }
    match vtd_second::walk(read, low & ADDRESS, levels, iova) {
        Some(leaf) if access & !leaf.permissions == 0 => Verdict::of(leaf, iova),
        _ => Verdict::fault(if access == WRITE { NO_WRITE } else { NO_READ }),
    }
}

/// Context entry: P 0, PASID directory 63:12, RID_PASID in bits 19:0 of the second word. Directory entry: P 0, table
/// 63:12. PASID entry of 64 bytes: P 0, PGTT 8:6 (1 first stage, 4 untranslated); third word FLPM 3:2, table 63:12.
fn scalable(read: Read<'_>, context: u64, request: &Request) -> Verdict {
    let Request { iova, access, .. } = *request;
    let word = |gpa: u64| read(gpa).unwrap_or_default();
    let pasid = word(context + 8) & 0xf_ffff;
    let directory = word((word(context) & ADDRESS) + 8 * (pasid >> 6));
    let entry = (directory & ADDRESS) + 64 * (pasid & 63);
    let (first, third) = (word(entry), word(entry + 16));
    if !bit(first, 0) {
        return Verdict::fault(PASID_NOT_PRESENT);
    }
    if bits(first, 8, 6) == 4 {
        return Verdict::bypass(iova);
    }
    let levels = 4 + bits(third, 3, 2) as u8;
    match vtd_first::walk(read, third & ADDRESS, levels, iova) {
        Ok(leaf) if access & !leaf.permissions == 0 => Verdict::of(leaf, iova),
        Ok(_) => Verdict::fault(FIRST_STAGE_READ_ONLY),
        Err(reason) => Verdict::fault(reason),
    }
}
