//! IOTLB invalidations: what goes, and that nothing else does.

use crate::machine::*;
use intel_vtd::spec::descriptors::{IotlbInv, PasidIotlbInv};
use intel_vtd::spec::registers::{ContextCommand, Global, InvalidateAddress, IotlbCommand, offset};
use viommu_plugin::{Model, Request};

const BASE: u64 = 0x4000_0000;

/// Device 1: first stage, domain 1, PASIDs 0 and 1. Device 2: second stage, domain 1. Device 3: first stage, domain 2.
/// Each has 16 pages from BASE, and 2 MiB from BASE + 8 MiB, all in the IOTLB.
fn three(registers: &[viommu_plugin::Register]) -> Machine {
    let mut m = Machine::with(registers, false, 0);
    let mut tables = [m.first_stage(4), m.second_stage(4), m.first_stage(4), m.first_stage(4)];
    for (index, table) in tables.iter_mut().enumerate() {
        let bits = if index == 1 { SS_RW } else { FS_RW };
        for page in 0..16u64 {
            table.map(&m.memory, BASE + (page << 12), page << 12, 1, bits);
        }
        table.map(&m.memory, BASE + (8 << 20), 0, 2, bits);
    }
    m.device(1, first(1, &tables[0]));
    m.device(2, second(1, &tables[1]));
    m.device(3, first(2, &tables[2]));
    m.put_pasid(1, 1, first(1, &tables[3]));
    fill(&mut m);
    m
}

const WHO: [(u32, u32); 4] = [(1, NO_PASID), (1, 1), (2, NO_PASID), (3, NO_PASID)];

fn pages() -> impl Iterator<Item = u64> {
    (0..16).map(|page| BASE + (page << 12)).chain([BASE + (8 << 20)])
}

fn look(m: &mut Machine, (stream, pasid): (u32, u32), iova: u64) -> u32 {
    m.request(Request { stream, pasid, iova, access: 0, flags: Request::SPECULATIVE }).flags
}

fn fill(m: &mut Machine) {
    for who in WHO {
        for iova in pages() {
            look(m, who, iova);
        }
    }
}

/// Pages missing for each of [`WHO`]; 16 is the large one.
fn missing(m: &mut Machine) -> [Vec<usize>; 4] {
    WHO.map(|who| pages().enumerate().filter(|&(_, iova)| look(m, who, iova) == 0).map(|(page, _)| page).collect())
}

#[test]
fn each_descriptor_drops_what_it_names_and_nothing_else() {
    let all = || (0..17).collect::<Vec<usize>>();
    let none = Vec::new;
    let iotlb = IotlbInv::new().with_domain_id(1);
    let page = |index: u64| (BASE >> 12) + index;
    let pasid = PasidIotlbInv::new().with_domain_id(1).with_granularity(3);
    let cases: Vec<([u64; 2], [Vec<usize>; 4])> = vec![
        (iotlb.with_granularity(1).words(), [all(), all(), all(), all()]),
        (iotlb.with_granularity(2).words(), [all(), all(), all(), none()]),
        (iotlb.with_granularity(2).with_domain_id(7).words(), [none(), none(), none(), none()]),
        (iotlb.with_granularity(3).with_address(page(3)).words(), [all(), all(), vec![3], none()]),
        (
            iotlb.with_granularity(3).with_address(page(5)).with_address_mask(2).words(),
            [all(), all(), vec![4, 5, 6, 7], none()],
        ),
        (iotlb.with_granularity(3).with_address(page(2048 + 77)).words(), [all(), all(), vec![16], none()]),
        (pasid.with_granularity(2).words(), [all(), none(), none(), none()]),
        (pasid.with_granularity(2).with_pasid(1).words(), [none(), all(), none(), none()]),
        (pasid.with_granularity(2).with_domain_id(2).words(), [none(), none(), none(), all()]),
        (pasid.with_address(page(3)).words(), [vec![3], none(), none(), none()]),
        (pasid.with_address(page(3)).with_hint(true).words(), [vec![3], none(), none(), none()]),
        (pasid.with_address(page(9)).with_address_mask(3).words(), [(8..16).collect(), none(), none(), none()]),
        (pasid.with_address(page(2048 + 77)).with_pasid(1).words(), [none(), vec![16], none(), none()]),
        (pasid.with_address(page(0)).with_address_mask(18).words(), [all(), none(), none(), none()]),
        (pasid.with_address(page(1 << 20)).with_address_mask(9).words(), [none(), none(), none(), none()]),
    ];
    for (words, gone) in cases {
        let mut m = three(&[]);
        m.invalidate(words);
        assert_eq!(missing(&mut m), gone, "{words:x?}");
    }
}

