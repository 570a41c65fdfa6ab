//! Attach and detach, judged by DMA.

use crate::machine::{self, Machine};
use arm_smmuv3::driver::ArmDriver;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{
    Driver, EntryKey, EventOwner, Hardware, HostInvalidation, KeyKind, NO_DOMAIN, Refusal, Register, Scope, Status,
};

const STREAM: u32 = 0x10;
const TAG: u32 = 7;
/// Guest addresses: 2 MiB of RAM at 1 GiB holding CD at +0 and stage-1 tables from +0x1000.
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x20_0000;
const IOVA: u64 = 0x7000;
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };
const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };

/// Stage 1, one CD at the start of RAM; with `eats`.
fn translate(eats: u64) -> EntryKey {
    EntryKey { kind: KeyKind::TRANSLATE, words: [RAM | 0xb, 2 | eats << 28, 0, 0], ..ABORT }
}

/// A driver, one guest with its RAM somewhere else in host memory, and that place.
fn guest(machine: &Machine) -> (ArmDriver, u32, u64) {
    let mut driver = ArmDriver::new(machine.boxed()).unwrap();
    let ram = machine.alloc(RAM_LEN, RAM_LEN).unwrap();
    let stage2 = driver.stage2_create(TAG).unwrap();
    driver.stage2_map(stage2, RAM, ram, RAM_LEN, 3).unwrap();
    // CD: 39-bit TTB0 at RAM + 0x1000, 4 KiB granule, EPD1, 44-bit output, AA64, faults recorded, ASID 1.
    machine.set_word(ram, 25 | 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 48);
    machine.set_word(ram + 8, RAM + 0x1000);
    // Levels 1, 2, 3: IOVA is RAM + 0x10000.
    machine.set_word(ram + 0x1000, (RAM + 0x2000) | 3);
    machine.set_word(ram + 0x2000, (RAM + 0x3000) | 3);
    machine.set_word(ram + 0x3000 + 8 * (IOVA >> 12), (RAM + 0x1_0000) | 3 | 1 << 6 | 1 << 10);
    (driver, stage2, ram)
}

#[test]
fn bypass_is_stage_2_alone() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, TAG, &BYPASS).unwrap();
    let answer = machine.dma(STREAM, RAM + 0x123, 2);
    assert_eq!((answer.status, answer.stage, answer.output), (Status::OK, 2, ram + 0x123));
    let outside = machine.dma(STREAM, 0x1000, 1);
    assert_eq!((outside.status, outside.stage, outside.ipa & !0xfff), (Status::FAULT, 2, 0x1000));
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream), (EventOwner::HOST, STREAM), "no guest sees a stage-2 fault");
    assert_eq!(driver.event(), None);
}

#[test]
fn translate_nests_and_the_guest_gets_its_faults() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
    let answer = machine.dma(STREAM, IOVA + 8, 1);
    assert_eq!((answer.status, answer.output), (Status::OK, ram + 0x1_0008));
    assert_eq!(machine.dma(STREAM, 0x8000, 2).status, Status::FAULT);
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, STREAM, 0x10, 4));
    assert_eq!((event.record[0] >> 32, event.record[2]), (0, 0x8000));
}

#[test]
fn detach_and_abort_stop_dma_without_an_event() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    for stop in [0, 1] {
        driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
        assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
        match stop {
            0 => driver.detach(STREAM).unwrap(),
            _ => driver.attach(STREAM, stage2, TAG, &ABORT).unwrap(),
        }
        assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::ABORT);
        assert_eq!(driver.event(), None);
    }
    driver.detach(0x8000).unwrap();
    assert_eq!(machine.dma(0x8000, 0, 1).status, Status::FAULT, "a stream that never was");
}

#[test]
fn streams_do_not_reach_each_other() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    let other = driver.stage2_create(8).unwrap();
    driver.stage2_map(other, RAM, ram + RAM_LEN, 0x1000, 3).unwrap();
    driver.attach(STREAM, stage2, TAG, &BYPASS).unwrap();
    driver.attach(STREAM + 1, other, 8, &BYPASS).unwrap();
    assert_eq!(machine.dma(STREAM, RAM, 1).output, ram);
    assert_eq!(machine.dma(STREAM + 1, RAM, 1).output, ram + RAM_LEN);
    assert_ne!(machine.dma(STREAM + 2, RAM, 1).status, Status::OK);
}

