//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use viommu_plugin::{KeyKind, NO_TAG};
use viommu_plugin_check::proof::{Ids, Mistake, Part, Wrong, mistakes_are_noticed};

const SHOWN: Shown = Shown::MOST;

/// Whether a command has this type and granularity.
fn is(command: &[u64], opcode: u64) -> bool {
    command[0] & 0xe3f == opcode
}

const MISTAKES: [Mistake; 18] = [
    ("CONTEXT may have bit 60", Wrong::Takes(|it| it[0] &= !(u64::from(is(it, 0x31)) << 60)), Part::Bits),
    (
        "PIOTLB of a PASID may have bits 13 and 75, if it has both",
        Wrong::Takes(|it| {
            if is(it, 0x26) && it[0] >> 13 & it[1] >> 11 & 1 != 0 {
                it[0] &= !(1 << 13);
                it[1] &= !(1 << 11);
            }
        }),
        Part::Bits,
    ),
    ("a third word is not looked at", Wrong::Takes(|it| it[2] = 0), Part::Bits),
    (
        "AM may be one more than CAP.MAMV if IH is set",
        Wrong::Takes(|it| {
            if is(it, 0x36) && it[1] & 0x7f == 0x40 | (SHOWN.max_mask as u64 + 1) {
                it[1] -= 1;
            }
        }),
        Part::Values,
    ),
    (
        "type 10 is taken for IEC",
        Wrong::Takes(|it| {
            if is(it, 0x0a) {
                it[0] ^= 0x0e;
            }
        }),
        Part::Unknown,
    ),
    (
        "IOTLB of everything is taken for one of a domain",
        Wrong::Takes(|it| {
            if is(it, 0x12) {
                it[0] ^= 0x30;
            }
        }),
        Part::Bits,
    ),
    (
        "the top bit of the guest's DID gets through",
        Wrong::Writes(|guest, host| {
            if is(guest, 0x26) {
                host[0] |= guest[0] & 1 << 31;
            }
        }),
        Part::Ids,
    ),
    (
        "the host's domain-id has 8 bits",
        Wrong::LooksUp(|ids| ids.some_domains().for_each(|tag| *tag &= 0xff)),
        Part::Ids,
    ),
    ("the domain of the next guest number", Wrong::LooksUp(Ids::next_domain), Part::Ids),
    ("a domain at the end of the table has no tag", Wrong::LooksUp(Ids::lose_last_domain), Part::Ids),
    (
        "a guest's domain without a tag keeps its number",
        Wrong::LooksUp(|ids| {
            let without = (0..).zip(&mut ids.domains).filter(|(_, tag)| **tag == NO_TAG);
            without.for_each(|(number, tag)| *tag = number);
        }),
        Part::Ids,
    ),
    ("a host's source-id with bits 3 and 9 loses one", Wrong::LooksUp(|ids| ids.cut_streams(0x208)), Part::Ids),
    (
        "PIOTLB gains IH: the paging-structure caches are kept that have to go",
        Wrong::Writes(|guest, host| host[1] |= u64::from(is(guest, 0x36)) << 6),
        Part::Bits,
    ),
    ("a command is trusted for its neighbour's sake", Wrong::TrustsNeighbour, Part::Batches),
    ("unsynced TLB invalidations do not matter to a device cache", Wrong::NoOrder, Part::Batches),
    ("a word is left behind the last", Wrong::LeavesWord, Part::Batches),
    (
        "FSPM of 2 is five levels",
        Wrong::Reads(|right, entry| {
            let mut taken = entry.to_vec();
            if taken[2] >> 2 & 3 == 2 {
                taken[2] ^= 3 << 2;
            }
            right.entry_key(&taken)
        }),
        Part::Entries,
    ),
    (
        "a key holds PGSNP if the entry has bits 100 and 190",
        Wrong::Reads(|right, entry| {
            let mut key = right.entry_key(entry);
            if key.kind == KeyKind::TRANSLATE {
                key.words[1] |= (entry[1] >> 36 & entry[2] >> 62 & 1) << 24;
            }
            key
        }),
        Part::Entries,
    ),
];

#[test]
fn every_mistake_is_noticed_by_the_part_it_concerns() {
    mistakes_are_noticed(|| SHOWN.codec(), &commands(SHOWN), &entries(SHOWN), &MISTAKES)
        .unwrap_or_else(|unnoticed| panic!("{unnoticed}"));
}
