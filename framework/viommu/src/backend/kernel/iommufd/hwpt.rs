//! What hardware translates by: its information, HWPTs, dirty pages, invalidation.

use super::{Iommufd, count, size};
use crate::Cause;
use crate::backend::kernel::calls::Lent;
use crate::backend::kernel::errors::cause;
use crate::uapi::layout::{HwInfo, HwptAlloc, HwptGetDirtyBitmap, HwptInvalidate, HwptSetDirtyTracking};
use crate::uapi::{Command, Errno, flags};
use std::mem::offset_of;
use zerocopy::IntoBytes;

/// What GET_HW_INFO tells of a device's IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardwareInfo {
    /// [`flags::HW_INFO_TYPE_ARM_SMMUV3`] and its kind.
    pub data_type: u32,
    /// The payload of that type, as long as the kernel has it.
    pub data: Vec<u8>,
    /// Width of PASIDs; 0 means none.
    pub max_pasid_log2: u8,
    /// [`flags::HW_CAP_DIRTY_TRACKING`] and its kind.
    pub capabilities: u64,
}

/// What HWPT_ALLOC is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct HwptRequest<'a> {
    /// [`flags::HWPT_ALLOC_NEST_PARENT`] and its kind.
    pub flags: u32,
    /// A bound device that is to be attached.
    pub device: u32,
    /// The IOAS, nesting parent or vIOMMU it is made on.
    pub on: u32,
    /// [`flags::HWPT_DATA_ARM_SMMUV3`] and its kind.
    pub data_type: u32,
    /// Payload.
    pub data: &'a [u8],
    /// The FAULT queue that takes its page requests.
    pub fault: Option<u32>,
}

/// How an HWPT_INVALIDATE ended. The count is what the kernel says, which is no proof of anything if it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidateReply {
    /// The kernel's `entry_num`.
    pub entries: u32,
    /// Whether it succeeded.
    pub result: Result<(), Errno>,
}

impl Iommufd {
    /// GET_HW_INFO of a bound device's IOMMU; with a type, of that type (Tegra's CMDQV beside its SMMU).
    ///
    /// # Errors
    /// EOPNOTSUPP if the driver has nothing of that type.
    pub fn hardware_info(&self, device: u32, data_type: Option<u32>) -> Result<HardwareInfo, Cause> {
        let mut data = vec![0; 64];
        loop {
            let mut argument = HwInfo {
                size: size(Command::GetHwInfo),
                flags: data_type.map_or(0, |_| flags::HW_INFO_FLAG_INPUT_TYPE),
                dev_id: device,
                data_len: count(data.len()),
                data_type: data_type.unwrap_or(0),
                ..HwInfo::default()
            };
            let mut lent = [Lent::new(offset_of!(HwInfo, data_uptr), &mut data)];
            self.run(Command::GetHwInfo, &mut argument, &mut lent, || format!("device {device}"))?;
            let there = argument.data_len as usize;
            if there <= data.len() {
                data.truncate(there);
                return Ok(HardwareInfo {
                    data_type: argument.data_type,
                    data,
                    max_pasid_log2: argument.out_max_pasid_log2,
                    capabilities: argument.out_capabilities,
                });
            }
            data.resize(there, 0);
        }
    }

    /// HWPT_ALLOC.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hwpt_alloc(&self, request: HwptRequest<'_>) -> Result<u32, Cause> {
        let mut data = request.data.to_vec();
        let mut argument = HwptAlloc {
            size: size(Command::HwptAlloc),
            flags: request.flags | request.fault.map_or(0, |_| flags::HWPT_FAULT_ID_VALID),
            dev_id: request.device,
            pt_id: request.on,
            data_type: request.data_type,
            data_len: count(data.len()),
            fault_id: request.fault.unwrap_or(0),
            ..HwptAlloc::default()
        };
        let mut lent = [Lent::new(offset_of!(HwptAlloc, data_uptr), &mut data)];
        let lent = if request.data.is_empty() { &mut [][..] } else { &mut lent[..] };
        self.run(Command::HwptAlloc, &mut argument, lent, || {
            format!("object {} for device {}", request.on, request.device)
        })?;
        Ok(argument.out_hwpt_id)
    }

    /// HWPT_SET_DIRTY_TRACKING. Turning it on forgets what was dirty.
    ///
    /// # Errors
    /// EOPNOTSUPP if the HWPT was not made for it.
    pub fn set_dirty_tracking(&self, hwpt: u32, on: bool) -> Result<(), Cause> {
        let mut argument = HwptSetDirtyTracking {
            size: size(Command::HwptSetDirtyTracking),
            flags: if on { flags::HWPT_DIRTY_TRACKING_ENABLE } else { 0 },
            hwpt_id: hwpt,
            ..HwptSetDirtyTracking::default()
        };
        self.run(Command::HwptSetDirtyTracking, &mut argument, &mut [], || format!("HWPT {hwpt}"))
    }

    /// HWPT_GET_DIRTY_BITMAP: sets a bit in `bitmap` for each page written, counted from `iova`; clears what was dirty
    /// unless `keep`. Holes are not told: a page that is not mapped is not dirty.
    ///
    /// # Errors
    /// EINVAL for a range that is not whole pages or longer than the bitmap.
    pub fn dirty_bitmap(
        &self,
        hwpt: u32,
        iova: u64,
        length: u64,
        page_size: u64,
        keep: bool,
        bitmap: &mut [u64],
    ) -> Result<(), Cause> {
        let command = Command::HwptGetDirtyBitmap;
        let object = || format!("{length:#x} bytes at {iova:#x} of HWPT {hwpt}");
        let pages = length.checked_div(page_size).ok_or_else(|| cause(command.name(), &object(), Errno::INVAL))?;
        if bitmap.len() as u64 * 64 < pages {
            return Err(cause(command.name(), &object(), Errno::INVAL));
        }
        let mut argument = HwptGetDirtyBitmap {
            size: size(command),
            hwpt_id: hwpt,
            flags: if keep { flags::HWPT_GET_DIRTY_BITMAP_NO_CLEAR } else { 0 },
            iova,
            length,
            page_size,
            ..HwptGetDirtyBitmap::default()
        };
        // The kernel may look at the word behind the last page: it has one to look at.
        let mut room = bitmap.to_vec();
        room.push(0);
        let mut lent = [Lent::new(offset_of!(HwptGetDirtyBitmap, data), room.as_mut_bytes())];
        self.run(command, &mut argument, &mut lent, object)?;
        bitmap.copy_from_slice(&room[..bitmap.len()]);
        Ok(())
    }

    /// HWPT_INVALIDATE: `entries` of `entry_length` bytes each. How many the kernel says it handled, and whether that was
    /// all: two answers, of which only success can be believed.
    pub fn invalidate(&self, target: u32, data_type: u32, entry_length: usize, entries: &mut [u8]) -> InvalidateReply {
        let mut argument = HwptInvalidate {
            size: size(Command::HwptInvalidate),
            hwpt_id: target,
            data_type,
            entry_len: count(entry_length),
            entry_num: count(entries.len().checked_div(entry_length).unwrap_or(0)),
            ..HwptInvalidate::default()
        };
        let mut lent = [Lent::new(offset_of!(HwptInvalidate, data_uptr), entries)];
        let result = self.ioctl(Command::HwptInvalidate, &mut argument, &mut lent);
        InvalidateReply { entries: argument.entry_num, result }
    }
}
