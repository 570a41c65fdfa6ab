//! The questions themselves, asked of the software iommufd: answered, and nothing left behind.

use super::reported;
use crate::probe::ask;
use crate::probe::facts::{DeviceFacts, Outcome};
use crate::probe::report::device::How;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use viommu::backend::kernel::{Calls, DeviceCalls, Lent, Mapped};
use viommu::uapi::dispatcher::driver::{DeviceConfig, Driver};
use viommu::uapi::dispatcher::drivers::{AmdVi, ArmSmmuv3, IntelVtd, Mock, Tegra241};
use viommu::uapi::dispatcher::{Cdev, Dispatcher, Options};
use viommu::uapi::{Errno, UserMemory, selftest};
use viommu::vm_memory::GuestMemoryMmap;

/// Pointers to lent memory: each slice has an address of its own, far from the others.
struct Pointers<'a, 'b>(Mutex<&'a mut [Lent<'b>]>);

const APART: u64 = 1 << 32;

impl<'a, 'b> Pointers<'a, 'b> {
    fn place(argument: &mut [u8], lent: &'a mut [Lent<'b>]) -> Self {
        for (index, lent) in (1_u64..).zip(&*lent) {
            argument[lent.offset..][..8].copy_from_slice(&(index * APART).to_ne_bytes());
        }
        Self(Mutex::new(lent))
    }

    fn at<T>(&self, address: u64, length: usize, then: impl FnOnce(&mut [u8]) -> T) -> Result<T, Errno> {
        let mut lent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, offset) =
            ((address / APART).checked_sub(1).ok_or(Errno::FAULT)? as usize, (address % APART) as usize);
        let memory = lent.get_mut(index).and_then(|lent| lent.memory.get_mut(offset..offset.checked_add(length)?));
        memory.map(then).ok_or(Errno::FAULT)
    }
}

impl UserMemory for Pointers<'_, '_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.at(address, bytes.len(), |memory| bytes.copy_from_slice(memory))
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.at(address, bytes.len(), |memory| memory.copy_from_slice(bytes))
    }
}

const FD: i32 = 3;

struct Software(Dispatcher);

impl Calls for Software {
    fn number(&self) -> i32 {
        FD
    }
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        let memory = Pointers::place(argument, lent);
        self.0.ioctl(code, argument, &memory).map(|()| 0)
    }
    fn lend(&self, _: Arc<GuestMemoryMmap>) {}
    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.0.read(fd, bytes)
    }
    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.0.write(fd, bytes)
    }
    fn poll(&self, _: &[i32], _: Duration) -> Result<Vec<i32>, Errno> {
        Ok(Vec::new())
    }
    fn wake(&self) {}
    fn close(&self, fd: i32) -> Result<(), Errno> {
        self.0.close(fd)
    }
    fn map(&self, _: u64, _: u64) -> Result<Box<dyn Mapped>, Errno> {
        Err(Errno::NXIO)
    }
}

struct Device(Cdev);

impl DeviceCalls for Device {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        let memory = Pointers::place(argument, lent);
        self.0.ioctl(code, argument, &memory).map(|()| 0)
    }
}

fn calls(iommufd: &Dispatcher) -> Arc<dyn Calls> {
    Arc::new(Software(iommufd.clone()))
}

/// An iommufd, and what was asked of a device on it.
fn asked(config: DeviceConfig) -> (Dispatcher, DeviceFacts) {
    let iommufd = Dispatcher::new(Options { fd: FD, ..Options::selftest() });
    let device = Arc::new(Device(iommufd.device(config)));
    let facts = ask::device("vfio0".into(), &calls(&iommufd), device);
    (iommufd, facts)
}

#[test]
fn every_command_is_found_and_none_does_anything() {
    let iommufd = Dispatcher::new(Options::default());
    let mut facts = super::hosts::unopened(Errno::NOENT);
    facts.open = Outcome::OK;
    ask::iommufd(&mut facts, &calls(&iommufd));
    assert_eq!((facts.rlimit_mode, facts.fault_queue), (Some(0), Some(Outcome::OK)));
    assert_eq!(iommufd.objects(), []);
    let (report, _) = reported(&facts);
    assert!(report.commands.iter().all(|command| command.there == Some(true)), "{:?}", facts.commands);
}

