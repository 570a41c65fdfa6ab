//! VFIO devices: bound to an iommufd, attached to its objects, by device or by PASID.

use super::calls::{Calls, DeviceCalls, Lent};
use super::errors::cause;
use crate::Cause;
use crate::uapi::flags as f;
use crate::uapi::layout::{VfioDeviceAttach, VfioDeviceBind, VfioDeviceDetach};
use std::mem::offset_of;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// A device that is bound to an iommufd. Dropping it detaches and unbinds it.
pub struct VfioDevice {
    calls: Arc<dyn DeviceCalls>,
    /// The iommufd, and the memory lent to it, stay as long as a device is bound.
    _iommufd: Arc<dyn Calls>,
    id: u32,
}

impl std::fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VfioDevice").field("id", &self.id).finish_non_exhaustive()
    }
}

impl VfioDevice {
    /// VFIO_DEVICE_BIND_IOMMUFD; `token` is the UUID of a device whose owner asks for one.
    ///
    /// # Errors
    /// EPERM if interrupts are not isolated, EINVAL if it is bound.
    pub fn bind(calls: Arc<dyn DeviceCalls>, iommufd: &Arc<dyn Calls>, token: Option<[u8; 16]>) -> Result<Self, Cause> {
        let mut argument = VfioDeviceBind {
            argsz: size_of::<VfioDeviceBind>() as u32,
            flags: if token.is_some() { f::VFIO_DEVICE_BIND_FLAG_TOKEN } else { 0 },
            iommufd: iommufd.number(),
            ..VfioDeviceBind::default()
        };
        let mut uuid = token.unwrap_or_default();
        let mut lent = [Lent::new(offset_of!(VfioDeviceBind, token_uuid_ptr), &mut uuid)];
        let lent = if token.is_some() { &mut lent[..] } else { &mut [][..] };
        let done = calls.ioctl(f::VFIO_DEVICE_BIND_IOMMUFD, argument.as_mut_bytes(), lent);
        done.map_err(|errno| cause("VFIO_DEVICE_BIND_IOMMUFD", "the device", errno))?;
        Ok(Self { calls, _iommufd: iommufd.clone(), id: argument.out_devid })
    }

    /// A device that an earlier process bound, with the ID it got.
    pub fn adopt(calls: Arc<dyn DeviceCalls>, iommufd: &Arc<dyn Calls>, id: u32) -> Self {
        Self { calls, _iommufd: iommufd.clone(), id }
    }

    /// The kernel's ID of the device.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The calls under it.
    pub fn calls(&self) -> &Arc<dyn DeviceCalls> {
        &self.calls
    }

    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT: attaches or replaces, for the device or one PASID of it. The HWPT that is used:
    /// another than asked if that was an IOAS. Replacing an HWPT by itself does nothing.
    ///
    /// # Errors
    /// EBUSY while the device is being reset, EINVAL if the driver refuses what the HWPT holds.
    pub fn attach(&self, hwpt: u32, pasid: Option<u32>) -> Result<u32, Cause> {
        let full = size_of::<VfioDeviceAttach>();
        let size = if pasid.is_some() { full } else { offset_of!(VfioDeviceAttach, pasid) };
        let mut argument = VfioDeviceAttach {
            argsz: size as u32,
            flags: if pasid.is_some() { f::VFIO_DEVICE_ATTACH_PASID } else { 0 },
            pt_id: hwpt,
            pasid: pasid.unwrap_or(0),
        };
        let done = self.calls.ioctl(f::VFIO_DEVICE_ATTACH_IOMMUFD_PT, &mut argument.as_mut_bytes()[..size], &mut []);
        done.map_err(|errno| cause("VFIO_DEVICE_ATTACH_IOMMUFD_PT", &self.object(hwpt, pasid), errno))?;
        Ok(argument.pt_id)
    }

    /// VFIO_DEVICE_DETACH_IOMMUFD_PT: no DMA of the device, or of the PASID, passes afterwards.
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach(&self, pasid: Option<u32>) -> Result<(), Cause> {
        let full = size_of::<VfioDeviceDetach>();
        let size = if pasid.is_some() { full } else { offset_of!(VfioDeviceDetach, pasid) };
        let mut argument = VfioDeviceDetach {
            argsz: size as u32,
            flags: if pasid.is_some() { f::VFIO_DEVICE_DETACH_PASID } else { 0 },
            pasid: pasid.unwrap_or(0),
        };
        let done = self.calls.ioctl(f::VFIO_DEVICE_DETACH_IOMMUFD_PT, &mut argument.as_mut_bytes()[..size], &mut []);
        done.map(drop).map_err(|errno| cause("VFIO_DEVICE_DETACH_IOMMUFD_PT", &self.object(0, pasid), errno))
    }

    fn object(&self, hwpt: u32, pasid: Option<u32>) -> String {
        let to = if hwpt == 0 { String::new() } else { format!(" to {hwpt}") };
        pasid.map_or(format!("device {}{to}", self.id), |pasid| format!("PASID {pasid} of device {}{to}", self.id))
    }
}
