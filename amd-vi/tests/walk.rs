//! Leaves of a guest's v1 table, against the model's own walk of the same table.

use amd_vi::codec::AmdCodec;
use amd_vi::model::Iommu;
use amd_vi::spec::registers::{CAPABILITY_HEADER, offset};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use viommu_plugin::{
    Answer, Codec, EntryKey, GuestMapping, GuestMemory, Model, ModelConfig, ModelHost, Register, Request, Status,
    Unreadable, WALK_READS, Walked,
};

/// Sparse memory; words that were never written are zero, and nothing is at or above [`END`].
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<u64, u64>>>);

const END: u64 = 1 << 32;

impl Memory {
    fn put(&self, at: u64, word: u64) {
        self.0.lock().unwrap().insert(at, word);
    }
    fn bytes(&self, at: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if at + bytes.len() as u64 > END {
            return Err(Unreadable);
        }
        for (at, out) in (at..).step_by(8).zip(bytes.chunks_mut(8)) {
            out.copy_from_slice(&self.0.lock().unwrap().get(&at).copied().unwrap_or(0).to_le_bytes());
        }
        Ok(())
    }
}

impl GuestMemory for Memory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.bytes(gpa, bytes)
    }
}

impl ModelHost for Memory {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.bytes(pa, bytes)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        for (at, word) in (at..).step_by(8).zip(bytes.as_chunks::<8>().0) {
            self.put(at, u64::from_le_bytes(*word));
        }
        Ok(())
    }
    fn irq(&self, _: u32) {}
}

const REGISTERS: [Register; 3] = [
    Register { offset: offset::EFR, value: 0x29d7 },
    Register { offset: offset::EFR2, value: 0 },
    Register { offset: CAPABILITY_HEADER, value: 0x0c0b_000f },
];
/// Device table, and where tables are.
const DTES: u64 = 0x1_0000;
const ROOT: u64 = 0x10_0000;
const RW: u64 = 3 << 61;

fn entry(next: u64, address: u64, permissions: u64) -> u64 {
    1 | next << 9 | address | permissions
}

fn key(levels: u64, permissions: u64) -> EntryKey {
    let codec = AmdCodec::new(&REGISTERS).unwrap();
    let key = codec.entry_key(&[3 | levels << 9 | ROOT | permissions, 4, 0, 0]);
    assert_eq!(key.domain, 4);
    key
}

/// All leaves in `first..=last`, asked for `room` at a time.
fn leaves(memory: &Memory, key: &EntryKey, first: u64, last: u64, room: usize) -> Vec<GuestMapping> {
    let codec = AmdCodec::new(&REGISTERS).unwrap();
    let (mut all, mut at) = (Vec::new(), first);
    loop {
        let mut out = vec![GuestMapping::default(); room];
        let walked = codec.walk(key, memory, at, last, &mut out);
        all.extend_from_slice(&out[..walked.written as usize]);
        if walked.done == 1 {
            return all;
        }
        assert!(walked.next > at, "it goes on");
        at = walked.next;
    }
}

fn leaf(iova: u64, gpa: u64, log2: u32, permissions: u32) -> GuestMapping {
    GuestMapping { iova, gpa, length: 1 << log2, permissions, reserved: 0 }
}

/// Three levels: 4 KiB pages, one of 16 KiB, a 2 MiB page, one of 8 MiB that is half seen, levels left out.
fn example() -> Memory {
    let memory = Memory::default();
    let (middle, pages, skipped) = (ROOT + 0x1000, ROOT + 0x2000, ROOT + 0x3000);
    memory.put(ROOT, entry(2, middle, RW));
    memory.put(ROOT + 8, entry(1, skipped, RW));
    memory.put(middle, entry(1, pages, RW));
    memory.put(middle + 8, entry(0, 0x20_0000, RW));
    for index in 4..8 {
        memory.put(middle + 8 * index, entry(7, 0x4000_0000 | 0x3f_f000, RW));
    }
    memory.put(pages + 8, entry(0, 0x5000, 1 << 61));
    for index in 4..8 {
        memory.put(pages + 8 * index, entry(7, 0x4_1000, 1 << 62));
    }
    memory.put(skipped + 8 * 511, entry(0, 0x9000, RW));
    memory
}

