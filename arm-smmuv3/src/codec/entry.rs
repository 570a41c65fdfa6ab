//! What a guest's STE asks for (§5.2), in a form in which equal wishes are equal words.

use crate::features::Features;
use crate::spec::events::EventId;
use crate::spec::ste::{Config, SteWord0, SteWord1};
use viommu_plugin::{EntryKey, KeyKind, NO_DOMAIN};

/// V, Config, S1Fmt, S1ContextPtr, S1CDMax: what a guest decides in word 0.
pub(crate) const GUEST_WORD0: u64 = 0xf80f_ffff_ffff_ffff;
/// S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS: what a guest decides in word 1.
pub(crate) const GUEST_WORD1: u64 = 0x3800_00ff;

const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };
const BAD_STE: EntryKey = EntryKey { event: EventId::C_BAD_STE.0 as u32, ..ABORT };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };

/// The canonical key of an STE. Fields that the manual ignores in a configuration are ignored here; bits outside
/// [`GUEST_WORD0`] and [`GUEST_WORD1`] are the host's to decide and drop out.
pub(super) fn key(features: &Features, ste: &[u64]) -> EntryKey {
    let &[word0, word1, ..] = ste else { return BAD_STE };
    let (w0, w1) = (SteWord0::from_bits(word0), SteWord1::from_bits(word1));
    let config = Config(w0.config());
    if !w0.v() {
        return BAD_STE;
    }
    if config.aborts() {
        return ABORT;
    }
    if config == Config::BYPASS {
        return BYPASS;
    }
    if config != Config::S1_TRANSLATE || !substreams_legal(features, w0, w1) {
        return BAD_STE;
    }
    // There are no stalls to disable (§5.2 STE.S1STALLD).
    if w1.s1_stalld() && features.idr0.stall_model() != 0 {
        return BAD_STE;
    }
    let mut allowed1 = GUEST_WORD1;
    if features.idr0.ats() {
        // 2 is split-stage ATS, which needs a stage 2 of the guest's own; 3 is reserved.
        if w1.eats() > 1 {
            return BAD_STE;
        }
    } else {
        allowed1 &= !SteWord1::new().with_eats(3).into_bits();
    }
    let words = [word0 & GUEST_WORD0, word1 & allowed1, 0, 0];
    EntryKey { kind: KeyKind::TRANSLATE, words, ..EntryKey::default() }
}

/// S1CDMax within IDR1.SSIDSIZE; with substreams, a CD table format and an S1DSS that exist.
fn substreams_legal(features: &Features, w0: SteWord0, w1: SteWord1) -> bool {
    if w0.s1_cd_max() == 0 {
        return true;
    }
    let formats = if features.idr0.cd2l() { 2 } else { 0 };
    w0.s1_cd_max() <= features.idr1.ssidsize() && w0.s1_fmt() <= formats && w1.s1_dss() != 3
}
