//! AMD-Vi: from a DeviceID to an answer.

use super::{ADDRESS, Leaf, Read, Request, Verdict, amd_guest, amd_host, bit, bits};

/// IO_PAGE_FAULT in the trace format's numbering.
const PAGE_FAULT: u32 = 1;
/// ILLEGAL_DEV_TABLE_ENTRY for a Mode that there is not.
const BAD_MODE: u32 = 4;
/// ILLEGAL_DEV_TABLE_ENTRY for anything else.
const ILLEGAL: u32 = 2;

/// The registers that a translation depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// CONTROL.IommuEn.
    pub(crate) enabled: bool,
    /// Device table base.
    pub(crate) table: u64,
}

/// What becomes of a request.
///
/// DTE: V 0, TV 1, Mode 11:9, host root 51:12, GIOV 54, GV 55, GLX 57:56, GCR3 in 60:58 and word 1 31:16 and 63:43, IR
/// 61, IW 62, GuestPagingMode word 2 55:54. These guests use one stage: host tables or guest tables.
pub(crate) fn translate(read: Read<'_>, registers: Registers, request: &Request) -> Verdict {
    let Request { stream, pasid, iova, access } = *request;
    if !registers.enabled {
        return Verdict::disabled(iova);
    }
    let dte = |word: u64| read(registers.table + 32 * u64::from(stream) + 8 * word).unwrap_or_default();
    let (word0, word1, word2) = (dte(0), dte(1), dte(2));
    if !bit(word0, 0) {
        return Verdict::bypass(iova);
    }
    if !bit(word0, 1) {
        return Verdict::abort();
    }
    let (mode, glx, paging) = (bits(word0, 11, 9) as u8, bits(word0, 57, 56) as u8, bits(word2, 55, 54));
    let guest = bit(word0, 55);
    if mode == 7 {
        return Verdict::fault(BAD_MODE);
    }
    if guest && (glx == 3 || paging > 1) {
        return Verdict::fault(ILLEGAL);
    }
    let dte_grants = bits(word0, 62, 61) as u8;
    let leaf = if guest && (bit(word0, 54) || pasid.is_some()) {
        let gcr3 = bits(word0, 60, 58) << 12 | bits(word1, 31, 16) << 15 | bits(word1, 63, 43) << 31;
        let levels = if paging == 1 { 5 } else { 4 };
        let root = amd_guest::root(read, gcr3, glx, pasid.unwrap_or(0));
        root.and_then(|root| amd_guest::walk(read, root, levels, iova))
    } else if mode == 0 {
        // These guests let all of it pass.
        return Verdict::bypass(iova);
    } else {
        amd_host::walk(read, word0 & ADDRESS, mode, iova)
    };
    let leaf = leaf.map(|leaf| Leaf { permissions: leaf.permissions & dte_grants, ..leaf });
    match leaf {
        Some(leaf) if leaf.permissions != 0 && access & !leaf.permissions == 0 => Verdict::of(leaf, iova),
        _ => Verdict::fault(PAGE_FAULT),
    }
}
