//! Codecs that are wrong in one small way each: the prover names every one of them.

use crate::command_table::commands;
use crate::entry_table::entries;
use crate::shown::Shown;
use amd_vi::codec::AmdCodec;
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, HostIds, KeyKind, Message, NO_TAG, Rewritten};
use viommu_plugin_check::proof;

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Not at all.
    Not,
    /// INVALIDATE_DEVTAB_ENTRY may have bit 16.
    ForbiddenBit,
    /// INVALIDATE_IOMMU_PAGES may have bits 24 and 70, if it has both.
    ForbiddenPair,
    /// INVALIDATE_IOMMU_PAGES may have a PASID of 1 without GN.
    PasidWithoutGn,
    /// An opcode that is not the guest's (RESET_VMMIO) is taken for INVALIDATE_INTERRUPT_TABLE.
    ForeignOpcode,
    /// The top bit of the guest's domain gets through.
    LeakedDomain,
    /// The host's tag has 12 bits.
    NarrowTag,
    /// The parent's tag where the domain has one of its own.
    ParentTag,
    /// The tag of the next domain, where both have one.
    NextDomain,
    /// A domain at the end of the table has no tag.
    ShortDomains,
    /// A domain without a tag is that of tag 0.
    AbsentDomain,
    /// The queue stays the guest's.
    GuestQueueId,
    /// A host device with bits 3 and 9 loses one.
    CutDevice,
    /// The device of the next guest number, where both have one.
    NextDevice,
    /// INVALIDATE_IOMMU_PAGES loses PDE.
    LostBit,
    /// The third command of a batch is not looked at if the second is like it but for bit 127.
    TrustsNeighbour,
    /// Unsynced TLB invalidations do not matter to a device cache.
    NoOrder,
    /// It leaves words behind the last that it says it wrote.
    LeavesWords,
    /// GLX of 3 is 2.
    ReservedGlx,
    /// An entry that is not valid stops DMA.
    NotValid,
    /// A key holds PPR if the entry has bits 150 and 200.
    EntryPair,
}

struct Mutant {
    right: AmdCodec,
    wrong: Wrong,
}

fn is(command: &[u64], opcode: u64) -> bool {
    command[0] >> 60 == opcode
}

impl Codec for Mutant {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut given = guest.to_vec();
        let (mut streams, mut domains, mut before) = (ids.streams.to_vec(), ids.domains.to_vec(), before);
        let mut whole = given.as_chunks_mut::<2>().0.iter_mut();
        match self.wrong {
            Wrong::ForbiddenBit => whole.filter(|it| is(&it[..], 2)).for_each(|it| it[0] &= !(1 << 16)),
            Wrong::ForbiddenPair => {
                let both = |it: &&mut [u64; 2]| is(&it[..], 3) && it[0] >> 24 & it[1] >> 6 & 1 != 0;
                whole.filter(both).for_each(|it| *it = [it[0] & !(1 << 24), it[1] & !(1 << 6)]);
            }
            Wrong::PasidWithoutGn => {
                let one = |it: &&mut [u64; 2]| is(&it[..], 3) && it[0] & 0xf_ffff == 1 && it[1] & 4 == 0;
                whole.filter(one).for_each(|it| it[0] &= !1);
            }
            Wrong::ForeignOpcode => whole.filter(|it| is(&it[..], 0xa)).for_each(|it| it[0] ^= 0xf << 60),
            Wrong::NarrowTag => domains.iter_mut().filter(|it| **it != NO_TAG).for_each(|it| *it &= 0xfff),
            Wrong::ParentTag => domains.iter_mut().filter(|it| **it != NO_TAG).for_each(|it| *it = ids.tag),
            Wrong::NextDomain if domains.len() > 1 => domains.rotate_left(1),
            Wrong::ShortDomains => drop(domains.pop()),
            Wrong::AbsentDomain => domains.iter_mut().filter(|it| **it == NO_TAG).for_each(|it| *it = 0),
            Wrong::CutDevice => {
                let both = |it: &&mut u32| **it & 0x208 == 0x208 && **it != u32::MAX;
                streams.iter_mut().filter(both).for_each(|it| *it &= !8);
            }
            Wrong::NextDevice if streams.len() > 1 => streams.rotate_left(1),
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
        let ids = HostIds { tag: ids.tag, streams: &streams, domains: &domains };
        let done = self.right.rewrite(&given, before, ids, out);
        let pairs = guest.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
        for (command, words) in pairs.take(done.written as usize) {
            match self.wrong {
                Wrong::LeakedDomain if is(command, 3) => words[0] |= command[0] & 1 << 47,
                Wrong::GuestQueueId if is(command, 4) => {
                    words[0] = words[0] & !(0xffff << 32) | command[0] & 0xffff << 32;
                }
                Wrong::LostBit if is(words, 3) => words[1] &= !2,
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
        if self.wrong == Wrong::ReservedGlx && entry[0] >> 56 & 3 == 3 {
            entry[0] ^= 1 << 56;
        }
        let mut key = self.right.entry_key(&entry);
        if self.wrong == Wrong::NotValid && entry[0] & 1 == 0 {
            key.kind = KeyKind::ABORT;
        }
        let pair = entry[150 / 64] >> (150 % 64) & entry[200 / 64] >> (200 % 64) & 1;
        if self.wrong == Wrong::EntryPair && key.kind == KeyKind::TRANSLATE {
            key.words[0] |= pair << 52;
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
        (Wrong::PasidWithoutGn, proof::bits),
        (Wrong::ForeignOpcode, proof::unknown),
        (Wrong::LeakedDomain, proof::ids),
        (Wrong::NarrowTag, proof::ids),
        (Wrong::ParentTag, proof::ids),
        (Wrong::NextDomain, proof::ids),
        (Wrong::ShortDomains, proof::ids),
        (Wrong::AbsentDomain, proof::ids),
        (Wrong::GuestQueueId, proof::ids),
        (Wrong::CutDevice, proof::ids),
        (Wrong::NextDevice, proof::ids),
        (Wrong::LostBit, proof::bits),
        (Wrong::TrustsNeighbour, batches),
        (Wrong::NoOrder, batches),
        (Wrong::LeavesWords, batches),
    ] {
        assert!(part(&mutant(wrong), &table).is_err(), "nothing noticed {wrong:?}");
    }
}

#[test]
fn every_wrong_reader_of_entries_is_named() {
    for wrong in [Wrong::ReservedGlx, Wrong::NotValid, Wrong::EntryPair] {
        let judged = proof::entries(&mutant(wrong), &entries(SHOWN), |_, _| Ok(()));
        assert!(judged.is_err(), "nothing noticed {wrong:?}");
    }
}
