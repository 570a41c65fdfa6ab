//! Each TLBI removes what it names, and nothing else.

use crate::machine::*;
use arm_smmuv3::spec::commands::{Opcode, Tlbi};
use arm_smmuv3::spec::registers::{Idr0, Idr3, offset};
use viommu_plugin::{Model, Register, Request};

const PAGE_A: u64 = 0x4000_1000;
const PAGE_B: u64 = 0x4000_2000;
const GLOBAL: u64 = 0x5000_0000;
const BLOCK: u64 = 0x8000_0000;

/// Streams by (VMID, ASID): 1 (1,1), 2 (1,2), 3 (2,1); stage 2 only: 11 (VMID 1), 12 (VMID 2).
fn five_streams() -> Machine {
    let mut m = Machine::new();
    let mut first = m.tables(12, 0, 48);
    let mut second = m.tables(12, 1, 40);
    for (page, attributes) in [(PAGE_A, S1_RW), (PAGE_B, S1_RW), (GLOBAL, S1_GLOBAL)] {
        first.map(&m.memory, page, page + 0x10_0000_0000, 3, attributes);
        second.map(&m.memory, page, page + 0x20_0000_0000, 3, S2_RW);
    }
    first.map(&m.memory, BLOCK, BLOCK, 2, S1_RW);
    second.map(&m.memory, BLOCK, BLOCK, 2, S2_RW);
    for (stream, vmid, asid) in [(1, 1, 1), (2, 1, 2), (3, 2, 1)] {
        let cd = 0x50_0000 + 64 * u64::from(stream);
        m.put_cd(cd, asid, &first);
        m.ste_stage1(stream, vmid, cd);
    }
    m.ste_stage2(11, 1, &second, None);
    m.ste_stage2(12, 2, &second, None);
    m
}

/// Every entry that the five streams can have.
fn entries() -> Vec<(u32, u64)> {
    let pages = [PAGE_A, PAGE_B, GLOBAL, BLOCK + 0x12_3000];
    [1, 2, 3, 11, 12].into_iter().flat_map(|stream| pages.map(|page| (stream, page))).collect()
}

fn fill(m: &mut Machine) {
    for (stream, page) in entries() {
        m.ask(stream, page);
    }
    for (stream, page) in entries() {
        assert_eq!(m.ask(stream, page).flags & 1, 1, "{stream} {page:#x} is cached");
    }
}

/// The entries that `command` removed. Global entries of VMID 1 are shared by streams 1 and 2: the second to look
/// finds what the first brought back, so they are looked at through one of them.
fn removed_by(command: Tlbi) -> Vec<(u32, u64)> {
    let mut m = five_streams();
    fill(&mut m);
    m.command(command.words());
    entries()
        .into_iter()
        .filter(|&(stream, page)| (stream, page) != (2, GLOBAL) && m.ask(stream, page).flags & 1 == 0)
        .collect()
}

fn tlbi(opcode: Opcode) -> Tlbi {
    Tlbi::new().with_opcode(opcode.0)
}

fn all_of(streams: &[u32], pages: &[u64]) -> Vec<(u32, u64)> {
    entries()
        .into_iter()
        .filter(|entry| streams.contains(&entry.0) && pages.contains(&entry.1) && *entry != (2, GLOBAL))
        .collect()
}

const IN_BLOCK: u64 = BLOCK + 0x12_3000;
const EVERY: [u64; 4] = [PAGE_A, PAGE_B, GLOBAL, IN_BLOCK];
const NON_GLOBAL: [u64; 3] = [PAGE_A, PAGE_B, IN_BLOCK];

