//! Every guest STE, read alone and as the driver writes it.

use crate::entry_table::entries;
use crate::physical::{Numbers, Owned, STAGE2};
use crate::shown::Shown;
use arm_smmuv3::tables::{HostSte, physical_ste};
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::proof;

/// The sets that an STE's legality depends on, by number below 12.
fn shown(set: u32) -> Shown {
    let ssidsize = [0, 4, 20][(set / 4) as usize];
    Shown { ats: set & 1 != 0, cd2l: set & 2 != 0, stalls: set % 3 == 1, ssidsize, ..Shown::of_commands(0) }
}

#[test]
fn every_bit_and_pair_of_bits_of_an_entry() {
    let stage2 = STAGE2.make();
    let host = HostSte { ats: true, fwb: true, stalls: false, attr_types_ovr: true };
    let owned = Owned { stage2: STAGE2, host };
    let sets: Vec<_> = (0..12).map(shown).collect();
    let judged = proof::every_set(&sets, |&shown| {
        // From the guest's words to the hardware's: what the host owns is the host's whatever the guest wrote.
        let visit = |_: &[u64], key: &_| owned.check(key, &physical_ste(key, &stage2, host));
        proof::entries(&shown.codec(), &entries(shown), visit)
    });
    let judged = judged.unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("entries: {judged} judged, all as the table says");
}

/// Keys of every kind, known or not, with words that no codec would give: each bit and pair of bits of them.
#[test]
fn what_is_the_hosts_stays_the_hosts() {
    let mut judged = 0;
    for set in 0..16 {
        let bit = |at: u32| set >> at & 1 != 0;
        let host = HostSte { ats: bit(0), fwb: bit(1), stalls: bit(2), attr_types_ovr: bit(3) };
        let stage2 = Numbers { oas: (set % 7) as u8, vmid: [1, 0xff, 0x100, 0xffff][set as usize % 4], ..STAGE2 };
        let (owned, made) = (Owned { stage2, host }, stage2.make());
        for (base, kind) in [[0; 4], [u64::MAX; 4]].into_iter().flat_map(|base| (0..5).map(move |kind| (base, kind))) {
            judged += proof::flips(&base, |words| {
                let words = [words[0], words[1], words[2], words[3]];
                let key = EntryKey { kind: KeyKind(kind), words, ..EntryKey::default() };
                owned.check(&key, &physical_ste(&key, &made, host))
            })
            .unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
    println!("physical STEs: {judged} judged, all as they should be");
}

#[test]
fn an_entry_with_one_foreign_bit_is_noticed() {
    let host = HostSte { ats: true, fwb: true, stalls: true, attr_types_ovr: true };
    let (owned, made) = (Owned { stage2: STAGE2, host }, STAGE2.make());
    let words = [0x4321_100b, 0x1000_00ec, 0, 0];
    let key = EntryKey { kind: KeyKind::TRANSLATE, words, ..EntryKey::default() };
    let ste = physical_ste(&key, &made, host);
    owned.check(&key, &ste).unwrap();
    for bit in 0..512 {
        let mut wrong = ste;
        wrong[bit / 64] ^= 1 << (bit % 64);
        assert!(owned.check(&key, &wrong).is_err(), "bit {bit}");
    }
}
