//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use arm_smmuv3::codec::ArmCodec;
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, HostIds, KeyKind, Message, Rewritten};
use viommu_plugin_check::proof;

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Not at all.
    Not,
    /// CFGI_CD may have bit 8.
    ForbiddenBit,
    /// TLBI_NH_ASID may have bits 20 and 90, if it has both.
    ForbiddenPair,
    /// A range of 16 KiB granules may have TTL 1 if NUM is 21.
    ReservedValue,
    /// An opcode that is not the guest's (TLBI_S12_VMALL) is taken for TLBI_NH_ALL.
    ForeignOpcode,
    /// The top bit of the guest's VMID gets through.
    LeakedTag,
    /// The host's VMID has 8 bits.
    NarrowTag,
    /// A host stream with bits 3 and 17 loses one.
    CutStream,
    /// The stream of the next guest number, where both have one.
    NextStream,
    /// A stream at the end of the table has no vdevice.
    ShortTable,
    /// CFGI_CD loses Leaf.
    LostBit,
    /// TLBI_NH_VAA with a leaf hint is refused.
    Refuses,
    /// The third command of a batch is not looked at if the second is like it but for bit 127.
    TrustsNeighbour,
    /// Unsynced TLB invalidations do not matter to a device cache.
    NoOrder,
    /// It leaves words behind the last that it says it wrote.
    LeavesWords,
    /// EATS of 2 is full ATS.
    SplitStage,
    /// S1STALLD is ignored where there are no stalls, and kept.
    KeepsStalld,
    /// A key holds MEV if the entry has bits 300 and 400.
    EntryPair,
}

struct Mutant {
    right: ArmCodec,
    wrong: Wrong,
}

fn is(command: &[u64], opcode: u64) -> bool {
    command[0] & 0xff == opcode
}

impl Codec for Mutant {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut given = guest.to_vec();
        let (mut tag, mut streams, mut before) = (ids.tag, ids.streams.to_vec(), before);
        let mut whole = given.as_chunks_mut::<2>().0.iter_mut();
        match self.wrong {
            Wrong::ForbiddenBit => whole.filter(|it| is(&it[..], 0x05)).for_each(|it| it[0] &= !(1 << 8)),
            Wrong::ForbiddenPair => {
                let both = |it: &&mut [u64; 2]| is(&it[..], 0x11) && it[0] >> 20 & 1 != 0 && it[1] >> 26 & 1 != 0;
                whole.filter(both).for_each(|it| *it = [it[0] & !(1 << 20), it[1] & !(1 << 26)]);
            }
            Wrong::ReservedValue => {
                let reserved =
                    |it: &&mut [u64; 2]| is(&it[..], 0x12) && it[1] >> 8 & 0xf == 0b1001 && it[0] >> 12 & 31 == 21;
                whole.filter(reserved).for_each(|it| it[1] ^= 0xc00);
            }
            Wrong::ForeignOpcode => whole.filter(|it| is(&it[..], 0x28)).for_each(|it| it[0] ^= 0x38),
            Wrong::NarrowTag => tag &= 0xff,
            Wrong::CutStream => {
                let both = |it: &&mut u32| **it & 0x2_0008 == 0x2_0008 && **it != u32::MAX;
                streams.iter_mut().filter(both).for_each(|it| *it &= !8);
            }
            Wrong::NextStream if streams.len() > 1 => streams.rotate_left(1),
            Wrong::ShortTable => drop(streams.pop()),
            Wrong::Refuses => {
                whole.filter(|it| is(&it[..], 0x13) && it[1] & 1 != 0).for_each(|it| it[0] |= 1 << 10);
            }
            Wrong::TrustsNeighbour => {
                if let (Some(second), Some(third)) = (whole.nth(1), whole.next())
                    && third[1] ^ second[1] == 1 << 63
                {
                    *third = *second;
                }
            }
            Wrong::NoOrder => before = Classes(before.0 & !Classes::TLB.0),
            _ => {}
        }
        let done = self.right.rewrite(&given, before, HostIds { tag, streams: &streams, domains: &[] }, out);
        for (command, words) in
            guest.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0).take(done.written as usize)
        {
            match self.wrong {
                Wrong::LeakedTag if is(command, 0x10) => words[0] |= command[0] & 1 << 47,
                Wrong::LostBit if is(words, 0x05) => words[1] = 0,
                _ => {}
            }
        }
        if self.wrong == Wrong::LeavesWords {
            out[2 * done.written as usize..].iter_mut().take(1).for_each(|word| *word = 0);
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        self.right.configuration(command)
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        let mut entry = entry.to_vec();
        if self.wrong == Wrong::SplitStage && entry[1] >> 28 & 3 == 2 {
            entry[1] ^= 3 << 28;
        }
        let stalld = entry[1] & 1 << 27;
        if self.wrong == Wrong::KeepsStalld {
            entry[1] ^= stalld;
        }
        let mut key = self.right.entry_key(&entry);
        if self.wrong == Wrong::KeepsStalld && key.kind == KeyKind::TRANSLATE {
            key.words[1] |= stalld;
        }
        let pair = entry[300 / 64] >> (300 % 64) & entry[400 / 64] >> (400 % 64) & 1;
        if self.wrong == Wrong::EntryPair && key.kind == KeyKind::TRANSLATE {
            key.words[1] |= pair << 19;
        }
        key
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        self.right.opcode(command)
    }
    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        self.right.opcode_name(opcode)
    }
    fn describe(&self, command: &[u64], text: &mut Message) {
        self.right.describe(command, text);
    }
}