/// Without CAP.PSI pages mean the domain.
#[test]
fn no_page_selective_invalidation() {
    let mut m = three(&identity(|cap, ecap| (cap.with_page_selective(false), ecap)));
    m.invalidate(IotlbInv::new().with_granularity(3).with_domain_id(1).with_address(1).words());
    assert_eq!(missing(&mut m).map(|pages| pages.len()), [17, 17, 17, 0]);
}

/// The registers do what the descriptors do, while the queue is off; while it is on they do nothing and say so.
#[test]
fn invalidation_by_register() {
    let iotlb = IotlbCommand::new().with_domain_id(1).with_invalidate(true);
    let address = InvalidateAddress::new().with_address((BASE >> 12) + 8).with_address_mask(1);
    for (by_queue, granularity, expected) in [
        (false, 1, [17; 4]),
        (false, 2, [17, 17, 17, 0]),
        (false, 3, [17, 17, 2, 0]),
        (false, 0, [0; 4]),
        (true, 1, [0; 4]),
    ] {
        let mut m = three(&[]);
        m.command(Global::new().with_translation(true).with_queued_invalidation(by_queue));
        m.write(0xf0, 8, address.into());
        m.write(0xf8, 8, iotlb.with_granularity(granularity).into());
        assert_eq!(missing(&mut m).map(|pages| pages.len()), expected);
        let done = IotlbCommand::from(m.unit.mmio_read(0xf8, 8));
        assert_eq!((done.invalidate(), done.actual()), (false, if by_queue { 0 } else { granularity }));
    }
    for (by_queue, granularity, gone) in [(false, 1, true), (false, 2, true), (false, 3, true), (true, 1, false)] {
        let mut m = three(&[]);
        m.memory.put(m.context_at(1), &[0; 4]);
        m.command(Global::new().with_translation(true).with_queued_invalidation(by_queue));
        let command = ContextCommand::new().with_source_id(1).with_granularity(granularity).with_invalidate(true);
        // In halves: the upper one gives the command.
        m.write(offset::CCMD, 4, u64::from(command) & 0xffff_ffff);
        m.write(offset::CCMD + 4, 4, u64::from(command) >> 32);
        assert_eq!(m.ask(1, BASE).fault != 0, gone);
        let done = ContextCommand::from(m.unit.mmio_read(offset::CCMD, 8));
        assert_eq!((done.invalidate(), done.actual()), (false, if by_queue { 0 } else { granularity }));
    }
}

#[test]
fn a_full_domain_evicts_its_own_oldest() {
    let mut m = Machine::with(&[], false, 4);
    let mut tables = m.first_stage(4);
    for page in 0..6u64 {
        tables.map(&m.memory, page << 12, page << 12, 1, FS_RW);
    }
    m.device(1, first(1, &tables));
    m.device(2, first(2, &tables));
    m.ask(2, 0);
    for page in 0..6u64 {
        m.ask(1, page << 12);
    }
    assert_eq!(m.unit.stats().evictions, 2);
    assert_eq!(m.ask(2, 0).flags, FROM_TLB, "another domain's entry stays");
    assert!((2..6u64).all(|page| m.ask(1, page << 12).flags == FROM_TLB));
    assert_eq!(m.ask(1, 0).flags, 0);
}

#[test]
fn devices_of_one_domain_share_their_entries() {
    let mut m = Machine::new();
    let mut tables = m.second_stage(4);
    tables.map(&m.memory, BASE, 0x1000, 1, SS_RW);
    m.device(1, second(1, &tables));
    m.device(2, second(1, &tables));
    assert_eq!((m.ask(1, BASE).flags, m.ask(2, BASE).flags), (0, FROM_TLB));
    let stats = m.unit.stats();
    assert_eq!((stats.hits, stats.misses, stats.stage2_hits, stats.stage2_misses), (0, 0, 1, 1));
}
