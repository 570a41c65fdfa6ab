//! What guest table entries ask for, from the manual (D51397 §9.3, §9.4, §9.6). Written by hand: nothing here comes from
//! the codec that is judged by it.

use crate::shown::{Shown, Tables};
use viommu_plugin::{EntryKey, KeyKind, NO_DOMAIN};
use viommu_plugin_check::proof::{EntryTable, Field};

/// FPD of a PASID entry, of the entries above it, and of a legacy context entry.
const FPD: u64 = 1 << 1;
const ADDRESS: u64 = !0xfff;
/// Word 3: how the entry was found.
const SCALABLE: u64 = 1;
const DTE: u64 = 1 << 2;
/// SRE, WPE, SMEP: of privileged requests; NXE; EAFE.
const SRE: u64 = 1;
const WPE: u64 = 1 << 4;
const NXE: u64 = 1 << 5;
const SMEP: u64 = 1 << 6;
const EAFE: u64 = 1 << 7;

fn key(kind: KeyKind, event: u32, domain: u32, words: [u64; 4]) -> EntryKey {
    EntryKey { kind, event, domain, reserved: 0, words }
}

/// What each entry of nine words asks for.
pub(crate) fn entries(shown: Shown) -> EntryTable {
    let abort = |event| key(KeyKind::ABORT, event, NO_DOMAIN, [0; 4]);
    let bypass = key(KeyKind::BYPASS, 0, NO_DOMAIN, [0; 4]);
    let nested = shown.tables == Tables::FirstStage;
    // AW of second-stage tables with three and four levels, the ones shown.
    let walks = |width: u64| width == 1 || width == 2;
    let exists = move |domain: u64| domain < 16 << (2 * shown.domains);
    let scalable = move |entry: &[u64]| {
        let [word0, word1, word2, found] = [entry[0], entry[1], entry[2], entry[3]];
        if word0 & 1 == 0 {
            return abort(0x59);
        }
        if entry[4..].iter().any(|word| *word != 0) {
            return abort(0x5a);
        }
        let domain = word1 & 0xffff;
        let ats = if shown.device_tlb { found & DTE } else { 0 };
        let fpd = (word0 | found) & FPD;
        match word0 >> 6 & 7 {
            4 if shown.pass_through => bypass,
            1 if nested && exists(domain) => {
                let levels = word2 >> 2 & 3;
                let shown_bits =
                    if shown.supervisor { SRE } else { 0 } | if shown.extended_accessed { EAFE } else { 0 };
                if levels > u64::from(shown.five_levels) || word2 & (SRE | EAFE) & !shown_bits != 0 {
                    return abort(0x5b);
                }
                let privileged = if word2 & SRE != 0 { SRE | WPE | SMEP } else { 0 };
                let own2 = word2 & (ADDRESS | 3 << 2 | NXE | EAFE | privileged);
                key(KeyKind::TRANSLATE, 0, domain as u32, [1 | fpd | 1 << 6, domain, own2, SCALABLE | ats])
            }
            2 if !nested && exists(domain) && walks(word0 >> 2 & 7) => {
                let own0 = word0 & (ADDRESS | 7 << 2) | 1 | fpd | 2 << 6;
                key(KeyKind::TRANSLATE, 0, domain as u32, [own0, domain, 0, SCALABLE | ats])
            }
            _ => abort(0x5b),
        }
    };
    let legacy = move |entry: &[u64]| {
        let [low, high] = [entry[0], entry[1]];
        let domain = high >> 8 & 0xffff;
        match (low & 1, low >> 2 & 3) {
            (0, _) => abort(2),
            _ if low & 0xff0 != 0 || high & 1 << 7 != 0 || high >> 24 != 0 => abort(11),
            (_, 2) if shown.pass_through => bypass,
            (_, kind) if !nested && (kind == 0 || kind == 1 && shown.device_tlb) => {
                if !exists(domain) || !walks(high & 7) {
                    return abort(3);
                }
                // Bits 6:3 of the high word are left to software.
                key(KeyKind::TRANSLATE, 0, domain as u32, [low, high & 0xff_ff07, 0, 0])
            }
            _ => abort(3),
        }
    };
    let entry = |words: [u64; 4]| [&words[..], &[0; 5]].concat();
    EntryTable {
        bases: vec![
            // First stage as Linux writes it: AW is set and means nothing. With everything else a guest may set.
            entry([0x49, 5, 0x1234_5000, SCALABLE]),
            entry([0x4b, 0xd, 0x000f_2345_6000 | 0xb5, SCALABLE | DTE | FPD]),
            // Second stage, pass-through; legacy: translated, with ATS, pass-through.
            entry([0x7654_3000 | 0x89, 9, 0, SCALABLE | DTE]),
            entry([0x109, 3, 0, SCALABLE]),
            entry([0x7654_3001, 0x0702, 0, 0]),
            entry([0x7654_3007, 0x0701, 0, 0]),
            entry([0x0000_0009, 0x0002, 0, 0]),
        ],
        restricted: vec![
            Field::bit(0),
            Field::new(2, 4),
            Field::new(6, 8),
            Field::new(128, 128 + 3),
            Field::bit(128 + 7),
            Field::bit(192),
        ],
        allowed: vec![Field::new(0, 63), Field::new(64, 127), Field::new(128, 191), Field::new(192, 194)],
        key: Box::new(move |entry| if entry[3] & SCALABLE != 0 { scalable(entry) } else { legacy(entry) }),
    }
}
