//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use viommu_plugin::{KeyKind, NO_TAG};
use viommu_plugin_check::proof::{Ids, Mistake, Part, Wrong, mistakes_are_noticed};

/// With everything.
const SHOWN: Shown = Shown {
    nested: true,
    gt: true,
    ats: true,
    hints: true,
    requests: true,
    all: true,
    pasid_bits: 16,
    host_levels: 6,
    glx: 2,
    five: true,
};

fn is(command: &[u64], opcode: u64) -> bool {
    command[0] >> 60 == opcode
}

const MISTAKES: [Mistake; 20] = [
    ("INVALIDATE_DEVTAB_ENTRY may have bit 16", Wrong::Takes(|it| it[0] &= !(u64::from(is(it, 2)) << 16)), Part::Bits),
    (
        "INVALIDATE_IOMMU_PAGES may have bits 24 and 70, if it has both",
        Wrong::Takes(|it| {
            if is(it, 3) && it[0] >> 24 & it[1] >> 6 & 1 != 0 {
                it[0] &= !(1 << 24);
                it[1] &= !(1 << 6);
            }
        }),
        Part::Bits,
    ),
    (
        "INVALIDATE_IOMMU_PAGES may have a PASID of 1 without GN",
        Wrong::Takes(|it| {
            if is(it, 3) && it[0] & 0xf_ffff == 1 && it[1] & 4 == 0 {
                it[0] &= !1;
            }
        }),
        Part::Bits,
    ),
    (
        "an opcode that is not the guest's (RESET_VMMIO) is taken for INVALIDATE_INTERRUPT_TABLE",
        Wrong::Takes(|it| {
            if is(it, 0xa) {
                it[0] ^= 0xf << 60;
            }
        }),
        Part::Unknown,
    ),
    (
        "the top bit of the guest's domain gets through",
        Wrong::Writes(|guest, host| {
            if is(guest, 3) {
                host[0] |= guest[0] & 1 << 47;
            }
        }),
        Part::Ids,
    ),
    ("the host's tag has 12 bits", Wrong::LooksUp(|ids| ids.some_domains().for_each(|tag| *tag &= 0xfff)), Part::Ids),
    (
        "the parent's tag where the domain has one of its own",
        Wrong::LooksUp(|ids| {
            let parent = ids.tag;
            ids.some_domains().for_each(|tag| *tag = parent);
        }),
        Part::Ids,
    ),
    ("the tag of the next domain", Wrong::LooksUp(Ids::next_domain), Part::Ids),
    ("a domain at the end of the table has no tag", Wrong::LooksUp(Ids::lose_last_domain), Part::Ids),
    (
        "a domain without a tag is that of tag 0",
        Wrong::LooksUp(|ids| ids.domains.iter_mut().filter(|tag| **tag == NO_TAG).for_each(|tag| *tag = 0)),
        Part::Ids,
    ),
    (
        "the queue stays the guest's",
        Wrong::Writes(|guest, host| {
            if is(guest, 4) {
                host[0] = host[0] & !(0xffff << 32) | guest[0] & 0xffff << 32;
            }
        }),
        Part::Ids,
    ),
    ("a host device with bits 3 and 9 loses one", Wrong::LooksUp(|ids| ids.cut_streams(0x208)), Part::Ids),
    ("the device of the next guest number", Wrong::LooksUp(Ids::next_stream), Part::Ids),
    (
        "INVALIDATE_IOMMU_PAGES loses PDE",
        Wrong::Writes(|_, host| host[1] &= !(u64::from(is(host, 3)) << 1)),
        Part::Bits,
    ),
    ("a command is trusted for its neighbour's sake", Wrong::TrustsNeighbour, Part::Batches),
    ("unsynced TLB invalidations do not matter to a device cache", Wrong::NoOrder, Part::Batches),
    ("a word is left behind the last", Wrong::LeavesWord, Part::Batches),
    (
        "GLX of 3 is 2",
        Wrong::Reads(|right, entry| {
            let mut taken = entry.to_vec();
            if taken[0] >> 56 & 3 == 3 {
                taken[0] ^= 1 << 56;
            }
            right.entry_key(&taken)
        }),
        Part::Entries,
    ),
    (
        "an entry that is not valid stops DMA",
        Wrong::Reads(|right, entry| {
            let mut key = right.entry_key(entry);
            if entry[0] & 1 == 0 {
                key.kind = KeyKind::ABORT;
            }
            key
        }),
        Part::Entries,
    ),
    (
        "a key holds PPR if the entry has bits 150 and 200",
        Wrong::Reads(|right, entry| {
            let mut key = right.entry_key(entry);
            if key.kind == KeyKind::TRANSLATE {
                key.words[0] |= (entry[150 / 64] >> (150 % 64) & entry[200 / 64] >> (200 % 64) & 1) << 52;
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
