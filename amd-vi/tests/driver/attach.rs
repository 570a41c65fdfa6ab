//! Attach and detach, judged by DMA.

use crate::machine::{self, Machine};
use amd_vi::driver::AmdDriver;
use amd_vi::spec::registers::offset;
use viommu_plugin::{
    Driver, EntryKey, EventOwner, Hardware, HostInvalidation, KeyKind, Refusal, Register, Scope, Status,
};

const DEVICE: u32 = 0x10;
/// Tag of the host's table, and of the guest's domain [`DOMAIN`].
const PARENT: u32 = 7;
const TAG: u32 = 8;
const DOMAIN: u32 = 0x22;
/// Guest addresses: 2 MiB of RAM at 1 GiB holding the GCR3 table at +0 and the guest's tables from +0x1000.
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x20_0000;
const IOVA: u64 = 0x7000;
const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: u32::MAX, reserved: 0, words: [0; 4] };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };
/// P, RW and US of a guest's entry.
const PRESENT: u64 = 7;

/// A guest's DTE: GCR3 table at the start of RAM, GIOV, reads and writes; with I.
fn translate(ats: u64) -> EntryKey {
    let word0 = 3 | 1 << 54 | 1 << 55 | 3 << 61 | (RAM >> 12 & 7) << 58;
    let word1 = u64::from(DOMAIN) | (RAM >> 15 & 0xffff) << 16 | ats << 32 | (RAM >> 31) << 43;
    EntryKey { kind: KeyKind::TRANSLATE, event: 0, domain: DOMAIN, reserved: 0, words: [word0, word1, 0, 0] }
}

/// A driver, one guest with its RAM somewhere else in host memory, and that place.
fn guest(machine: &Machine) -> (AmdDriver, u32, u64) {
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let ram = machine.alloc(RAM_LEN, RAM_LEN).unwrap();
    let stage2 = driver.stage2_create(PARENT).unwrap();
    driver.stage2_map(stage2, RAM, ram, RAM_LEN, 3).unwrap();
    // GCR3 entries of PASID 0 and 5, then levels 4 to 1: IOVA is RAM + 0x10000.
    for pasid in [0, 5] {
        machine.set_word(ram + 8 * pasid, (RAM + 0x1000) | 1);
    }
    for level in [0x1000, 0x2000, 0x3000] {
        machine.set_word(ram + level, (RAM + level + 0x1000) | PRESENT);
    }
    machine.set_word(ram + 0x4000 + 8 * (IOVA >> 12), (RAM + 0x1_0000) | PRESENT);
    (driver, stage2, ram)
}

#[test]
fn bypass_is_the_hosts_table_alone() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(DEVICE, stage2, PARENT, &BYPASS).unwrap();
    let answer = machine.dma(DEVICE, RAM + 0x123, 2);
    assert_eq!((answer.status, answer.stage, answer.output), (Status::OK, 2, ram + 0x123));
    let outside = machine.dma(DEVICE, 0x1000, 1);
    assert_eq!((outside.status, outside.stage, outside.ipa & !0xfff), (Status::FAULT, 2, 0x1000));
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream), (EventOwner::HOST, DEVICE), "no guest sees a fault of the host's table");
    assert_eq!(driver.event(), None);
    assert_ne!(machine.dma_pasid(DEVICE, 5, RAM, 1).status, Status::OK, "no PASIDs without GV");
}

