//! VFIO device files: bind, attach, detach, groups, resets.

use crate::caller::Caller;
use std::sync::Arc;
use viommu::uapi::{
    Errno, ProcessMemory,
    dispatcher::{Cdev, driver::DeviceConfig, drivers::Mock},
    flags::{
        HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_DEVICE_BIND_IOMMUFD,
        VFIO_DEVICE_DETACH_IOMMUFD_PT, VFIO_DEVICE_GET_INFO,
    },
    layout::{VfioDeviceAttach, VfioDeviceBind, VfioDeviceDetach},
    selftest::VIOMMU_TYPE,
};
use zerocopy::IntoBytes;

fn config() -> DeviceConfig {
    DeviceConfig { pasid_log2: 20, ..DeviceConfig::new(Arc::new(Mock), 0x40) }
}

fn bind(cdev: &Cdev, iommufd: i32) -> Result<u32, Errno> {
    let mut own = VfioDeviceBind { argsz: size_of::<VfioDeviceBind>() as u32, iommufd, ..Default::default() };
    cdev.ioctl(VFIO_DEVICE_BIND_IOMMUFD, own.as_mut_bytes(), &ProcessMemory).map(|()| own.out_devid)
}

fn attach(cdev: &Cdev, pt_id: u32, pasid: Option<u32>) -> Result<u32, Errno> {
    let (argsz, flags) = (size_of::<VfioDeviceAttach>() as u32, u32::from(pasid.is_some()));
    let mut own = VfioDeviceAttach { argsz, flags, pt_id, pasid: pasid.unwrap_or_default() };
    cdev.ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, own.as_mut_bytes(), &ProcessMemory).map(|()| own.pt_id)
}

fn detach(cdev: &Cdev, pasid: Option<u32>) -> Result<(), Errno> {
    let (argsz, flags) = (size_of::<VfioDeviceDetach>() as u32, u32::from(pasid.is_some()));
    let mut own = VfioDeviceDetach { argsz, flags, pasid: pasid.unwrap_or_default() };
    cdev.ioctl(VFIO_DEVICE_DETACH_IOMMUFD_PT, own.as_mut_bytes(), &ProcessMemory)
}

#[test]
fn binding_takes_this_iommufd_once() {
    let caller = Caller::new();
    let cdev = caller.fd.device(config());
    assert_eq!(attach(&cdev, 1, None), Err(Errno::INVAL), "nothing before it is bound");
    let (_, event) = caller.fault_queue();
    assert_eq!([-1, 999, event].map(|fd| bind(&cdev, fd)), [Errno::INVAL, Errno::BADF, Errno::BADFD].map(Err));
    let mut flags = VfioDeviceBind { argsz: 24, flags: 2, iommufd: caller.fd.fd(), ..Default::default() };
    let call = |bytes: &mut [u8]| cdev.ioctl(VFIO_DEVICE_BIND_IOMMUFD, bytes, &ProcessMemory);
    assert_eq!(call(flags.as_mut_bytes()), Err(Errno::INVAL));
    assert_eq!(call(&mut [15u32.to_ne_bytes(), [0; 4], [3, 0, 0, 0], [0; 4]].concat()), Err(Errno::INVAL));
    assert_eq!(
        call(&mut [&25u32.to_ne_bytes()[..], &[0; 4], &[3, 0, 0, 0], &[0; 12], &[1]].concat()),
        Err(Errno::TOOBIG)
    );
    let device = bind(&cdev, caller.fd.fd()).unwrap();
    assert_eq!(bind(&cdev, caller.fd.fd()), Err(Errno::INVAL));
    assert_eq!(caller.destroy(device), Err(Errno::BUSY));
    assert_eq!(cdev.ioctl(VFIO_DEVICE_GET_INFO, &mut [0; 16], &ProcessMemory), Err(Errno::NOTTY));
    let left = caller.fd.shutdown().left;
    assert_eq!(left, [(device, "Device".to_string(), 1)], "open device files keep an iommufd alive");
    drop(cdev);
    caller.close();
}

#[test]
fn devices_that_cannot_be_bound() {
    let caller = Caller::new();
    let refused = |config| bind(&caller.fd.device(config), caller.fd.fd());
    assert_eq!(refused(DeviceConfig { coherent: false, ..config() }), Err(Errno::INVAL));
    assert_eq!(refused(DeviceConfig { isolated_msi: false, ..config() }), Err(Errno::PERM));
    caller.close();
}