#[test]
fn leaves_of_every_size_come_whole_and_in_order() {
    let (memory, key) = (example(), key(3, RW));
    let all = [
        leaf(0x1000, 0x5000, 12, 1),
        leaf(0x4000, 0x4_0000, 14, 2),
        leaf(0x20_0000, 0x20_0000, 21, 3),
        leaf(0x80_0000, 0x4000_0000, 23, 3),
        leaf(0x4000_0000 + 511 * 0x1000, 0x9000, 12, 3),
    ];
    for room in 1..7 {
        assert_eq!(leaves(&memory, &key, 0, u64::MAX, room), all, "{room} at a time");
    }
    // What overlaps the range at one end is there, whole.
    assert_eq!(leaves(&memory, &key, 0x6000, 0x20_0000, 4), all[1..3]);
    assert_eq!(leaves(&memory, &key, 0x90_0000, 0x90_0000, 4), all[3..4]);
    assert_eq!(leaves(&memory, &key, 0x8000, 0x1f_ffff, 4), []);
    assert_eq!(leaves(&memory, &key, 5, 4, 4), []);
    // The entry itself allows less.
    let reads = leaves(&memory, &self::key(3, 1 << 61), 0, u64::MAX, 9);
    assert_eq!(reads.iter().map(|leaf| leaf.permissions).collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
fn what_means_nothing_maps_nothing() {
    let memory = Memory::default();
    let key = key(2, RW);
    for (index, wrong) in [
        entry(2, ROOT, RW),
        entry(3, ROOT, RW),
        entry(6, ROOT, RW),
        entry(0, 0x20_0000, RW) & !1,
        entry(0, 0x20_0000, 0),
        entry(7, 0x1000, RW),
        entry(7, 0xf_ffff_ffff_f000, RW),
        entry(1, END, RW),
    ]
    .into_iter()
    .enumerate()
    {
        memory.put(ROOT + 8 * index as u64, wrong);
    }
    assert_eq!(leaves(&memory, &key, 0, u64::MAX, 4), []);
    memory.put(ROOT + 8 * 9, entry(0, 0x20_0000, RW));
    assert_eq!(leaves(&memory, &key, 0, u64::MAX, 4), [leaf(9 << 21, 0x20_0000, 21, 3)]);
}

#[test]
fn a_page_that_is_not_repeated_everywhere_maps_place_by_place() {
    let memory = Memory::default();
    // Two places of four say 16 KiB, one 4 KiB, one 8 KiB.
    for (index, next, address) in [(0, 7, 0x4_1000), (1, 0, 0x9000), (2, 7, 0x4_1000), (3, 7, 0x8_0000)] {
        memory.put(ROOT + 8 * index, entry(next, address, RW));
    }
    let pieces = [
        leaf(0, 0x4_0000, 12, 3),
        leaf(0x1000, 0x9000, 12, 3),
        leaf(0x2000, 0x4_2000, 12, 3),
        leaf(0x3000, 0x8_1000, 12, 3),
    ];
    assert_eq!(leaves(&memory, &key(1, RW), 0, u64::MAX, 3), pieces);
}

#[test]
fn a_table_that_never_ends_is_walked_in_bounded_steps() {
    // Six levels, each entry of every table the table below: 2^66 bytes of pages, over and over.
    let memory = Memory::default();
    for level in 1..=6u64 {
        for index in 0..512 {
            let next = ROOT + (7 - level) * 0x1000;
            memory
                .put(ROOT + (6 - level) * 0x1000 + 8 * index, entry(level - 1, next, if level == 1 { 0 } else { RW }));
        }
    }
    let (codec, key) = (AmdCodec::new(&REGISTERS).unwrap(), key(6, RW));
    let Walked { written, done, next } = codec.walk(&key, &memory, 0, u64::MAX, &mut [GuestMapping::default(); 4]);
    assert_eq!((written, done), (0, 0));
    assert!(next > 0 && next <= u64::from(WALK_READS) << 12, "{next:#x}");
}

#[test]
fn the_end_of_the_address_space_is_the_end() {
    let memory = Memory::default();
    memory.put(ROOT + 8 * 127, entry(0, 0, RW));
    let last = leaves(&memory, &key(6, RW), 0, u64::MAX, 4);
    assert_eq!(last, [leaf(127 << 57, 0, 57, 3)]);
    assert_eq!(leaves(&memory, &key(6, RW), u64::MAX, u64::MAX, 4), last);
}

/// Random tables: an address is mapped by the leaves exactly as the model translates it.
#[test]
fn leaves_are_what_the_model_walks() {
    for seed in 1..40u64 {
        let mut state = seed;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        let memory = Memory::default();
        let levels = 1 + below(6);
        // Few tables, so that they are shared and also point the wrong way; the same few entries of each.
        for table in 0..6 {
            for index in [0, 1, 2, 3, 511] {
                let (next, permissions) = (below(8), (1 + below(7)).min(3) << 61);
                let address = match next {
                    0 => below(8) << 30,
                    7 => below(8) << 30 | ((1 << below(20)) - 1) << 12,
                    _ => ROOT + below(6) * 0x1000,
                };
                memory.put(ROOT + table * 0x1000 + 8 * index, entry(next, address, permissions));
            }
        }
        memory.put(DTES, 3 | levels << 9 | ROOT | RW);
        let config = ModelConfig { registers: &REGISTERS, atc: false, tlb_capacity: 0 };
        let mut model = Iommu::new(Box::new(memory.clone()), config).unwrap();
        let (key, mut mapped) = (key(levels, RW), 0);
        for _ in 0..400 {
            let index = |level: u64, value: u64| [0, 1, 2, 3, 511][value as usize] << (12 + 9 * level);
            let high: u64 = (0..levels.min(5)).map(|level| index(level, below(5))).sum();
            let iova = high | below(2) << 20 | below(4096);
            let mut answer = [Answer::default()];
            // Nothing cached: pages of other sizes than their place say may cover what their neighbours map otherwise.
            model.reset();
            model.mmio_write(offset::DEVICE_TABLE_BASE, 8, DTES);
            model.mmio_write(offset::CONTROL, 8, 1);
            let request = Request { stream: 0, pasid: u32::MAX, iova, access: 0, flags: 0 };
            model.translate(&[request], &mut answer);
            let found = leaves(&memory, &key, iova, iova, 2);
            match answer[0].status {
                Status::OK if answer[0].permissions != 0 => {
                    mapped += 1;
                    let [leaf] = found[..] else { panic!("seed {seed} {iova:#x}: {found:x?}, model {answer:x?}") };
                    let output = leaf.gpa + (iova - leaf.iova);
                    assert_eq!((output, leaf.permissions), (answer[0].output, answer[0].permissions), "seed {seed}");
                    // Less than the model's page where the guest does not repeat it everywhere.
                    assert!(leaf.length <= 1 << answer[0].leaf_log2, "seed {seed} {iova:#x}");
                }
                _ => assert_eq!(found, [], "seed {seed} {iova:#x}: model {answer:x?}"),
            }
        }
        println!("seed {seed}: {levels} levels, {mapped} of 400 mapped");
    }
}
