//! A vIOMMU and what is on it: vdevices, queues, mapped registers.

use super::{Iommufd, count, size};
use crate::Cause;
use crate::backend::kernel::calls::{Lent, Mapped};
use crate::backend::kernel::errors::cause;
use crate::uapi::Command;
use crate::uapi::layout::{FaultAlloc, HwQueueAlloc, VdeviceAlloc, VeventqAlloc, ViommuAlloc};
use std::mem::offset_of;

impl Iommufd {
    /// FAULT_QUEUE_ALLOC: the queue, and its event fd.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fault_queue_alloc(&self) -> Result<(u32, i32), Cause> {
        let mut argument = FaultAlloc { size: size(Command::FaultQueueAlloc), ..FaultAlloc::default() };
        self.run(Command::FaultQueueAlloc, &mut argument, &mut [], || "the iommufd".into())?;
        Ok((argument.out_fault_id, argument.out_fault_fd as i32))
    }

    /// VIOMMU_ALLOC on a nesting parent, for the IOMMU of `device`. `data` is the vendor's payload, and what the driver
    /// answered in it.
    ///
    /// # Errors
    /// EOPNOTSUPP where the driver or hardware has no such vIOMMU.
    pub fn viommu_alloc(&self, kind: u32, device: u32, parent: u32, data: &mut [u8]) -> Result<u32, Cause> {
        let mut argument = ViommuAlloc {
            size: size(Command::ViommuAlloc),
            r#type: kind,
            dev_id: device,
            hwpt_id: parent,
            data_len: count(data.len()),
            ..ViommuAlloc::default()
        };
        let mut lent = [Lent::new(offset_of!(ViommuAlloc, data_uptr), data)];
        let lent = if argument.data_len == 0 { &mut [][..] } else { &mut lent[..] };
        self.run(Command::ViommuAlloc, &mut argument, lent, || {
            format!("nesting parent {parent} for device {device}, type {kind}")
        })?;
        Ok(argument.out_viommu_id)
    }

    /// VDEVICE_ALLOC.
    ///
    /// # Errors
    /// EEXIST if the device has one or the guest's ID is taken.
    pub fn vdevice_alloc(&self, viommu: u32, device: u32, virt_id: u64) -> Result<u32, Cause> {
        let mut argument = VdeviceAlloc {
            size: size(Command::VdeviceAlloc),
            viommu_id: viommu,
            dev_id: device,
            virt_id,
            ..VdeviceAlloc::default()
        };
        self.run(Command::VdeviceAlloc, &mut argument, &mut [], || {
            format!("vIOMMU {viommu} for device {device} as {virt_id:#x}")
        })?;
        Ok(argument.out_vdevice_id)
    }

    /// VEVENTQ_ALLOC: the queue, and its event fd.
    ///
    /// # Errors
    /// EEXIST if the vIOMMU has one of this type.
    pub fn veventq_alloc(&self, viommu: u32, kind: u32, depth: u32) -> Result<(u32, i32), Cause> {
        let mut argument = VeventqAlloc {
            size: size(Command::VeventqAlloc),
            viommu_id: viommu,
            r#type: kind,
            veventq_depth: depth,
            ..VeventqAlloc::default()
        };
        self.run(Command::VeventqAlloc, &mut argument, &mut [], || format!("vIOMMU {viommu}, type {kind}"))?;
        Ok((argument.out_veventq_id, argument.out_veventq_fd as i32))
    }

    /// HW_QUEUE_ALLOC: hardware reads `length` bytes of the guest's memory at `iova` as queue `index`. The memory is pinned.
    ///
    /// # Errors
    /// EIO if the queue before it is missing, EFAULT if the memory is not contiguous in the host.
    pub fn hw_queue_alloc(&self, viommu: u32, kind: u32, index: u32, iova: u64, length: u64) -> Result<u32, Cause> {
        let mut argument = HwQueueAlloc {
            size: size(Command::HwQueueAlloc),
            viommu_id: viommu,
            r#type: kind,
            index,
            nesting_parent_iova: iova,
            length,
            ..HwQueueAlloc::default()
        };
        self.run(Command::HwQueueAlloc, &mut argument, &mut [], || format!("vIOMMU {viommu}, queue {index}"))?;
        Ok(argument.out_hw_queue_id)
    }

    /// Maps registers that VIOMMU_ALLOC told of.
    ///
    /// # Errors
    /// ENXIO if these are not the offset and length that it told.
    pub fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Cause> {
        self.calls.map(offset, length).map_err(|errno| cause("mmap", &format!("offset {offset:#x}"), errno))
    }
}
