//! Caches of devices.

use crate::machine::*;
use intel_vtd::spec::descriptors::{DeviceTlbInv, IotlbInv, PasidDeviceTlbInv};
use viommu_plugin::{Model, Request, Status};

const IOVA: u64 = 0x4000_0000;

/// Devices 1 (DTE) and 2 (not) of one domain: 16 pages, then 2 MiB at 8 MiB; PASID 1 of device 1 has the same.
fn two() -> Machine {
    let mut m = Machine::with(&[], true, 0);
    let mut tables = m.first_stage(4);
    for page in 0..16u64 {
        tables.map(&m.memory, IOVA + (page << 12), 0x1_0000 + (page << 12), 1, FS_RW);
    }
    tables.map(&m.memory, IOVA + (8 << 20), 0x4000_0000, 2, FS_RO);
    for stream in [1, 2] {
        m.put_context(stream, stream == 1);
        m.put_pasid(stream, 0, first(1, &tables));
    }
    m.put_pasid(1, 1, first(1, &tables));
    m
}

#[test]
fn only_a_device_with_dte_answers_itself() {
    let mut m = two();
    for stream in [1, 2] {
        m.ask(stream, IOVA);
        m.ask(stream, IOVA + 8);
    }
    let stats = m.unit.stats();
    assert_eq!((stats.atc_hits, stats.atc_misses), (1, 1));
    assert_eq!((stats.hits, stats.misses), (2, 1), "device 1's entry serves device 2");
    m.invalidate(IotlbInv::new().with_granularity(1).words());
    assert_eq!((m.ask(1, IOVA).flags, m.ask(2, IOVA).flags), (FROM_ATC, 0), "an IOTLB invalidation reaches no device");
}

#[test]
fn a_legacy_device_needs_translation_type_1() {
    for (translation_type, flags) in [(0, FROM_TLB), (1, FROM_ATC)] {
        let mut m = Machine::legacy(&[], true);
        let mut tables = m.second_stage(4);
        tables.map(&m.memory, IOVA, 0x1000, 1, SS_RW);
        m.memory.put(m.context_at(1), &legacy_entry(1, translation_type, &tables));
        m.ask(1, IOVA);
        assert_eq!(m.ask(1, IOVA).flags, flags);
    }
}

/// S 0: a page. S 1: the lowest zero bit of the address says the size (§6.5.2.5).
#[test]
fn the_size_is_in_the_address() {
    let page = |index: u64| (IOVA >> 12) + index;
    for (address, size, gone) in [
        (page(0), false, 0u32..1),
        (page(3), false, 3..4),
        (page(2), true, 2..4),
        (page(4) | 1, true, 4..8),
        (page(8) | 3, true, 8..16),
        (page(0) | 7, true, 0..16),
        (u64::MAX >> 13, true, 0..16),
        (page(1 << 20), true, 0..0),
    ] {
        let mut m = two();
        let ask = |m: &mut Machine, page: u32| m.ask(1, IOVA + (u64::from(page) << 12)).flags;
        for page in 0..16 {
            ask(&mut m, page);
        }
        m.invalidate(DeviceTlbInv::new().with_source_id(1).with_address(address).with_size(size).words());
        let missing: Vec<u32> = (0..16).filter(|&page| ask(&mut m, page) & FROM_ATC == 0).collect();
        assert_eq!(missing, gone.collect::<Vec<u32>>(), "{address:#x} {size}");
    }
}

#[test]
fn a_large_page_goes_whole_and_other_devices_and_pasids_stay() {
    let mut m = two();
    let block = IOVA + (8 << 20);
    let with_pasid = Request { stream: 1, pasid: 1, iova: block, access: 0, flags: 0 };
    let plain = DeviceTlbInv::new().with_source_id(1).with_address((block >> 12) + 17);
    let pasid = PasidDeviceTlbInv::new().with_source_id(1).with_address((block >> 12) + 17);
    for (words, kept) in [
        (plain.words(), (0, FROM_ATC)),
        (plain.with_source_id(2).words(), (FROM_ATC, FROM_ATC)),
        (pasid.with_pasid(1).words(), (FROM_ATC, 0)),
        (pasid.words(), (FROM_ATC, FROM_ATC)),
        (pasid.with_global(true).words(), (FROM_ATC, 0)),
    ] {
        for _ in 0..2 {
            m.ask(1, block);
            m.request(with_pasid);
        }
        m.invalidate(words);
        let now = (m.ask(1, block + 0x1000).flags & FROM_ATC, m.request(with_pasid).flags & FROM_ATC);
        assert_eq!(now, kept, "{words:x?}");
    }
}

#[test]
fn a_device_asks_again_for_more_rights() {
    let mut m = two();
    let block = IOVA + (8 << 20);
    assert_eq!(m.access(1, block, 1).permissions, 1);
    assert_eq!(m.access(1, block, 2).status, Status::FAULT);
    assert_eq!(m.access(1, block, 1).flags, FROM_ATC);
}

#[test]
fn an_unresponsive_device_keeps_what_it_has() {
    let mut m = two();
    m.ask(1, IOVA);
    m.unit.atc_unresponsive(1, true);
    m.invalidate(DeviceTlbInv::new().with_source_id(1).with_size(true).with_address(u64::MAX >> 13).words());
    assert_eq!(m.ask(1, IOVA).flags, FROM_ATC);
}
