//! Where QEMU's SMMU differs from the manual, or from a choice that the manual leaves: each by name, with its reason.

use super::compare::{Record, Seen};
use viommu_plugin::Request;

/// What both saw of one access with empty caches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides {
    pub(super) request: Request,
    pub(super) model: Seen,
    pub(super) qemu: Seen,
}

/// A difference that is known.
pub struct Exception {
    /// Its name, as in docs/qemu-referee.md.
    pub name: &'static str,
    /// Where a story's outcome counts how often it was needed.
    pub counter: &'static str,
    /// What QEMU does, and why that is not ours to change.
    pub why: &'static str,
    /// Makes QEMU's side what it would be without the difference; `false` if the difference is not there.
    pub(super) forgive: fn(&mut Sides) -> bool,
}

impl std::fmt::Debug for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All that are known, in the order in which they are applied.
pub static EXCEPTIONS: &[Exception] = &[
    Exception {
        name: "stage-of-table-faults",
        counter: "exception.stage-of-table-faults",
        why: "a fault of stage 2 on a stage-1 table below the first is reported with S2 = 0: the walk overwrites the stage \
              on its way out",
        forgive: stage_of_table_faults,
    },
    Exception {
        name: "start-of-the-table",
        counter: "exception.start-of-the-table",
        why: "stage 2 is asked where a stage-1 table begins, not where its descriptor is: with granules above 4 KiB the IPA in \
              the record may be another",
        forgive: start_of_the_table,
    },
    Exception {
        name: "tables-before-address",
        counter: "exception.tables-before-address",
        why: "stage 2 is asked for the first stage-1 table when the CD is read: where it refuses, that is reported before \
              the address is looked at",
        forgive: tables_before_address,
    },
    Exception {
        name: "table-address-size",
        counter: "exception.table-address-size",
        why: "the address in a stage-1 table descriptor may have more bits than CD.IPS allows: the walk goes on from there \
              and ends in a translation fault",
        forgive: table_address_size,
    },
    Exception {
        name: "rnw-of-the-walk",
        counter: "exception.rnw-of-the-walk",
        why: "where stage 2 refuses the first stage-1 table or the context, RnW is that of the walk, a read, and not that \
              of the access",
        forgive: rnw_of_the_walk,
    },
    Exception {
        name: "ipa-low-bits",
        counter: "exception.ipa-low-bits",
        why: "records of stage 2 have the whole IPA, where the manual has bits 51:12 and zeros below",
        forgive: ipa_low_bits,
    },
    Exception {
        name: "silent-beyond-size",
        counter: "exception.silent-beyond-size",
        why: "an address of more bits than OAS that stage 1 has no part in (stage 1 bypassed, or the CD's own address) is \
              refused without a record: there is no CD whose R bit would say to record it",
        forgive: silent_beyond_size,
    },
];

/// A guest that QEMU does not survive.
#[derive(Debug)]
pub struct Death {
    /// Its name, as in docs/qemu-referee.md.
    pub name: &'static str,
    /// Where a story's outcome counts it.
    pub counter: &'static str,
    /// What makes QEMU end.
    pub why: &'static str,
    /// Its last words.
    pub(super) words: &'static str,
}

/// All that are known. The model's story is told to its end, without QEMU.
pub static DEATHS: &[Death] = &[Death {
    name: "reserved-ips",
    counter: "death.reserved-ips",
    why: "a CD with IPS 6 or 7, more than its OAS or reserved, ends QEMU by an assertion where the manual takes the OAS",
    words: "oas2bits: code should not be reached",
}];

const S2: u64 = 1 << 39;
const RNW: u64 = 1 << 35;
/// CLASS in word 1: the access itself; a translation table was being read.
const CLASS_IN: u64 = 2 << 40;
const CLASS_TT: u64 = 1 << 40;
const CLASS: u64 = 3 << 40;
/// Address bits of QEMU's SMMU (IDR5.OAS = 4).
const OAS_BITS: u32 = 44;
const F_TRANSLATION: u32 = 0x10;
const F_ADDR_SIZE: u32 = 0x11;

fn stage_of_table_faults(sides: &mut Sides) -> bool {
    let (Some(model), Some(qemu)) = (sides.model.record, &mut sides.qemu.record) else { return false };
    let there = model[1] & (S2 | CLASS) == S2 | CLASS_TT && qemu[1] & (S2 | CLASS) == CLASS_TT;
    qemu[1] |= S2;
    there
}

fn start_of_the_table(sides: &mut Sides) -> bool {
    let (Some(model), Some(qemu)) = (sides.model.record, &mut sides.qemu.record) else { return false };
    let of_table = model[1] & (S2 | CLASS) == S2 | CLASS_TT && qemu[1] & (S2 | CLASS) == S2 | CLASS_TT;
    // 16 or 64 KiB.
    let there =
        of_table && qemu[3] != model[3] && [14, 16].iter().any(|granule| model[3] >> granule << granule == qemu[3]);
    if there {
        qemu[3] = model[3];
    }
    there
}

fn tables_before_address(sides: &mut Sides) -> bool {
    let (Some(model), Some(qemu)) = (sides.model.record, sides.qemu.record) else { return false };
    let of_address = Record(model).id() == F_TRANSLATION && model[1] & (S2 | CLASS) == CLASS_IN;
    let of_table = Record(qemu).id() == F_TRANSLATION && qemu[1] & (S2 | CLASS) == S2 | CLASS_TT;
    // The rest of it is that of the access.
    let fields = S2 | CLASS | RNW;
    sides.qemu.record = Some([qemu[0], qemu[1] & !fields | model[1] & fields, qemu[2], model[3]]);
    of_address && of_table && sides.qemu.output.is_none()
}

fn table_address_size(sides: &mut Sides) -> bool {
    let (Some(model), Some(qemu)) = (sides.model.record, sides.qemu.record) else { return false };
    let there = Record(model).id() == F_ADDR_SIZE && Record(qemu).id() == F_TRANSLATION;
    sides.qemu.record = Some([qemu[0] & !0xff | u64::from(F_ADDR_SIZE), qemu[1], qemu[2], qemu[3]]);
    there && model[1] & S2 == 0 && sides.qemu.output.is_none()
}

fn rnw_of_the_walk(sides: &mut Sides) -> bool {
    let (Some(model), Some(qemu)) = (sides.model.record, &mut sides.qemu.record) else { return false };
    let walks = model[1] & S2 != 0 && model[1] & CLASS != CLASS_IN;
    let there = walks && model[1] & RNW == 0 && qemu[1] & RNW != 0;
    qemu[1] &= !RNW;
    there
}

fn ipa_low_bits(sides: &mut Sides) -> bool {
    let Some(record) = &mut sides.qemu.record else { return false };
    let fields = Record(*record);
    let low = record[3] & 0xfff;
    record[3] -= low;
    fields.is_of_translation() && fields.is_stage_2() && low != 0
}

fn silent_beyond_size(sides: &mut Sides) -> bool {
    let Some(record) = sides.model.record else { return false };
    let fields = Record(record);
    let of_input = fields.id() == F_ADDR_SIZE && sides.request.iova >> OAS_BITS != 0;
    let of_context = fields.id() == F_TRANSLATION && record[1] & (S2 | CLASS) == S2 && record[3] >> OAS_BITS != 0;
    let beyond = of_input || of_context;
    let there = beyond && sides.qemu.output.is_none() && sides.qemu.record.is_none();
    sides.qemu.record = Some(record);
    there
}