#[test]
fn translate_nests_and_the_guest_gets_its_faults() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
    for pasid in [u32::MAX, 0, 5] {
        let answer = machine.dma_pasid(DEVICE, pasid, IOVA + 8, 1);
        assert_eq!((answer.status, answer.output), (Status::OK, ram + 0x1_0008), "PASID {pasid:#x}");
    }
    assert_eq!(machine.dma_pasid(DEVICE, 5, 0x8000, 2).status, Status::FAULT);
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, DEVICE, 2, 2));
    assert_eq!((event.record[0] & 0xffff, event.record[0] >> 32 & 0xffff, event.record[1]), (0, 5, 0x8000));
    // A guest's page outside its memory: the host's fault, and no host number in it.
    machine.set_word(ram + 0x4000 + 8 * 9, (RAM + RAM_LEN) | PRESENT);
    assert_eq!(machine.dma(DEVICE, 0x9000, 1).stage, 2);
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.record[0] >> 32 & 0xffff), (EventOwner::HOST, u64::from(DOMAIN)));
    assert_eq!(event.record[1], RAM + RAM_LEN);
}

#[test]
fn a_guest_that_forbids_a_direction_keeps_it_forbidden() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    let mut key = translate(0);
    key.words[0] &= !(1 << 62);
    driver.attach(DEVICE, stage2, TAG, &key).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::OK);
    assert_eq!(machine.dma(DEVICE, IOVA, 2).status, Status::FAULT);
}

#[test]
fn detach_and_abort_stop_dma_without_an_event() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    for stop in [0, 1] {
        driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
        assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::OK);
        match stop {
            0 => driver.detach(DEVICE).unwrap(),
            _ => driver.attach(DEVICE, stage2, PARENT, &ABORT).unwrap(),
        }
        assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::ABORT);
        assert_eq!(driver.event(), None);
    }
}

#[test]
fn devices_do_not_reach_each_other() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    let other = driver.stage2_create(9).unwrap();
    driver.stage2_map(other, RAM, ram + RAM_LEN, 0x1000, 3).unwrap();
    driver.attach(DEVICE, stage2, PARENT, &BYPASS).unwrap();
    driver.attach(DEVICE + 1, other, 9, &BYPASS).unwrap();
    assert_eq!(machine.dma(DEVICE, RAM, 1).output, ram);
    assert_eq!(machine.dma(DEVICE + 1, RAM, 1).output, ram + RAM_LEN);
    assert_ne!(machine.dma(DEVICE + 2, RAM, 1).status, Status::OK);
}

#[test]
fn each_change_is_announced_and_nothing_else_is() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    machine::take_issued(&machine);
    driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
    let issued = machine::take_issued(&machine);
    assert!(!issued.is_empty());
    assert!(issued.iter().all(|words| *words == [2 << 60 | u64::from(DEVICE), 0]), "this device only: {issued:x?}");
    driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
    assert_eq!(machine::take_issued(&machine), Vec::<[u64; 2]>::new(), "nothing changed");
}

#[test]
fn a_device_cache_does_not_outlive_the_entry_it_was_filled_under() {
    let machine = machine::with(&[], true);
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(DEVICE, stage2, TAG, &translate(1)).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).output, ram + 0x1_0000);
    driver.attach(DEVICE, stage2, PARENT, &BYPASS).unwrap();
    assert_ne!(machine.dma(DEVICE, IOVA, 1).status, Status::OK);
    // Another page behind the same IOVA, and back to ATS.
    machine.set_word(ram + 0x4000 + 8 * (IOVA >> 12), (RAM + 0x1_1000) | PRESENT);
    machine.issue(&[3 << 60 | u64::from(TAG) << 32, 0x7fff_ffff_ffff_f003]).unwrap();
    driver.attach(DEVICE, stage2, TAG, &translate(1)).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).output, ram + 0x1_1000);
}

#[test]
fn a_device_that_answers_no_cache_invalidation_fails_its_attach() {
    let machine = machine::with(&[], true);
    let (mut driver, stage2, _) = guest(&machine);
    machine.unresponsive(DEVICE, true);
    assert!(driver.attach(DEVICE, stage2, TAG, &translate(1)).is_err());
    driver.queue_resume();
    driver.detach(DEVICE).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::ABORT);
}

