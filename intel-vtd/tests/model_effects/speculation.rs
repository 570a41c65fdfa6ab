//! Requests that nobody made: what hostile hardware does on its own. They fill what a demanded request fills, from the
//! memory as it stands, and leave no other trace.

use crate::machine::*;
use intel_vtd::spec::descriptors::{DeviceTlbInv, IotlbInv, PasidCacheInv};
use intel_vtd::spec::fault_reason::FaultReason;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{Answer, CacheStats, Model, Request, Status};

const IOVA: u64 = 0x4000_0000;
const OUT: u64 = 0x1_0000;

fn speculate(m: &mut Machine, iova: u64) -> Answer {
    m.request(Request { stream: 1, pasid: NO_PASID, iova, access: 0, flags: Request::SPECULATIVE })
}

/// Device 1, with ATS, translates eight pages.
fn translating(atc: bool, capacity: u32) -> (Machine, Tables) {
    let mut m = Machine::with(&[], atc, capacity);
    let mut tables = m.first_stage(4);
    for page in 0..8u64 {
        tables.map(&m.memory, IOVA + (page << 12), OUT + (page << 12), 1, FS_RW);
    }
    m.device(1, first(1, &tables));
    (m, tables)
}

#[test]
fn they_fill_and_count_nothing() {
    for (atc, source) in [(false, FROM_TLB), (true, FROM_ATC)] {
        let (mut m, _) = translating(atc, 0);
        let before = m.memory.words();
        assert_eq!(speculate(&mut m, IOVA).flags, 0);
        assert_eq!(speculate(&mut m, IOVA).flags, source);
        assert_eq!(speculate(&mut m, IOVA + (9 << 12)).fault, u32::from(FaultReason::SM_FS_NOT_PRESENT.0));
        assert_eq!(m.unit.stats(), CacheStats::default());
        assert_eq!((m.read(offset::FSTS), m.memory.words() == before), (0, true), "nothing is recorded or written");
        assert_eq!(m.ask(1, IOVA).flags, source, "the entry serves");
    }
}

#[test]
fn the_configuration_is_cached_until_a_descriptor_names_it() {
    let (mut m, _) = translating(false, 0);
    assert_eq!(speculate(&mut m, IOVA).status, Status::OK);
    m.put_pasid(1, 0, [0; 3]);
    assert_eq!(m.ask(1, IOVA + 0x1000).output, OUT + 0x1000, "the PASID entry as it was");
    m.invalidate(PasidCacheInv::new().with_domain_id(1).words());
    assert_eq!(speculate(&mut m, IOVA).fault, u32::from(FaultReason::SM_PASID_NOT_PRESENT.0));
    let (_, tables) = translating(false, 0);
    m.put_pasid(1, 0, first(1, &tables));
    assert_eq!(m.ask(1, IOVA).status, Status::OK, "what is not present was not cached");
}

#[test]
fn faults_are_not_cached() {
    let (mut m, mut tables) = translating(false, 0);
    let unmapped = IOVA + (8 << 12);
    assert_eq!(speculate(&mut m, unmapped).status, Status::FAULT);
    assert_eq!(m.ask(1, unmapped).status, Status::FAULT);
    tables.map(&m.memory, unmapped, OUT, 1, FS_RW);
    assert_eq!((m.ask(1, unmapped).output, m.ask(1, unmapped).flags), (OUT, FROM_TLB));
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
    assert_eq!(m.unit.stats().evictions, 0);
    m.ask(1, IOVA + (4 << 12));
    assert_eq!(m.unit.stats().evictions, 1);
    let cached: Vec<u64> =
        (0..5).rev().filter(|page| speculate(&mut m, IOVA + (page << 12)).flags == FROM_TLB).collect();
    assert_eq!(cached, [4, 3, 2, 1], "the oldest went, however often it was speculated about");
}

/// Why a device-TLB invalidation has to wait for the IOTLB invalidations before it.
#[test]
fn a_device_refills_itself_from_the_iotlb_and_then_only_its_own_invalidation_helps() {
    let device = DeviceTlbInv::new().with_source_id(1).with_size(true).with_address(u64::MAX >> 13).words();
    let iotlb = IotlbInv::new().with_granularity(1).words();
    for (commands, stale) in [([device, iotlb], true), ([iotlb, device], false)] {
        let (mut m, mut tables) = translating(true, 0);
        m.ask(1, IOVA);
        let leaf = tables.entry(&m.memory, IOVA, 1);
        m.memory.put(leaf, &[0]);
        for command in commands {
            m.invalidate(command);
            speculate(&mut m, IOVA);
        }
        let answer = m.ask(1, IOVA);
        assert_eq!(answer.status, if stale { Status::OK } else { Status::FAULT }, "{commands:x?}");
        assert_eq!(answer.flags, if stale { FROM_ATC } else { 0 }, "{commands:x?}");
    }
}
