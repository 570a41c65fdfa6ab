//! The typed commands: all 22 and the VFIO device's three, each with what it says when it fails. EBUSY, ENOENT and ETIMEDOUT
//! are told apart; the text names object, operation and errno.

use crate::guest::{RAM, RAM_SIZE};
use crate::rig::Recording;
use crate::smmu::Smmu;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use viommu::Cause;
use viommu::backend::kernel::{
    Calls, DeviceCalls, HwptRequest, Iommufd, Lent, MapRequest, SoftwareDevice, SoftwareIommufd, VfioDevice,
};
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::drivers::{ArmSmmuv3, Tegra241};
use viommu::uapi::dispatcher::{Dispatcher, Options};
use viommu::uapi::layout::IovaRange;
use viommu::uapi::{Command, Errno, flags as f};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend};

/// A VFIO device whose ioctls are noted.
struct Noting {
    seen: Mutex<BTreeSet<u32>>,
    device: SoftwareDevice,
}

impl DeviceCalls for Noting {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        self.seen.lock().unwrap().insert(code);
        self.device.ioctl(code, argument, lent)
    }
}

fn fails<T>(command: Command, result: Result<T, Cause>, errno: Errno, words: &[&str]) {
    says(command.name(), result, errno, words);
}

fn says<T>(name: &str, result: Result<T, Cause>, errno: Errno, words: &[&str]) {
    let Err(cause) = result else { panic!("{name} succeeds") };
    assert_eq!(cause.errno(), errno.raw_os_error(), "{name}: {cause}");
    for word in words.iter().chain(&[name]) {
        assert!(cause.to_string().contains(word), "{name}: {cause:?} does not say {word}");
    }
}

