//! Who gets what, and what is refused with which errno (C11 rows 2 to 7).

use crate::machine::{Guest, Machine, sync};
use arm_smmuv3::spec::registers::offset as smmu;
use tegra_vcmdq::driver::TegraDriver;
use tegra_vcmdq::spec::{CMDQV, PAGE, Param, VCMDQ_STRIDE, VIRT_SID_MAX, VintfConfig, offset, page0, vintf};
use viommu_plugin::{Driver, Hardware, HwQueueKind, HwQueueRequest, Model, Refusal, Register, TranslationMode};

fn errno<T: std::fmt::Debug>(result: Result<T, Refusal>) -> i32 {
    result.unwrap_err().errno
}

fn param(param: Param) -> Register {
    Register { offset: CMDQV + offset::PARAM, value: param.into_bits().into() }
}

fn config(machine: &Machine, number: u32) -> VintfConfig {
    let at = CMDQV + offset::VINTF + offset::VINTF_STRIDE * u64::from(number) + vintf::CONFIG;
    VintfConfig::from_bits(machine.mmio_read(at, 4) as u32)
}

#[test]
fn every_guest_has_a_vintf_with_its_own_vmid_until_there_are_none() {
    let (machine, mut driver) = Machine::driven(false);
    let mut given = Vec::new();
    for vmid in 1..=63 {
        let stage2 = driver.stage2_create(vmid).unwrap();
        let interface = driver.interface_create(stage2).unwrap();
        assert_eq!(interface.page, CMDQV + 0x3_0000 + 0x2_0000 * u64::from(interface.handle));
        assert_eq!((interface.page_length, interface.guest_page), (PAGE, CMDQV + 0x3_0000));
        let config = config(&machine, interface.handle);
        assert_eq!((config.en(), config.hyp_own(), config.vmid()), (true, false, vmid as u16));
        given.push(interface.handle);
    }
    assert_eq!(given, (1..=63).collect::<Vec<_>>(), "VINTF 0 is the host's, the lowest free one is next");
    let stage2 = driver.stage2_create(64).unwrap();
    assert_eq!(errno(driver.interface_create(stage2)), Refusal::ENOSPC);
    driver.interface_destroy(9).unwrap();
    assert_eq!(config(&machine, 9), VintfConfig::new());
    assert_eq!(driver.interface_create(stage2).unwrap().handle, 9);
    assert_eq!(config(&machine, 9).vmid(), 64);
    assert_eq!(errno(driver.interface_create(0xdead)), Refusal::ENOENT);
    assert_eq!(errno(driver.interface_destroy(0)), Refusal::ENOENT);
    assert_eq!(errno(driver.interface_destroy(64)), Refusal::ENOENT);
}

#[test]
fn slots_hold_20_bits_and_there_are_as_many_as_param_says() {
    for log2 in [4, 1] {
        let registers = [param(Param::MODEL.with_num_sid_log2(log2))];
        let machine = Machine::with(&registers, false);
        let mut driver = TegraDriver::new(Box::new(machine.clone())).unwrap();
        let stage2 = driver.stage2_create(1).unwrap();
        let handle = driver.interface_create(stage2).unwrap().handle;
        assert_eq!(errno(driver.interface_stream_set(handle, VIRT_SID_MAX + 1, 1)), Refusal::EINVAL);
        for slot in 0..1 << log2 {
            driver.interface_stream_set(handle, VIRT_SID_MAX - slot, 0x100 + slot).unwrap();
        }
        assert_eq!(errno(driver.interface_stream_set(handle, VIRT_SID_MAX, 1)), Refusal::EEXIST);
        assert_eq!(errno(driver.interface_stream_set(handle, 5, 1)), Refusal::ENOSPC);
        assert_eq!(errno(driver.interface_stream_clear(handle, 5)), Refusal::ENOENT);
        let block = CMDQV + offset::VINTF + offset::VINTF_STRIDE * u64::from(handle);
        let slot = |at| machine.mmio_read(block + at + 4, 4);
        let expected = (u64::from(VIRT_SID_MAX - 1) << 1 | 1, 0x101);
        assert_eq!((slot(vintf::SID_MATCH), slot(vintf::SID_REPLACE)), expected);
        driver.interface_stream_clear(handle, VIRT_SID_MAX - 1).unwrap();
        assert_eq!((slot(vintf::SID_MATCH), slot(vintf::SID_REPLACE)), (0, 0));
        driver.interface_stream_set(handle, 5, 0x200).unwrap();
        assert_eq!((slot(vintf::SID_MATCH), slot(vintf::SID_REPLACE)), (11, 0x200));
        driver.interface_destroy(handle).unwrap();
        assert_eq!((slot(vintf::SID_MATCH), slot(vintf::SID_REPLACE)), (0, 0), "nothing is left for the next");
    }
}

