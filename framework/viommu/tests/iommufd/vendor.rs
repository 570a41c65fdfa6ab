//! What tests of the vendors' drivers begin with: a bound device of the vendor.

use crate::caller::Caller;
use std::sync::Arc;
use viommu::uapi::{
    Errno, ProcessMemory,
    dispatcher::{
        Cdev, Dispatcher, Options,
        driver::{DeviceConfig, Driver},
    },
    flags::{HWPT_ALLOC_NEST_PARENT, VFIO_DEVICE_BIND_IOMMUFD},
    layout::{self, VfioDeviceBind},
};
use zerocopy::{Immutable, IntoBytes};

pub(crate) struct Vendor {
    pub(crate) caller: Caller,
    pub(crate) parent: u32,
    pub(crate) cdev: Cdev,
    pub(crate) device: u32,
}

impl Vendor {
    pub(crate) fn new(driver: impl Driver + 'static, options: Options) -> Self {
        let caller = Caller { fd: Dispatcher::new(options) };
        let ioas = caller.ioas();
        let (cdev, device) = bind(&caller, DeviceConfig::new(Arc::new(driver), 0x40));
        let parent = caller.hwpt(device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
        Self { caller, parent, cdev, device }
    }

    /// A nested HWPT with this payload.
    pub(crate) fn nested<T: IntoBytes + Immutable>(
        &self,
        pt_id: u32,
        flags: u32,
        data_type: u32,
        payload: &T,
    ) -> Result<u32, Errno> {
        let bytes = payload.as_bytes();
        self.caller.hwpt_with(layout::HwptAlloc {
            dev_id: self.device,
            pt_id,
            flags,
            data_type,
            data_len: bytes.len() as u32,
            data_uptr: bytes.as_ptr() as u64,
            ..Default::default()
        })
    }

    pub(crate) fn close(self) {
        drop(self.cdev);
        self.caller.close();
    }
}

fn bind(caller: &Caller, config: DeviceConfig) -> (Cdev, u32) {
    let cdev = caller.fd.device(config);
    let mut own = VfioDeviceBind { argsz: 24, iommufd: caller.fd.fd(), ..Default::default() };
    cdev.ioctl(VFIO_DEVICE_BIND_IOMMUFD, own.as_mut_bytes(), &ProcessMemory).unwrap();
    (cdev, own.out_devid)
}
