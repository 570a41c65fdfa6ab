//! Attach and detach, judged by DMA.

use crate::machine::{Machine, machine, with};
use intel_vtd::driver::VtdDriver;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{
    Driver, EntryKey, EventOwner, Hardware, HostInvalidation, KeyKind, Refusal, Register, Scope, Status,
};

const STREAM: u32 = 0x10;
/// The nesting parent's tag, and those of two domains of the guest.
const PARENT: u32 = 7;
const DOMAIN: u32 = 8;
const OTHER: u32 = 9;
/// Guest addresses: 2 MiB of RAM at 1 GiB, holding two first-stage trees at +0x1000 and +0x8000.
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x20_0000;
const IOVA: u64 = 0x7000;
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, event: 0, domain: u32::MAX, reserved: 0, words: [0; 4] };

/// First stage from the tree at RAM + `tree`; with ATS or not; `more` bits of word 2.
fn translate(tree: u64, ats: bool, more: u64) -> EntryKey {
    let words = [0x41, 5, (RAM + tree) | more, 1 | u64::from(ats) << 2];
    EntryKey { kind: KeyKind::TRANSLATE, domain: 5, words, ..EntryKey::default() }
}

/// Four levels that lead from IOVA to RAM + `page`.
fn tree(machine: &Machine, ram: u64, at: u64, page: u64) {
    for level in 0..3 {
        let below = RAM + at + 0x1000 * (level + 1);
        machine.set_word(ram + at + 0x1000 * level, below | 7);
    }
    machine.set_word(ram + at + 0x3000 + 8 * (IOVA >> 12), (RAM + page) | 7);
}

/// A driver, one guest with its RAM somewhere else in host memory, and that place.
fn guest(machine: &Machine) -> (VtdDriver, u32, u64) {
    let mut driver = VtdDriver::new(machine.boxed()).unwrap();
    let ram = machine.alloc(RAM_LEN, RAM_LEN).unwrap();
    let stage2 = driver.stage2_create(PARENT).unwrap();
    driver.stage2_map(stage2, RAM, ram, RAM_LEN, 3).unwrap();
    tree(machine, ram, 0x1000, 0x1_0000);
    tree(machine, ram, 0x8000, 0x1_1000);
    (driver, stage2, ram)
}

#[test]
fn bypass_is_the_second_stage_alone() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, PARENT, &BYPASS).unwrap();
    let answer = machine.dma(STREAM, RAM + 0x123, 2);
    assert_eq!((answer.status, answer.stage, answer.output), (Status::OK, 2, ram + 0x123));
    let outside = machine.dma(STREAM, 0x1000, 1);
    assert_eq!((outside.status, outside.stage, outside.ipa & !0xfff), (Status::FAULT, 2, 0x1000));
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream), (EventOwner::HOST, STREAM), "no guest sees a second-stage fault");
    assert_eq!(driver.event(), None);
}

#[test]
fn translate_nests_and_the_guest_gets_its_faults() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    let answer = machine.dma(STREAM, IOVA + 8, 1);
    assert_eq!((answer.status, answer.stage, answer.output), (Status::OK, 1, ram + 0x1_0008));
    assert_eq!(machine.dma(STREAM, 0x9000, 2).status, Status::FAULT);
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, STREAM, 0x71, 2));
    assert_eq!((event.record[0], event.record[1] as u16), (0x9000, 0));
    assert_eq!(driver.event(), None);
}

#[test]
fn an_invalidation_by_the_domains_tag_reaches_what_was_nested() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000);
    machine.set_word(ram + 0x4000 + 8 * (IOVA >> 12), (RAM + 0x1_2000) | 7);
    for (tag, seen) in [(PARENT, 0x1_0000), (OTHER, 0x1_0000), (DOMAIN, 0x1_2000)] {
        // PIOTLB, one page of PASID 0.
        machine.issue(&[0x36 | u64::from(tag) << 16, IOVA, 0, 0]).unwrap();
        assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + seen, "domain-id {tag}");
    }
}

#[test]
fn detach_and_abort_stop_dma() {
    let machine = machine();
    let (mut driver, stage2, _) = guest(&machine);
    for stop in [0, 1] {
        driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
        assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
        match stop {
            0 => driver.detach(STREAM).unwrap(),
            _ => driver.attach(STREAM, stage2, PARENT, &EntryKey::default()).unwrap(),
        }
        assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::FAULT);
        assert_eq!(driver.event().unwrap().owner, EventOwner::HOST);
    }
    driver.detach(0x8000).unwrap();
    assert_eq!(machine.dma(0x8000, 0, 1).status, Status::FAULT, "a device that never was");
}