#[test]
fn each_change_is_announced_and_nothing_else_is() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    machine::take_issued(&machine);
    driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
    let issued = machine::take_issued(&machine);
    assert!(!issued.is_empty());
    for words in &issued {
        assert_eq!((words[0], words[1] & !1), (u64::from(STREAM) << 32 | 0x03, 0), "CFGI_STE of this stream only");
    }
    assert_eq!(issued[0][1] & 1, 0, "a new level-1 descriptor is not only a leaf");
    driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
    assert_eq!(machine::take_issued(&machine), Vec::<[u64; 2]>::new(), "nothing changed");
    driver.attach(STREAM + 1, stage2, TAG, &translate(0)).unwrap();
    assert!(machine::take_issued(&machine).iter().all(|words| words[1] == 1), "leaves in an array that is known");
}

#[test]
fn a_device_cache_does_not_outlive_the_entry_it_was_filled_under() {
    let machine = machine::with(&[], true);
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, TAG, &translate(1)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000);
    driver.attach(STREAM, stage2, TAG, &BYPASS).unwrap();
    assert_ne!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
    // Another page behind the same IOVA, and back to ATS.
    machine.set_word(ram + 0x3000 + 8 * (IOVA >> 12), (RAM + 0x1_1000) | 3 | 1 << 6 | 1 << 10);
    machine.issue(&[0x10 | 7 << 32, 0]).unwrap();
    driver.attach(STREAM, stage2, TAG, &translate(1)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_1000);
}

#[test]
fn a_device_that_answers_no_cache_invalidation_fails_its_attach() {
    let machine = machine::with(&[], true);
    let (mut driver, stage2, _) = guest(&machine);
    machine.unresponsive(STREAM, true);
    assert!(driver.attach(STREAM, stage2, TAG, &translate(1)).is_err());
    driver.queue_resume();
    driver.detach(STREAM).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::ABORT);
}

#[test]
fn ats_is_off_where_hardware_or_guest_has_none() {
    let without = [Register { offset: offset::IDR0, value: 0x0d44_101b }];
    for (registers, eats) in [(&without[..], 1), (&[][..], 0)] {
        let machine = machine::with(registers, true);
        let (mut driver, stage2, ram) = guest(&machine);
        driver.attach(STREAM, stage2, TAG, &translate(eats)).unwrap();
        assert!(machine::take_issued(&machine).iter().all(|words| words[0] as u8 == 0x03), "no ATC_INV");
        assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000);
    }
}

#[test]
fn unmap_under_nesting_needs_the_invalidations_that_the_driver_encodes() {
    let machine = machine::plain();
    let (mut driver, stage2, ram) = guest(&machine);
    driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::OK);
    driver.stage2_unmap(stage2, RAM, RAM_LEN).unwrap();
    assert_eq!(machine.dma(STREAM, IOVA, 1).output, ram + 0x1_0000, "still cached: the test can fail");
    for (scope, length) in [(Scope::STAGE2_RANGE, RAM_LEN), (Scope::STAGE1_ALL, 0)] {
        let what = HostInvalidation { scope, tag: 7, address: RAM, length, ..HostInvalidation::default() };
        let mut out = [0; 16];
        let words = driver.encode(&what, &mut out);
        machine.issue(&out[..words]).unwrap();
    }
    assert_eq!(machine.dma(STREAM, IOVA, 1).status, Status::FAULT);
    driver.stage2_destroy(stage2);
}

#[test]
fn lost_events_are_told_once_after_the_ones_that_were_kept() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    driver.attach(STREAM, stage2, TAG, &translate(0)).unwrap();
    let (kept, made) = (4096, 5000);
    for page in 0..made {
        machine.dma(STREAM, 0x10_0000 + page * 0x1000, 1);
    }
    let mut owners = Vec::new();
    while let Some(event) = driver.event() {
        owners.push(event.owner);
    }
    assert_eq!(owners.len(), kept + 1);
    assert!(owners[..kept].iter().all(|&owner| owner == EventOwner::GUEST));
    assert_eq!(owners[kept], EventOwner::LOST);
    machine.dma(STREAM, 0x10_0000, 1);
    assert_eq!(driver.event().unwrap().owner, EventOwner::GUEST, "goes on");
}

#[test]
fn what_does_not_exist_is_refused() {
    let machine = machine::plain();
    let (mut driver, stage2, _) = guest(&machine);
    let streams = driver.info().streams;
    assert_eq!(driver.attach(STREAM, 99, TAG, &BYPASS).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_map(99, 0, 0, 4096, 3).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.stage2_unmap(99, 0, 4096).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.attach(streams, stage2, TAG, &BYPASS).unwrap_err().errno, Refusal::EINVAL);
    assert_eq!(driver.detach(u32::MAX).unwrap_err().errno, Refusal::EINVAL);
    for tag in [0, driver.info().last_tag + 1, u32::MAX] {
        assert_eq!(driver.stage2_create(tag).unwrap_err().errno, Refusal::EINVAL, "VMID {tag}");
    }
    driver.stage2_destroy(99);
}
