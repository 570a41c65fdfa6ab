//! Second-stage tables against a plain map, and against memory that runs out.

use crate::machine::{Machine, machine};
use intel_vtd::spec::registers::Cap;
use intel_vtd::tables::{Geometry, SecondStage};
use std::collections::BTreeMap;
use viommu_plugin::{Hardware, Refusal};
use viommu_plugin_check::Random;

const K4: u64 = 4 << 10;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

/// Four levels, leaves of every size.
const CAP: u64 = 0b1110 << 8 | 56 << 16 | 3 << 34;

/// Walks as the manual says: output, R and W, log2 of the leaf.
fn walk(machine: &Machine, tables: &SecondStage, ipa: u64) -> Option<(u64, u64, u32)> {
    let mut table = tables.root();
    for level in (1..=u32::from(tables.geometry().address_width()) + 2).rev() {
        let shift = 3 + 9 * level;
        let entry = machine.word(table + 8 * (ipa >> shift & 511));
        if entry & 3 == 0 {
            assert_eq!(entry, 0);
            return None;
        }
        let below = entry & 0x000f_ffff_ffff_f000;
        if level == 1 || entry & 0x80 != 0 {
            assert!(level <= 3 && below & ((1 << shift) - 1) == 0);
            return Some((below | ipa & ((1 << shift) - 1), entry & 3, shift));
        }
        assert_eq!(entry & 3, 3, "a link allows everything");
        table = below;
    }
    None
}

fn tables(machine: &Machine, cap: u64) -> SecondStage {
    SecondStage::new(machine, Geometry::new(Cap::from_bits(cap)).unwrap(), 7).unwrap()
}

#[test]
fn depth_width_and_leaves_are_those_of_the_hardware() {
    let leaves = |bits: u64| bits << 34;
    for (cap, width, bits, leaf) in [
        (0b1110 << 8 | 56 << 16 | leaves(3), 2, 48, 30),
        (0b0110 << 8 | 38 << 16 | leaves(1), 2, 39, 21),
        (0b0010 << 8 | 47 << 16 | leaves(0), 1, 39, 12),
        (0b1000 << 8 | 56 << 16 | leaves(2), 3, 57, 12),
    ] {
        let machine = machine();
        let mut stage2 = tables(&machine, cap);
        assert_eq!((stage2.geometry().address_width(), stage2.geometry().input_bits()), (width, bits));
        let top = (1u64 << bits) - G1;
        stage2.map(&machine, top, G1, G1, 3).unwrap();
        assert_eq!(walk(&machine, &stage2, top), Some((G1, 3, leaf)));
        assert_eq!(stage2.map(&machine, top, G1, 2 * G1, 3).unwrap_err().errno, Refusal::EINVAL);
        stage2.destroy(&machine);
        assert_eq!(machine.allocated(), 0);
    }
    assert_eq!(Geometry::new(Cap::from_bits(0b10001 << 8)), None);
}

#[test]
fn the_largest_leaves_that_fit() {
    let machine = machine();
    let mut stage2 = tables(&machine, CAP);
    let (ipa, end) = (G1 - M2 - K4, 2 * G1 + M2 + K4);
    stage2.map(&machine, ipa, ipa + 8 * G1, end - ipa, 1).unwrap();
    for (at, leaf) in [(ipa, 12), (G1 - M2, 21), (G1, 30), (2 * G1 - 8, 30), (2 * G1, 21), (2 * G1 + M2, 12)] {
        assert_eq!(walk(&machine, &stage2, at), Some((at + 8 * G1, 1, leaf)), "{at:#x}");
    }
    assert_eq!(walk(&machine, &stage2, ipa - 8), None);
    assert_eq!(walk(&machine, &stage2, end), None);
    stage2.map(&machine, 4 * G1, K4, M2, 2).unwrap();
    assert_eq!(walk(&machine, &stage2, 4 * G1), Some((K4, 2, 12)), "an output that is not aligned alike");
}

#[test]
fn what_is_mapped_is_not_mapped_again_and_leaves_are_not_cut() {
    let machine = machine();
    let mut stage2 = tables(&machine, CAP);
    stage2.map(&machine, M2, M2, 2 * M2, 3).unwrap();
    for (ipa, len) in [(M2, K4), (3 * M2 - K4, 2 * K4), (0, G1)] {
        assert_eq!(stage2.map(&machine, ipa, 0, len, 3).unwrap_err().errno, Refusal::EEXIST);
    }
    for (ipa, len) in [(M2 + K4, K4), (M2, M2 + K4), (0, M2 + K4), (3 * M2 - K4, G1)] {
        assert_eq!(stage2.unmap(&machine, ipa, len).unwrap_err().errno, Refusal::EINVAL);
    }
    for (pa, len, access) in [(0, 0, 3), (1, K4, 3), (0, K4 + 1, 3), (1 << 52, K4, 3), (0, !0xfff, 3), (0, K4, 4)] {
        assert_eq!(stage2.map(&machine, G1, pa, len, access).unwrap_err().errno, Refusal::EINVAL);
    }
    for at in [M2, 2 * M2, 3 * M2 - 8] {
        assert_eq!(walk(&machine, &stage2, at), Some((at, 3, 21)), "unharmed");
    }
    stage2.unmap(&machine, 0, G1).unwrap();
    assert_eq!(walk(&machine, &stage2, M2), None);
}

#[test]
fn random_changes_agree_with_a_plain_map_and_nothing_leaks() {
    for seed in 0..8 {
        let machine = machine();
        let mut stage2 = tables(&machine, CAP);
        let mut plain: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut random = Random::new(seed);
        for step in 0..400 {
            let ipa = random.next() % 64 * (M2 / 4);
            let len = [K4, 3 * K4, M2 / 4, M2, 3 * M2][random.next() as usize % 5];
            let pages = || ipa / K4..(ipa + len) / K4;
            if random.next().is_multiple_of(3) {
                if stage2.unmap(&machine, ipa, len).is_ok() {
                    pages().for_each(|page| _ = plain.remove(&page));
                }
            } else {
                // Memory runs out in one of four: then nothing has changed.
                let fails = random.next().is_multiple_of(4);
                machine.fail_allocation_after(fails.then(|| random.next() as u32 % 3));
                let (pa, access) = (G1 + random.next() % 8 * M2, 1 + random.next() % 3);
                let result = stage2.map(&machine, ipa, pa, len, access as u32);
                machine.fail_allocation_after(None);
                let free = pages().all(|page| !plain.contains_key(&page));
                assert!(result.is_err() || free, "seed {seed} step {step}");
                assert!(result.is_ok() || fails || !free, "seed {seed} step {step}: {result:?}");
                if result.is_ok() {
                    pages().for_each(|page| _ = plain.insert(page, (pa + (page * K4 - ipa), access)));
                }
            }
        }
        for page in 0..64 * (M2 / 4) / K4 + 3 * M2 / K4 {
            let found = walk(&machine, &stage2, page * K4).map(|(pa, access, _)| (pa, access));
            assert_eq!(found, plain.get(&page).copied(), "seed {seed} page {page:#x}");
        }
        let pool = machine.alloc(K4, K4).unwrap();
        machine.free(pool, K4);
        stage2.destroy(&machine);
        assert_eq!(machine.allocated(), 0, "seed {seed}");
    }
}
