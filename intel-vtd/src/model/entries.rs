//! What context entries and PASID table entries ask for, checked against what this unit is.

use super::fault::Fault;
use super::identity::Identity;
use super::tlb::Tag;
use super::walk::{FirstStage, SecondStage, Stages};
use crate::spec::context::{LegacyContext0, LegacyContext1, ScalableContext0, ScalableContext1, TranslationType};
use crate::spec::fault_reason::FaultReason;
use crate::spec::pasid::{PasidEntry0, PasidEntry1, PasidEntry2, TABLE_LOG2, TranslationKind};
use viommu_cache::Hint;

/// What happens to requests of one device and PASID.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// They pass with their address.
    PassThrough,
    /// They are translated.
    Translate(Context),
}

/// A translation context: where to look in the IOTLB, and what to walk.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) domain: u16,
    pub(crate) tag: Tag,
    pub(crate) hint: Hint,
    /// The device may cache translations (TT 1, DTE).
    pub(crate) ats: bool,
    /// Faults are recorded (no FPD).
    pub(crate) records: bool,
    pub(crate) stages: Stages,
}

/// A context entry that is present and good.
#[derive(Debug, Clone)]
pub(crate) enum ContextEntry {
    Legacy { domain: u16, route: Route },
    Scalable(ScalableEntry),
}

/// A scalable-mode context entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalableEntry {
    words: ScalableContext0,
    /// The PASID of requests without one.
    pub(crate) rid_pasid: u32,
    /// Requests without PASID are privileged.
    pub(crate) rid_privileged: bool,
}

/// A PASID table entry that is present and good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PasidEntry {
    pub(crate) domain: u16,
    /// `None`: pass-through.
    stages: Option<Stages>,
    records: bool,
    supervisor_enable: bool,
}

fn fault(reason: FaultReason) -> Fault {
    Fault::configuration(reason)
}

fn second_stage(base: u64, address_width: u8, legacy: bool, identity: &Identity) -> Option<SecondStage> {
    let input_bits = (12 + 9 * (address_width + 2)).min(identity.cap.address_width() + 1);
    let (levels, leaves) = (address_width + 2, identity.cap.second_stage_leaves());
    identity.has_second_stage(address_width).then_some(SecondStage { base, levels, input_bits, leaves, legacy })
}

/// A legacy context entry (§9.3).
pub(crate) fn legacy_context(words: [u64; 2], identity: &Identity) -> Result<ContextEntry, Fault> {
    let (low, high) = (LegacyContext0::from(words[0]), LegacyContext1::from(words[1]));
    let checked = || {
        if !low.present() {
            return Err(fault(FaultReason::CONTEXT_NOT_PRESENT));
        }
        if low.reserved() != 0 || high.reserved() != 0 || high.reserved_high() != 0 {
            return Err(fault(FaultReason::CONTEXT_RESERVED));
        }
        let invalid = fault(FaultReason::CONTEXT_INVALID);
        let ats = match TranslationType(low.translation_type()) {
            TranslationType::UNTRANSLATED => false,
            TranslationType::ATS if identity.ecap.device_tlb() => true,
            TranslationType::PASS_THROUGH if identity.ecap.pass_through() => return Ok(Route::PassThrough),
            _ => return Err(invalid),
        };
        let second = second_stage(low.address(), high.address_width(), true, identity).ok_or(invalid)?;
        Ok(Route::Translate(Context {
            domain: high.domain_id(),
            tag: Tag::SECOND_STAGE,
            hint: Hint::default(),
            ats,
            records: !low.fault_disable(),
            stages: Stages::Second(second),
        }))
    };
    let route = checked().map_err(|fault| fault.unless(low.fault_disable()))?;
    Ok(ContextEntry::Legacy { domain: high.domain_id(), route })
}

/// A scalable-mode context entry (§9.4).
pub(crate) fn scalable_context(words: [u64; 4], identity: &Identity) -> Result<ContextEntry, Fault> {
    let (low, high) = (ScalableContext0::from(words[0]), ScalableContext1::from(words[1]));
    let reserved = low.reserved() != 0 || high.reserved() != 0 || words[2] != 0 || words[3] != 0;
    let unsupported = low.device_tlb_enable() && !identity.ecap.device_tlb()
        || low.pasid_enable() && !identity.ecap.pasid()
        || low.page_request_enable() && !identity.ecap.page_request();
    let reason = match (low.present(), reserved, unsupported) {
        (false, ..) => FaultReason::SM_CONTEXT_NOT_PRESENT,
        (_, true, _) => FaultReason::SM_CONTEXT_RESERVED,
        (_, _, true) => FaultReason::SM_CONTEXT_INVALID,
        _ => {
            return Ok(ContextEntry::Scalable(ScalableEntry {
                words: low,
                rid_pasid: if identity.ecap.rid_pasid() { high.rid_pasid() } else { 0 },
                rid_privileged: high.rid_privileged() && identity.ecap.rid_privileged(),
            }));
        }
    };
    Err(fault(reason).unless(low.fault_disable()))
}