#[test]
fn a_device_is_asked_and_nothing_stays_behind() {
    let config = DeviceConfig { pasid_log2: 20, ..DeviceConfig::new(Arc::new(Mock), 5) };
    let (iommufd, facts) = asked(config);
    assert_eq!((facts.bind, facts.default_type), (Outcome::OK, Some(selftest::HW_INFO_TYPE)));
    assert_eq!((facts.max_pasid_log2, facts.capabilities & 1), (20, 1));
    assert_eq!(facts.hw_info[&selftest::HW_INFO_TYPE].bytes()[4..], selftest::HW_INFO_REGISTER.to_ne_bytes());
    assert_eq!(facts.hw_info[&2].outcome.name(), "EOPNOTSUPP");
    assert!(facts.viommu[&selftest::VIOMMU_TYPE].is_ok() && facts.viommu[&1].name() == "EOPNOTSUPP", "{facts:?}");
    assert!(facts.vdevice[&selftest::VIOMMU_TYPE].is_ok(), "{facts:?}");
    assert_eq!(facts.left, Vec::<String>::new());
    assert_eq!(iommufd.objects(), [], "the device is unbound, and all that was allocated is gone");

    let mut host = super::hosts::unopened(Errno::NOENT);
    (host.open, host.devices) = (Outcome::OK, vec![facts]);
    ask::iommufd(&mut host, &calls(&iommufd));
    let (report, text) = reported(&host);
    assert_eq!(super::nesting(&report).0, How::ThroughAViommu);
    assert!(text.contains("mock driver"), "{text}");
}

#[test]
fn a_device_that_cannot_be_bound_is_not_asked() {
    let config = DeviceConfig { isolated_msi: false, ..DeviceConfig::new(Arc::new(Mock), 5) };
    let (iommufd, facts) = asked(config);
    assert_eq!((facts.bind.name(), facts.default_type, facts.hwpt.len()), ("EPERM".to_owned(), None, 0));
    assert_eq!(iommufd.objects(), []);
}

#[test]
fn a_device_without_dirty_tracking_says_so() {
    let (_, facts) = asked(DeviceConfig { dirty_tracking: false, ..DeviceConfig::new(Arc::new(Mock), 5) });
    assert_eq!(facts.hwpt["dirty_tracking"].name(), "EOPNOTSUPP");
    assert!(facts.hwpt["plain"].is_ok() && facts.hwpt["nest_parent"].is_ok(), "{:?}", facts.hwpt);
}

/// What is reported of a device behind this driver.
fn reported_of(driver: impl Driver + 'static, pasid_log2: u8) -> super::Report {
    let (iommufd, facts) = asked(DeviceConfig { pasid_log2, ..DeviceConfig::new(Arc::new(driver), 5) });
    assert_eq!((iommufd.objects(), &facts.left[..]), (vec![], &[][..]));
    let mut host = super::hosts::unopened(Errno::NOENT);
    (host.open, host.devices) = (Outcome::OK, vec![facts]);
    ask::iommufd(&mut host, &calls(&iommufd));
    reported(&host).0
}

/// IDR0 to 5 of QEMU's SMMUv3, with ATS and 20 bits of substreams.
const SMMU: [u32; 6] = [0x0d44_141b, 0x0273_0510, 0, 0x1414, 0, 0x75];

#[test]
fn each_vendors_driver_is_told_from_the_others() {
    let report = reported_of(ArmSmmuv3::new(SMMU), 0);
    assert_eq!(
        (super::nesting(&report).0, &report.devices[0].viommu_types[..]),
        (How::ThroughAViommu, &["arm_smmuv3"][..])
    );
    assert_eq!(super::properties(&report), ["on", "no", "on", "on", "no", "48"]);

    let tegra = Tegra241::new(ArmSmmuv3 { repeats: true, ..ArmSmmuv3::new(SMMU) }, 6);
    let report = reported_of(tegra, 16);
    assert_eq!(report.devices[0].viommu_types, ["arm_smmuv3", "tegra241_cmdqv"]);
    assert_eq!(report.devices[0].errata[0].name, "REPEAT_TLBI_CFGI");
    assert_eq!(super::properties(&report), ["on", "on", "on", "on", "16", "48"]);

    let ecap = 1 << 26 | 1 << 43 | 1 << 47;
    let report = reported_of(IntelVtd { cap: 0x80d2_008c_222f_0606, ecap }, 20);
    assert_eq!((super::nesting(&report).0, report.devices[0].errata[0].name), (How::OnTheParent, "772415"));
    let report = reported_of(IntelVtd { cap: 0x80d2_008c_222f_0606, ecap: ecap & !(1 << 26) }, 20);
    assert_eq!(super::nesting(&report).0, How::ShadowOnly);
    assert!(super::nesting(&report).1.contains("lacks ECAP.NEST."), "{:?}", super::nesting(&report));

    for nesting in [true, false] {
        let report = reported_of(AmdVi { efr: 1 << 4 | 1 << 48, efr2: 1 << 3, nesting }, 16);
        assert_eq!((super::nesting(&report).0, report.devices[0].viommu_types.len()), (How::ShadowOnly, 0));
    }
}

#[test]
fn an_smmu_that_cannot_nest_is_told_from_one_that_can() {
    let report = reported_of(ArmSmmuv3 { nesting: false, ..ArmSmmuv3::new(SMMU) }, 0);
    assert_eq!(super::nesting(&report).0, How::No);
    assert!(super::nesting(&report).1.contains("nesting parent answers EOPNOTSUPP"), "{:?}", super::nesting(&report));
}
