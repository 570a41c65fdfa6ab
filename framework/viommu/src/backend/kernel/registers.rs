//! What of a VFIO device is not the IOMMU's: where its registers are, its interrupts, its reset. A VMM needs them to make
//! the device do anything at all.

use super::calls::DeviceCalls;
use super::errors::cause;
use super::sys::RawDevice;
use crate::Cause;
use crate::uapi::flags as f;
use crate::uapi::layout::{VfioIrqSet, VfioRegionInfo};
use std::os::fd::{AsRawFd, BorrowedFd};
use zerocopy::IntoBytes;

impl RawDevice {
    /// VFIO_DEVICE_GET_REGION_INFO of region `index` (a BAR by its number, 7 the configuration space). It is read and
    /// written through [`RawDevice::fd`], at `offset`.
    ///
    /// # Errors
    /// EINVAL if there is no such region.
    pub fn region(&self, index: u32) -> Result<VfioRegionInfo, Cause> {
        let mut argument =
            VfioRegionInfo { argsz: size_of::<VfioRegionInfo>() as u32, index, ..VfioRegionInfo::default() };
        let done = self.ioctl(f::VFIO_DEVICE_GET_REGION_INFO, argument.as_mut_bytes(), &mut []);
        done.map_err(|errno| cause("VFIO_DEVICE_GET_REGION_INFO", &format!("region {index}"), errno))?;
        Ok(argument)
    }

    /// VFIO_DEVICE_SET_IRQS: the first interrupt of kind `index` (1 is MSI) writes `to`; without it that kind is off.
    ///
    /// # Errors
    /// EINVAL if there is no such interrupt.
    pub fn signal(&self, index: u32, to: Option<BorrowedFd<'_>>) -> Result<(), Cause> {
        let length = size_of::<VfioIrqSet>() + if to.is_some() { 4 } else { 0 };
        let kind = if to.is_some() { f::VFIO_IRQ_SET_DATA_EVENTFD } else { f::VFIO_IRQ_SET_DATA_NONE };
        let set = VfioIrqSet {
            argsz: length as u32,
            flags: kind | f::VFIO_IRQ_SET_ACTION_TRIGGER,
            index,
            start: 0,
            count: u32::from(to.is_some()),
        };
        let mut argument = set.as_bytes().to_vec();
        argument.extend(to.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()));
        let done = self.ioctl(f::VFIO_DEVICE_SET_IRQS, &mut argument, &mut []);
        done.map(drop).map_err(|errno| cause("VFIO_DEVICE_SET_IRQS", &format!("interrupts of kind {index}"), errno))
    }
}
