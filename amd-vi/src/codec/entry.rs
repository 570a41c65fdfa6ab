//! What a guest's DTE asks for, in a form in which equal wishes are equal words.

use crate::features::Features;
use crate::spec::dte::{DteWord0, DteWord1, DteWord2, gcr3_table};
use crate::spec::events::EventCode;
use viommu_plugin::{EntryKey, KeyKind, NO_DOMAIN, TranslationMode};

/// What a guest decides in a DTE that translates by GCR3 tables: V, TV, GIOV, GV, GLX, the GCR3 pointer, IR and IW;
/// DomainID and I; GuestPagingMode. PPR is not among it: no page request reaches a guest.
pub(crate) const GUEST: [u64; 3] = [
    DteWord0::new()
        .with_v(true)
        .with_tv(true)
        .with_giov(true)
        .with_gv(true)
        .with_glx(3)
        .with_gcr3_14_12(7)
        .with_ir(true)
        .with_iw(true)
        .into_bits(),
    DteWord1::new()
        .with_domain_id(u16::MAX)
        .with_gcr3_30_15(u16::MAX)
        .with_i(true)
        .with_gcr3_51_31(0x1f_ffff)
        .into_bits(),
    DteWord2::new().with_guest_paging_mode(3).into_bits(),
];

/// What a guest decides in a DTE that translates by a v1 table: V, TV, Mode, the root pointer, IR and IW; DomainID, I.
const SHADOWED: [u64; 2] = [
    DteWord0::new()
        .with_v(true)
        .with_tv(true)
        .with_mode(7)
        .with_host_root((1 << 40) - 1)
        .with_ir(true)
        .with_iw(true)
        .into_bits(),
    DteWord1::new().with_domain_id(u16::MAX).with_i(true).into_bits(),
];

const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };
const ILLEGAL: EntryKey = EntryKey { event: EventCode::ILLEGAL_DEV_TABLE_ENTRY.0 as u32, ..ABORT };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };

/// The canonical key of a DTE.
///
/// An entry that is not valid lets everything pass untranslated (V = 0), a valid one without translation fields (TV = 0)
/// lets nothing pass: so do the recorded guests' IOMMU and Linux's use of both. A guest that forbids one direction of
/// untranslated DMA asks for what stage 2 cannot express for one device; it is let through in neither.
pub(super) fn key(features: &Features, dte: &[u64]) -> EntryKey {
    let &[word0, word1, word2, ..] = dte else { return ILLEGAL };
    let (w0, w1, w2) = (DteWord0::from_bits(word0), DteWord1::from_bits(word1), DteWord2::from_bits(word2));
    if !w0.v() {
        return BYPASS;
    }
    if !w0.tv() {
        return ABORT;
    }
    let nested = features.mode() == TranslationMode::NESTED;
    // Of a nested guest, v1 tables are not looked at; of a shadowed one, GCR3 tables are not.
    let foreign = if nested { w0.mode() != 0 || w0.host_root() != 0 } else { w0.gv() };
    if foreign {
        return ILLEGAL;
    }
    let translates = if nested { w0.gv() } else { w0.mode() != 0 };
    if !translates {
        return if w0.ir() && w0.iw() { BYPASS } else { ABORT };
    }
    let legal = if nested { gcr3_legal(features, w0, w1, w2) } else { w0.mode() <= features.host_levels() };
    if !legal {
        return ILLEGAL;
    }
    if !w0.ir() && !w0.iw() {
        return ABORT;
    }
    let mut words = if nested {
        [word0 & GUEST[0], word1 & GUEST[1], word2 & GUEST[2], 0]
    } else {
        [word0 & SHADOWED[0], word1 & SHADOWED[1], 0, 0]
    };
    if !features.header.iotlb_sup() {
        words[1] &= !DteWord1::new().with_i(true).into_bits();
    }
    EntryKey { kind: KeyKind::TRANSLATE, event: 0, domain: w1.domain_id().into(), reserved: 0, words }
}

/// A GCR3 table, in levels that exist, and of guest tables that the guest was shown.
fn gcr3_legal(features: &Features, w0: DteWord0, w1: DteWord1, w2: DteWord2) -> bool {
    gcr3_table(w0, w1) != 0 && w0.glx() <= features.efr.glx_sup() && w2.guest_paging_mode() <= features.efr.gats()
}
