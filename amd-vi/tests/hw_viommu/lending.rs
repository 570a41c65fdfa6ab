//! What the driver lends and takes back.

use crate::guest::{DEVICES, DOMAINS, Guest, identity};
use crate::machine::{self, Machine};
use amd_vi::driver::AmdDriver;
use amd_vi::spec::dte::DteWord3;
use amd_vi::spec::registers::{Control, DeviceTableBase, Efr, offset};
use amd_vi::spec::viommu::{
    GUESTS, OWN_DEVICE, VF, VF_END, VFCTL, VFCTL_END, VFCTL_STRIDE, control, translate_device, vf, vfctl,
};
use viommu_plugin::{Driver, Hardware, HwQueueKind, HwQueueRequest, Refusal, Register, TranslationMode, Unreadable};

fn entry(machine: &Machine, device: u32) -> [u64; 4] {
    let base = DeviceTableBase::from(machine.mmio_read(offset::DEVICE_TABLE_BASE, 8)).address();
    std::array::from_fn(|word| machine.word(base + 32 * u64::from(device) + 8 * word as u64))
}

#[test]
fn an_iommu_without_it_lends_nothing() {
    let machine = machine::plain();
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    assert_eq!(driver.interface_create(stage2).unwrap_err().errno, Refusal::EOPNOTSUPP);
    assert_eq!((driver.info().streams, driver.info().last_tag), (0x1_0000, 0xffff));
    machine.mmio_write(vfctl(1) + control::MISC, 8, u64::MAX);
    machine.mmio_write(vf(1) + 8, 8, u64::MAX);
    assert!((VF..VF_END).chain(VFCTL..VFCTL_END).step_by(8).all(|at| machine.mmio_read(at, 8) == 0));
    let efr = driver.guest_registers(TranslationMode::NESTED).iter().find(|it| it.offset == offset::EFR).unwrap().value;
    assert!(!Efr::from(efr).viommu_sup());
}