#[test]
fn every_command_is_there_and_says_what_failed() {
    let dispatcher = Dispatcher::new(Options::default());
    let log = Arc::new(Recording::new(&dispatcher));
    let calls: Arc<dyn Calls> = log.clone();
    let iommufd = Iommufd::new(calls.clone());
    let memory = crate::guest::memory();
    calls.lend(memory.clone());
    let address = memory.find_region(GuestAddress(RAM)).unwrap().as_ptr() as u64;
    let idr = [0x0d44_101b, 0x0273_0010, 0, 0x1404, 0, 0x74];
    let config = DeviceConfig::new(Arc::new(Tegra241::new(ArmSmmuv3::new(idr), 2)), 0x40);
    let file = Arc::new(Noting { seen: Mutex::default(), device: SoftwareDevice(dispatcher.device(config)) });

    // Before there is anything.
    let option = Command::Option;
    assert_eq!(iommufd.option(f::OPTION_RLIMIT_MODE, 0).unwrap(), 0);
    fails(option, iommufd.set_option(f::OPTION_RLIMIT_MODE, 0, 2), Errno::INVAL, &["EINVAL"]);

    // The VFIO device.
    let device = VfioDevice::bind(file.clone(), &calls, None).unwrap();
    says("VFIO_DEVICE_BIND_IOMMUFD", VfioDevice::bind(file.clone(), &calls, None), Errno::INVAL, &["EINVAL"]);
    let id = device.id();

    // Memory.
    let ioas = iommufd.ioas_alloc().unwrap();
    fails(option, iommufd.set_option(f::OPTION_RLIMIT_MODE, 0, 1), Errno::BUSY, &["option 0", "EBUSY"]);
    fails(option, iommufd.option(f::OPTION_HUGE_PAGES, 99), Errno::NOENT, &["object 99", "ENOENT"]);
    let map = MapRequest { ioas, iova: Some(RAM), length: RAM_SIZE, readable: true, writable: true };
    iommufd.ioas_map(map, address).unwrap();
    fails(Command::IoasMap, iommufd.ioas_map(map, address), Errno::EXIST, &["IOAS", "0x40000000", "EEXIST"]);
    fails(Command::IoasMap, iommufd.ioas_map(map, 0x1000), Errno::FAULT, &["EFAULT"]);
    let elsewhere =
        |ioas| MapRequest { ioas, iova: Some(0x8000_0000), length: 0x1000, readable: true, writable: false };
    let (copy, map_file) = (Command::IoasCopy, Command::IoasMapFile);
    fails(copy, iommufd.ioas_copy(elsewhere(ioas), ioas, 0), Errno::NOENT, &["ENOENT"]);
    assert_eq!(iommufd.ioas_copy(elsewhere(ioas), ioas, RAM).unwrap(), 0x8000_0000);
    let memfd = dispatcher.memory_file(0x2000).unwrap();
    fails(map_file, iommufd.ioas_map_file(elsewhere(ioas), 77, 0), Errno::BADF, &["EBADF"]);
    let file_at = MapRequest { iova: Some(0x9000_0000), ..elsewhere(ioas) };
    iommufd.ioas_map_file(file_at, memfd, 0x1000).unwrap();
    assert!(!iommufd.ioas_iova_ranges(ioas).unwrap().0.is_empty());
    fails(Command::IoasIovaRanges, iommufd.ioas_iova_ranges(99), Errno::NOENT, &["IOAS 99"]);
    let range = [IovaRange { start: 0, last: 0xffff }];
    fails(Command::IoasAllowIovas, iommufd.ioas_allow_iovas(99, &range), Errno::NOENT, &["IOAS 99"]);
    let backwards = [IovaRange { start: 5, last: 4 }];
    fails(Command::IoasAllowIovas, iommufd.ioas_allow_iovas(ioas, &backwards), Errno::INVAL, &["EINVAL"]);
    fails(Command::IoasChangeProcess, iommufd.ioas_change_process(), Errno::INVAL, &["EINVAL"]);
    let pa = iommufd.ioas_noiommu_get_pa(ioas, RAM, 0x1000).unwrap_err();
    assert!(pa.to_string().contains("IOAS_NOIOMMU_GET_PA"), "{pa}");
    fails(Command::IoasUnmap, iommufd.ioas_unmap(ioas, 0, 0x1000), Errno::NOENT, &["IOAS", "ENOENT"]);
    assert_eq!(iommufd.vfio_ioas().unwrap(), None);
    iommufd.set_vfio_ioas(Some(ioas)).unwrap();
    assert_eq!(iommufd.vfio_ioas().unwrap(), Some(ioas));
    iommufd.set_vfio_ioas(None).unwrap();
    fails(Command::VfioIoas, iommufd.set_vfio_ioas(Some(99)), Errno::NOENT, &["IOAS 99"]);

    // HWPTs.
    fails(Command::GetHwInfo, iommufd.hardware_info(99, None), Errno::NOENT, &["device 99"]);
    fails(Command::GetHwInfo, iommufd.hardware_info(id, Some(9)), Errno::OPNOTSUPP, &["EOPNOTSUPP"]);
    let ask = HwptRequest { flags: f::HWPT_ALLOC_NEST_PARENT, device: id, on: ioas, ..HwptRequest::default() };
    let parent = iommufd.hwpt_alloc(ask).unwrap();
    let alloc = Command::HwptAlloc;
    fails(alloc, iommufd.hwpt_alloc(HwptRequest { device: 99, ..ask }), Errno::NOENT, &["device 99"]);
    fails(alloc, iommufd.hwpt_alloc(HwptRequest { on: parent, ..ask }), Errno::OPNOTSUPP, &["EOPNOTSUPP"]);
    fails(Command::HwptSetDirtyTracking, iommufd.set_dirty_tracking(99, true), Errno::NOENT, &["HWPT 99"]);
    let dirty = iommufd.dirty_bitmap(99, RAM, 0x1000, 0x1000, true, &mut [0]);
    fails(Command::HwptGetDirtyBitmap, dirty, Errno::NOENT, &["HWPT 99"]);
    assert_eq!(iommufd.invalidate(99, 1, 16, &mut [0; 16]).result, Err(Errno::NOENT));
    assert_eq!(iommufd.invalidate(parent, 1, 16, &mut [0; 16]).result, Err(Errno::INVAL));

    // vIOMMUs and what is on them.
    let none = iommufd.viommu_alloc(9, id, parent, &mut []);
    fails(Command::ViommuAlloc, none, Errno::OPNOTSUPP, &["type 9", "EOPNOTSUPP"]);
    let mut data = [0; 16];
    let viommu = iommufd.viommu_alloc(f::VIOMMU_TYPE_TEGRA241_CMDQV, id, parent, &mut data).unwrap();
    let vdevice = iommufd.vdevice_alloc(viommu, id, 3).unwrap();
    fails(Command::VdeviceAlloc, iommufd.vdevice_alloc(viommu, id, 4), Errno::EXIST, &["vIOMMU", "0x4", "EEXIST"]);
    let (events, events_fd) = iommufd.veventq_alloc(viommu, 1, 8).unwrap();
    fails(Command::VeventqAlloc, iommufd.veventq_alloc(viommu, 1, 8), Errno::EXIST, &["type 1", "EEXIST"]);
    let queue = |index, at| iommufd.hw_queue_alloc(viommu, f::HW_QUEUE_TYPE_TEGRA241_CMDQV, index, at, 0x1000);
    fails(Command::HwQueueAlloc, queue(1, RAM), Errno::IO, &["queue 1", "EIO"]);
    fails(Command::HwQueueAlloc, queue(0, 0x1000), Errno::NOENT, &["queue 0", "ENOENT"]);
    let first = queue(0, RAM).unwrap();
    fails(Command::IoasUnmap, iommufd.ioas_unmap(ioas, RAM, RAM_SIZE), Errno::BUSY, &["EBUSY"]);
    says("mmap", iommufd.map(0x1000_0000, 0x1_0000).map(drop), Errno::NXIO, &["offset 0x10000000"]);
    let (faults, faults_fd) = iommufd.fault_queue_alloc().unwrap();

    // Attaching.
    let attach = "VFIO_DEVICE_ATTACH_IOMMUFD_PT";
    assert_eq!(device.attach(parent, None).unwrap(), parent);
    says(attach, device.attach(99, None), Errno::NOENT, &["to 99", "ENOENT"]);
    says(attach, device.attach(parent, Some(1)), Errno::INVAL, &["PASID 1", "EINVAL"]);
    fails(Command::Destroy, iommufd.destroy(parent), Errno::BUSY, &["EBUSY"]);
    device.detach(Some(1)).unwrap();
    device.detach(None).unwrap();

    // No memory in the kernel.
    for (command, allocate) in [
        (Command::IoasAlloc, Box::new(|| iommufd.ioas_alloc().map(drop)) as Box<dyn Fn() -> Result<(), Cause>>),
        (Command::FaultQueueAlloc, Box::new(|| iommufd.fault_queue_alloc().map(drop))),
    ] {
        dispatcher.fail_nth(1);
        fails(command, allocate(), Errno::NOMEM, &["ENOMEM"]);
        dispatcher.fail_nth(0);
    }

    // Hardware that does not answer; and the kernel without the command.
    log.answer(Some(Errno::TIMEDOUT));
    fails(Command::Destroy, iommufd.destroy(first), Errno::TIMEDOUT, &["object", "ETIMEDOUT"]);
    fails(alloc, iommufd.hwpt_alloc(ask), Errno::TIMEDOUT, &["device 1", "ETIMEDOUT"]);
    log.answer(Some(Errno::NOTTY));
    let old = iommufd.viommu_alloc(1, id, parent, &mut []);
    assert!(old.unwrap_err().to_string().contains("no such command"));
    log.answer(None);

    // In the kernel's order, each once.
    calls.close(events_fd).unwrap();
    calls.close(faults_fd).unwrap();
    for object in [first, vdevice, events, faults, viommu, parent, ioas] {
        iommufd.destroy(object).unwrap();
        fails(Command::Destroy, iommufd.destroy(object), Errno::NOENT, &["ENOENT"]);
    }
    let called: BTreeSet<u32> = log.take().into_iter().map(|(command, _)| command.code()).collect();
    let all: BTreeSet<u32> = Command::ALL.into_iter().filter(|it| *it != Command::Test).map(Command::code).collect();
    assert_eq!(all.len(), 22);
    assert_eq!(called, all, "each command was called");
    let three = [f::VFIO_DEVICE_BIND_IOMMUFD, f::VFIO_DEVICE_ATTACH_IOMMUFD_PT, f::VFIO_DEVICE_DETACH_IOMMUFD_PT];
    assert_eq!(*file.seen.lock().unwrap(), BTreeSet::from(three));
}

#[test]
fn a_device_in_reset_says_busy() {
    let dispatcher = Dispatcher::new(Options::default());
    let calls: Arc<dyn Calls> = Arc::new(SoftwareIommufd::new(dispatcher.clone()));
    let iommufd = Iommufd::new(calls.clone());
    let file = Arc::new(SoftwareDevice(dispatcher.device(Smmu::default().device(0x40))));
    let device = VfioDevice::bind(file.clone(), &calls, None).unwrap();
    let ioas = iommufd.ioas_alloc().unwrap();
    let ask = HwptRequest { device: device.id(), on: ioas, ..HwptRequest::default() };
    let hwpt = iommufd.hwpt_alloc(ask).unwrap();
    file.0.set_in_reset(true);
    says("VFIO_DEVICE_ATTACH_IOMMUFD_PT", device.attach(hwpt, None), Errno::BUSY, &["device 1", "EBUSY"]);
    device.detach(None).unwrap();
    file.0.set_in_reset(false);
    device.attach(hwpt, None).unwrap();
}
