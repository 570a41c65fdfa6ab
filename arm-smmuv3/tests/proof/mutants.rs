//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use viommu_plugin::{Classes, KeyKind};
use viommu_plugin_check::proof::{self, Ids, Mistake, Part, Wrong, mistakes_are_noticed};

/// With everything but DS, which would make TTL 1 of 16 KiB granules right.
const SHOWN: Shown = Shown { ats: true, asid16: true, ril: true, ds: false, ssidsize: 20, cd2l: true, stalls: false };

fn is(command: &[u64], opcode: u64) -> bool {
    command[0] & 0xff == opcode
}

const MISTAKES: [Mistake; 17] = [
    ("CFGI_CD may have bit 8", Wrong::Takes(|it| it[0] &= !(u64::from(is(it, 0x05)) << 8)), Part::Bits),
    (
        "TLBI_NH_ASID may have bits 20 and 90, if it has both",
        Wrong::Takes(|it| {
            if is(it, 0x11) && it[0] >> 20 & 1 != 0 && it[1] >> 26 & 1 != 0 {
                it[0] &= !(1 << 20);
                it[1] &= !(1 << 26);
            }
        }),
        Part::Bits,
    ),
    (
        "a range of 16 KiB granules may have TTL 1 if NUM is 21",
        Wrong::Takes(|it| {
            if is(it, 0x12) && it[1] >> 8 & 0xf == 0b1001 && it[0] >> 12 & 31 == 21 {
                it[1] ^= 0xc00;
            }
        }),
        Part::Values,
    ),
    (
        "an opcode that is not the guest's (TLBI_S12_VMALL) is taken for TLBI_NH_ALL",
        Wrong::Takes(|it| {
            if is(it, 0x28) {
                it[0] ^= 0x38;
            }
        }),
        Part::Unknown,
    ),
    (
        "the top bit of the guest's VMID gets through",
        Wrong::Writes(|guest, host| {
            if is(guest, 0x10) {
                host[0] |= guest[0] & 1 << 47;
            }
        }),
        Part::Ids,
    ),
    ("the host's VMID has 8 bits", Wrong::LooksUp(|ids| ids.tag &= 0xff), Part::Ids),
    ("a host stream with bits 3 and 17 loses one", Wrong::LooksUp(|ids| ids.cut_streams(0x2_0008)), Part::Ids),
    ("the stream of the next guest number", Wrong::LooksUp(Ids::next_stream), Part::Ids),
    ("a stream at the end of the table has no vdevice", Wrong::LooksUp(Ids::lose_last_stream), Part::Ids),
    (
        "CFGI_CD loses Leaf",
        Wrong::Writes(|_, host| {
            if is(host, 0x05) {
                host[1] = 0;
            }
        }),
        Part::Bits,
    ),
    (
        "TLBI_NH_VAA with a leaf hint is refused",
        Wrong::Takes(|it| {
            if is(it, 0x13) && it[1] & 1 != 0 {
                it[0] |= 1 << 10;
            }
        }),
        Part::Bits,
    ),
    ("a command is trusted for its neighbour's sake", Wrong::TrustsNeighbour, Part::Batches),
    ("unsynced TLB invalidations do not matter to a device cache", Wrong::NoOrder, Part::Batches),
    ("a word is left behind the last", Wrong::LeavesWord, Part::Batches),
    (
        "EATS of 2 is full ATS",
        Wrong::Reads(|right, entry| {
            let mut taken = entry.to_vec();
            if taken[1] >> 28 & 3 == 2 {
                taken[1] ^= 3 << 28;
            }
            right.entry_key(&taken)
        }),
        Part::Entries,
    ),
    (
        "S1STALLD is ignored where there are no stalls, and kept",
        Wrong::Reads(|right, entry| {
            let mut taken = entry.to_vec();
            taken[1] &= !(1 << 27);
            let mut key = right.entry_key(&taken);
            if key.kind == KeyKind::TRANSLATE {
                key.words[1] |= entry[1] & 1 << 27;
            }
            key
        }),
        Part::Entries,
    ),
    (
        "a key holds MEV if the entry has bits 300 and 400",
        Wrong::Reads(|right, entry| {
            let mut key = right.entry_key(entry);
            if key.kind == KeyKind::TRANSLATE {
                key.words[1] |= (entry[300 / 64] >> (300 % 64) & entry[400 / 64] >> (400 % 64) & 1) << 19;
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

#[test]
fn a_table_that_forgets_a_tag_is_not_used() {
    let mut table = commands(SHOWN);
    let row = table.rows.iter_mut().find(|row| row.name == "TLBI_NH_ALL").unwrap();
    row.becomes = proof::Becomes::Host { class: Classes::TLB, opcode: 0x10, tag: None, stream: None };
    assert!(proof::commands(&SHOWN.codec(), &table).unwrap_err().contains("TLBI_NH_ALL"));
}
