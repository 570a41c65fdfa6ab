//! A guest's second-stage tables, followed in software: against a plain map, in pieces, and where nothing is legal.

use intel_vtd::codec::VtdCodec;
use intel_vtd::spec::registers::offset;
use std::cell::Cell;
use std::collections::BTreeMap;
use viommu_plugin::{Codec, EntryKey, GuestMapping, GuestMemory, KeyKind, Register, Unreadable, WALK_READS};

const ROOT: u64 = 0x10_0000;
const END: u64 = 1 << 40;
const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Second-stage tables in memory that counts what is read of it.
#[derive(Default)]
struct Tables {
    words: BTreeMap<u64, u64>,
    next: u64,
    reads: Cell<u64>,
}

impl GuestMemory for Tables {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + bytes.len() as u64 / 8);
        if gpa.checked_add(bytes.len() as u64).is_none_or(|end| end > END) {
            return Err(Unreadable);
        }
        for (at, chunk) in (gpa..).step_by(8).zip(bytes.chunks_mut(8)) {
            chunk.copy_from_slice(&self.words.get(&at).copied().unwrap_or(0).to_le_bytes());
        }
        Ok(())
    }
}

impl Tables {
    /// Maps one leaf of `level`, under `above` permissions of every link.
    fn map(&mut self, levels: u32, iova: u64, leaf: u64, level: u32) {
        let mut table = ROOT;
        for at in (level + 1..=levels).rev() {
            let place = table + 8 * (iova >> (3 + 9 * at) & 511);
            self.next = (self.next + K4).max(ROOT + K4);
            table = *self.words.entry(place).or_insert(self.next | 3) & !0xfff;
        }
        let large = if level > 1 { 0x80 } else { 0 };
        self.words.insert(table + 8 * (iova >> (3 + 9 * level) & 511), leaf | large);
    }
}

fn codec() -> VtdCodec {
    let register = |offset, value| Register { offset, value };
    VtdCodec::new(&[register(offset::CAP, 0x80d2_008c_222f_0e86), register(offset::ECAP, 0xf0_0f4a)]).unwrap()
}

/// The key of a legacy context entry with so many levels.
fn key(levels: u32) -> EntryKey {
    let mut entry = [0; 9];
    entry[..2].copy_from_slice(&[ROOT | 1, 5 << 8 | u64::from(levels - 2)]);
    let key = codec().entry_key(&entry);
    assert_eq!((key.kind, key.domain), (KeyKind::TRANSLATE, 5));
    key
}

/// All leaves in `first..=last`, with `room` for so many at a time.
fn walk(tables: &Tables, levels: u32, first: u64, last: u64, room: usize) -> Vec<(u64, u64, u64, u32)> {
    let (codec, key) = (codec(), key(levels));
    let (mut found, mut from) = (Vec::new(), first);
    loop {
        let mut out = vec![GuestMapping::default(); room];
        tables.reads.set(0);
        let walked = codec.walk(&key, tables, from, last, &mut out);
        assert!(tables.reads.get() <= u64::from(WALK_READS), "{} entries read", tables.reads.get());
        found.extend(out[..walked.written as usize].iter().map(|m| (m.iova, m.gpa, m.length, m.permissions)));
        if walked.done != 0 {
            return found;
        }
        assert!(walked.next > from && walked.next <= last, "{:#x} goes on at {:#x}", from, walked.next);
        from = walked.next;
    }
}

