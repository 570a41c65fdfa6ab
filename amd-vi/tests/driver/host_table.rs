//! Host page tables against a plain map, and against memory that runs out.

use crate::machine::{self, Machine};
use amd_vi::spec::registers::Efr;
use amd_vi::tables::{Geometry, HostTable};
use std::collections::BTreeMap;
use viommu_plugin::Refusal;

const K4: u64 = 4 << 10;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;

/// Walks as the format says: output, permissions, log2 of the leaf.
fn walk(machine: &Machine, table: &HostTable, iova: u64) -> Option<(u64, u64, u64)> {
    let (mut at, mut allowed) = (table.root(), 3);
    for level in (1..=u64::from(table.levels())).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry = machine.word(at + 8 * (iova >> shift & 511));
        if entry & 1 == 0 {
            assert_eq!(entry, 0, "an entry that is not present is zero");
            return None;
        }
        allowed &= entry >> 61 & 3;
        let pointer = entry & 0x000f_ffff_ffff_f000;
        match entry >> 9 & 7 {
            0 => return Some((pointer | iova & ((1 << shift) - 1), allowed, shift)),
            next => assert_eq!(next, level - 1, "no level is left out"),
        }
        at = pointer;
    }
    panic!("no leaf at level 1")
}

fn table(machine: &Machine, hats: u8) -> HostTable {
    HostTable::new(machine, Geometry::new(Efr::new().with_hats(hats)), 7).unwrap()
}

#[test]
fn every_number_of_levels() {
    for (hats, levels, bits) in [(0, 4, 48), (1, 5, 57), (2, 6, 63)] {
        let machine = machine::plain();
        let mut host = table(&machine, hats);
        assert_eq!((host.levels(), Geometry::new(Efr::new().with_hats(hats)).input_bits()), (levels, bits));
        let top = (1 << bits) - K4;
        host.map(&machine, top, 0x1000, K4, 3).unwrap();
        assert_eq!(walk(&machine, &host, top), Some((0x1000, 3, 12)));
        assert_eq!(walk(&machine, &host, 0), None);
        assert_eq!(host.map(&machine, top, 0x1000, 2 * K4, 3).unwrap_err().errno, Refusal::EINVAL);
        host.destroy(&machine);
        assert_eq!(machine.allocated(), 0);
    }
}

#[test]
fn the_largest_pages_that_fit_with_each_permission() {
    let machine = machine::plain();
    let mut host = table(&machine, 0);
    // One page, then 2 MiB pages, then 1 GiB, then 2 MiB, then a page.
    let (iova, end) = (G1 - M2 - K4, 2 * G1 + M2 + K4);
    host.map(&machine, iova, iova + 8 * G1, end - iova, 1).unwrap();
    for (at, leaf) in [(iova, 12), (G1 - M2, 21), (G1, 30), (2 * G1 - 8, 30), (2 * G1, 21), (2 * G1 + M2, 12)] {
        assert_eq!(walk(&machine, &host, at), Some((at + 8 * G1, 1, leaf)), "{at:#x}");
    }
    assert_eq!((walk(&machine, &host, iova - 8), walk(&machine, &host, end)), (None, None));
    // An output that is not aligned alike takes smaller pages.
    host.map(&machine, 4 * G1, K4, M2, 2).unwrap();
    assert_eq!(walk(&machine, &host, 4 * G1), Some((K4, 2, 12)));
}

#[test]
fn what_is_mapped_is_not_mapped_again_and_pages_are_not_cut() {
    let machine = machine::plain();
    let mut host = table(&machine, 0);
    host.map(&machine, M2, M2, 2 * M2, 3).unwrap();
    for (iova, len) in [(M2, K4), (3 * M2 - K4, 2 * K4), (0, G1)] {
        assert_eq!(host.map(&machine, iova, 0, len, 3).unwrap_err().errno, Refusal::EEXIST);
    }
    for (iova, len) in [(M2 + K4, K4), (M2, M2 + K4), (0, M2 + K4), (3 * M2 - K4, G1)] {
        assert_eq!(host.unmap(&machine, iova, len).unwrap_err().errno, Refusal::EINVAL);
    }
    for at in [M2, 2 * M2, 3 * M2 - 8] {
        assert_eq!(walk(&machine, &host, at), Some((at, 3, 21)), "unharmed");
    }
    host.unmap(&machine, 0, G1).unwrap();
    assert_eq!(walk(&machine, &host, M2), None);
}

