//! Every guest DTE, read alone and as the driver writes it.

use crate::entry_table::entries;
use crate::physical::Owned;
use crate::shown::Shown;
use amd_vi::tables::physical_dte;
use viommu_plugin::{EntryKey, KeyKind, NO_DOMAIN};
use viommu_plugin_check::proof;

const OWNED: Owned = Owned { hats: 1, root: 0x8_7654_3000, tag: 0x5a3c, ats: true };

/// The sets that a DTE's legality depends on, by number below 24.
fn shown(set: u32) -> Shown {
    let bit = |at: u32| set >> at & 1 != 0;
    let levels = (set / 8 % 3) as u64;
    Shown { five: bit(1), ats: bit(2), glx: levels, host_levels: 4 + levels, ..Shown::of_commands(set & 1) }
}

#[test]
fn every_bit_and_pair_of_bits_of_an_entry() {
    let table = OWNED.make();
    let sets: Vec<_> = (0..24).map(shown).collect();
    let judged = proof::every_set(&sets, |&shown| {
        // From the guest's words to the hardware's: what the host owns is the host's whatever the guest wrote.
        let visit = |_: &[u64], key: &_| OWNED.check(key, &physical_dte(key, &table, OWNED.tag, OWNED.ats));
        proof::entries(&shown.codec(), &entries(shown), visit)
    });
    let judged = judged.unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("entries: {judged} judged, all as the table says");
}

/// Keys of every kind, known or not, with words that no codec would give: each bit and pair of bits of them.
#[test]
fn what_is_the_hosts_stays_the_hosts() {
    let mut judged = 0;
    for set in 0..6u8 {
        let owned = Owned { hats: set % 3, tag: [1, 0xffff][usize::from(set) % 2], ats: set < 3, ..OWNED };
        let table = owned.make();
        for (base, kind) in [[0; 4], [u64::MAX; 4]].into_iter().flat_map(|base| (0..5).map(move |kind| (base, kind))) {
            judged += proof::flips(&base, |words| {
                let words = [words[0], words[1], words[2], words[3]];
                let key = EntryKey { kind: KeyKind(kind), event: 0, domain: NO_DOMAIN, reserved: 0, words };
                owned.check(&key, &physical_dte(&key, &table, owned.tag, owned.ats))
            })
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
    println!("physical DTEs: {judged} judged, all as they should be");
}

#[test]
fn an_entry_with_one_foreign_bit_is_noticed() {
    let words = [0x6cc0_0000_0000_0003, 0x0000_5000_eca8_0009, 0, 0];
    let key = EntryKey { kind: KeyKind::TRANSLATE, event: 0, domain: 9, reserved: 0, words };
    let dte = physical_dte(&key, &OWNED.make(), OWNED.tag, OWNED.ats);
    OWNED.check(&key, &dte).unwrap();
    for bit in 0..256 {
        let mut wrong = dte;
        wrong[bit / 64] ^= 1 << (bit % 64);
        assert!(OWNED.check(&key, &wrong).is_err(), "bit {bit}");
    }
}