#[test]
fn by_tag() {
    assert_eq!(removed_by(tlbi(Opcode::TLBI_NH_ALL).with_vmid(1)), all_of(&[1, 2], &EVERY));
    assert_eq!(removed_by(tlbi(Opcode::TLBI_NH_ASID).with_vmid(1).with_asid(2)), all_of(&[2], &NON_GLOBAL));
    assert_eq!(removed_by(tlbi(Opcode::TLBI_NH_ASID).with_vmid(3).with_asid(2)), []);
    assert_eq!(removed_by(tlbi(Opcode::TLBI_S12_VMALL).with_vmid(2)), all_of(&[3, 12], &EVERY));
    assert_eq!(removed_by(tlbi(Opcode::TLBI_NSNH_ALL)), all_of(&[1, 2, 3, 11, 12], &EVERY));
}

#[test]
fn by_address() {
    let at = |opcode, address: u64| tlbi(opcode).with_vmid(1).with_asid(1).with_address(address >> 12);
    assert_eq!(removed_by(at(Opcode::TLBI_NH_VA, PAGE_A)), [(1, PAGE_A)]);
    assert_eq!(removed_by(at(Opcode::TLBI_NH_VA, GLOBAL)), [(1, GLOBAL)]);
    assert_eq!(removed_by(at(Opcode::TLBI_NH_VA, BLOCK)), [(1, IN_BLOCK)]);
    assert_eq!(removed_by(at(Opcode::TLBI_NH_VA, BLOCK + 0x20_0000)), []);
    assert_eq!(removed_by(at(Opcode::TLBI_NH_VAA, PAGE_A)), [(1, PAGE_A), (2, PAGE_A)]);
    assert_eq!(removed_by(at(Opcode::TLBI_S2_IPA, PAGE_A)), [(11, PAGE_A)]);
    assert_eq!(removed_by(at(Opcode::TLBI_S2_IPA, BLOCK + 0x1f_f000)), [(11, IN_BLOCK)]);
}

#[test]
fn by_range() {
    let range = |address: u64, tg, num, scale| {
        let command = tlbi(Opcode::TLBI_NH_VA).with_vmid(1).with_asid(1).with_address(address >> 12);
        removed_by(command.with_tg(tg).with_num(num).with_scale(scale).with_ttl(3).with_leaf(true))
    };
    assert_eq!(range(PAGE_A, 1, 0, 0), [(1, PAGE_A)], "one page");
    assert_eq!(range(PAGE_A, 1, 1, 0), [(1, PAGE_A), (1, PAGE_B)], "two pages");
    assert_eq!(range(PAGE_A - 0x1000, 1, 0, 1), [(1, PAGE_A)], "two pages, one before it");
    assert_eq!(range(PAGE_B + 0x1000, 1, 31, 0), [], "the pages after");
    assert_eq!(range(0x4000_0000, 2, 0, 0), [(1, PAGE_A), (1, PAGE_B)], "one page of 16 KiB");
    assert_eq!(range(0x4000_0000, 3, 0, 0), [(1, PAGE_A), (1, PAGE_B)], "one page of 64 KiB");
    assert_eq!(range(BLOCK - 0x1000, 1, 0, 1), [(1, IN_BLOCK)], "touching a block's first page");
    assert_eq!(range(BLOCK - 0x2000, 1, 0, 1), [], "ending before a block");
    assert_eq!(range(0, 3, 31, 31), all_of(&[1], &EVERY), "more than there is");
    assert_eq!(range(!0xfff, 3, 31, 31), [], "cut at the end of the address space");
}

#[test]
fn range_fields_mean_nothing_without_ril() {
    let idr3 = u32::from(Idr3::new());
    let mut m = Machine::with(&[Register { offset: offset::IDR3, value: idr3.into() }], false, 0);
    let mut tables = m.tables(12, 0, 48);
    for page in [PAGE_A, PAGE_B] {
        tables.map(&m.memory, page, page, 3, S1_RW);
    }
    m.put_cd(0x50_0000, 1, &tables);
    m.ste_stage1(1, 0, 0x50_0000);
    m.ask(1, PAGE_A);
    m.ask(1, PAGE_B);
    let command = tlbi(Opcode::TLBI_NH_VA).with_asid(1).with_address(PAGE_A >> 12).with_tg(1).with_num(31);
    m.command(command.words());
    assert_eq!((m.ask(1, PAGE_A).flags, m.ask(1, PAGE_B).flags), (0, 1));
}