#[test]
fn leaves_of_every_size_with_the_permissions_of_the_whole_way() {
    for levels in [3, 4, 5] {
        let mut tables = Tables::default();
        tables.map(levels, 0x7000, 0x9000 | 3, 1);
        tables.map(levels, 3 * M2, (5 * M2) | 1, 2);
        tables.map(levels, 2 * G1, (7 * G1) | 2, 3);
        let all = [(0x7000, 0x9000, K4, 3), (3 * M2, 5 * M2, M2, 1), (2 * G1, 7 * G1, G1, 2)];
        assert_eq!(walk(&tables, levels, 0, u64::MAX, 8), all);
        assert_eq!(walk(&tables, levels, 0, u64::MAX, 1), all, "one at a time");
        assert_eq!(walk(&tables, levels, 0x7fff, 3 * M2, 8), all[..2], "given whole");
        assert_eq!(walk(&tables, levels, 0x8000, 3 * M2 - 1, 8), []);
        assert_eq!(walk(&tables, levels, 2 * G1 + 5, 2 * G1 + 5, 8), all[2..]);
        // A link above that may only be read.
        let (&link, _) = tables.words.iter().find(|(at, _)| **at & !0xfff == ROOT).unwrap();
        *tables.words.get_mut(&link).unwrap() &= !2;
        let restricted = walk(&tables, levels, 0, 3 * M2 + 5, 8);
        assert!(restricted.iter().all(|leaf| leaf.3 == 1), "{restricted:x?}");
    }
}

#[test]
fn beyond_the_width_there_is_nothing() {
    let mut tables = Tables::default();
    tables.map(3, 0x7000, 0x9000 | 3, 1);
    assert_eq!(walk(&tables, 3, 1 << 39, u64::MAX, 8), []);
    assert_eq!(walk(&tables, 3, (1 << 39) + 0x7000, u64::MAX, 8), []);
    assert_eq!(walk(&tables, 3, 9, 8, 8), [], "no addresses at all");
}

#[test]
fn what_is_not_legal_or_not_there_maps_nothing() {
    let mut tables = Tables::default();
    tables.map(4, 0x7000, 0x9000 | 3, 1);
    // Misaligned large leaves, a leaf of 512 GiB, a table outside memory, no permission left.
    tables.map(4, M2, K4 | 3, 2);
    tables.map(4, G1, M2 | 3, 3);
    tables.map(4, 1 << 39, 3, 4);
    tables.words.insert(ROOT + 16, END | 3);
    assert_eq!(walk(&tables, 4, 0, u64::MAX, 8), [(0x7000, 0x9000, K4, 3)]);
    let mut none = [GuestMapping::default(); 4];
    for wrong in [
        EntryKey::default(),
        EntryKey { kind: KeyKind::BYPASS, ..key(4) },
        EntryKey { words: [ROOT | 0x41, 5, 0, 1], ..key(4) },
        EntryKey { words: [ROOT | 1, 7, 0, 0], ..key(4) },
    ] {
        let walked = codec().walk(&wrong, &tables, 0, u64::MAX, &mut none);
        assert_eq!((walked.written, walked.done), (0, 1), "{wrong:x?}");
    }
}

/// A table that is its own next level has leaves everywhere: each call is bounded, and goes on.
#[test]
fn a_table_that_leads_to_itself_is_walked_in_bounded_calls() {
    let mut tables = Tables::default();
    for index in 0..512 {
        tables.words.insert(ROOT + 8 * index, ROOT | 3);
    }
    let (codec, key) = (codec(), key(4));
    let mut from = 0;
    for _ in 0..100 {
        let mut out = vec![GuestMapping::default(); 10_000];
        tables.reads.set(0);
        let walked = codec.walk(&key, &tables, from, u64::MAX, &mut out);
        assert!(tables.reads.get() <= u64::from(WALK_READS) && walked.done == 0 && walked.next > from);
        from = walked.next;
    }
}

#[test]
fn many_pages_come_out_in_order_whatever_the_room() {
    let mut tables = Tables::default();
    let mut seed = 7u64;
    let mut expected = Vec::new();
    for _ in 0..3000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let iova = seed >> 20 & 0x3f_ffff_f000;
        tables.map(4, iova, (iova ^ 0x5000) | 3, 1);
        expected.push((iova, iova ^ 0x5000, K4, 3));
    }
    expected.sort_unstable();
    expected.dedup();
    for room in [1, 7, 512, 5000] {
        assert_eq!(walk(&tables, 4, 0, u64::MAX, room), expected, "room {room}");
    }
}
