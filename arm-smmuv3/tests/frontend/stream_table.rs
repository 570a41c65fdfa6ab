//! Finding a guest's STE in its memory.

use crate::{frontend, write};
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::registers::offset;
use std::collections::BTreeMap;
use viommu_plugin::{Frontend, GuestMemory, Lookup, Unreadable};

const BASE: u64 = 0x4451_0000;
const L2: u64 = 0x5000_0000;
/// Guest memory ends here.
const END: u64 = 0x6000_0000;

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

fn table(base: u64, cfg: u64) -> ArmFrontend {
    let mut smmu = frontend();
    smmu.write(offset::STRTAB_BASE, 8, base);
    write(&mut smmu, offset::STRTAB_BASE_CFG, cfg);
    smmu
}

/// The first word of the STE that is found.
fn find(smmu: &ArmFrontend, words: &[(u64, u64)], stream: u32) -> (Lookup, u64) {
    let mut ste = [0; 8];
    let lookup = smmu.entry(&Memory(words.iter().copied().collect()), stream, &mut ste);
    (lookup, ste[0])
}

const NO_ENTRY: (Lookup, u64) = (Lookup::NO_ENTRY, 0);
const UNREADABLE: (Lookup, u64) = (Lookup::UNREADABLE, 0);

#[test]
fn linear() {
    let smmu = table(BASE, 4);
    let words = [(BASE + 15 * 64, 0xabc), (BASE + 16 * 64, 0xbad)];
    assert_eq!(find(&smmu, &words, 15), (Lookup::FOUND, 0xabc));
    assert_eq!(find(&smmu, &words, 16), NO_ENTRY);
    assert_eq!(find(&table(BASE, 0x2_0004), &words, 15), (Lookup::FOUND, 0xabc), "a reserved format is linear");
    assert_eq!(find(&table(BASE, 63), &words, 0x1_0000), NO_ENTRY, "no table is larger than IDR1.SIDSIZE");
}

#[test]
fn two_level() {
    let smmu = table(BASE, 1 << 16 | 8 << 6 | 16);
    let words = [(BASE + 8, L2 | 9), (L2 + 0xff * 64, 0xabc), (BASE + 16, L2 | 8), (BASE + 24, L2 | 10)];
    assert_eq!(find(&smmu, &words, 0x1ff), (Lookup::FOUND, 0xabc));
    assert_eq!(find(&smmu, &words, 0x010), NO_ENTRY, "span 0");
    assert_eq!(find(&smmu, &words, 0x280), NO_ENTRY, "span 8 is 128 STEs");
    assert_eq!(find(&smmu, &words, 0x27f), (Lookup::FOUND, 0));
    assert_eq!(find(&smmu, &words, 0x300), NO_ENTRY, "a span beyond the split is reserved");
    assert_eq!(find(&smmu, &words, 0x1_0000), NO_ENTRY);
}

#[test]
fn low_address_bits_do_not_count() {
    let smmu = table(BASE | 0x40, 1 << 16 | 8 << 6 | 16);
    let words = [(BASE, L2 | 0x40 | 9), (L2 + 64, 0xabc)];
    assert_eq!(find(&smmu, &words, 1), (Lookup::FOUND, 0xabc));
}

#[test]
fn a_small_table_has_one_level_1_descriptor() {
    let smmu = table(BASE, 1 << 16 | 8 << 6 | 4);
    assert_eq!(find(&smmu, &[(BASE, L2 | 9), (L2 + 15 * 64, 0xabc)], 15), (Lookup::FOUND, 0xabc));
    assert_eq!(find(&smmu, &[(BASE, L2 | 9)], 16), NO_ENTRY);
}

#[test]
fn outside_the_guests_memory() {
    assert_eq!(find(&table(END, 4), &[], 0), UNREADABLE);
    assert_eq!(find(&table(END, 1 << 16 | 8 << 6 | 16), &[], 0), UNREADABLE);
    assert_eq!(find(&table(u64::MAX, 0xffff_ffff), &[], 0xffff), UNREADABLE);
    let far = [(BASE, 0x000f_ffff_ffff_c000 | 9)];
    assert_eq!(find(&table(BASE, 1 << 16 | 8 << 6 | 16), &far, 0xff), UNREADABLE);
}

#[test]
fn any_registers_and_any_stream_give_an_answer() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 11
    };
    for _ in 0..10_000 {
        let smmu = table(next() << 8, next());
        let descriptor = (BASE, next());
        find(&smmu, &[descriptor], next() as u32);
    }
}