#[test]
fn narrow_ids_have_eight_bits() {
    let idr0 = Idr0::new().with_s1p(true).with_s2p(true).with_ttf(2).with_stall_model(1);
    let mut m = Machine::with(&[Register { offset: offset::IDR0, value: u32::from(idr0).into() }], false, 0);
    let mut tables = m.tables(12, 0, 48);
    tables.map(&m.memory, PAGE_A, PAGE_A, 3, S1_RW);
    m.put_cd(0x50_0000, 0x101, &tables);
    m.ste_stage1(1, 0x202, 0x50_0000);
    m.ask(1, PAGE_A);
    m.command(tlbi(Opcode::TLBI_NH_ASID).with_asid(0x301).with_vmid(0x402).words());
    assert_eq!(m.ask(1, PAGE_A).flags, 0);
}

#[test]
fn a_full_vmid_evicts_its_own_oldest() {
    let mut m = Machine::with(&[], false, 4);
    let mut tables = m.tables(12, 0, 48);
    for page in 0..6u64 {
        tables.map(&m.memory, page << 12, page << 12, 3, S1_RW);
    }
    for (stream, vmid) in [(1, 1), (2, 2)] {
        let cd = 0x50_0000 + 64 * u64::from(stream);
        m.put_cd(cd, 1, &tables);
        m.ste_stage1(stream, vmid, cd);
    }
    m.ask(2, 0);
    for page in 0..6u64 {
        m.ask(1, page << 12);
    }
    assert_eq!(m.smmu.stats().evictions, 2);
    assert_eq!(m.ask(2, 0).flags, 1, "another VMID's entry stays");
    let cached: Vec<u32> = (2..6u64).map(|page| m.ask(1, page << 12).flags).collect();
    assert_eq!(cached, [1, 1, 1, 1]);
    assert_eq!(m.ask(1, 0).flags, 0);
}

#[test]
fn speculation_fills_and_counts_nothing() {
    let mut m = five_streams();
    let request = Request { stream: 1, pasid: NO_PASID, iova: PAGE_A, access: 0, flags: Request::SPECULATIVE };
    assert_eq!(m.request(request).flags, 0);
    assert_eq!(m.request(request).flags, 1);
    let unmapped = m.request(Request { iova: 0x7000, ..request });
    assert_eq!(unmapped.fault, 0x10);
    assert_eq!(m.read(offset::EVENTQ_PROD), 0, "no event");
    let stats = m.smmu.stats();
    assert_eq!((stats.hits, stats.misses), (0, 0));
    assert_eq!(m.ask(1, PAGE_A).flags, 1, "the entry serves");
    m.ask(11, PAGE_A);
    m.ask(11, PAGE_A);
    m.ask(1, 0x7000);
    let stats = m.smmu.stats();
    assert_eq!((stats.hits, stats.misses, stats.stage2_hits, stats.stage2_misses), (1, 1, 1, 1));
}

#[test]
fn faults_are_not_cached() {
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    tables.map(&m.memory, PAGE_A, PAGE_A, 3, S1_RO);
    m.put_cd(0x50_0000, 1, &tables);
    m.ste_stage1(1, 0, 0x50_0000);
    assert_eq!(m.ask(1, PAGE_B).fault, 0x10);
    assert_eq!(m.access(1, PAGE_A, 1).permissions, 1);
    assert_eq!(m.access(1, PAGE_A, 2).fault, 0x13, "the cached entry does not grant a write");
    tables.map(&m.memory, PAGE_B, PAGE_B, 3, S1_RW);
    tables.map(&m.memory, PAGE_A, PAGE_A, 3, S1_RW);
    assert_eq!(m.ask(1, PAGE_B).output, PAGE_B);
    assert_eq!(m.access(1, PAGE_A, 2).permissions, 3, "nor does its refusal");
}
