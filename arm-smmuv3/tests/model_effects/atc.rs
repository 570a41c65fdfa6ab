//! Caches of devices.

use crate::machine::*;
use arm_smmuv3::spec::commands::{AtcInv, Opcode, Tlbi};
use arm_smmuv3::spec::registers::{Idr0, offset};
use arm_smmuv3::spec::ste::{Config, SteWord0};
use viommu_plugin::{Model, Register, Request};

const CD: u64 = 0x50_0000;
const IOVA: u64 = 0x4000_0000;
const FROM_ATC: u32 = 2;

/// Streams 1 (EATS) and 2 (not), with the same context: 16 pages, then a 2 MiB block at 8 MiB.
fn two_streams(registers: &[Register]) -> Machine {
    let mut m = Machine::with(registers, true, 0);
    let mut tables = m.tables(12, 0, 48);
    for page in 0..16u64 {
        tables.map(&m.memory, IOVA + (page << 12), 0x1_0000 + (page << 12), 3, S1_RW);
    }
    tables.map(&m.memory, IOVA + (8 << 20), 0x4000_0000, 2, S1_RO);
    m.put_cd(CD, 1, &tables);
    m.put_cd(CD + 64, 2, &tables);
    let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
    m.put_ste(1, [word0.with_s1_cd_max(1).into(), ste_word1(2, 1), 0, 0]);
    m.put_ste(2, [word0.into(), 0, 0, 0]);
    m
}

fn flush_tlb(m: &mut Machine) {
    m.command(Tlbi::new().with_opcode(Opcode::TLBI_NSNH_ALL.0).words());
}

#[test]
fn only_a_device_with_ats_answers_itself() {
    let mut m = two_streams(&[]);
    for stream in [1, 2] {
        m.ask(stream, IOVA);
        m.ask(stream, IOVA + 8);
    }
    let stats = m.smmu.stats();
    assert_eq!((stats.atc_hits, stats.atc_misses), (1, 1));
    assert_eq!((stats.hits, stats.misses), (2, 1), "stream 1's entry serves stream 2");
    flush_tlb(&mut m);
    assert_eq!((m.ask(1, IOVA).flags, m.ask(2, IOVA).flags), (FROM_ATC, 0), "a TLBI does not reach a device");
    let without = Idr0::new().with_s1p(true).with_ttf(2).with_stall_model(1);
    let mut m = two_streams(&[Register { offset: offset::IDR0, value: u32::from(without).into() }]);
    m.ask(1, IOVA);
    assert_eq!(m.ask(1, IOVA).flags, 1, "without IDR0.ATS, EATS means nothing");
}

#[test]
fn an_invalidation_is_naturally_aligned() {
    for (address, size, gone) in [
        (0u64, 0u8, 0u32..1),
        (3, 0, 3..4),
        (3, 1, 2..4),
        (5, 2, 4..8),
        (5, 52, 0..16),
        (5, 63, 0..16),
        (1 << 20, 4, 0..0),
        (0x7ff, 11, 0..16),
    ] {
        let mut m = two_streams(&[]);
        let ask = |m: &mut Machine, page: u32| m.ask(1, IOVA + (u64::from(page) << 12)).flags;
        for page in 0..16 {
            ask(&mut m, page);
        }
        let command = AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(1);
        m.command(command.with_address((IOVA >> 12) + address).with_size(size).words());
        let missing: Vec<u32> = (0..16).filter(|&page| ask(&mut m, page) & FROM_ATC == 0).collect();
        assert_eq!(missing, gone.collect::<Vec<u32>>(), "page {address} size {size}");
    }
}

#[test]
fn a_block_goes_whole_and_other_streams_and_pasids_stay() {
    let mut m = two_streams(&[]);
    let block = IOVA + (8 << 20);
    let with_pasid = Request { stream: 1, pasid: 1, iova: block, access: 0, flags: 0 };
    let fill = |m: &mut Machine| {
        for _ in 0..2 {
            m.ask(1, block);
            m.request(with_pasid);
        }
    };
    let command = AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(1);
    let inside = command.with_address((block >> 12) + 17);
    for (command, plain, pasid) in [
        (inside, 0, FROM_ATC),
        (inside.with_stream_id(2), FROM_ATC, FROM_ATC),
        (inside.with_ssv(true).with_substream_id(1), FROM_ATC, 0),
        (inside.with_ssv(true).with_substream_id(0), FROM_ATC, FROM_ATC),
        (inside.with_ssv(true).with_global(true), FROM_ATC, 0),
    ] {
        fill(&mut m);
        m.command(command.words());
        let kept = (m.ask(1, block + 0x1000).flags & FROM_ATC, m.request(with_pasid).flags & FROM_ATC);
        assert_eq!(kept, (plain, pasid), "{command:?}");
    }
}

#[test]
fn a_device_asks_again_for_more_rights() {
    let mut m = two_streams(&[]);
    let block = IOVA + (8 << 20);
    assert_eq!(m.access(1, block, 1).permissions, 1);
    assert_eq!(m.access(1, block, 2).fault, 0x13);
    assert_eq!(m.access(1, block, 1).flags, FROM_ATC);
}

#[test]
fn an_unresponsive_device_keeps_what_it_has() {
    let mut m = two_streams(&[]);
    m.ask(1, IOVA);
    m.smmu.atc_unresponsive(1, true);
    m.command(AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(1).with_size(52).words());
    assert_eq!(m.ask(1, IOVA).flags, FROM_ATC);
}

#[test]
fn speculation_counts_no_device_look_up() {
    let mut m = two_streams(&[]);
    let request = Request { stream: 1, pasid: NO_PASID, iova: IOVA, access: 0, flags: Request::SPECULATIVE };
    m.request(request);
    assert_eq!(m.request(request).flags, FROM_ATC);
    let stats = m.smmu.stats();
    assert_eq!((stats.atc_hits, stats.atc_misses, stats.hits, stats.misses), (0, 0, 0, 0));
}