#[test]
fn an_iommu_that_cannot_nest_has_no_use_for_it() {
    let efr = Efr::new().with_ia_sup(true).with_viommu_sup(true);
    let registers =
        [(offset::EFR, efr.into_bits()), (offset::EFR2, 0)].map(|(offset, value)| Register { offset, value });
    let machine = machine::with(&registers, false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    assert!(!Control::from(machine.mmio_read(offset::CONTROL, 8)).viommu_en());
    let stage2 = driver.stage2_create(1).unwrap();
    assert_eq!(driver.interface_create(stage2).unwrap_err().errno, Refusal::EOPNOTSUPP);
}

#[test]
fn a_part_is_set_up_used_and_gone_without_a_trace() {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let control = Control::from(machine.mmio_read(offset::CONTROL, 8));
    assert!(control.gst_buffer_trp_mode() && control.vcmd_en() && control.viommu_en());
    assert_eq!((driver.info().streams, driver.info().last_tag), (0xff00, 0xfffe));
    let (empty, abort) = (machine.allocated(), entry(&machine, 0x10));
    for round in 0..2 {
        let mut guest = Guest::new(&machine, &mut driver, 3);
        assert_eq!(guest.interface.handle, 1, "the lowest that is free, round {round}");
        assert_eq!((guest.interface.guest_page, guest.interface.page_length), (0x2000, 0x1000));
        let translate = entry(&machine, translate_device(1).into());
        assert_eq!((translate[0] & 3, translate[1] & 0xffff, translate[3]), (3, 3, 0), "the parent's, and no GuestID");
        guest.map(0, 3, 0x10_0000);
        guest.attach(&mut driver, 0, 11);
        for device in DEVICES {
            let word3 = DteWord3::from(entry(&machine, guest.stream(device))[3]);
            assert_eq!((word3.vimu_en(), word3.guest_id(), word3.guest_device_id()), (true, 1, device));
        }
        assert_eq!(guest.reaches(0, 3), Some(0x10_0000));
        assert!(guest.sync(&[]));
        let streams = DEVICES.map(|device| guest.stream(device));
        guest.destroy(&mut driver);
        for stream in streams.into_iter().chain([translate_device(1).into()]) {
            assert_eq!(entry(&machine, stream), abort, "{stream:#x}");
        }
        assert!((VF..VF_END).chain(VFCTL..VFCTL_END).step_by(8).all(|at| matches!(machine.mmio_read(at, 8), 0)));
        assert_eq!(driver.event(), None, "no strobe went where there is no table");
    }
    // What a tree of the private address space keeps until its next change.
    assert!(machine.allocated() - empty <= 64 * 4096, "{:#x} bytes more", machine.allocated() - empty);
    assert_eq!(entry(&machine, OWN_DEVICE.into())[0] & 3, 3);
}

#[test]
fn entries_lead_to_a_guest_only_as_long_as_it_knows_the_device() {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let mut guest = Guest::new(&machine, &mut driver, 1);
    guest.map(0, 3, 0x10_0000);
    guest.attach(&mut driver, 0, 11);
    let (handle, key) = (guest.interface.handle, guest.key(0));
    for (virt_id, stream, errno) in [
        (0x1_0000, 0x50, Refusal::EINVAL),
        (7, 0, Refusal::EINVAL),
        (7, 0xff01, Refusal::EINVAL),
        (0, 0x50, Refusal::EEXIST),
        (7, guest.stream(1), Refusal::EEXIST),
    ] {
        assert_eq!(driver.interface_stream_set(handle, virt_id, stream).unwrap_err().errno, errno, "{virt_id:#x}");
    }
    assert_eq!(driver.attach(0x50, guest.stage2, 11, &key).unwrap_err().errno, Refusal::EINVAL, "no number of its own");
    assert_eq!(driver.attach(0xff01, guest.stage2, 11, &key).unwrap_err().errno, Refusal::EINVAL, "no device");
    driver.interface_stream_clear(handle, 0).unwrap();
    assert_eq!(entry(&machine, guest.stream(0))[3], 0);
    assert_eq!(driver.interface_stream_clear(handle, 0).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(driver.interface_domain_set(handle, 0x1_0000, 11).unwrap_err().errno, Refusal::EINVAL);
    assert_eq!(driver.interface_domain_set(9, 1, 11).unwrap_err().errno, Refusal::ENOENT);
    assert_eq!(DOMAINS[0], 5);
}

#[test]
fn rings_are_checked() {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    let part = driver.interface_create(stage2).unwrap().handle;
    let good = HwQueueRequest { kind: HwQueueKind::COMMAND, index: 0, iova: 0x1000, length: 0x1000 };
    for wrong in [
        HwQueueRequest { length: 0x800, ..good },
        HwQueueRequest { length: 0x1800, ..good },
        HwQueueRequest { length: 0x10_0000, ..good },
        HwQueueRequest { length: 0, ..good },
        HwQueueRequest { iova: 0x1800, ..good },
        HwQueueRequest { iova: 1 << 52, ..good },
        HwQueueRequest { index: 1, ..good },
    ] {
        assert_eq!(driver.hw_queue_create(part, &wrong, 0).unwrap_err().errno, Refusal::EINVAL, "{wrong:x?}");
    }
    let pages = HwQueueRequest { kind: HwQueueKind::PAGE_REQUEST, ..good };
    assert_eq!(driver.hw_queue_create(part, &pages, 0).unwrap_err().errno, Refusal::EOPNOTSUPP);
    for length in 8..=15 {
        let queue = driver.hw_queue_create(part, &HwQueueRequest { length: 16 << length, ..good }, 0).unwrap();
        assert_eq!(machine.mmio_read(vfctl(1) + control::COMMAND, 8), 0x1300 | length);
        assert_eq!(driver.hw_queue_create(part, &good, 0).unwrap_err().errno, Refusal::EEXIST);
        driver.hw_queue_destroy(queue).unwrap();
        assert_eq!(driver.hw_queue_destroy(queue).unwrap_err().errno, Refusal::ENOENT);
    }
}

#[test]
fn memory_that_runs_out_leaves_the_part_free() {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    for left in 0..6 {
        machine.fail_allocation_after(Some(left));
        assert_eq!(driver.interface_create(stage2).unwrap_err().errno, Refusal::ENOMEM, "after {left}");
    }
    machine.fail_allocation_after(None);
    assert_eq!(driver.interface_create(stage2).unwrap().handle, 1);
}

/// A machine whose hardware takes no strobe: 65536 presets a part would be half a minute, and lending does not depend on
/// what they did.
struct NoStrobes(Machine);

impl Hardware for NoStrobes {
    fn mmio_read(&self, at: u64, size: u32) -> u64 {
        self.0.mmio_read(at, size)
    }
    fn mmio_write(&self, at: u64, size: u32, value: u64) {
        let strobe = (VFCTL..VFCTL_END).contains(&at) && (at - VFCTL) % VFCTL_STRIDE == control::DOMAIN_MAP;
        if !strobe {
            self.0.mmio_write(at, size, value);
        }
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.0.read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0.write(pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        self.0.alloc(len, align)
    }
    fn free(&self, pa: u64, len: u64) {
        self.0.free(pa, len);
    }
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        self.0.issue(commands)
    }
}

#[test]
fn all_parts_can_be_lent() {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(Box::new(NoStrobes(machine))).unwrap();
    let stage2 = driver.stage2_create(1).unwrap();
    for guest in 1..GUESTS {
        assert_eq!(driver.interface_create(stage2).unwrap().handle, guest.into());
    }
    assert_eq!(driver.interface_create(stage2).unwrap_err().errno, Refusal::ENOSPC);
}
