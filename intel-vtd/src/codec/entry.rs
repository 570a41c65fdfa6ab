//! What a guest's table entries ask for (§9.1 to §9.6), in a form in which equal wishes are equal words.
//!
//! | word | of an entry | scalable mode | legacy mode |
//! |---|---|---|---|
//! | 0, 1, 2 | | words 0 to 2 of the PASID table entry of requests without PASID | words 0, 1 of the context entry; 0 |
//! | 3 | [`FoundAt`] | what counts of the entries on the way to it | 0 |
//! | 4 to 8 | | words 3 to 7 of the PASID table entry, which are reserved | 0 |
//!
//! A key holds the allowed bits of words 0 to 3, and its domain is their DID.

use crate::features::{Features, Service};
use crate::spec::context::{LegacyContext0, LegacyContext1, TranslationType};
use crate::spec::fault_reason::FaultReason;
use crate::spec::pasid::{self, PasidEntry0, PasidEntry1, PasidEntry2, TranslationKind};
use bitfield_struct::bitfield;
use viommu_plugin::{EntryKey, KeyKind, NO_DOMAIN};

/// Words of a guest table entry: a PASID table entry, and how it was found.
pub const ENTRY_WORDS: usize = pasid::ENTRY_WORDS + 1;

/// Word 3 of an entry: what counts of the scalable-mode context entry and of the PASID directory entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FoundAt {
    /// Words 0 to 2 and 4 to 8 are a PASID table entry; else words 0 and 1 are a legacy context entry.
    pub scalable: bool,
    /// FPD of either entry.
    pub fault_disable: bool,
    /// DTE of the context entry.
    pub device_tlb_enable: bool,
    #[bits(61)]
    __: u64,
}

const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };

/// No DMA: `reason` is what hardware records when the device tries.
const fn abort(reason: FaultReason) -> EntryKey {
    EntryKey { kind: KeyKind::ABORT, event: reason.0 as u32, domain: NO_DOMAIN, reserved: 0, words: [0; 4] }
}

fn translate(domain: u16, words: [u64; 4]) -> EntryKey {
    EntryKey { kind: KeyKind::TRANSLATE, event: 0, domain: domain.into(), reserved: 0, words }
}

/// The canonical key of an entry. Fields that are the host's to decide (memory types, snooping) drop out, and so do
/// those that mean nothing for requests without PASID.
pub(super) fn key(features: &Features, entry: &[u64]) -> EntryKey {
    let Some((&[word0, word1, word2, word3], more)) = entry.split_first_chunk() else {
        return abort(FaultReason::CONTEXT_INVALID);
    };
    let found = FoundAt::from_bits(word3);
    if !found.scalable() {
        return legacy(features, word0.into(), word1.into());
    }
    let reserved = more.iter().any(|&word| word != 0);
    scalable(features, word0.into(), word1.into(), word2.into(), found, reserved)
}

fn scalable(
    features: &Features,
    word0: PasidEntry0,
    word1: PasidEntry1,
    word2: PasidEntry2,
    found: FoundAt,
    reserved: bool,
) -> EntryKey {
    if !word0.present() {
        return abort(FaultReason::SM_PASID_NOT_PRESENT);
    }
    if reserved {
        return abort(FaultReason::SM_PASID_RESERVED);
    }
    let shadow = features.service() == Service::Shadow;
    let kind = TranslationKind(word0.translation_kind());
    let own0 = PasidEntry0::new()
        .with_present(true)
        .with_fault_disable(word0.fault_disable() || found.fault_disable())
        .with_translation_kind(kind.0);
    let own1 = PasidEntry1::new().with_domain_id(word1.domain_id());
    let own3 = FoundAt::new()
        .with_scalable(true)
        .with_device_tlb_enable(found.device_tlb_enable() && features.ecap.device_tlb());
    let domain_exists = domain_exists(features, word1.domain_id());
    match kind {
        TranslationKind::PASS_THROUGH if features.ecap.pass_through() => BYPASS,
        TranslationKind::FIRST_STAGE if !shadow && domain_exists => match first_stage(features, word2) {
            Some(own2) => translate(word1.domain_id(), [own0.into(), own1.into(), own2.into(), own3.into()]),
            None => abort(FaultReason::SM_PASID_INVALID),
        },
        TranslationKind::SECOND_STAGE if shadow && domain_exists && levels(features, word0.address_width()) => {
            let own0 = own0.with_address_width(word0.address_width());
            let own0 = own0.with_second_stage_table(word0.second_stage_table());
            translate(word1.domain_id(), [own0.into(), own1.into(), 0, own3.into()])
        }
        _ => abort(FaultReason::SM_PASID_INVALID),
    }
}

/// Word 2 as far as a guest decides on it; `None` if it asks for what it was not shown.
fn first_stage(features: &Features, word: PasidEntry2) -> Option<PasidEntry2> {
    let ecap = features.ecap;
    let modes = if features.cap.first_stage_5_levels() { 1 } else { 0 };
    let shown = word.paging_mode() <= modes
        && (ecap.supervisor_request() || !word.supervisor_enable())
        && (ecap.extended_accessed() || !word.extended_accessed());
    // What binds privileged requests alone means nothing where there are none.
    let privileged = word.supervisor_enable();
    shown.then(|| {
        PasidEntry2::new()
            .with_supervisor_enable(privileged)
            .with_paging_mode(word.paging_mode())
            .with_write_protect(privileged && word.write_protect())
            .with_no_execute(word.no_execute())
            .with_smep(privileged && word.smep())
            .with_extended_accessed(word.extended_accessed())
            .with_first_stage_table(word.first_stage_table())
    })
}

fn legacy(features: &Features, word0: LegacyContext0, word1: LegacyContext1) -> EntryKey {
    if !word0.present() {
        return abort(FaultReason::CONTEXT_NOT_PRESENT);
    }
    if word0.reserved() != 0 || word1.reserved() != 0 || word1.reserved_high() != 0 {
        return abort(FaultReason::CONTEXT_RESERVED);
    }
    let kind = TranslationType(word0.translation_type());
    let ats = kind == TranslationType::ATS && features.ecap.device_tlb();
    if kind == TranslationType::PASS_THROUGH && features.ecap.pass_through() {
        return BYPASS;
    }
    let translates = kind == TranslationType::UNTRANSLATED || ats;
    let exists = domain_exists(features, word1.domain_id()) && levels(features, word1.address_width());
    if features.service() == Service::Nested || !translates || !exists {
        return abort(FaultReason::CONTEXT_INVALID);
    }
    let own1 = LegacyContext1::new().with_address_width(word1.address_width()).with_domain_id(word1.domain_id());
    translate(word1.domain_id(), [word0.into(), own1.into(), 0, 0])
}

/// Whether CAP.ND has the domain-id.
fn domain_exists(features: &Features, domain: u16) -> bool {
    u32::from(domain) >> (4 + 2 * u32::from(features.cap.domains())) == 0
}

/// Whether CAP.SAGAW has second-stage tables of this width.
fn levels(features: &Features, address_width: u8) -> bool {
    (1..=3).contains(&address_width) && features.cap.second_stage_levels() >> address_width & 1 != 0
}