#[test]
fn a_changed_entry_is_obeyed_at_once_whatever_it_was() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    let entries = [
        (PARENT, BYPASS, RAM + 8, ram + 8),
        (DOMAIN, translate(0x1000, false, 0), IOVA, ram + 0x1_0000),
        // The same domain with another table: nothing of the first may be left under the tag.
        (DOMAIN, translate(0x8000, false, 0), IOVA, ram + 0x1_1000),
        (OTHER, translate(0x8000, false, 0), IOVA, ram + 0x1_1000),
    ];
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        for (tag, key, iova, output) in [entries[from], entries[to]] {
            driver.attach(STREAM, stage2, tag, &key).unwrap();
            let answer = machine.dma(STREAM, iova, 1);
            assert_eq!((answer.status, answer.output), (Status::OK, output), "{from} to {to}");
        }
    }
}

#[test]
fn streams_do_not_reach_each_other() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    let other = driver.stage2_create(20).unwrap();
    let page = machine.alloc(0x1000, 0x1000).unwrap();
    driver.stage2_map(other, RAM, page, 0x1000, 3).unwrap();
    driver.attach(STREAM, stage2, PARENT, &BYPASS).unwrap();
    driver.attach(STREAM + 0x80, other, 20, &BYPASS).unwrap();
    assert_eq!(machine.dma(STREAM, RAM, 1).output, ram);
    assert_eq!(machine.dma(STREAM + 0x80, RAM, 1).output, page);
    for stream in [STREAM + 1, STREAM + 0x81, STREAM + 0x100] {
        assert_ne!(machine.dma(stream, RAM, 1).status, Status::OK);
    }
}

#[test]
fn each_change_is_announced_and_nothing_else_is() {
    let machine = machine();
    let (mut driver, stage2, _) = guest(&machine);
    let types =
        || machine.take_issued().as_chunks::<4>().0.iter().map(|words| words[0] as u8 & 0x3f).collect::<Vec<_>>();
    types();
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    assert_eq!(types(), [0x31], "a context entry that is new");
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    assert_eq!(types(), [0u8; 0], "nothing changed");
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x8000, false, 0)).unwrap();
    assert_eq!(types(), [0x17, 0x26, 0x22], "PASID cache, then PASID-IOTLB and IOTLB of the old domain-id");
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x8000, true, 0)).unwrap();
    assert_eq!(types(), [0x31, 0x03], "DTE, and what the device still has");
    driver.attach(STREAM, stage2, PARENT, &BYPASS).unwrap();
    assert_eq!(types(), [0x31, 0x17, 0x26, 0x22], "DTE first");
}

#[test]
fn a_device_cache_does_not_outlive_the_entry_it_was_filled_under() {
    let machine = with(&[], true);
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, true, 0)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000);
    driver.attach(STREAM, stage2, PARENT, &BYPASS).unwrap();
    assert_ne!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x8000, true, 0)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_1000);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, true, 0)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000);
}

#[test]
fn a_device_that_answers_no_cache_invalidation_fails_its_attach() {
    let machine = with(&[], true);
    let (mut driver, stage2, _) = guest(&machine);
    machine.unresponsive(STREAM, true);
    assert!(driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, true, 0)).is_err());
    assert!(driver.queue_fault().is_some());
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None);
    driver.detach(STREAM).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::FAULT);
}

/// As the kernel: accepted when the nested HWPT is made, refused when a device is to use it. Here the device goes on
/// as before.
#[test]
fn what_the_hardware_lacks_is_refused_at_attach_and_changes_nothing() {
    let poor = machine();
    let (cap, ecap) = (poor.mmio_read(offset::CAP, 8), poor.mmio_read(offset::ECAP, 8));
    let registers =
        |cap, ecap| [Register { offset: offset::CAP, value: cap }, Register { offset: offset::ECAP, value: ecap }];
    for (cap, ecap, more, errno) in [
        (cap & !(1 << 60), ecap, 1 << 2, Refusal::EINVAL),
        (cap, ecap & !(1 << 31), 1, Refusal::EINVAL),
        (cap, ecap & !(1 << 34), 1 << 7, Refusal::EINVAL),
        (cap, ecap & !(1 << 26), 0, Refusal::EOPNOTSUPP),
    ] {
        let machine = with(&registers(cap, ecap), false);
        let (mut driver, stage2, ram) = guest(&machine);
        driver.attach(STREAM, stage2, PARENT, &BYPASS).unwrap();
        let refusal = driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, more)).unwrap_err();
        assert_eq!(refusal.errno, errno, "{refusal}");
        assert_eq!(machine.dma(STREAM, RAM, 1).output, ram, "{refusal}");
    }
}

