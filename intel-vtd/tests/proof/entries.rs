//! Every guest entry, read alone and as the driver writes it.

use crate::entry_table::entries;
use crate::physical::{Owned, STAGE2};
use crate::shown::Shown;
use intel_vtd::tables::{HostEntry, physical};
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::proof;

const TAG: u16 = 0x5a3c;
const HOST: HostEntry = HostEntry {
    nests: true,
    five_levels: true,
    supervisor: true,
    extended_accessed: true,
    device_tlb: true,
    snoops: true,
};

#[test]
fn every_bit_and_pair_of_bits_of_an_entry() {
    let stage2 = STAGE2.make();
    let owned = Owned { stage2: STAGE2, tag: TAG, host: HOST };
    let sets: Vec<_> = (0..24).map(Shown::of_entries).collect();
    let judged = proof::every_set(&sets, |&shown| {
        // From the guest's words to the hardware's: what the host owns is the host's whatever the guest wrote.
        let visit = |_: &[u64], key: &_| owned.check(key, physical(key, &stage2, TAG, HOST));
        proof::entries(&shown.codec(), &entries(shown), visit)
    });
    let judged = judged.unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("entries: {judged} judged, all as the table says");
}

/// Keys of every kind, known or not, with words that no codec would give: each bit and pair of bits of them, on hardware
/// that lacks this or that.
#[test]
fn what_is_the_hosts_stays_the_hosts() {
    let mut judged = 0;
    for set in 0..64u32 {
        let bit = |at: u32| set >> at & 1 != 0;
        let host = HostEntry {
            nests: !bit(0),
            five_levels: bit(1),
            supervisor: bit(2),
            extended_accessed: bit(3),
            device_tlb: bit(4),
            snoops: bit(5),
        };
        let tag = [1, 0xff, 0x100, 0xffff][set as usize % 4];
        let (owned, made) = (Owned { stage2: STAGE2, tag, host }, STAGE2.make());
        for (base, kind) in
            [[0; 4], [u64::MAX; 4], [0x41, 0, 0, 1]].into_iter().flat_map(|base| (0..5).map(move |kind| (base, kind)))
        {
            judged += proof::flips(&base, |words| {
                let words = [words[0], words[1], words[2], words[3]];
                let key = EntryKey { kind: KeyKind(kind), words, ..EntryKey::default() };
                owned.check(&key, physical(&key, &made, tag, host))
            })
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
    println!("physical entries: {judged} judged, all as they should be");
}

#[test]
fn an_entry_with_one_foreign_bit_is_noticed() {
    let (owned, made) = (Owned { stage2: STAGE2, tag: TAG, host: HOST }, STAGE2.make());
    let key = EntryKey { kind: KeyKind::TRANSLATE, words: [0x41, 5, 0x1234_5000, 1], ..EntryKey::default() };
    let right = physical(&key, &made, TAG, HOST).unwrap();
    owned.check(&key, Ok(right)).unwrap();
    for bit in 0..512 {
        let mut wrong = right;
        wrong.entry[bit / 64] ^= 1 << (bit % 64);
        assert!(owned.check(&key, Ok(wrong)).is_err(), "bit {bit}");
    }
    let wrong = intel_vtd::tables::Physical { device_tlb: true, ..right };
    assert!(owned.check(&key, Ok(wrong)).is_err());
}
