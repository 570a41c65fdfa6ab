//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use intel_vtd::codec::VtdCodec;
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, HostIds, KeyKind, Message, Rewritten};
use viommu_plugin_check::proof;

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Not at all.
    Not,
    /// CONTEXT may have bit 60.
    ForbiddenBit,
    /// PIOTLB of a PASID may have bits 13 and 75, if it has both.
    ForbiddenPair,
    /// A third word is not looked at.
    ThirdWord,
    /// AM may be one more than CAP.MAMV if IH is set.
    ReservedValue,
    /// Type 10 is taken for IEC.
    ForeignType,
    /// IOTLB of everything is taken for one of a domain.
    ForeignGranularity,
    /// The top bit of the guest's DID gets through.
    LeakedDomain,
    /// The host's domain-id has 8 bits.
    NarrowDomain,
    /// The domain of the next guest number.
    NextDomain,
    /// A domain at the end of the table has no tag.
    ShortTable,
    /// A guest's domain without a tag keeps its number.
    OwnNumber,
    /// A host's source-id with bits 3 and 9 loses one.
    CutStream,
    /// PIOTLB loses IH, or gains it: the paging-structure caches are kept that have to go.
    Narrowed,
    /// The third command of a batch is not looked at if the second is like it but for bit 255.
    TrustsNeighbour,
    /// Unsynced TLB invalidations do not matter to a device cache.
    NoOrder,
    /// It leaves words behind the last that it says it wrote.
    LeavesWords,
    /// FSPM of 2 is five levels.
    SixLevels,
    /// A key holds PGSNP if the entry has bits 100 and 190.
    EntryPair,
}

struct Mutant {
    right: VtdCodec,
    wrong: Wrong,
}

/// Whether a command has this type and granularity.
fn is(command: &[u64], opcode: u64) -> bool {
    command[0] & 0xe3f == opcode
}

impl Codec for Mutant {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut given = guest.to_vec();
        let (mut streams, mut domains, mut before) = (ids.streams.to_vec(), ids.domains.to_vec(), before);
        let mut whole = given.as_chunks_mut::<4>().0.iter_mut();
        match self.wrong {
            Wrong::ForbiddenBit => whole.filter(|it| is(&it[..], 0x31)).for_each(|it| it[0] &= !(1 << 60)),
            Wrong::ForbiddenPair => {
                let both = |it: &&mut [u64; 4]| is(&it[..], 0x26) && it[0] >> 13 & it[1] >> 11 & 1 != 0;
                whole.filter(both).for_each(|it| (it[0], it[1]) = (it[0] & !(1 << 13), it[1] & !(1 << 11)));
            }
            Wrong::ThirdWord => whole.for_each(|it| it[2] = 0),
            Wrong::ReservedValue => {
                let beyond = u64::from(SHOWN.max_mask) + 1;
                let reserved = |it: &&mut [u64; 4]| is(&it[..], 0x36) && it[1] & 0x7f == 0x40 | beyond;
                whole.filter(reserved).for_each(|it| it[1] -= 1);
            }
            Wrong::ForeignType => whole.filter(|it| is(&it[..], 0x0a)).for_each(|it| it[0] ^= 0x0e),
            Wrong::ForeignGranularity => whole.filter(|it| is(&it[..], 0x12)).for_each(|it| it[0] ^= 0x30),
            Wrong::NarrowDomain => domains.iter_mut().filter(|it| **it != u32::MAX).for_each(|it| *it &= 0xff),
            Wrong::NextDomain if domains.len() > 1 => domains.rotate_left(1),
            Wrong::ShortTable => drop(domains.pop()),
            Wrong::OwnNumber => {
                (0..).zip(&mut domains).filter(|it| *it.1 == u32::MAX).for_each(|(number, it)| *it = number);
            }
            Wrong::CutStream => {
                let both = |it: &&mut u32| **it & 0x208 == 0x208 && **it != u32::MAX;
                streams.iter_mut().filter(both).for_each(|it| *it &= !8);
            }
            Wrong::TrustsNeighbour => {
                if let (Some(second), Some(third)) = (whole.nth(1), whole.next())
                    && third[3] ^ second[3] == 1 << 63
                {
                    *third = *second;
                }
            }
            Wrong::NoOrder => before = Classes(before.0 & !Classes::TLB.0),
            _ => {}
        }
        let done = self.right.rewrite(&given, before, HostIds { streams: &streams, domains: &domains, ..ids }, out);
        for (command, words) in
            guest.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<4>().0).take(done.written as usize)
        {
            match self.wrong {
                Wrong::LeakedDomain if is(command, 0x26) => words[0] |= command[0] & 1 << 31,
                Wrong::Narrowed if is(command, 0x36) => words[1] |= 1 << 6,
                _ => {}
            }
        }
        if self.wrong == Wrong::LeavesWords {
            out[4 * done.written as usize..].iter_mut().take(1).for_each(|word| *word = 0);
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        self.right.configuration(command)
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        let mut entry = entry.to_vec();
        if self.wrong == Wrong::SixLevels && entry[2] >> 2 & 3 == 2 {
            entry[2] ^= 3 << 2;
        }
        let mut key = self.right.entry_key(&entry);
        let pair = entry[1] >> 36 & entry[2] >> 62 & 1;
        if self.wrong == Wrong::EntryPair && key.kind == KeyKind::TRANSLATE {
            key.words[1] |= pair << 24;
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

const SHOWN: Shown = Shown::MOST;

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
        (Wrong::ThirdWord, proof::bits),
        (Wrong::ReservedValue, proof::values),
        (Wrong::ForeignType, proof::unknown),
        (Wrong::ForeignGranularity, proof::bits),
        (Wrong::LeakedDomain, proof::ids),
        (Wrong::NarrowDomain, proof::ids),
        (Wrong::NextDomain, proof::ids),
        (Wrong::ShortTable, proof::ids),
        (Wrong::OwnNumber, proof::ids),
        (Wrong::CutStream, proof::ids),
        (Wrong::Narrowed, proof::bits),
        (Wrong::TrustsNeighbour, batches),
        (Wrong::NoOrder, batches),
        (Wrong::LeavesWords, batches),
    ] {
        assert!(part(&mutant(wrong), &table).is_err(), "nothing noticed {wrong:?}");
    }
}

#[test]
fn every_wrong_reader_of_entries_is_named() {
    for wrong in [Wrong::SixLevels, Wrong::EntryPair] {
        let judged = proof::entries(&mutant(wrong), &entries(SHOWN), |_, _| Ok(()));
        assert!(judged.is_err(), "nothing noticed {wrong:?}");
    }
}
