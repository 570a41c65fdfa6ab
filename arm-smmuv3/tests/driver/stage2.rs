//! Stage-2 tables against a plain map, and against memory that runs out.

use crate::machine::{self, Machine};
use arm_smmuv3::tables::{Geometry, Stage2};
use std::collections::BTreeMap;
use viommu_plugin::Refusal;

const K4: u64 = 4 << 10;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

/// Walks as the architecture says: output, writable, log2 of the leaf.
fn walk(machine: &Machine, tables: &Stage2, ipa: u64) -> Option<(u64, bool, u32)> {
    let geometry = tables.geometry();
    let start = 2 - u32::from(geometry.sl0());
    let mut table = tables.root();
    for level in start..=3 {
        let shift = 39 - 9 * level;
        // Tables at the start level lie side by side.
        let index = if level == start { ipa >> shift } else { ipa >> shift & 511 };
        let entry = machine.word(table + 8 * index);
        match (entry & 3, level) {
            (3, 0..=2) => table = entry & 0x0000_ffff_ffff_f000,
            (3, 3) | (1, 1..=2) => {
                assert_ne!(entry & 1 << 10, 0, "access flag");
                assert_eq!(entry >> 6 & 1, 1, "readable");
                let base = entry & 0x0000_ffff_ffff_f000;
                return Some((base | ipa & ((1 << shift) - 1), entry >> 7 & 1 != 0, shift));
            }
            (0, _) => return None,
            other => panic!("reserved descriptor {other:?}"),
        }
    }
    None
}

fn tables(machine: &Machine, oas: u8) -> Stage2 {
    Stage2::new(machine, Geometry::new(oas), 7, false).unwrap()
}

#[test]
fn every_address_size_has_a_legal_start() {
    for (oas, bits, t0sz, sl0, root) in [
        (0, 32, 32, 1, K4),
        (1, 36, 28, 1, K4),
        (2, 40, 24, 1, 2 * K4),
        (3, 42, 22, 1, 8 * K4),
        (4, 44, 20, 2, K4),
        (5, 48, 16, 2, K4),
        (6, 48, 16, 2, K4),
    ] {
        let machine = machine::plain();
        let mut stage2 = tables(&machine, oas);
        let geometry = stage2.geometry();
        assert_eq!((geometry.ipa_bits(), geometry.t0sz(), geometry.sl0()), (bits, t0sz, sl0));
        assert_eq!((machine.allocated(), stage2.root() % root), (root, 0));
        let top = (1 << bits) - K4;
        stage2.map(&machine, top, 0x1000, K4, 3).unwrap();
        assert_eq!(walk(&machine, &stage2, top), Some((0x1000, true, 12)));
        assert_eq!(walk(&machine, &stage2, 0), None);
        assert_eq!(stage2.map(&machine, top, 0x1000, 2 * K4, 3).unwrap_err().errno, Refusal::EINVAL);
        stage2.destroy(&machine);
        assert_eq!(machine.allocated(), 0);
    }
}

#[test]
fn the_largest_blocks_that_fit() {
    let machine = machine::plain();
    let mut stage2 = tables(&machine, 4);
    // One page, then 2 MiB blocks, then 1 GiB, then 2 MiB, then a page.
    let (ipa, end) = (G1 - M2 - K4, 2 * G1 + M2 + K4);
    stage2.map(&machine, ipa, ipa + 8 * G1, end - ipa, 1).unwrap();
    for (at, leaf) in [(ipa, 12), (G1 - M2, 21), (G1, 30), (2 * G1 - 8, 30), (2 * G1, 21), (2 * G1 + M2, 12)] {
        assert_eq!(walk(&machine, &stage2, at), Some((at + 8 * G1, false, leaf)), "{at:#x}");
    }
    assert_eq!(walk(&machine, &stage2, ipa - 8), None);
    assert_eq!(walk(&machine, &stage2, end), None);
    // An output that is not aligned alike takes smaller leaves.
    stage2.map(&machine, 4 * G1, K4, M2, 3).unwrap();
    assert_eq!(walk(&machine, &stage2, 4 * G1), Some((K4, true, 12)));
}

#[test]
fn what_is_mapped_is_not_mapped_again_and_blocks_are_not_cut() {
    let machine = machine::plain();
    let mut stage2 = tables(&machine, 4);
    stage2.map(&machine, M2, M2, 2 * M2, 3).unwrap();
    for (ipa, len) in [(M2, K4), (3 * M2 - K4, 2 * K4), (0, G1)] {
        assert_eq!(stage2.map(&machine, ipa, 0, len, 3).unwrap_err().errno, Refusal::EEXIST);
    }
    for (ipa, len) in [(M2 + K4, K4), (M2, M2 + K4), (0, M2 + K4), (3 * M2 - K4, G1)] {
        assert_eq!(stage2.unmap(&machine, ipa, len).unwrap_err().errno, Refusal::EINVAL);
    }
    for at in [M2, 2 * M2, 3 * M2 - 8] {
        assert_eq!(walk(&machine, &stage2, at), Some((at, true, 21)), "unharmed");
    }
    stage2.unmap(&machine, 0, G1).unwrap();
    assert_eq!(walk(&machine, &stage2, M2), None);
}