/// What shadow mode attaches: a copy of the guest's second stage, under the guest's own domain.
#[test]
fn a_guests_second_stage_is_attached_as_its_copy() {
    let machine = with(&[], true);
    let (mut driver, _, ram) = guest(&machine);
    let copy = driver.stage2_create(DOMAIN).unwrap();
    driver.stage2_map(copy, 0x5000, ram + 0x1_3000, 0x1000, 1).unwrap();
    // A legacy context entry with TT 1, and a PASID entry with PGTT 2 and DTE.
    for words in [[0x7777_7005, 0x502, 0, 0], [0x7777_7089, 5, 0, 5]] {
        let key = EntryKey { kind: KeyKind::TRANSLATE, domain: 5, words, ..EntryKey::default() };
        driver.attach(STREAM, copy, DOMAIN, &key).unwrap();
        let answer = machine.dma(STREAM, 0x5010, 1);
        assert_eq!((answer.status, answer.stage, answer.output), (Status::OK, 2, ram + 0x1_3010));
        assert_eq!(machine.dma(STREAM, 0x5010, 2).status, Status::FAULT, "read-only");
        let event = driver.event().unwrap();
        assert_eq!((event.owner, event.code), (EventOwner::GUEST, if words[3] == 0 { 5 } else { 0x79 }));
        driver.detach(STREAM).unwrap();
        assert_eq!(machine.dma(STREAM, 0x5010, 1).status, Status::FAULT);
        assert_eq!(driver.event().unwrap().owner, EventOwner::HOST, "nobody's any more");
    }
}

#[test]
fn unmap_under_nesting_needs_the_invalidations_that_the_driver_encodes() {
    let machine = machine();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    driver.attach(STREAM + 1, stage2, PARENT, &BYPASS).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
    assert_eq!(machine.dma(STREAM + 1, RAM, 1).status, Status::OK);
    driver.stage2_unmap(stage2, RAM, RAM_LEN).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000, "still cached: the test can fail");
    assert_eq!(machine.dma(STREAM + 1, RAM, 1).output, ram, "still cached: the test can fail");
    for (scope, tag) in [
        (Scope::STAGE2_RANGE, PARENT),
        (Scope::STAGE2_RANGE, DOMAIN),
        (Scope::STAGE1_ALL, PARENT),
        (Scope::STAGE1_ALL, DOMAIN),
    ] {
        let what = HostInvalidation { scope, tag, address: RAM, length: RAM_LEN, ..HostInvalidation::default() };
        let mut out = [0; 16];
        let words = driver.encode(&what, &mut out);
        machine.issue(&out[..words]).unwrap();
    }
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::FAULT);
    assert_eq!(machine.dma(STREAM + 1, RAM, 1).status, Status::FAULT);
    driver.stage2_destroy(stage2);
}

#[test]
fn lost_events_are_told_once_after_the_ones_that_were_kept() {
    let machine = machine();
    let (mut driver, stage2, _) = guest(&machine);
    let kept = (machine.mmio_read(offset::CAP, 8) >> 40 & 0xff) as usize + 1;
    // The unit keeps one record a device.
    let streams = STREAM..STREAM + 2 * kept as u32;
    for stream in streams.clone() {
        driver.attach(stream, stage2, DOMAIN, &translate(0x1000, false, 0)).unwrap();
    }
    streams.for_each(|stream| assert_eq!(machine.dma(stream, 0x10_0000, 1).status, Status::FAULT));
    let mut owners = Vec::new();
    while let Some(event) = driver.event() {
        owners.push((event.owner, event.stream));
    }
    assert_eq!(owners.len(), kept + 1);
    for (at, owner) in owners[..kept].iter().enumerate() {
        assert_eq!(*owner, (EventOwner::GUEST, STREAM + at as u32), "oldest first");
    }
    assert_eq!(owners[kept].0, EventOwner::LOST);
    machine.dma(STREAM, 0x10_0000, 1);
    assert_eq!(driver.event().unwrap().owner, EventOwner::GUEST, "goes on");
}

#[test]
fn what_does_not_exist_is_refused() {
    let machine = machine();
    let (mut driver, stage2, _) = guest(&machine);
    let streams = driver.info().streams;
    assert_eq!(driver.attach(STREAM, 99, PARENT, &BYPASS).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_map(99, 0, 0, 4096, 3).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_unmap(99, 0, 4096).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.attach(streams, stage2, PARENT, &BYPASS).unwrap_err().errno, Refusal::EINVAL);
    assert_eq!(driver.detach(u32::MAX).unwrap_err().errno, Refusal::EINVAL);
    for tag in [0, driver.info().last_tag + 1, u32::MAX] {
        assert_eq!(driver.stage2_create(tag).unwrap_err().errno, Refusal::EINVAL, "domain-id {tag}");
        assert_eq!(driver.attach(STREAM, stage2, tag, &BYPASS).unwrap_err().errno, Refusal::EINVAL);
    }
    driver.stage2_destroy(99);
}