#[test]
fn queues_come_ascending_and_go_descending() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    let handle = guest.interface.handle;
    let request = |index| HwQueueRequest { index, length: 0x1000, ..HwQueueRequest::default() };
    let pa = guest.ram;
    assert_eq!(errno(driver.hw_queue_create(handle, &request(2), pa)), Refusal::EINVAL, "a VINTF has two");
    assert_eq!(errno(driver.hw_queue_create(handle, &request(1), pa)), Refusal::EIO, "0 comes first");
    let first = driver.hw_queue_create(handle, &request(0), pa).unwrap();
    assert_eq!(errno(driver.hw_queue_create(handle, &request(0), pa)), Refusal::EEXIST);
    let events = HwQueueRequest { kind: HwQueueKind::EVENT, ..request(1) };
    assert_eq!(errno(driver.hw_queue_create(handle, &events, pa)), Refusal::EOPNOTSUPP);
    assert_eq!(guest.read(1, page0::PROD), 0);
    guest.write(1, page0::PROD, 1);
    assert_eq!(guest.read(1, page0::PROD), 0, "a queue that is not given is not there");
    let second = driver.hw_queue_create(handle, &request(1), pa).unwrap();
    assert_eq!(errno(driver.hw_queue_destroy(first)), Refusal::EBUSY);
    driver.hw_queue_destroy(second).unwrap();
    assert_eq!(errno(driver.hw_queue_destroy(second)), Refusal::ENOENT);
    driver.hw_queue_destroy(first).unwrap();
    assert_eq!(errno(driver.hw_queue_create(0, &request(0), pa)), Refusal::ENOENT, "VINTF 0 is the host's");
    assert!(!guest.say(0, &[sync()]));
}

#[test]
fn sizes_and_places_that_base_cannot_hold_are_refused() {
    let idr1 = Machine::with(&[], false).mmio_read(smmu::IDR1, 4) & !(0x1f << 21) | 8 << 21;
    let machine = Machine::with(&[Register { offset: smmu::IDR1, value: idr1 }], false);
    let mut driver = TegraDriver::new(Box::new(machine.clone())).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    let handle = driver.interface_create(stage2).unwrap().handle;
    let mut tried = |length: u64, pa: u64| {
        let request = HwQueueRequest { length, ..HwQueueRequest::default() };
        driver.hw_queue_create(handle, &request, pa).map(|queue| driver.hw_queue_destroy(queue).unwrap())
    };
    for length in [0, 1, 16, 31, 33, 48, 0x1001, 0x2000, u64::MAX, 1 << 63] {
        assert_eq!(errno(tried(length, 0)), Refusal::EINVAL, "{length:#x} bytes, CMDQS is 8");
    }
    for (length, pa) in [(0x1000, 0x800), (32, 16), (64, 32), (32, 1 << 48), (0x1000, 1 << 63)] {
        assert_eq!(errno(tried(length, pa)), Refusal::EINVAL, "{length:#x} bytes at {pa:#x}");
    }
    for (length, pa) in [(32, 32), (0x1000, 0x1000), (0x1000, 0xffff_ffff_f000)] {
        tried(length, pa).unwrap();
    }
}

#[test]
fn the_next_guest_finds_a_queue_as_after_power_on() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    let handle = guest.interface.handle;
    guest.queue(&mut driver, 0);
    guest.queue(&mut driver, 1);
    assert!(guest.say(0, &[sync(), sync()]) && !guest.say(1, &[[0xff, 0]]));
    driver.interface_destroy(handle).unwrap();
    assert_eq!(machine.mmio_read(CMDQV + offset::VINTF_ERR_MAP, 4), 0);
    machine.take_irqs();
    let mut next = Guest::new(&machine, &mut driver, 8, 3);
    assert_eq!(next.interface.handle, handle);
    for index in 0..2 {
        next.queue(&mut driver, index);
        for register in [page0::PROD, page0::CONS] {
            assert_eq!(next.read(index, register), 0);
        }
        assert_eq!(next.read(index, page0::GERROR), next.read(index, page0::GERRORN));
        assert!(next.say(index, &[sync()]));
    }
    assert!(machine.take_irqs().is_empty());
    assert_eq!(driver.event(), None);
}

#[test]
fn an_smmu_whose_cmdqv_is_not_there_is_an_smmu() {
    let machine = Machine::with(&[param(Param::new())], false);
    let mut driver = TegraDriver::new(Box::new(machine)).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    assert_eq!(errno(driver.interface_create(stage2)), Refusal::EOPNOTSUPP);
    let shown = driver
        .guest_registers(TranslationMode::NESTED)
        .into_iter()
        .find(|register| register.offset == CMDQV + offset::PARAM);
    assert_eq!(shown.unwrap().value, 0);
}

#[test]
fn a_reset_takes_everything_back() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    machine.model().reset();
    let fresh = Machine::with(&[], false);
    let queues = (0..2).map(|index| guest.interface.page + VCMDQ_STRIDE * index);
    for at in (CMDQV..CMDQV + 0x1_0000).step_by(4).chain(queues) {
        assert_eq!(machine.mmio_read(at, 4), fresh.mmio_read(at, 4), "{at:#x}");
    }
}