/// With everything but DS, which would make [`Wrong::ReservedValue`] right.
const SHOWN: Shown = Shown { ats: true, asid16: true, ril: true, ds: false, ssidsize: 20, cd2l: true, stalls: false };

fn mutant(wrong: Wrong) -> Mutant {
    Mutant { right: SHOWN.codec(), wrong }
}

#[test]
fn a_mutant_that_is_not_wrong_is_proven_right() {
    let mutant = mutant(Wrong::Not);
    assert!(proof::commands(&mutant, &commands(SHOWN)).unwrap() > 0);
    assert!(proof::entries(&mutant, &entries(SHOWN), |_, _| Ok(())).unwrap() > 0);
}

#[test]
fn every_wrong_codec_is_named_by_the_part_it_concerns() {
    type Part = fn(&dyn Codec, &proof::CommandTable) -> proof::Judged;
    let batches: Part = |codec, table| proof::batches(codec, table, 0);
    let table = commands(SHOWN);
    for (wrong, part) in [
        (Wrong::ForbiddenBit, proof::bits as Part),
        (Wrong::ForbiddenPair, proof::bits),
        (Wrong::ReservedValue, proof::values),
        (Wrong::ForeignOpcode, proof::unknown),
        (Wrong::LeakedTag, proof::ids),
        (Wrong::NarrowTag, proof::ids),
        (Wrong::CutStream, proof::ids),
        (Wrong::NextStream, proof::ids),
        (Wrong::ShortTable, proof::ids),
        (Wrong::LostBit, proof::bits),
        (Wrong::Refuses, proof::bits),
        (Wrong::TrustsNeighbour, batches),
        (Wrong::NoOrder, batches),
        (Wrong::LeavesWords, batches),
    ] {
        assert!(part(&mutant(wrong), &table).is_err(), "nothing noticed {wrong:?}");
    }
}

#[test]
fn every_wrong_reader_of_entries_is_named() {
    for wrong in [Wrong::SplitStage, Wrong::KeepsStalld, Wrong::EntryPair] {
        let judged = proof::entries(&mutant(wrong), &entries(SHOWN), |_, _| Ok(()));
        assert!(judged.is_err(), "nothing noticed {wrong:?}");
    }
}

#[test]
fn a_table_that_forgets_a_tag_is_not_used() {
    let mut table = commands(SHOWN);
    let row = table.rows.iter_mut().find(|row| row.name == "TLBI_NH_ALL").unwrap();
    row.becomes = proof::Becomes::Host { class: Classes::TLB, opcode: 0x10, tag: None, stream: None };
    assert!(proof::commands(&SHOWN.codec(), &table).unwrap_err().contains("TLBI_NH_ALL"));
}
