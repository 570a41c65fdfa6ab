//! Bring-up, queue errors, what a guest may be shown.

use crate::machine;
use amd_vi::AmdVi;
use amd_vi::driver::AmdDriver;
use amd_vi::features::Features;
use amd_vi::spec::registers::{CAPABILITY_HEADER, offset};
use viommu_plugin::{
    Driver, Hardware, HostInvalidation, QueueFaultKind, Refusal, Register, Scope, Status, TranslationMode, Vendor,
};
use viommu_plugin_check::bench::Still;

/// EFR of QEMU's amd-iommu: GTSup without GIoSup.
const QEMU: Register = Register { offset: offset::EFR, value: 0x29d7 };

#[test]
fn comes_up_with_every_device_stopped() {
    let machine = machine::plain();
    let driver = AmdDriver::new(machine.boxed()).unwrap();
    let info = driver.info();
    assert_eq!(machine.mmio_read(offset::STATUS, 8) & 0x18, 0x18, "both rings run");
    assert_eq!(machine.mmio_read(offset::CONTROL, 8) & 0x0400_0000_0001_1405, 0x0400_0000_0001_1405);
    assert_eq!(machine.mmio_read(offset::COMMAND_HEAD, 8), machine.mmio_read(offset::COMMAND_TAIL, 8));
    assert_eq!((info.ring.log2_commands, info.ring.command_words, info.ring.wrap_bit), (13, 2, 0));
    assert_eq!((info.first_tag, info.last_tag, info.streams, info.modes), (1, 0xffff, 0x1_0000, 3));
    for stream in [0, 0x10, info.streams - 1] {
        assert_eq!(machine.dma(stream, 0x1000, 1).status, Status::ABORT);
    }
}

#[test]
fn takes_over_an_iommu_that_somebody_left_on() {
    let machine = machine::plain();
    drop(AmdDriver::new(machine.boxed()).unwrap());
    let second = AmdDriver::new(machine.boxed()).unwrap();
    assert_eq!(machine.mmio_read(offset::STATUS, 8) & 0x18, 0x18);
    assert_eq!(machine.mmio_read(offset::COMMAND_BASE, 8) & 0x000f_ffff_ffff_f000, second.info().ring.base);
}

#[test]
fn hardware_that_cannot_nest_still_shadows() {
    let driver = AmdDriver::new(machine::with(&[QEMU], false).boxed()).unwrap();
    let info = driver.info();
    assert_eq!((info.modes, info.ipa_bits), (TranslationMode::SHADOW.bit(), 63));
    assert!(driver.guest_registers(TranslationMode::NESTED).is_empty());
    let without_ats = [Register { offset: CAPABILITY_HEADER, value: 0x0800_000f }];
    assert_eq!(AmdDriver::new(machine::with(&without_ats, false).boxed()).unwrap().info().ats, 0);
}

#[test]
fn hardware_that_cannot_be_emptied_is_refused_by_name() {
    for (efr, names) in [(0x2997, "IASup"), (0x2dd7, "HATS")] {
        let machine = machine::with(&[Register { offset: offset::EFR, value: efr }], false);
        let refusal = AmdDriver::new(machine.boxed()).err().unwrap();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains(names), "{refusal}");
    }
}

#[test]
fn no_memory_at_any_point_is_an_error() {
    for allocations in 0.. {
        let machine = machine::plain();
        machine.fail_allocation_after(Some(allocations));
        match AmdDriver::new(machine.boxed()) {
            Err(refusal) => assert_eq!(refusal.errno, Refusal::ENOMEM),
            Ok(_) => {
                assert_eq!(allocations, 3, "device table and two rings");
                return;
            }
        }
    }
}

#[test]
fn hardware_that_does_not_answer_is_given_up() {
    let registers = |at| {
        if at == offset::EFR { QEMU.value } else { 0 }
    };
    let still = Still { registers, allocates_at: 0x1_0000_0000 };
    let refusal = AmdDriver::new(Box::new(still)).err().unwrap();
    assert_eq!(refusal.errno, Refusal::ETIMEDOUT);
}

#[test]
fn what_a_guest_may_be_shown_is_accepted_in_its_mode() {
    let driver = AmdDriver::new(machine::plain().boxed()).unwrap();
    for mode in [TranslationMode::NESTED, TranslationMode::SHADOW] {
        let registers = driver.guest_registers(mode);
        AmdVi::frontend(&registers).unwrap();
        AmdVi::codec(&registers).unwrap();
        AmdVi::covers(&registers, &registers).unwrap();
        let features = Features::new(&registers).unwrap();
        assert_eq!(features.mode(), mode);
        assert_eq!(features.header.np_cache(), mode == TranslationMode::SHADOW);
        assert!(
            !features.efr.ppr_sup() && !features.efr.ga_sup(),
            "page requests are not carried, interrupts not ours"
        );
    }
}

#[test]
fn an_illegal_command_is_found_replaced_and_resumed() {
    let machine = machine::plain();
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let ring = driver.info().ring;
    assert_eq!(driver.queue_fault(), None);
    let index = machine.mmio_read(ring.consumer, 4) >> ring.index_shift;
    assert!(machine.issue(&[0xf << 60, 0]).is_err());
    let running = machine.mmio_read(ring.error_register.into(), 4) as u32 & ring.running_bits;
    assert_eq!(running, 0, "the register that is looked at while waiting tells");
    let fault = driver.queue_fault().unwrap();
    assert_eq!((fault.kind, u64::from(fault.index)), (QueueFaultKind::ILLEGAL, index));
    assert_eq!(driver.queue_fault(), Some(fault), "asked again, it says the same");
    machine.set_word(ring.base + 16 * index, 1 << 60);
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None);
    machine.issue(&[]).unwrap();
    assert_eq!(driver.event().unwrap().code, 5, "and the record is not lost to the host");
}

#[test]
fn a_device_that_does_not_answer_stops_the_buffer_behind_its_command() {
    let machine = machine::with(&[], true);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    machine.unresponsive(9, true);
    let mut words = [0; 2];
    driver.encode(&HostInvalidation { scope: Scope::DEVICE_CACHE, stream: 9, ..Default::default() }, &mut words);
    let index = machine.mmio_read(offset::COMMAND_HEAD, 4) >> 4;
    assert!(machine.issue(&words).is_err());
    let fault = driver.queue_fault().unwrap();
    assert_eq!((fault.kind, u64::from(fault.index)), (QueueFaultKind::ATC_TIMEOUT, index + 1), "at its SYNC");
    driver.queue_resume();
    assert_eq!(machine.mmio_read(offset::COMMAND_HEAD, 4), machine.mmio_read(offset::COMMAND_TAIL, 4));
}

#[test]
fn a_log_that_lost_the_reason_leaves_an_illegal_command() {
    let machine = machine::plain();
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let control = machine.mmio_read(offset::CONTROL, 8);
    machine.mmio_write(offset::CONTROL, 8, control & !4);
    assert!(machine.issue(&[0xf << 60, 0]).is_err());
    assert_eq!(driver.queue_fault().unwrap().kind, QueueFaultKind::ILLEGAL);
}
