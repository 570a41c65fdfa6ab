//! Finding a guest's entry in its memory, and the pages on the way.

use crate::{SRTP, TE, showing, write};
use intel_vtd::codec::ENTRY_WORDS;
use intel_vtd::features::Features;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::spec::registers::offset;
use std::collections::BTreeMap;
use viommu_plugin::{Frontend, GuestMemory, Lookup, Unreadable};

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASIDS: u64 = 0x4000;
const END: u64 = 0x6000_0000;
const SCALABLE: u64 = 1 << 10;

/// Words that are not zero.
struct Memory(BTreeMap<u64, u64>);

impl GuestMemory for Memory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if gpa.checked_add(bytes.len() as u64).is_none_or(|end| end > END) {
            return Err(Unreadable);
        }
        for (at, chunk) in (gpa..).step_by(8).zip(bytes.chunks_mut(8)) {
            chunk.copy_from_slice(&self.0.get(&at).copied().unwrap_or(0).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

fn memory(words: &[(u64, u64)]) -> Memory {
    Memory(words.iter().copied().collect())
}

/// A unit that translates with this root table, without caching mode.
fn unit(root: u64) -> VtdFrontend {
    let features = Features::default();
    let mut unit = showing(features.cap.with_caching_mode(false), features.ecap.with_device_tlb(true));
    unit.write(offset::RTADDR, 8, root);
    write(&mut unit, offset::GCMD, SRTP | TE);
    unit
}

fn find(unit: &VtdFrontend, words: &[(u64, u64)], source: u32) -> (Lookup, [u64; ENTRY_WORDS]) {
    let mut entry = [0; ENTRY_WORDS];
    let lookup = unit.entry(&memory(words), source, &mut entry);
    (lookup, entry)
}

/// Bus 1, functions 0x08 and 0x88.
fn way() -> Vec<(u64, u64)> {
    vec![
        (ROOT + 16, CONTEXTS | 1),
        (ROOT + 24, (CONTEXTS + 0x8000) | 1),
        (CONTEXTS + 8 * 32, DIRECTORY | 0b101),
        (CONTEXTS + 0x8000 + 8 * 32, (DIRECTORY + 0x1_0000) | 0b11),
        (DIRECTORY, PASIDS | 1),
        (DIRECTORY + 0x1_0000, (PASIDS + 0x1000) | 1),
        (PASIDS, 0x49),
        (PASIDS + 8, 5),
        (PASIDS + 16, 0x7000),
        (PASIDS + 24, 9),
        (PASIDS + 0x1000, 0x109),
    ]
}

#[test]
fn scalable_mode() {
    let unit = unit(ROOT | SCALABLE);
    assert_eq!(find(&unit, &way(), 0x108), (Lookup::FOUND, [0x49, 5, 0x7000, 0b101, 9, 0, 0, 0, 0]));
    // The other half of the bus: FPD, no DTE.
    assert_eq!(find(&unit, &way(), 0x188), (Lookup::FOUND, [0x109, 0, 0, 0b011, 0, 0, 0, 0, 0]));
    for source in [0x109, 0x8, 0x208, 0x1_0108, u32::MAX] {
        assert_eq!(find(&unit, &way(), source).0, Lookup::NO_ENTRY, "{source:#x}");
    }
}

#[test]
fn every_step_has_to_be_there_and_free_of_reserved_bits() {
    let unit = unit(ROOT | SCALABLE);
    for (at, bit) in [(0, 0), (0, 1), (2, 0), (2, 8), (4, 0), (4, 2)] {
        let mut words = way();
        words[at].1 ^= 1 << bit;
        assert_eq!(find(&unit, &words, 0x108).0, Lookup::NO_ENTRY, "word {at} bit {bit}");
    }
    for reserved in [8, 16, 24] {
        let mut words = way();
        words.push((CONTEXTS + 8 * 32 + reserved, 1 << 40));
        assert_eq!(find(&unit, &words, 0x108).0, Lookup::NO_ENTRY, "context word at {reserved}");
    }
    for at in [0, 2, 4] {
        let mut words = way();
        words[at].1 |= 1 << 40;
        assert_eq!(find(&unit, &words, 0x108).0, Lookup::UNREADABLE, "word {at}");
    }
}

#[test]
fn legacy_mode() {
    let legacy = unit(ROOT);
    let words = [(ROOT + 16, CONTEXTS | 1), (CONTEXTS + 0x88 * 16, 0x7009), (CONTEXTS + 0x88 * 16 + 8, 0x502)];
    assert_eq!(find(&legacy, &words, 0x188), (Lookup::FOUND, [0x7009, 0x502, 0, 0, 0, 0, 0, 0, 0]));
    let reserved = [&words[..], &[(ROOT + 24, 1)]].concat();
    assert_eq!(find(&legacy, &reserved, 0x188).0, Lookup::NO_ENTRY);
    for mode in [2, 3] {
        assert_eq!(find(&unit(ROOT | mode << 10), &words, 0x188).0, Lookup::NO_ENTRY, "TTM {mode}");
    }
}

#[test]
fn outside_the_guests_memory() {
    for root in [END, !0xfff] {
        assert_eq!(find(&unit(root | SCALABLE), &[], 0).0, Lookup::UNREADABLE);
    }
}

fn watched(unit: &VtdFrontend, words: &[(u64, u64)], streams: &[u32], from: u32, room: usize) -> Vec<u64> {
    let mut pages = vec![0; room];
    let count = unit.watched(&memory(words), streams, from, &mut pages) as usize;
    pages.truncate(count);
    pages
}

#[test]
fn the_pages_on_the_way_are_watched_as_far_as_it_goes() {
    let unit = unit(ROOT | SCALABLE);
    let words = way();
    assert_eq!(watched(&unit, &words, &[0x108], 0, 8), [ROOT, CONTEXTS, DIRECTORY, PASIDS]);
    assert_eq!(watched(&unit, &words, &[0x109, 0x108], 0, 8), [ROOT, CONTEXTS, DIRECTORY, PASIDS], "each once");
    assert_eq!(watched(&unit, &words, &[0x109], 0, 8), [ROOT, CONTEXTS]);
    assert_eq!(watched(&unit, &words, &[0x308], 0, 8), [ROOT]);
    assert_eq!(watched(&unit, &words, &[0x108, 0x188], 1, 2), [CONTEXTS, DIRECTORY], "a part of them");
    assert_eq!(watched(&unit, &words, &[0x108], 4, 8), [0u64; 0]);
    assert_eq!(watched(&unit, &words, &[], 0, 8), [0u64; 0]);
}

#[test]
fn a_guest_that_announces_or_does_not_translate_has_no_watched_pages() {
    let mut off = unit(ROOT | SCALABLE);
    write(&mut off, offset::GCMD, 0);
    assert_eq!(watched(&off, &way(), &[0x108], 0, 8), [0u64; 0]);
    let features = Features::default();
    let mut announces = showing(features.cap, features.ecap);
    announces.write(offset::RTADDR, 8, ROOT | SCALABLE);
    write(&mut announces, offset::GCMD, SRTP | TE);
    assert_eq!(watched(&announces, &way(), &[0x108], 0, 8), [0u64; 0]);
}

#[test]
fn any_tables_and_any_device_give_an_answer() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 5
    };
    for _ in 0..10_000 {
        let words: Vec<_> = way().into_iter().map(|(at, word)| (at, word ^ next() & next() & next())).collect();
        let unit = unit(next());
        find(&unit, &words, next() as u32 & 0x1_ffff);
        watched(&unit, &words, &[next() as u32], next() as u32 & 3, 4);
    }
}
