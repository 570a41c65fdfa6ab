//! Bring-up, queue errors, what a guest may be shown.

use crate::machine;
use arm_smmuv3::ArmSmmuv3;
use arm_smmuv3::driver::ArmDriver;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::TranslationMode;
use viommu_plugin::{Driver, Hardware, QueueFaultKind, Refusal, Register, Status, Vendor};
use viommu_plugin_check::bench::Still;

fn id(offset: u64, value: u64) -> Register {
    Register { offset, value }
}

#[test]
fn comes_up_with_every_stream_aborting() {
    let machine = machine::plain();
    let driver = ArmDriver::new(machine.boxed()).unwrap();
    let info = driver.info();
    assert_eq!(machine.mmio_read(offset::CR0ACK, 4) & 0xd, 0xd);
    assert_eq!(machine.mmio_read(offset::CMDQ_CONS, 4), machine.mmio_read(offset::CMDQ_PROD, 4));
    assert!((8..=15).contains(&info.ring.log2_commands) && info.ring.command_words == 2);
    assert_eq!((info.first_tag, info.page_log2, info.ring.producer), (1, 12, offset::CMDQ_PROD));
    for stream in [0, 0x10, info.streams - 1] {
        assert_ne!(machine.dma(stream, 0x1000, 1).status, Status::OK);
        assert_ne!(machine.dma(stream, 0x1000, 1).status, Status::DISABLED);
    }
}

#[test]
fn takes_over_an_smmu_that_somebody_left_on() {
    let machine = machine::plain();
    drop(ArmDriver::new(machine.boxed()).unwrap());
    let second = ArmDriver::new(machine.boxed()).unwrap();
    assert_eq!(machine.mmio_read(offset::CR0ACK, 4) & 0xd, 0xd);
    assert_eq!(machine.mmio_read(offset::CMDQ_BASE, 8) & !0x4000_0000_0000_001f, second.info().ring.base);
}

#[test]
fn qemus_smmu_is_enough() {
    let registers = [id(offset::IDR0, 0x0d44_101b), id(offset::IDR1, 0x0273_0010), id(offset::IDR5, 0x74)];
    let driver = ArmDriver::new(machine::with(&registers, false).boxed()).unwrap();
    let info = driver.info();
    assert_eq!((info.streams, info.ipa_bits, info.ats, info.last_tag), (0x1_0000, 44, 0, 0xffff));
}

#[test]
fn hardware_that_cannot_nest_is_refused_by_name() {
    for (registers, names) in [
        (id(offset::IDR0, 0x0d44_101a), "S2P"),
        (id(offset::IDR0, 0x0d44_1019), "S1P"),
        (id(offset::IDR0, 0x0d44_100b), "COHACC"),
        (id(offset::IDR0, 0x0e44_101b), "STALL_MODEL"),
        (id(offset::IDR5, 0x64), "GRAN4K"),
    ] {
        let refusal = ArmDriver::new(machine::with(&[registers], false).boxed()).err().unwrap();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains(names), "{refusal}");
    }
}

#[test]
fn no_memory_at_any_point_is_an_error() {
    for allocations in 0.. {
        let machine = machine::plain();
        machine.fail_allocation_after(Some(allocations));
        match ArmDriver::new(machine.boxed()) {
            Err(refusal) => assert_eq!(refusal.errno, Refusal::ENOMEM),
            Ok(_) => {
                assert!(allocations >= 3, "stream table and two queues");
                return;
            }
        }
    }
}

#[test]
fn hardware_that_does_not_answer_is_given_up() {
    let registers = |at| match at {
        offset::IDR0 => 0x0d44_101b,
        offset::IDR1 => 0x0273_0010,
        offset::IDR5 => 0x74,
        _ => u64::MAX,
    };
    let still = Still { registers, allocates_at: 0x1_0000_0000 };
    let refusal = ArmDriver::new(Box::new(still)).err().unwrap();
    assert_eq!(refusal.errno, Refusal::ETIMEDOUT);
}

#[test]
fn what_a_guest_may_be_shown_is_accepted_and_has_no_stage_2() {
    let machine = machine::plain();
    let driver = ArmDriver::new(machine.boxed()).unwrap();
    let registers = driver.guest_registers(TranslationMode::NESTED);
    ArmSmmuv3::frontend(&registers).unwrap();
    ArmSmmuv3::codec(&registers).unwrap();
    let idr0 = registers.iter().find(|register| register.offset == offset::IDR0).unwrap().value;
    assert_eq!(idr0 & 0x1_0203, 2, "S1P only: no S2P, HYP, PRI");
    assert_eq!(idr0 & 1 << 10, machine.mmio_read(offset::IDR0, 4) & 1 << 10, "ATS as the hardware");
}

#[test]
fn an_illegal_command_is_found_replaced_and_resumed() {
    let machine = machine::plain();
    let mut driver = ArmDriver::new(machine.boxed()).unwrap();
    assert_eq!(driver.queue_fault(), None);
    let ring = driver.info().ring;
    let at = machine.mmio_read(offset::CMDQ_CONS, 4);
    assert!(machine.issue(&[0x46, 0, 0xff, 0]).is_err());
    let fault = driver.queue_fault().unwrap();
    assert_eq!((fault.kind, u64::from(fault.index)), (QueueFaultKind::ILLEGAL, at + 1));
    machine.set_word(ring.base + (at + 1) * 16, 0x46);
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None);
    machine.mmio_write(offset::CMDQ_PROD, 4, at + 3);
    assert_eq!(machine.mmio_read(offset::CMDQ_CONS, 4) & 0xf_ffff, at + 3);
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None, "nothing to acknowledge, nothing toggled");
}
