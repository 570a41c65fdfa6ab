//! Requests that nobody made: what hostile hardware does on its own. They fill what a demanded request fills, from the
//! memory as it stands, and leave no other trace.

use crate::machine::*;
use arm_smmuv3::spec::commands::{AtcInv, Opcode, Tlbi};
use arm_smmuv3::spec::registers::offset;
use arm_smmuv3::spec::ste::{Config, SteWord0};
use viommu_plugin::{Answer, Model, Request, Status};

const CD: u64 = 0x50_0000;
const IOVA: u64 = 0x4000_0000;
const TARGET: u64 = 0x1_0000;
const FROM_TLB: u32 = 1;
const FROM_ATC: u32 = 2;

fn speculate(m: &mut Machine, iova: u64) -> Answer {
    m.request(Request { stream: 1, pasid: NO_PASID, iova, access: 0, flags: Request::SPECULATIVE })
}

/// Stream 1, with ATS, translates eight pages in stage 1.
fn translating(atc: bool, capacity: u32) -> (Machine, Tables) {
    let mut m = Machine::with(&[], atc, capacity);
    let mut tables = m.tables(12, 0, 48);
    for page in 0..8u64 {
        tables.map(&m.memory, IOVA + (page << 12), TARGET + (page << 12), 3, S1_RW);
    }
    m.put_cd(CD, 1, &tables);
    let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
    m.put_ste(1, [word0.into(), ste_word1(0, 1), 0, 0]);
    (m, tables)
}

fn tlbi_all() -> [u64; 2] {
    Tlbi::new().with_opcode(Opcode::TLBI_NSNH_ALL.0).words()
}

fn atc_inv_all() -> [u64; 2] {
    AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(1).with_size(52).words()
}

#[test]
fn the_configuration_is_cached_until_a_command_names_it() {
    let (mut m, _) = translating(false, 0);
    assert_eq!(speculate(&mut m, IOVA).status, Status::OK);
    m.put_ste(1, [1, 0, 0, 0]);
    m.memory.put(CD, &[0]);
    assert_eq!(m.ask(1, IOVA + 0x1000).output, TARGET + 0x1000, "STE and CD as they were");
    m.command(cfgi_ste(1));
    assert_eq!(speculate(&mut m, IOVA).status, Status::ABORT);
    m.put_ste(1, [SteWord0::new().with_v(true).with_config(Config::BYPASS.0).into(), 0, 0, 0]);
    assert_eq!(m.ask(1, IOVA).status, Status::ABORT, "abort is an entry like any other");
}

#[test]
fn nothing_that_is_not_valid_is_cached() {
    let (mut m, mut tables) = translating(false, 0);
    let ste: [u64; 4] = std::array::from_fn(|word| m.memory.get(STREAM_TABLE + 64 + 8 * word as u64));
    m.put_ste(1, [0; 4]);
    assert_eq!(speculate(&mut m, IOVA).fault, 0x04, "C_BAD_STE");
    m.put_ste(1, ste);
    let cd = m.memory.get(CD);
    m.memory.put(CD, &[0]);
    assert_eq!(speculate(&mut m, IOVA).fault, 0x0a, "C_BAD_CD");
    m.memory.put(CD, &[cd]);
    let unmapped = IOVA + (8 << 12);
    assert_eq!(speculate(&mut m, unmapped).fault, 0x10, "F_TRANSLATION");
    tables.map(&m.memory, unmapped, TARGET, 3, S1_RW);
    let answer = m.ask(1, unmapped);
    assert_eq!((answer.output, answer.flags), (TARGET, 0));
    assert_eq!(m.read(offset::EVENTQ_PROD), 0, "and software was told of nothing");
    assert_eq!(m.memory.irqs(), []);
}

/// The tables are read only: a leaf whose access flag is clear is refused, and stays as it is.
#[test]
fn memory_is_not_written() {
    let (mut m, mut tables) = translating(true, 0);
    let leaf = tables.descriptor(&m.memory, IOVA, 3);
    m.memory.put(leaf, &[m.memory.get(leaf) & !(1 << 10)]);
    let before = m.memory.words();
    assert_eq!(speculate(&mut m, IOVA).fault, 0x12, "F_ACCESS");
    for page in 0..16 {
        speculate(&mut m, IOVA + (page << 12));
    }
    assert_eq!(m.memory.words(), before);
}

#[test]
fn an_entry_that_is_there_is_neither_renewed_nor_in_the_way() {
    let (mut m, _) = translating(false, 4);
    for page in 0..4 {
        m.ask(1, IOVA + (page << 12));
    }
    for _ in 0..10 {
        assert_eq!(speculate(&mut m, IOVA).flags, FROM_TLB);
    }
    assert_eq!(m.smmu.stats().evictions, 0);
    m.ask(1, IOVA + (4 << 12));
    assert_eq!(m.smmu.stats().evictions, 1);
    let cached: Vec<u64> =
        (0..5).rev().filter(|page| speculate(&mut m, IOVA + (page << 12)).flags == FROM_TLB).collect();
    assert_eq!(cached, [4, 3, 2, 1], "the oldest went, however often it was speculated about");
}

/// Why an ATC_INV has to wait for the TLBIs before it.
#[test]
fn a_device_refills_itself_from_the_tlb_and_then_only_an_atc_inv_helps() {
    for (commands, stale) in [([atc_inv_all(), tlbi_all()], true), ([tlbi_all(), atc_inv_all()], false)] {
        let (mut m, mut tables) = translating(true, 0);
        m.ask(1, IOVA);
        let leaf = tables.descriptor(&m.memory, IOVA, 3);
        m.memory.put(leaf, &[0]);
        for command in commands {
            m.command(command);
            speculate(&mut m, IOVA);
        }
        let answer = m.ask(1, IOVA);
        assert_eq!(answer.status, if stale { Status::OK } else { Status::FAULT }, "{commands:x?}");
        assert_eq!(answer.flags, if stale { FROM_ATC } else { 0 }, "{commands:x?}");
    }
}
