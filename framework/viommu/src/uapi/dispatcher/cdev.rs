//! VFIO device files, as far as they concern an iommufd: bind, attach, detach.

use super::{
    Dispatcher,
    devices::How,
    driver::DeviceConfig,
    framing::{Answer, framed},
    state::State,
};
use crate::uapi::{
    Errno, UserMemory,
    flags::{
        VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_DEVICE_ATTACH_PASID, VFIO_DEVICE_BIND_FLAG_TOKEN, VFIO_DEVICE_BIND_IOMMUFD,
        VFIO_DEVICE_DETACH_IOMMUFD_PT, VFIO_DEVICE_DETACH_PASID, VFIO_DEVICE_RESET,
    },
    layout::{VfioDeviceAttach, VfioDeviceBind, VfioDeviceDetach},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An open VFIO device file. Dropping it is closing it: everything is detached, the device unbound, and a vDEVICE that it
/// still has leaves a tombstone.
#[derive(Debug)]
pub struct Cdev {
    config: Arc<DeviceConfig>,
    state: Arc<Mutex<State>>,
    fd: i32,
    /// The device's object, once bound.
    device: Mutex<Option<u32>>,
}

impl Dispatcher {
    /// A device file that can be bound to this iommufd.
    pub fn device(&self, config: DeviceConfig) -> Cdev {
        Cdev { config: Arc::new(config), state: self.state.clone(), fd: self.fd, device: Mutex::new(None) }
    }
}

impl Cdev {
    /// Carries out BIND_IOMMUFD, ATTACH_IOMMUFD_PT, DETACH_IOMMUFD_PT or RESET. `argument` is what is behind the pointer,
    /// as many bytes as its `argsz` says.
    ///
    /// # Errors
    /// What the kernel answers; ENOTTY for other ioctls.
    pub fn ioctl(&self, code: u32, argument: &mut [u8], memory: &dyn UserMemory) -> Result<(), Errno> {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if code == VFIO_DEVICE_BIND_IOMMUFD {
            return framed(16, argument, |bind: &mut VfioDeviceBind| Answer::from(self.bind(bind, &mut device)));
        }
        // Nothing is open to a device that no iommufd keeps in check.
        let id = device.ok_or(Errno::INVAL)?;
        match code {
            VFIO_DEVICE_ATTACH_IOMMUFD_PT => {
                framed(12, argument, |attach: &mut VfioDeviceAttach| Answer::from(self.attach(id, attach, memory)))
            }
            VFIO_DEVICE_DETACH_IOMMUFD_PT => {
                framed(8, argument, |detach: &mut VfioDeviceDetach| Answer::from(self.detach(id, detach)))
            }
            VFIO_DEVICE_RESET => Ok(()),
            _ => Err(Errno::NOTTY),
        }
    }

    fn bind(&self, bind: &mut VfioDeviceBind, device: &mut Option<u32>) -> Result<(), Errno> {
        if bind.flags & !VFIO_DEVICE_BIND_FLAG_TOKEN != 0 || bind.iommufd < 0 || device.is_some() {
            return Err(Errno::INVAL);
        }
        let mut state = self.lock();
        if bind.iommufd != self.fd {
            let other = state.fds.contains_key(&bind.iommufd) || state.files.contains_key(&bind.iommufd);
            return Err(if other { Errno::BADFD } else { Errno::BADF });
        }
        bind.out_devid = state.bind(&self.config)?;
        *device = Some(bind.out_devid);
        Ok(())
    }

    fn attach(&self, id: u32, attach: &mut VfioDeviceAttach, memory: &dyn UserMemory) -> Result<(), Errno> {
        let with_pasid = attach.flags & VFIO_DEVICE_ATTACH_PASID != 0;
        let short = with_pasid && (attach.argsz as usize) < size_of::<VfioDeviceAttach>();
        if attach.flags & !VFIO_DEVICE_ATTACH_PASID != 0 || short || (with_pasid && attach.pasid == 0) {
            return Err(Errno::INVAL);
        }
        let pasid = if with_pasid { attach.pasid } else { 0 };
        let mut state = self.lock();
        let attached = state.attachment(id, pasid).is_some_and(|there| there.devices.contains(&id));
        let how = if attached { How::Replace } else { How::Attach };
        attach.pt_id = state.change_hwpt(id, pasid, attach.pt_id, how, memory)?;
        Ok(())
    }

    fn detach(&self, id: u32, detach: &VfioDeviceDetach) -> Result<(), Errno> {
        let with_pasid = detach.flags & VFIO_DEVICE_DETACH_PASID != 0;
        let short = with_pasid && (detach.argsz as usize) < size_of::<VfioDeviceDetach>();
        if detach.flags & !VFIO_DEVICE_DETACH_PASID != 0 || short || (with_pasid && detach.pasid == 0) {
            return Err(Errno::INVAL);
        }
        self.lock().detach(id, if with_pasid { detach.pasid } else { 0 });
        Ok(())
    }

    /// A PCI reset of the device begins or ends: meanwhile nothing of its group can be attached or replaced (EBUSY).
    pub fn set_in_reset(&self, in_reset: bool) {
        let device = *self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let group = device.and_then(|device| state.table.device(device).ok()).map(|device| device.group);
        if let Some(group) = group.and_then(|group| state.groups.get_mut(&group)) {
            group.in_reset = in_reset;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cdev {
    fn drop(&mut self) {
        let device = *self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = device {
            let mut state = self.lock();
            state.detach_all(device);
            state.unbind(device);
        }
    }
}
