//! Bring-up, queue errors, what a guest may be shown.

use crate::machine::{machine, with};
use intel_vtd::IntelVtd;
use intel_vtd::driver::VtdDriver;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{Codec, Driver, Hardware, QueueFaultKind, Refusal, Register, Status, TranslationMode, Vendor};
use viommu_plugin_check::bench::Still;

const CAP: Register = Register { offset: offset::CAP, value: 0x1dd2_008c_002f_0e06 | 0x22 << 24 };
const ECAP: Register = Register { offset: offset::ECAP, value: 0x1_c800_0400_0f47 };

#[test]
fn comes_up_with_every_device_aborting() {
    let machine = machine();
    let driver = VtdDriver::new(machine.boxed()).unwrap();
    let info = driver.info();
    assert_eq!(machine.mmio_read(offset::GSTS, 4) >> 26 & 0x31, 0x31, "TES, RTPS, QIES");
    assert_eq!(machine.mmio_read(offset::IQH, 4), machine.mmio_read(offset::IQT, 4));
    assert_eq!((info.ring.log2_commands, info.ring.command_words, info.ring.wrap_bit), (13, 4, 0));
    assert_eq!((info.first_tag, info.last_tag, info.page_log2), (1, 0xffff, 12));
    assert_eq!((info.streams, info.ipa_bits, info.modes), (0x1_0000, 48, 3));
    for stream in [0, 0x10, 0x80, info.streams - 1] {
        assert_eq!(machine.dma(stream, 0x1000, 1).status, Status::FAULT);
    }
}

#[test]
fn takes_over_a_unit_that_somebody_left_on() {
    let machine = machine();
    drop(VtdDriver::new(machine.boxed()).unwrap());
    machine.dma(3, 0, 1);
    let mut second = VtdDriver::new(machine.boxed()).unwrap();
    assert_eq!(machine.mmio_read(offset::IQA, 8) & !0xfff, second.info().ring.base);
    assert_eq!(second.event(), None, "faults of earlier days are nobody's");
    machine.dma(3, 0, 1);
    assert!(second.event().is_some());
}

#[test]
fn hardware_that_cannot_hold_a_guest_is_refused_by_name() {
    let register = |value| Register { value, ..ECAP };
    for (registers, names) in [
        ([CAP, register(ECAP.value & !2)], "ECAP.QI"),
        ([CAP, register(ECAP.value & !(1 << 43))], "ECAP.SMTS"),
        ([CAP, register(ECAP.value & !(1 << 46))], "SSTS"),
        ([CAP, register(ECAP.value & !(1 << 48 | 1))], "ECAP.C"),
        ([Register { value: CAP.value & !0x1f00, ..CAP }, ECAP], "CAP.SAGAW"),
    ] {
        let refusal = VtdDriver::new(with(&registers, false).boxed()).err().unwrap();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains(names), "{refusal}");
    }
}

#[test]
fn hardware_that_does_not_nest_shadows() {
    let driver = VtdDriver::new(with(&[CAP, ECAP], false).boxed()).unwrap();
    assert_eq!(driver.info().modes, 3);
    let without = Register { value: ECAP.value & !(1 << 26), ..ECAP };
    let driver = VtdDriver::new(with(&[CAP, without], false).boxed()).unwrap();
    assert_eq!(driver.info().modes, TranslationMode::SHADOW.bit());
    assert!(driver.guest_registers(TranslationMode::NESTED).is_empty());
}

#[test]
fn no_memory_at_any_point_is_an_error() {
    for allocations in 0.. {
        let machine = machine();
        machine.fail_allocation_after(Some(allocations));
        match VtdDriver::new(machine.boxed()) {
            Err(refusal) => assert_eq!(refusal.errno, Refusal::ENOMEM),
            Ok(_) => {
                assert_eq!(allocations, 2, "root table and queue");
                return;
            }
        }
    }
}

#[test]
fn hardware_that_does_not_answer_is_given_up() {
    let registers = |at| match at {
        offset::CAP => CAP.value,
        offset::ECAP => ECAP.value,
        _ => u64::MAX,
    };
    let still = Still { registers, allocates_at: 0x1_0000_0000 };
    let refusal = VtdDriver::new(Box::new(still)).err().unwrap();
    assert_eq!(refusal.errno, Refusal::ETIMEDOUT);
}

#[test]
fn what_a_guest_may_be_shown_is_accepted_in_its_mode_and_announces_what_it_maps() {
    let machine = machine();
    let driver = VtdDriver::new(machine.boxed()).unwrap();
    for mode in [TranslationMode::NESTED, TranslationMode::SHADOW] {
        let registers = driver.guest_registers(mode);
        IntelVtd::frontend(&registers).unwrap();
        assert_eq!(IntelVtd::codec(&registers).unwrap().mode(), mode);
        IntelVtd::covers(&registers, &registers).unwrap();
        let value = |at| registers.iter().find(|register| register.offset == at).unwrap().value;
        assert_eq!(value(offset::CAP) >> 7 & 1, 1, "CM");
        // NEST, PRS, PASID, SSTS, RPS: never a guest's.
        assert_eq!(value(offset::ECAP) & (1 << 26 | 1 << 29 | 1 << 40 | 1 << 46 | 1 << 49), 0);
        assert_eq!(value(offset::ECAP) & 4, machine.mmio_read(offset::ECAP, 8) & 4, "DT as the hardware");
    }
}

#[test]
fn an_illegal_descriptor_is_found_replaced_and_resumed() {
    let machine = machine();
    let mut driver = VtdDriver::new(machine.boxed()).unwrap();
    assert_eq!(driver.queue_fault(), None);
    let ring = driver.info().ring;
    let at = machine.mmio_read(offset::IQH, 4) / 32;
    assert!(machine.issue(&[0x45, 0, 0, 0, 0xf, 0, 0, 0]).is_err());
    let fault = driver.queue_fault().unwrap();
    assert_eq!((fault.kind, u64::from(fault.index)), (QueueFaultKind::ILLEGAL, at + 1));
    machine.set_word(ring.base + (at + 1) * 32, 0x45);
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None);
    machine.mmio_write(offset::IQT, 4, (at + 3) * 32);
    assert_eq!(machine.mmio_read(offset::IQH, 4), (at + 3) * 32);
    driver.queue_resume();
    assert_eq!(driver.queue_fault(), None, "nothing to acknowledge");
}