#[test]
fn attaching_replaces_and_detaching_is_silent() {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let cdev = caller.fd.device(config());
    let device = bind(&cdev, caller.fd.fd()).unwrap();
    assert_eq!(
        [detach(&cdev, None), detach(&cdev, Some(5)), detach(&cdev, Some(0))],
        [Ok(()), Ok(()), Err(Errno::INVAL)]
    );
    let automatic = attach(&cdev, ioas, None).unwrap();
    let hwpt = caller.hwpt(device, ioas, HWPT_ALLOC_PASID).unwrap();
    assert_eq!(attach(&cdev, hwpt, None), Ok(hwpt));
    assert_eq!(caller.destroy(automatic), Err(Errno::NOENT));
    assert_eq!([attach(&cdev, hwpt, Some(7)), attach(&cdev, hwpt, Some(0))], [Ok(hwpt), Err(Errno::INVAL)]);
    assert_eq!([attach(&cdev, 99, None), attach(&cdev, device, None)], [Err(Errno::NOENT), Err(Errno::INVAL)]);
    let mut short = VfioDeviceAttach { argsz: 12, flags: 1, pt_id: hwpt, pasid: 9 };
    let short = cdev.ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, &mut short.as_mut_bytes()[..12], &ProcessMemory);
    assert_eq!(short, Err(Errno::INVAL));
    cdev.set_in_reset(true);
    assert_eq!([attach(&cdev, ioas, None), attach(&cdev, hwpt, Some(8))], [Err(Errno::INVAL), Err(Errno::BUSY)]);
    assert_eq!(detach(&cdev, Some(7)), Ok(()));
    cdev.set_in_reset(false);
    assert_eq!(attach(&cdev, hwpt, Some(8)), Ok(hwpt));
    drop(cdev);
    assert_eq!((caller.destroy(hwpt), caller.destroy(ioas)), (Ok(()), Ok(())));
    caller.close();
}

#[test]
fn devices_of_a_group_share_their_hwpt() {
    let caller = Caller::new();
    let [ioas, other] = [0; 2].map(|_| caller.ioas());
    let [first, second] = [0; 2].map(|_| caller.fd.device(DeviceConfig { group: Some(4), ..config() }));
    for cdev in [&first, &second] {
        bind(cdev, caller.fd.fd()).unwrap();
    }
    let hwpt = attach(&first, ioas, None).unwrap();
    assert_eq!([attach(&second, other, None), attach(&second, ioas, None)], [Err(Errno::INVAL), Ok(hwpt)]);
    attach(&first, other, None).unwrap();
    assert_eq!(caller.destroy(ioas), Ok(()), "one moved, both did");
    drop(first);
    assert_eq!(caller.destroy(other), Err(Errno::BUSY));
    drop(second);
    assert_eq!(caller.destroy(other), Ok(()));
    caller.close();
}

#[test]
fn reserved_iovas_of_a_device_come_and_go_with_it() {
    let caller = Caller::new();
    let [ioas, other] = [0; 2].map(|_| caller.ioas());
    let msi = (0x800_0000, 0x80f_ffff);
    let cdev = caller.fd.device(DeviceConfig { reserved: vec![msi], ..config() });
    let device = bind(&cdev, caller.fd.fd()).unwrap();
    attach(&cdev, ioas, None).unwrap();
    let memory = crate::caller::Pages::new(1);
    assert_eq!(caller.map_fixed(ioas, &memory, msi.0), Err(Errno::INVAL));
    caller.map_fixed(other, &memory, msi.0).unwrap();
    assert_eq!(attach(&cdev, other, None), Err(Errno::ADDRINUSE), "and it stays where it was");
    let parent = caller.hwpt(device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let viommu = caller.viommu(device, parent, VIOMMU_TYPE).unwrap();
    caller.vdevice(viommu, device, 3).unwrap();
    let nested = caller.nested(device, viommu, 0, 0).unwrap();
    attach(&cdev, nested, None).unwrap();
    assert_eq!(caller.map_fixed(ioas, &memory, msi.0), Err(Errno::INVAL), "under a nested one as well");
    detach(&cdev, None).unwrap();
    caller.map_fixed(ioas, &memory, msi.0).unwrap();
    drop(cdev);
    caller.close();
}
