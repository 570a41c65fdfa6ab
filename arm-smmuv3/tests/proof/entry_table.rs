//! What a guest may write into an STE, from the manual (IHI 0070 §5.2) and from what Linux's vIOMMU
//! takes. Written by hand, bit by bit: nothing here comes from the codec that is judged by it.

use crate::shown::Shown;
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::proof::{EntryTable, Field};

/// Word 0 of an STE: V, Config, S1Fmt, S1ContextPtr, S1CDMax.
pub(crate) const GUEST0: u64 = 0xf80f_ffff_ffff_ffff;
/// Word 1 of an STE: S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS.
pub(crate) const GUEST1: u64 = 0x3800_00ff;

/// What an STE asks for.
pub(crate) fn entries(shown: Shown) -> EntryTable {
    let (v, config, format) = (Field::bit(0), Field::new(1, 3), Field::new(4, 5));
    let (cd_max, dss, eats) = (Field::new(59, 63), Field::new(64, 65), Field::new(64 + 28, 64 + 29));
    let s1_stalld = Field::bit(64 + 27);
    let key = move |ste: &[u64]| {
        let abort = |event| EntryKey { event, ..EntryKey::default() };
        // C_BAD_STE is event 0x04.
        let (bad, aborts) = (abort(4), abort(0));
        match (v.get(ste), config.get(ste)) {
            (0, _) => return bad,
            (_, 0..=3) => return aborts,
            (_, 4) => return EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() },
            (_, 5) => {}
            // Stage 2 is the host's.
            _ => return bad,
        }
        let substreams = cd_max.get(ste) > 0;
        let formats = if shown.cd2l { 2 } else { 0 };
        let bad_table = cd_max.get(ste) > shown.ssidsize.into() || format.get(ste) > formats || dss.get(ste) == 3;
        if substreams && bad_table || shown.ats && eats.get(ste) > 1 {
            return bad;
        }
        // Nothing to disable.
        if s1_stalld.get(ste) == 1 && !shown.stalls {
            return bad;
        }
        let guest1 = if shown.ats { GUEST1 } else { GUEST1 & !eats.mask() };
        let words = [ste[0] & GUEST0, ste[1] & guest1, 0, 0];
        EntryKey { kind: KeyKind::TRANSLATE, words, ..EntryKey::default() }
    };
    let ste = |word0: u64, word1: u64| vec![word0, word1, 0, 0, 0, 0, 0, 0];
    EntryTable {
        bases: vec![
            ste(0b0001, 0),
            ste(0b1001, 0),
            // Stage 1: one CD, and a two-level table of CDs with ATS on.
            ste(0x4321_1000 | 0b1011, 0xec),
            ste(0x2 << 59 | 0x4321_1000 | 2 << 4 | 0b1011, 0x1000_00ee),
            // A leftover of everything, as a guest's host kernel would write.
            vec![0x4321_1000 | 0b1111, 0x1208_0000_30f8_00fe, 0x0473_5599_0000_ffff, 0x9876_5430, 1, 2, 3, 4],
        ],
        restricted: vec![v, config, format, cd_max, dss, eats, s1_stalld],
        allowed: vec![Field::new(0, 51), cd_max, Field::new(64, 71), s1_stalld, eats],
        key: Box::new(key),
    }
}