#[test]
fn misuse_is_refused() {
    let machine = machine::plain();
    let mut host = table(&machine, 0);
    for (iova, pa, len, access) in [
        (0, 0, 0, 3),
        (1, 0, K4, 3),
        (0, 1, K4, 3),
        (0, 0, K4 + 1, 3),
        (0, 1 << 52, K4, 3),
        (u64::MAX - 4095, 0, K4, 3),
        (0, u64::MAX - 4095, K4, 3),
        (0, 0, u64::MAX - 4095, 3),
        (0, 0, K4, 0),
        (0, 0, K4, 4),
    ] {
        let refusal = host.map(&machine, iova, pa, len, access).unwrap_err();
        assert_eq!(refusal.errno, Refusal::EINVAL, "{iova:#x} {pa:#x} {len:#x} {access}");
    }
    assert_eq!(host.unmap(&machine, K4, u64::MAX - 8191).unwrap_err().errno, Refusal::EINVAL);
}

#[test]
fn tables_are_freed_when_empty_but_not_before_the_caller_invalidated() {
    let machine = machine::plain();
    let mut host = table(&machine, 0);
    host.map(&machine, 0, 0, 4 * K4, 3).unwrap();
    host.map(&machine, 9 * G1, 0, K4, 3).unwrap();
    let full = machine.allocated();
    host.unmap(&machine, 0, 4 * K4).unwrap();
    assert_eq!(machine.allocated(), full, "the hardware may still hold the addresses of the tables");
    host.unmap(&machine, 9 * G1, K4).unwrap();
    assert!(machine.allocated() < full);
    // A page may take the place of the tables.
    host.map(&machine, 0, 0, G1, 3).unwrap();
    assert_eq!(machine.allocated(), 2 * K4, "root and one level-3 table");
    host.destroy(&machine);
    assert_eq!(machine.allocated(), 0);
}

#[test]
fn no_memory_leaves_everything_as_it_was() {
    for allocations in 0.. {
        let machine = machine::plain();
        let mut host = table(&machine, 0);
        host.map(&machine, 0, 0, K4, 3).unwrap();
        machine.fail_allocation_after(Some(allocations));
        let result = host.map(&machine, G1 - K4, 0, 2 * K4 + M2, 3);
        machine.fail_allocation_after(None);
        let Err(refusal) = result else {
            assert!(allocations > 1);
            return;
        };
        assert_eq!(refusal.errno, Refusal::ENOMEM);
        for at in [G1 - K4, G1, G1 + M2] {
            assert_eq!(walk(&machine, &host, at), None);
        }
        host.map(&machine, G1 - K4, 0, 2 * K4 + M2, 3).unwrap();
        assert_eq!(walk(&machine, &host, 0), Some((0, 3, 12)));
        host.destroy(&machine);
        assert_eq!(machine.allocated(), 0);
    }
}

#[test]
fn random_maps_and_unmaps_agree_with_a_plain_map() {
    for seed in 1..9u64 {
        let machine = machine::plain();
        let mut host = table(&machine, (seed % 3) as u8);
        // Page number to (output page, permissions). Pages of two neighbouring 2 MiB regions, and a far one.
        let mut plain: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut state = seed;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for step in 0..300 {
            let unit = [1, 1, 3, 512][below(4) as usize];
            let first = below(1024) / unit * unit + below(2) * (1 << 18);
            let pages = unit * (1 + below(2));
            let (iova, len) = (first * K4, pages * K4);
            if below(2) == 0 {
                let (to, access) = (first + 512 * below(9), 1 + below(3));
                let taken = plain.range(first..first + pages).next().is_some();
                let result = host.map(&machine, iova, to * K4, len, access as u32);
                assert_eq!(result.is_err(), taken, "seed {seed} step {step}");
                if !taken {
                    plain.extend((0..pages).map(|page| (first + page, (to + page, access))));
                }
            } else if host.unmap(&machine, iova, len).is_ok() {
                plain.retain(|page, _| !(first..first + pages).contains(page));
            }
            if step % 25 != 24 {
                continue;
            }
            for page in (0..1536).chain(1 << 18..(1 << 18) + 1536) {
                let found = walk(&machine, &host, page * K4).map(|(to, allowed, _)| (to / K4, allowed));
                assert_eq!(found, plain.get(&page).copied(), "seed {seed} step {step} page {page:#x}");
            }
        }
        host.destroy(&machine);
        assert_eq!(machine.allocated(), 0, "seed {seed}");
    }
}
