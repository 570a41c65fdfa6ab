//! The tables that physical hardware reads: second stage, PASID table entries, and the way to them.

mod device_tables;
mod entry_update;
mod second_stage;

use crate::codec::FoundAt;
use crate::spec::pasid::{ENTRY_WORDS, PasidEntry0, PasidEntry1, PasidEntry2, TranslationKind};
pub(crate) use device_tables::write_word;
pub use device_tables::{DeviceTables, Tables};
pub use entry_update::{Step, plan};
pub use second_stage::{Geometry, SecondStage};
use viommu_plugin::{EntryKey, KeyKind, Refusal, Unreadable};

/// A PASID table entry in words.
pub type PasidEntry = [u64; ENTRY_WORDS];

/// What of the physical VT-d decides bits of every entry, or whether there can be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostEntry {
    /// ECAP.NEST and FSTS: a guest's first stage can be nested.
    pub nests: bool,
    /// CAP.FS5LP.
    pub five_levels: bool,
    /// ECAP.SRS.
    pub supervisor: bool,
    /// ECAP.EAFS.
    pub extended_accessed: bool,
    /// ECAP.DT: a guest may have its device use ATS.
    pub device_tlb: bool,
    /// ECAP.SMPWCS: page walks snoop.
    pub snoops: bool,
}

/// What the hardware is to do with a device's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Physical {
    /// The PASID table entry of requests without PASID.
    pub entry: PasidEntry,
    /// DTE of the context entry: the device may use ATS.
    pub device_tlb: bool,
}

/// The tables of a guest that a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestTables {
    /// First stage: the hardware walks them.
    FirstStage,
    /// Second stage in scalable mode: the hardware walks a copy.
    SecondStage,
    /// Second stage in legacy mode: the hardware walks a copy.
    LegacySecondStage,
}

impl GuestTables {
    /// Those of a key, if it leads to any.
    pub fn of(key: &EntryKey) -> Option<Self> {
        let kind = PasidEntry0::from_bits(key.words[0]).translation_kind();
        let scalable = FoundAt::from_bits(key.words[3]).scalable();
        (key.kind == KeyKind::TRANSLATE).then_some(match (scalable, TranslationKind(kind)) {
            (false, _) => Self::LegacySecondStage,
            (true, TranslationKind::FIRST_STAGE) => Self::FirstStage,
            (true, _) => Self::SecondStage,
        })
    }
}

/// All DMA aborts.
pub const ABORT: Physical = Physical { entry: [0; ENTRY_WORDS], device_tlb: false };

/// The physical entry that does what a guest's entry asks for, on top of `stage2`, with what it translates cached under
/// domain-id `tag`.
///
/// Bypass becomes the second stage alone. A guest's first stage is nested in it. A guest's second stage is not walked by
/// hardware: `stage2` is its copy, and alone. ATS is on only for a guest that turned it on and so sends device-TLB
/// invalidations; in bypass it is off.
///
/// # Errors
/// `EOPNOTSUPP` if this hardware nests nothing. `EINVAL` if the key asks for what it lacks, as the kernel answers at
/// attach: five levels without CAP.FS5LP, SRE without ECAP.SRS, EAFE without ECAP.EAFS.
pub fn physical(key: &EntryKey, stage2: &SecondStage, tag: u16, host: HostEntry) -> Result<Physical, Refusal> {
    let guest0 = PasidEntry0::from_bits(key.words[0]);
    let mut entry = second_stage_entry(stage2, tag, host);
    let tables = match (key.kind, GuestTables::of(key)) {
        (KeyKind::BYPASS, _) => return Ok(Physical { entry, device_tlb: false }),
        (_, Some(tables)) => tables,
        _ => return Ok(ABORT),
    };
    if tables == GuestTables::FirstStage {
        entry[0] = PasidEntry0::from_bits(entry[0]).with_translation_kind(TranslationKind::NESTED.0).into_bits();
        entry[2] = first_stage(key.words[2].into(), host)?.into_bits();
    }
    // FPD stands at the same place in a PASID entry and in a legacy context entry.
    entry[0] = PasidEntry0::from_bits(entry[0]).with_fault_disable(guest0.fault_disable()).into_bits();
    let ats = match tables {
        GuestTables::LegacySecondStage => legacy_ats(key.words[0]),
        _ => FoundAt::from_bits(key.words[3]).device_tlb_enable(),
    };
    Ok(Physical { entry, device_tlb: ats && host.device_tlb })
}

/// The second stage alone.
fn second_stage_entry(stage2: &SecondStage, tag: u16, host: HostEntry) -> PasidEntry {
    let word0 = PasidEntry0::new()
        .with_present(true)
        .with_address_width(stage2.geometry().address_width())
        .with_translation_kind(TranslationKind::SECOND_STAGE.0)
        .with_second_stage_table(stage2.root() >> 12);
    let word1 = PasidEntry1::new().with_domain_id(tag).with_page_walk_snoop(host.snoops);
    [word0.into_bits(), word1.into_bits(), 0, 0, 0, 0, 0, 0]
}

/// TT of a legacy context entry.
fn legacy_ats(word0: u64) -> bool {
    use crate::spec::context::{LegacyContext0, TranslationType};
    TranslationType(LegacyContext0::from_bits(word0).translation_type()) == TranslationType::ATS
}

/// Word 2 with the bits that are a guest's to decide.
fn first_stage(guest: PasidEntry2, host: HostEntry) -> Result<PasidEntry2, Refusal> {
    let refuse = |errno, text: &str| Err(Refusal::new(errno, format!("nested entry: {text}")));
    if !host.nests {
        return refuse(Refusal::EOPNOTSUPP, "ECAP.NEST or FSTS = 0");
    }
    if guest.paging_mode() > u8::from(host.five_levels) {
        return refuse(Refusal::EINVAL, "five levels of first-stage tables, and CAP.FS5LP = 0");
    }
    if guest.supervisor_enable() && !host.supervisor {
        return refuse(Refusal::EINVAL, "SRE, and ECAP.SRS = 0");
    }
    if guest.extended_accessed() && !host.extended_accessed {
        return refuse(Refusal::EINVAL, "EAFE, and ECAP.EAFS = 0");
    }
    let privileged = guest.supervisor_enable();
    Ok(PasidEntry2::new()
        .with_supervisor_enable(privileged)
        .with_paging_mode(guest.paging_mode())
        .with_write_protect(privileged && guest.write_protect())
        .with_no_execute(guest.no_execute())
        .with_smep(privileged && guest.smep())
        .with_extended_accessed(guest.extended_accessed())
        .with_first_stage_table(guest.first_stage_table()))
}

/// Memory that the driver allocated itself cannot be reached.
pub(crate) fn broken(_: Unreadable) -> Refusal {
    Refusal::new(Refusal::EIO, "VT-d tables: memory that was allocated for them is not accessible")
}