#[test]
fn unmap_under_nesting_needs_the_invalidations_that_the_driver_encodes() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::OK);
    driver.stage2_unmap(stage2, RAM, RAM_LEN).unwrap();
    assert_eq!(machine.dma(DEVICE, IOVA, 1).output, ram + 0x1_0000, "still cached: the test can fail");
    let encode = |driver: &AmdDriver, scope, tag| {
        let mut out = [0; 16];
        let what = HostInvalidation { scope, tag, address: RAM, length: RAM_LEN, ..HostInvalidation::default() };
        let words = driver.encode(&what, &mut out);
        machine.issue(&out[..words]).unwrap();
    };
    encode(&driver, Scope::STAGE2_RANGE, PARENT);
    assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::OK, "cached under the domain's tag, not the parent's");
    for scope in [Scope::STAGE2_RANGE, Scope::STAGE1_ALL] {
        encode(&driver, scope, TAG);
    }
    assert_eq!(machine.dma(DEVICE, IOVA, 1).status, Status::FAULT);
    driver.stage2_destroy(stage2);
}

#[test]
fn lost_events_are_told_once_after_the_ones_that_were_kept() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    driver.attach(DEVICE, stage2, TAG, &translate(0)).unwrap();
    let (kept, made) = (4095, 5000);
    for page in 0..made {
        machine.dma(DEVICE, 0x10_0000 + page * 0x1000, 1);
    }
    let mut owners = Vec::new();
    while let Some(event) = driver.event() {
        owners.push(event.owner);
    }
    assert_eq!(owners.len(), kept + 1);
    assert!(owners[..kept].iter().all(|&owner| owner == EventOwner::GUEST));
    assert_eq!(owners[kept], EventOwner::LOST);
    machine.dma(DEVICE, 0x10_0000, 1);
    assert_eq!(driver.event().unwrap().owner, EventOwner::GUEST, "goes on");
}

#[test]
fn what_the_hardware_lacks_is_refused_and_changes_nothing() {
    let five_levels = |mut key: EntryKey| {
        key.words[2] = 1 << 54;
        key
    };
    let three_levels = |mut key: EntryKey| {
        key.words[0] |= 2 << 56;
        key
    };
    // Four-level guest tables and one-level GCR3 tables; then QEMU's, which cannot nest.
    let small = Register { offset: offset::EFR, value: 1 << 4 | 1 << 6 | 1 << 48 | 15 << 32 };
    let qemu = Register { offset: offset::EFR, value: 0x29d7 };
    for (registers, key, errno) in [
        (small, five_levels(translate(0)), Refusal::EOPNOTSUPP),
        (small, three_levels(translate(0)), Refusal::EINVAL),
        (qemu, translate(0), Refusal::EOPNOTSUPP),
    ] {
        let machine = machine::with(&[registers], false);
        let (mut driver, stage2, ram) = guest(&machine);
        driver.attach(DEVICE, stage2, PARENT, &BYPASS).unwrap();
        assert_eq!(driver.attach(DEVICE, stage2, TAG, &key).unwrap_err().errno, errno);
        assert_eq!(machine.dma(DEVICE, RAM, 1).output, ram, "it does what it did before");
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    let streams = driver.info().streams;
    assert_eq!(driver.attach(DEVICE, 99, TAG, &BYPASS).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_map(99, 0, 0, 4096, 3).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_unmap(99, 0, 4096).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.attach(streams, stage2, TAG, &BYPASS).unwrap_err().errno, Refusal::EINVAL);
    assert_eq!(driver.detach(u32::MAX).unwrap_err().errno, Refusal::EINVAL);
    for tag in [0, 0x1_0000, u32::MAX] {
        assert_eq!(driver.stage2_create(tag).unwrap_err().errno, Refusal::EINVAL, "DomainID {tag}");
        assert_eq!(driver.attach(DEVICE, stage2, tag, &BYPASS).unwrap_err().errno, Refusal::EINVAL, "DomainID {tag}");
    }
    driver.stage2_destroy(99);
}