#[test]
fn misuse_is_refused() {
    let machine = machine::plain();
    let mut stage2 = tables(&machine, 4);
    for (ipa, pa, len) in [
        (0, 0, 0),
        (1, 0, K4),
        (0, 1, K4),
        (0, 0, K4 + 1),
        (0, 1 << 44, K4),
        (u64::MAX - 4095, 0, K4),
        (0, u64::MAX - 4095, K4),
        (0, 0, u64::MAX - 4095),
    ] {
        assert_eq!(
            stage2.map(&machine, ipa, pa, len, 3).unwrap_err().errno,
            Refusal::EINVAL,
            "{ipa:#x} {pa:#x} {len:#x}"
        );
    }
    assert_eq!(stage2.unmap(&machine, K4, u64::MAX - 8191).unwrap_err().errno, Refusal::EINVAL);
}

#[test]
fn tables_are_freed_when_empty_but_not_before_the_caller_invalidated() {
    let machine = machine::plain();
    let mut stage2 = tables(&machine, 4);
    let empty = machine.allocated();
    stage2.map(&machine, 0, 0, 4 * K4, 3).unwrap();
    stage2.map(&machine, 9 * G1, 0, K4, 3).unwrap();
    let full = machine.allocated();
    stage2.unmap(&machine, 0, 4 * K4).unwrap();
    assert_eq!(machine.allocated(), full, "the hardware may still hold the addresses of the tables");
    stage2.unmap(&machine, 9 * G1, K4).unwrap();
    assert!(machine.allocated() < full);
    // A block may take the place of the tables.
    stage2.map(&machine, 0, 0, G1, 3).unwrap();
    assert_eq!(machine.allocated(), empty + K4, "root and one level-1 table");
    stage2.destroy(&machine);
    assert_eq!(machine.allocated(), 0);
}

#[test]
fn no_memory_leaves_everything_as_it_was() {
    for allocations in 0.. {
        let machine = machine::plain();
        let mut stage2 = tables(&machine, 4);
        stage2.map(&machine, 0, 0, K4, 3).unwrap();
        machine.fail_allocation_after(Some(allocations));
        let result = stage2.map(&machine, G1 - K4, 0, 2 * K4 + M2, 3);
        machine.fail_allocation_after(None);
        let Err(refusal) = result else {
            assert!(allocations > 1);
            return;
        };
        assert_eq!(refusal.errno, Refusal::ENOMEM);
        for at in [G1 - K4, G1, G1 + M2] {
            assert_eq!(walk(&machine, &stage2, at), None);
        }
        stage2.map(&machine, G1 - K4, 0, 2 * K4 + M2, 3).unwrap();
        assert_eq!(walk(&machine, &stage2, 0), Some((0, true, 12)));
        stage2.destroy(&machine);
        assert_eq!(machine.allocated(), 0);
    }
}

#[test]
fn random_maps_and_unmaps_agree_with_a_plain_map() {
    for seed in 1..9u64 {
        let machine = machine::plain();
        let mut stage2 = tables(&machine, 4);
        // Page index to (output page, writable). Pages of two neighbouring 2 MiB regions, and a far one.
        let mut plain: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        let mut state = seed;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for step in 0..300 {
            let unit = [1, 1, 3, 512][below(4) as usize];
            let first = below(1024) / unit * unit + below(2) * (1 << 18);
            let pages = unit * (1 + below(2));
            let (ipa, len) = (first * K4, pages * K4);
            if below(2) == 0 {
                let (to, write) = (first + 512 * below(9), below(2) == 0);
                let taken = plain.range(first..first + pages).next().is_some();
                let result = stage2.map(&machine, ipa, to * K4, len, 1 | u32::from(write) << 1);
                assert_eq!(result.is_err(), taken, "seed {seed} step {step}");
                if !taken {
                    plain.extend((0..pages).map(|page| (first + page, (to + page, write))));
                }
            } else if stage2.unmap(&machine, ipa, len).is_ok() {
                plain.retain(|page, _| !(first..first + pages).contains(page));
            }
            if step % 25 != 24 {
                continue;
            }
            for page in (0..1536).chain(1 << 18..(1 << 18) + 1536) {
                let found = walk(&machine, &stage2, page * K4).map(|(to, write, _)| (to / K4, write));
                assert_eq!(found, plain.get(&page).copied(), "seed {seed} step {step} page {page:#x}");
            }
        }
        stage2.destroy(&machine);
        assert_eq!(machine.allocated(), 0, "seed {seed}");
    }
}
