//! What rows about a vendor begin with: a device of the vendor's, bound, and a nesting parent.

use crate::memory::Memory;
use crate::session::{Failed, Session};
use crate::software::opened;
use std::sync::Arc;
use viommu::uapi::dispatcher::driver::{DeviceConfig, Driver};
use viommu::uapi::dispatcher::{Cdev, Dispatcher, Options};
use viommu::uapi::flags::{HWPT_ALLOC_NEST_PARENT, VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_DEVICE_BIND_IOMMUFD};
use viommu::uapi::layout::{HwptAlloc, VfioDeviceAttach, VfioDeviceBind, ViommuAlloc};
use viommu::uapi::{Errno, ProcessMemory};
use zerocopy::{Immutable, IntoBytes};

/// The first device's stream.
pub(super) const STREAM: u32 = 0x40;

/// A device, bound as long as it is there.
pub(super) struct Bound {
    cdev: Cdev,
    pub(super) id: u32,
}

/// An iommufd with a device of the vendor's.
pub(super) struct Bench<'a> {
    pub(super) session: Session<'a>,
    pub(super) iommufd: Dispatcher,
    pub(super) ioas: u32,
    pub(super) parent: u32,
    pub(super) device: Bound,
}

impl<'a> Bench<'a> {
    pub(super) fn new(driver: impl Driver + 'static, options: Options, memory: &'a Memory) -> Result<Self, Failed> {
        let iommufd = Dispatcher::new(options);
        let session = Session::over(opened(iommufd.clone()), memory);
        let ioas = session.ioas()?;
        let device = bound(&iommufd, DeviceConfig::new(Arc::new(driver), STREAM))?;
        let parent = session.hwpt(device.id, ioas, HWPT_ALLOC_NEST_PARENT)?;
        Ok(Self { session, iommufd, ioas, parent, device })
    }

    /// Another device.
    pub(super) fn bound(&self, config: DeviceConfig) -> Result<Bound, Failed> {
        bound(&self.iommufd, config)
    }

    /// A vIOMMU without data.
    pub(super) fn viommu(&self, r#type: u32) -> Result<u32, Failed> {
        let (dev_id, hwpt_id) = (self.device.id, self.parent);
        self.session.viommu_raw(ViommuAlloc { r#type, dev_id, hwpt_id, ..Default::default() }, None)
    }

    /// A nested HWPT with this payload.
    pub(super) fn nested<T: IntoBytes + Immutable>(
        &self,
        pt_id: u32,
        flags: u32,
        data_type: u32,
        payload: &T,
    ) -> Result<u32, Failed> {
        let mut bytes = payload.as_bytes().to_vec();
        let data_len = u32::try_from(bytes.len()).unwrap_or(0);
        let asked = HwptAlloc { dev_id: self.device.id, pt_id, flags, data_type, data_len, ..Default::default() };
        self.session.hwpt_raw(asked, Some(&mut bytes))
    }

    /// VFIO's attach of the first device.
    pub(super) fn attach(&self, pt_id: u32) -> Result<u32, Failed> {
        self.device.attach(pt_id)
    }
}

impl Bound {
    pub(super) fn attach(&self, pt_id: u32) -> Result<u32, Failed> {
        let mut own = VfioDeviceAttach { argsz: 16, pt_id, ..Default::default() };
        let attached = self.cdev.ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, own.as_mut_bytes(), &ProcessMemory);
        attached.map(|()| own.pt_id).map_err(named("VFIO_DEVICE_ATTACH"))
    }
}

fn bound(iommufd: &Dispatcher, config: DeviceConfig) -> Result<Bound, Failed> {
    let cdev = iommufd.device(config);
    let mut own = VfioDeviceBind { argsz: 24, iommufd: iommufd.fd(), ..Default::default() };
    cdev.ioctl(VFIO_DEVICE_BIND_IOMMUFD, own.as_mut_bytes(), &ProcessMemory).map_err(named("VFIO_DEVICE_BIND"))?;
    Ok(Bound { cdev, id: own.out_devid })
}

/// An errno of something that is no command.
pub(super) fn named(command: &'static str) -> impl Fn(Errno) -> Failed {
    move |errno| Failed { command, errno }
}
