//! What a guest may write into a DTE. Written by hand, bit by bit: nothing here comes from the codec that is judged by it.

use crate::shown::Shown;
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::proof::{EntryTable, Field};

/// Of a nested guest's DTE: V, TV, GIOV, GV, GLX, GCR3\[14:12\], IR, IW; DomainID, GCR3\[30:15\], I, GCR3\[51:31\];
/// GuestPagingMode.
pub(crate) const NESTED: [u64; 3] = [0x7fc0_0000_0000_0003, 0xffff_f801_ffff_ffff, 3 << 54];
/// Of a shadowed guest's DTE: V, TV, Mode, root pointer, IR, IW; DomainID, I.
pub(crate) const SHADOWED: [u64; 2] = [0x600f_ffff_ffff_fe03, 0x1_0000_ffff];

/// What a DTE asks for.
pub(crate) fn entries(shown: Shown) -> EntryTable {
    let (v, tv, mode, gv) = (Field::bit(0), Field::bit(1), Field::new(9, 11), Field::bit(55));
    let (glx, ir, iw) = (Field::new(56, 57), Field::bit(61), Field::bit(62));
    let (root, paging) = (Field::new(12, 51), Field::new(128 + 54, 128 + 55));
    let gcr3 = [Field::new(58, 60), Field::new(64 + 16, 64 + 31), Field::new(64 + 43, 127)];
    let key = move |dte: &[u64]| {
        let none = |kind, event| EntryKey { kind, event, domain: u32::MAX, reserved: 0, words: [0; 4] };
        // ILLEGAL_DEV_TABLE_ENTRY is event 1.
        let (bypass, aborts, bad) = (none(KeyKind::BYPASS, 0), none(KeyKind::ABORT, 0), none(KeyKind::ABORT, 1));
        if v.get(dte) == 0 {
            return bypass;
        }
        if tv.get(dte) == 0 {
            return aborts;
        }
        let translates = if shown.nested {
            if mode.get(dte) != 0 || root.get(dte) != 0 {
                return bad;
            }
            gv.get(dte) == 1
        } else {
            if gv.get(dte) == 1 {
                return bad;
            }
            mode.get(dte) != 0
        };
        let (reads, writes) = (ir.get(dte) == 1, iw.get(dte) == 1);
        if !translates {
            return if reads && writes { bypass } else { aborts };
        }
        let wrong = if shown.nested {
            gcr3.iter().all(|part| part.get(dte) == 0)
                || glx.get(dte) > shown.glx
                || paging.get(dte) > shown.five.into()
        } else {
            mode.get(dte) > shown.host_levels
        };
        if wrong {
            return bad;
        }
        if !reads && !writes {
            return aborts;
        }
        let mut words = match shown.nested {
            true => [dte[0] & NESTED[0], dte[1] & NESTED[1], dte[2] & NESTED[2], 0],
            false => [dte[0] & SHADOWED[0], dte[1] & SHADOWED[1], 0, 0],
        };
        if !shown.ats {
            words[1] &= !(1 << 32);
        }
        let domain = (dte[1] & 0xffff) as u32;
        EntryKey { kind: KeyKind::TRANSLATE, event: 0, domain, reserved: 0, words }
    };
    EntryTable {
        bases: vec![
            vec![0, 0, 1, 0],
            vec![3 | 3 << 61, 5, 0, 0],
            // A v1 table of three levels, as the recorded guests have; with everything else that may be set.
            vec![0x6000_0000_0262_9603, 4, 1, 0],
            vec![0x6010_0000_0262_9783, 0x306_0001_0004, 0xf200_0000_0124_a013, 0xff00_ffff_ffff_8000],
            // A GCR3 table at 0x5_7654_3000, one level and two.
            vec![0x6cc0_0000_0000_0003, 0x0000_5000_eca8_0009 | 1 << 32, 0, 0],
            vec![0x6dd0_0000_0000_0003, 0x0000_5000_eca8_0009, 1 << 54 | 1, 0],
        ],
        restricted: vec![v, tv, mode, gv, glx, ir, iw, paging, Field::bit(64 + 32)],
        allowed: if shown.nested {
            vec![v, tv, Field::new(54, 62), Field::new(64, 64 + 32), Field::new(64 + 43, 127), paging]
        } else {
            vec![v, tv, mode, root, ir, iw, Field::new(64, 64 + 15), Field::bit(64 + 32)]
        },
        key: Box::new(key),
    }
}
