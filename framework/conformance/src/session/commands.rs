//! iommufd's commands, one call each.

use super::{Failed, Session};
use std::mem::offset_of;
use viommu::uapi::layout::*;
use viommu::uapi::{Command, flags, selftest};
use zerocopy::{FromBytes, IntoBytes};

/// What an HWPT_ALLOC asks for, besides its data.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paging {
    pub(crate) dev_id: u32,
    pub(crate) pt_id: u32,
    pub(crate) flags: u32,
    pub(crate) fault_id: u32,
}

/// How an HWPT_INVALIDATE ended, and the count that it wrote back.
pub(crate) struct Invalidated {
    pub(crate) result: Result<(), Failed>,
    pub(crate) entry_num: u32,
}

impl Session<'_> {
    pub(crate) fn destroy(&self, id: u32) -> Result<(), Failed> {
        self.call(Command::Destroy, &mut Destroy { id, ..Default::default() }, &mut [])
    }

    pub(crate) fn ioas(&self) -> Result<u32, Failed> {
        let mut argument = IoasAlloc::default();
        self.call(Command::IoasAlloc, &mut argument, &mut [])?;
        Ok(argument.out_ioas_id)
    }

    /// Maps memory of the session at a fixed IOVA, readable and writable.
    pub(crate) fn map(&self, ioas_id: u32, offset: u64, length: u64, iova: u64) -> Result<(), Failed> {
        let flags = flags::IOAS_MAP_FIXED_IOVA | flags::IOAS_MAP_READABLE | flags::IOAS_MAP_WRITEABLE;
        let user_va = self.memory().address(offset);
        let mut argument = IoasMap { flags, ioas_id, user_va, length, iova, ..Default::default() };
        self.call(Command::IoasMap, &mut argument, &mut [])
    }

    pub(crate) fn unmap(&self, ioas_id: u32, iova: u64, length: u64) -> Result<u64, Failed> {
        let mut argument = IoasUnmap { ioas_id, iova, length, ..Default::default() };
        self.call(Command::IoasUnmap, &mut argument, &mut [])?;
        Ok(argument.length)
    }

    /// The IOVA ranges of an IOAS, and its alignment.
    pub(crate) fn iova_ranges(&self, ioas_id: u32) -> Result<(Vec<IovaRange>, u64), Failed> {
        let mut ranges = [IovaRange::default(); 16];
        let mut argument = IoasIovaRanges { ioas_id, num_iovas: 16, ..Default::default() };
        let at = offset_of!(IoasIovaRanges, allowed_iovas);
        self.call(Command::IoasIovaRanges, &mut argument, &mut [(at, ranges.as_mut_bytes())])?;
        Ok((ranges[..argument.num_iovas.min(16) as usize].to_vec(), argument.out_iova_alignment))
    }

    pub(crate) fn option(&self, option_id: u32, op: u16, object_id: u32, val64: u64) -> Result<u64, Failed> {
        let mut argument = OptionArgument { option_id, op, object_id, val64, ..Default::default() };
        self.call(Command::Option, &mut argument, &mut [])?;
        Ok(argument.val64)
    }

    /// A paging HWPT without data.
    pub(crate) fn hwpt(&self, dev_id: u32, pt_id: u32, flags: u32) -> Result<u32, Failed> {
        self.hwpt_of(Paging { dev_id, pt_id, flags, ..Default::default() })
    }

    /// The same with a fault queue.
    pub(crate) fn hwpt_of(&self, asked: Paging) -> Result<u32, Failed> {
        self.hwpt_raw(argument(asked), None)
    }

    /// A nested HWPT with the mock's data.
    pub(crate) fn nested(&self, dev_id: u32, pt_id: u32, flags: u32) -> Result<u32, Failed> {
        self.nested_of(Paging { dev_id, pt_id, flags, ..Default::default() })
    }

    /// The same with a fault queue.
    pub(crate) fn nested_of(&self, asked: Paging) -> Result<u32, Failed> {
        let data = selftest::HwptSelftest { iotlb: super::mock::IOTLB, pagetable_type: 0 };
        let argument = HwptAlloc { data_type: selftest::HWPT_DATA, data_len: 8, ..argument(asked) };
        self.hwpt_raw(argument, Some(&mut data.as_bytes().to_vec()))
    }

    /// HWPT_ALLOC as it stands; with data, its pointer leads there.
    pub(crate) fn hwpt_raw(&self, mut argument: HwptAlloc, data: Option<&mut [u8]>) -> Result<u32, Failed> {
        let at = offset_of!(HwptAlloc, data_uptr);
        match data {
            Some(data) => self.call(Command::HwptAlloc, &mut argument, &mut [(at, data)])?,
            None => self.call(Command::HwptAlloc, &mut argument, &mut [])?,
        }
        Ok(argument.out_hwpt_id)
    }

    /// HWPT_INVALIDATE of these entries.
    pub(crate) fn invalidate<T: IntoBytes + FromBytes + zerocopy::Immutable>(
        &self,
        hwpt_id: u32,
        data_type: u32,
        entries: &[T],
    ) -> Invalidated {
        let argument = HwptInvalidate {
            hwpt_id,
            data_type,
            entry_len: u32::try_from(size_of::<T>()).unwrap_or(0),
            entry_num: u32::try_from(entries.len()).unwrap_or(0),
            ..Default::default()
        };
        self.invalidate_raw(argument, Some(&mut entries.as_bytes().to_vec()))
    }

    /// HWPT_INVALIDATE as it stands; with data, its pointer leads there.
    pub(crate) fn invalidate_raw(&self, mut argument: HwptInvalidate, data: Option<&mut [u8]>) -> Invalidated {
        let at = offset_of!(HwptInvalidate, data_uptr);
        let result = match data {
            Some(data) => self.call(Command::HwptInvalidate, &mut argument, &mut [(at, data)]),
            None => self.call(Command::HwptInvalidate, &mut argument, &mut []),
        };
        Invalidated { result, entry_num: argument.entry_num }
    }

    /// Notes how an HWPT_INVALIDATE ended, with its count.
    pub(crate) fn see_invalidate(&mut self, invalidated: Invalidated) {
        let Invalidated { result, entry_num } = invalidated;
        self.note(format!("{}, num {entry_num}", super::word(&result)));
    }

    pub(crate) fn viommu(&self, dev_id: u32, hwpt_id: u32) -> Result<u32, Failed> {
        self.viommu_raw(ViommuAlloc { r#type: selftest::VIOMMU_TYPE, dev_id, hwpt_id, ..Default::default() }, None)
    }

    /// VIOMMU_ALLOC as it stands; with data, its pointer leads there.
    pub(crate) fn viommu_raw(&self, mut argument: ViommuAlloc, data: Option<&mut [u8]>) -> Result<u32, Failed> {
        let at = offset_of!(ViommuAlloc, data_uptr);
        match data {
            Some(data) => self.call(Command::ViommuAlloc, &mut argument, &mut [(at, data)])?,
            None => self.call(Command::ViommuAlloc, &mut argument, &mut [])?,
        }
        Ok(argument.out_viommu_id)
    }

    pub(crate) fn vdevice(&self, viommu_id: u32, dev_id: u32, virt_id: u64) -> Result<u32, Failed> {
        let mut argument = VdeviceAlloc { viommu_id, dev_id, virt_id, ..Default::default() };
        self.call(Command::VdeviceAlloc, &mut argument, &mut [])?;
        Ok(argument.out_vdevice_id)
    }

    /// A vEVENTQ of a type: its ID and its file.
    pub(crate) fn veventq_of(&self, viommu_id: u32, r#type: u32, depth: u32) -> Result<(u32, u32), Failed> {
        let mut argument = VeventqAlloc { viommu_id, r#type, veventq_depth: depth, ..Default::default() };
        self.call(Command::VeventqAlloc, &mut argument, &mut [])?;
        Ok((argument.out_veventq_id, argument.out_veventq_fd))
    }

    /// A vEVENTQ of the mock's type.
    pub(crate) fn veventq(&self, viommu_id: u32, depth: u32) -> Result<(u32, u32), Failed> {
        self.veventq_of(viommu_id, selftest::VEVENTQ_TYPE, depth)
    }

    /// A fault queue: its ID and its file.
    pub(crate) fn fault_queue(&self) -> Result<(u32, u32), Failed> {
        let mut argument = FaultAlloc::default();
        self.call(Command::FaultQueueAlloc, &mut argument, &mut [])?;
        Ok((argument.out_fault_id, argument.out_fault_fd))
    }

    pub(crate) fn hw_queue(&self, viommu_id: u32, index: u32, iova: u64, length: u64) -> Result<u32, Failed> {
        self.hw_queue_raw(HwQueueAlloc {
            viommu_id,
            r#type: selftest::HW_QUEUE_TYPE,
            index,
            nesting_parent_iova: iova,
            length,
            ..Default::default()
        })
    }

    pub(crate) fn hw_queue_raw(&self, mut argument: HwQueueAlloc) -> Result<u32, Failed> {
        self.call(Command::HwQueueAlloc, &mut argument, &mut [])?;
        Ok(argument.out_hw_queue_id)
    }

    /// GET_HW_INFO as it stands, with room for what it gives: what it wrote back.
    pub(crate) fn hw_info(&self, mut argument: HwInfo, room: &mut [u8]) -> Result<HwInfo, Failed> {
        let at = offset_of!(HwInfo, data_uptr);
        if room.is_empty() {
            self.call(Command::GetHwInfo, &mut argument, &mut [])?;
        } else {
            self.call(Command::GetHwInfo, &mut argument, &mut [(at, room)])?;
        }
        Ok(argument)
    }

    pub(crate) fn set_dirty(&self, hwpt_id: u32, on: bool) -> Result<(), Failed> {
        let flags = if on { flags::HWPT_DIRTY_TRACKING_ENABLE } else { 0 };
        let mut argument = HwptSetDirtyTracking { flags, hwpt_id, ..Default::default() };
        self.call(Command::HwptSetDirtyTracking, &mut argument, &mut [])
    }

    /// GET_DIRTY_BITMAP into memory at `address`.
    pub(crate) fn get_dirty(&self, mut argument: HwptGetDirtyBitmap, address: u64) -> Result<(), Failed> {
        argument.data = address;
        self.call(Command::HwptGetDirtyBitmap, &mut argument, &mut [])
    }
}

fn argument(asked: Paging) -> HwptAlloc {
    let Paging { dev_id, pt_id, flags, fault_id } = asked;
    HwptAlloc { flags, dev_id, pt_id, fault_id, ..Default::default() }
}