impl ScalableEntry {
    /// FPD.
    pub(crate) fn fault_disable(&self) -> bool {
        self.words.fault_disable()
    }

    /// Address of the directory entry of the PASID that a request uses: its own `pasid`, or RID_PASID.
    pub(crate) fn directory_entry(&self, pasid: Option<u32>) -> Result<u64, Fault> {
        let checked = || {
            if pasid.is_some() && !self.words.pasid_enable() {
                return Err(fault(FaultReason::SM_PASID_DISABLED));
            }
            let used = pasid.unwrap_or(self.rid_pasid);
            if u64::from(used) >> (u32::from(self.words.directory_size()) + 7 + TABLE_LOG2) != 0 {
                let rid = pasid.is_none();
                return Err(fault(if rid {
                    FaultReason::SM_RID_PASID_INVALID
                } else {
                    FaultReason::SM_PASID_TOO_LARGE
                }));
            }
            Ok(self.words.address().wrapping_add(8 * u64::from(used >> TABLE_LOG2)))
        };
        checked().map_err(|fault| fault.unless(self.fault_disable()))
    }

    /// What the entry of `pasid` does to requests of this device; `rid`: to those without a PASID.
    pub(crate) fn route(&self, entry: &PasidEntry, pasid: u32, rid: bool) -> Result<Route, Fault> {
        let (records, privileged) = (entry.records && !self.fault_disable(), rid && self.rid_privileged);
        if privileged && !entry.supervisor_enable && !matches!(entry.stages, None | Some(Stages::Second(_))) {
            return Err(fault(FaultReason::SM_SUPERVISOR_DISABLED).unless(!records));
        }
        let Some(stages) = entry.stages else { return Ok(Route::PassThrough) };
        let (tag, stages) = match stages {
            Stages::Second(_) => (Tag::SECOND_STAGE, stages),
            Stages::First(first) => (Tag::pasid(pasid), Stages::First(FirstStage { privileged, ..first })),
            Stages::Nested(first, second) => {
                (Tag::pasid(pasid), Stages::Nested(FirstStage { privileged, ..first }, second))
            }
        };
        let (hint, ats) = (Hint::default(), self.words.device_tlb_enable());
        Ok(Route::Translate(Context { domain: entry.domain, tag, hint, ats, records, stages }))
    }
}

impl PasidEntry {
    /// Words 0 to 2 of a PASID table entry (§9.6), under a directory entry with this FPD.
    pub(crate) fn decode(words: [u64; 3], fault_disable: bool, identity: &Identity) -> Result<Self, Fault> {
        let (word0, word1, word2) =
            (PasidEntry0::from(words[0]), PasidEntry1::from(words[1]), PasidEntry2::from(words[2]));
        let fault_disable = fault_disable || word0.fault_disable();
        let checked = || {
            if !word0.present() {
                return Err(fault(FaultReason::SM_PASID_NOT_PRESENT));
            }
            if word0.reserved() | word0.reserved_high() | word1.reserved() | word2.reserved() != 0 {
                return Err(fault(FaultReason::SM_PASID_RESERVED));
            }
            Self::stages(word0, word2, identity).ok_or(fault(FaultReason::SM_PASID_INVALID))
        };
        let stages = checked().map_err(|fault| fault.unless(fault_disable))?;
        let supervisor_enable = word2.supervisor_enable();
        Ok(Self { domain: word1.domain_id(), stages, records: !fault_disable, supervisor_enable })
    }

    /// What PGTT asks for, `None` for pass-through; `None` around it if this unit cannot do it.
    fn stages(word0: PasidEntry0, word2: PasidEntry2, identity: &Identity) -> Option<Option<Stages>> {
        let ecap = identity.ecap;
        let second = || second_stage(word0.address(), word0.address_width(), false, identity);
        let first = || {
            let levels = match word2.paging_mode() {
                0 => 4,
                1 if identity.cap.first_stage_5_levels() => 5,
                _ => return None,
            };
            let offered = (ecap.supervisor_request() || !word2.supervisor_enable())
                && (ecap.extended_accessed() || !word2.extended_accessed())
                && (ecap.execute_request() || !word2.execute_enable());
            offered.then_some(FirstStage {
                base: word2.address(),
                levels,
                gigabyte_leaves: identity.cap.first_stage_1g(),
                privileged: false,
                write_protect: word2.write_protect(),
            })
        };
        match TranslationKind(word0.translation_kind()) {
            TranslationKind::FIRST_STAGE if ecap.first_stage() => Some(Some(Stages::First(first()?))),
            TranslationKind::SECOND_STAGE if ecap.second_stage() => Some(Some(Stages::Second(second()?))),
            TranslationKind::NESTED if ecap.nested() => Some(Some(Stages::Nested(first()?, second()?))),
            TranslationKind::PASS_THROUGH if ecap.pass_through() => Some(None),
            _ => None,
        }
    }
}
