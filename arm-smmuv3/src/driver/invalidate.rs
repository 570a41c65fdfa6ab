//! The host's own invalidations (§4.4, §4.5.1).

use crate::spec::commands::{AtcInv, COMMAND_WORDS, CfgiSte, Opcode, Sync, Tlbi};
use viommu_plugin::{HostInvalidation, Scope};

/// Pages above which a stage-2 range without IDR3.RIL becomes one command for the whole VMID: 2 MiB.
const PAGES_MAX: u64 = 512;
/// TG: 4 KiB granule.
const TG_4K: u8 = 1;

/// ATC_INV of everything that a stream's device holds.
pub(super) fn device_cache(stream: u32) -> AtcInv {
    AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(stream).with_size(AtcInv::SIZE_ALL)
}

/// Writes the commands for `what`; how many words. Nothing is written where nothing is to do (no ATS), or where not
/// one command fits.
pub(super) fn encode(what: &HostInvalidation, ats: bool, ril: bool, out: &mut [u64]) -> usize {
    let tlbi = |opcode: Opcode| Tlbi::new().with_opcode(opcode.0).with_vmid(what.tag as u16);
    let command = match what.scope {
        Scope::SYNC => Sync::new().with_opcode(Opcode::SYNC.0).words(),
        Scope::STAGE1_ALL => tlbi(Opcode::TLBI_NH_ALL).words(),
        Scope::TAG => tlbi(Opcode::TLBI_S12_VMALL).words(),
        Scope::DEVICE_CACHE if ats => device_cache(what.stream).words(),
        // §4.3.1: the STE, and all CDs that were cached using the StreamID.
        Scope::CONFIGURATION => {
            CfgiSte::new().with_opcode(Opcode::CFGI_STE.0).with_stream_id(what.stream).with_leaf(true).words()
        }
        Scope::STAGE2_RANGE => {
            let written = range(tlbi(Opcode::TLBI_S2_IPA), what.address, what.length, ril, out);
            if written > 0 {
                return written;
            }
            tlbi(Opcode::TLBI_S12_VMALL).words()
        }
        _ => return 0,
    };
    match out.first_chunk_mut::<COMMAND_WORDS>() {
        Some(slot) => {
            *slot = command;
            COMMAND_WORDS
        }
        None => 0,
    }
}

/// TLBI_S2_IPA for a range; 0 if that takes too many commands, or more than fit.
fn range(tlbi: Tlbi, address: u64, length: u64, ril: bool, out: &mut [u64]) -> usize {
    let first = address >> 12;
    let Some(last) = length.checked_sub(1).and_then(|more| address.checked_add(more)) else { return 0 };
    let mut pages = (last >> 12) - first + 1;
    if !ril && pages >= PAGES_MAX {
        return 0;
    }
    let mut at = first;
    let mut written = 0;
    for slot in out.as_chunks_mut::<COMMAND_WORDS>().0 {
        let tlbi = tlbi.with_address(at);
        let (command, covered) = if ril && pages > 1 {
            // The lowest five bits of what is left, at its lowest set bit.
            let scale = pages.trailing_zeros().min(31);
            let num = (pages >> scale) & 31;
            // A granule with NUM = SCALE = 0 and no level is reserved: a single page has no granule.
            let tg = if num == 1 && scale == 0 { 0 } else { TG_4K };
            (tlbi.with_tg(tg).with_scale(scale as u8).with_num(num as u8 - 1), num << scale)
        } else {
            (tlbi, 1)
        };
        *slot = command.words();
        written += COMMAND_WORDS;
        at += covered;
        pages -= covered;
        if pages == 0 {
            return written;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that a run of TLBI_S2_IPA covers, in order.
    fn covered(words: &[u64]) -> Vec<(u64, u64)> {
        let cover = |&words: &[u64; 2]| {
            let c = Tlbi::from_words(words);
            assert_eq!((c.opcode(), c.vmid(), c.leaf()), (Opcode::TLBI_S2_IPA.0, 7, false));
            assert_eq!(c.tg() == 0, c.num() == 0 && c.scale() == 0, "reserved combination");
            (c.address(), (u64::from(c.num()) + 1) << c.scale())
        };
        words.as_chunks::<2>().0.iter().map(cover).collect()
    }

    fn stage2_range(address: u64, length: u64, ril: bool, out: &mut [u64]) -> usize {
        let what =
            HostInvalidation { scope: Scope::STAGE2_RANGE, tag: 7, address, length, ..HostInvalidation::default() };
        encode(&what, false, ril, out)
    }

    #[test]
    fn ranges_cover_exactly_what_was_asked() {
        for pages in [1u64, 2, 3, 31, 32, 33, 511, 512, 513, 0x1_0001, 0x7_ffff, 1 << 24] {
            let mut out = [0; 64];
            let written = stage2_range(0x4000_0000, pages << 12, true, &mut out);
            assert!(written <= 16, "{pages} pages take {written} words");
            let mut at = 0x4000_0000 >> 12;
            for (address, pages) in covered(&out[..written]) {
                assert_eq!(address, at);
                at += pages;
            }
            assert_eq!(at, (0x4000_0000 >> 12) + pages);
        }
    }

    #[test]
    fn without_ranges_few_pages_go_one_by_one_and_many_as_a_whole() {
        let mut out = [0; 1024];
        assert_eq!(stage2_range(0x1000, 3 << 12, false, &mut out), 6);
        assert_eq!(covered(&out[..6]), [(1, 1), (2, 1), (3, 1)]);
        for (pages, room) in [(512u64, 1024), (100, 8)] {
            assert_eq!(stage2_range(0, pages << 12, false, &mut out[..room]), 2);
            assert_eq!(Tlbi::from_words([out[0], out[1]]).opcode(), Opcode::TLBI_S12_VMALL.0);
        }
    }

    #[test]
    fn an_impossible_range_is_the_whole_vmid() {
        let mut out = [0; 8];
        for (address, length) in [(0, 0), (u64::MAX, 2)] {
            assert_eq!(stage2_range(address, length, true, &mut out), 2);
            assert_eq!(out[0] & 0xff, u64::from(Opcode::TLBI_S12_VMALL.0));
        }
    }

    #[test]
    fn no_ats_no_device_cache() {
        let what = HostInvalidation { scope: Scope::DEVICE_CACHE, stream: 9, ..HostInvalidation::default() };
        let mut out = [0; 2];
        assert_eq!(encode(&what, false, true, &mut out), 0);
        assert_eq!(encode(&what, true, true, &mut out), 2);
        assert_eq!(out, [9 << 32 | 0x40, 52]);
        assert_eq!(encode(&what, true, true, &mut []), 0);
    }
}
