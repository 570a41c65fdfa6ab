//! The commands of an iommufd, typed. Each names itself and its object when it fails.

use super::calls::{Calls, Lent, Mapped};
use super::errors::cause;
use crate::Cause;
use crate::uapi::layout::{
    Destroy, FaultAlloc, HwInfo, HwQueueAlloc, HwptAlloc, HwptGetDirtyBitmap, HwptInvalidate, HwptSetDirtyTracking,
    IoasAlloc, IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasMap, IoasMapFile, IoasNoiommuGetPa,
    IoasUnmap, IovaRange, OptionArgument, VdeviceAlloc, VeventqAlloc, VfioIoas, ViommuAlloc,
};
use crate::uapi::{Command, Errno, flags};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An open iommufd with typed commands. IDs are the kernel's own.
#[derive(Clone)]
pub struct Iommufd {
    calls: Arc<dyn Calls>,
    /// Objects are another process's: none is destroyed.
    retired: Arc<AtomicBool>,
}

impl std::fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iommufd").field("fd", &self.calls.number()).finish()
    }
}

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

/// Memory to map: what, where, and what devices may do with it.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// The IOAS.
    pub ioas: u32,
    /// Where; `None` lets the kernel choose.
    pub iova: Option<u64>,
    /// Bytes.
    pub length: u64,
    /// Whether devices may write.
    pub writable: bool,
}

impl MapRequest {
    fn flags(&self) -> u32 {
        let fixed = if self.iova.is_some() { flags::IOAS_MAP_FIXED_IOVA } else { 0 };
        let write = if self.writable { flags::IOAS_MAP_WRITEABLE } else { 0 };
        flags::IOAS_MAP_READABLE | fixed | write
    }
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
    /// The commands over these calls.
    pub fn new(calls: Arc<dyn Calls>) -> Self {
        Self { calls, retired: Arc::default() }
    }

    /// Nothing owned through this is destroyed from here on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the objects are another's.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The calls under it.
    pub fn calls(&self) -> &Arc<dyn Calls> {
        &self.calls
    }

    fn ioctl<T: IntoBytes + FromBytes + Immutable>(
        &self,
        command: Command,
        argument: &mut T,
        lent: &mut [Lent<'_>],
    ) -> Result<(), Errno> {
        self.calls.ioctl(command.code(), argument.as_mut_bytes(), lent).map(drop)
    }

    fn run<T: IntoBytes + FromBytes + Immutable>(
        &self,
        command: Command,
        argument: &mut T,
        lent: &mut [Lent<'_>],
        object: impl FnOnce() -> String,
    ) -> Result<(), Cause> {
        self.ioctl(command, argument, lent).map_err(|errno| cause(command.name(), &object(), errno))
    }

    /// DESTROY. Closes nothing: an event queue's fd goes first.
    ///
    /// # Errors
    /// EBUSY while something uses it, ENOENT if it is gone.
    pub fn destroy(&self, id: u32) -> Result<(), Cause> {
        let mut argument = Destroy { size: size(Command::Destroy), id };
        self.run(Command::Destroy, &mut argument, &mut [], || format!("object {id}"))
    }

    /// IOAS_ALLOC.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ioas_alloc(&self) -> Result<u32, Cause> {
        let mut argument = IoasAlloc { size: size(Command::IoasAlloc), ..IoasAlloc::default() };
        self.run(Command::IoasAlloc, &mut argument, &mut [], || "the iommufd".into())?;
        Ok(argument.out_ioas_id)
    }

    /// IOAS_MAP of memory that was lent ([`Calls::lend`]): its address in this process. Where it is mapped.
    ///
    /// # Errors
    /// The kernel's; EFAULT for memory that was not lent.
    pub fn ioas_map(&self, map: MapRequest, user_va: u64) -> Result<u64, Cause> {
        let mut argument = IoasMap {
            size: size(Command::IoasMap),
            flags: map.flags(),
            ioas_id: map.ioas,
            user_va,
            length: map.length,
            iova: map.iova.unwrap_or(0),
            ..IoasMap::default()
        };
        self.run(Command::IoasMap, &mut argument, &mut [], || mapped(&map))?;
        Ok(argument.iova)
    }

    /// IOAS_MAP_FILE: maps a memfd, which can be taken over by another process. Where it is mapped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ioas_map_file(&self, map: MapRequest, fd: i32, start: u64) -> Result<u64, Cause> {
        let mut argument = IoasMapFile {
            size: size(Command::IoasMapFile),
            flags: map.flags(),
            ioas_id: map.ioas,
            fd,
            start,
            length: map.length,
            iova: map.iova.unwrap_or(0),
        };
        self.run(Command::IoasMapFile, &mut argument, &mut [], || mapped(&map))?;
        Ok(argument.iova)
    }

    /// IOAS_COPY: maps what `source` maps at `source_iova`. Where it is mapped.
    ///
    /// # Errors
    /// The kernel's; ENOENT if not all of the source is mapped.
    pub fn ioas_copy(&self, map: MapRequest, source: u32, source_iova: u64) -> Result<u64, Cause> {
        let mut argument = IoasCopy {
            size: size(Command::IoasCopy),
            flags: map.flags(),
            dst_ioas_id: map.ioas,
            src_ioas_id: source,
            length: map.length,
            dst_iova: map.iova.unwrap_or(0),
            src_iova: source_iova,
        };
        self.run(Command::IoasCopy, &mut argument, &mut [], || mapped(&map))?;
        Ok(argument.dst_iova)
    }

    /// IOAS_UNMAP; bytes unmapped. `(0, u64::MAX)` unmaps everything.
    ///
    /// # Errors
    /// ENOENT if nothing is mapped there or a mapping is cut, EBUSY while hardware reads a queue there.
    pub fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        let mut argument = IoasUnmap { size: size(Command::IoasUnmap), ioas_id: ioas, iova, length };
        self.run(Command::IoasUnmap, &mut argument, &mut [], || {
            format!("{length:#x} bytes at {iova:#x} of IOAS {ioas}")
        })?;
        Ok(argument.length)
    }

    /// IOAS_IOVA_RANGES: what can be used, and what mappings are aligned to. To be asked again after each attach.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ioas_iova_ranges(&self, ioas: u32) -> Result<(Vec<IovaRange>, u64), Cause> {
        let mut ranges = vec![IovaRange::default(); 16];
        loop {
            let mut argument = IoasIovaRanges {
                size: size(Command::IoasIovaRanges),
                ioas_id: ioas,
                num_iovas: count(ranges.len()),
                ..IoasIovaRanges::default()
            };
            let mut lent = [Lent::new(offset_of!(IoasIovaRanges, allowed_iovas), ranges.as_mut_bytes())];
            match self.ioctl(Command::IoasIovaRanges, &mut argument, &mut lent) {
                Err(Errno::MSGSIZE) if argument.num_iovas as usize > ranges.len() => {
                    ranges.resize(argument.num_iovas as usize, IovaRange::default());
                }
                result => {
                    let name = Command::IoasIovaRanges.name();
                    result.map_err(|errno| cause(name, &format!("IOAS {ioas}"), errno))?;
                    ranges.truncate(argument.num_iovas as usize);
                    return Ok((ranges, argument.out_iova_alignment));
                }
            }
        }
    }

    /// IOAS_ALLOW_IOVAS: where automatic IOVAs may come from, replaced as a whole.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ioas_allow_iovas(&self, ioas: u32, ranges: &[IovaRange]) -> Result<(), Cause> {
        let mut ranges = ranges.to_vec();
        let mut argument = IoasAllowIovas {
            size: size(Command::IoasAllowIovas),
            ioas_id: ioas,
            num_iovas: count(ranges.len()),
            ..IoasAllowIovas::default()
        };
        let mut lent = [Lent::new(offset_of!(IoasAllowIovas, allowed_iovas), ranges.as_mut_bytes())];
        self.run(Command::IoasAllowIovas, &mut argument, &mut lent, || format!("IOAS {ioas}"))
    }

    /// IOAS_CHANGE_PROCESS: pinned memory counts as the calling process's from now on. Only mappings of files can move.
    ///
    /// # Errors
    /// EINVAL if memory of the old process is mapped.
    pub fn ioas_change_process(&self) -> Result<(), Cause> {
        let mut argument = IoasChangeProcess { size: size(Command::IoasChangeProcess), ..IoasChangeProcess::default() };
        self.run(Command::IoasChangeProcess, &mut argument, &mut [], || "the iommufd".into())
    }

    /// IOAS_NOIOMMU_GET_PA: the physical address behind an IOVA of a device that has no IOMMU, and for how many bytes.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_RAWIO, EOPNOTSUPP where the kernel has none.
    pub fn ioas_noiommu_get_pa(&self, ioas: u32, iova: u64, length: u64) -> Result<(u64, u64), Cause> {
        let command = Command::IoasNoiommuGetPa;
        let mut argument =
            IoasNoiommuGetPa { size: size(command), ioas_id: ioas, iova, length, ..IoasNoiommuGetPa::default() };
        self.run(command, &mut argument, &mut [], || format!("{iova:#x} of IOAS {ioas}"))?;
        Ok((argument.out_phys, argument.length))
    }

    /// OPTION, read: [`flags::OPTION_RLIMIT_MODE`] (object 0) or [`flags::OPTION_HUGE_PAGES`] (of an IOAS).
    ///
    /// # Errors
    /// The kernel's.
    pub fn option(&self, option: u32, object: u32) -> Result<u64, Cause> {
        self.option_of(option, object, flags::OPTION_OP_GET, 0)
    }

    /// OPTION, set.
    ///
    /// # Errors
    /// The kernel's; EPERM for RLIMIT_MODE without CAP_SYS_RESOURCE, EBUSY once there are objects.
    pub fn set_option(&self, option: u32, object: u32, value: u64) -> Result<(), Cause> {
        self.option_of(option, object, flags::OPTION_OP_SET, value).map(drop)
    }

    fn option_of(&self, option_id: u32, object_id: u32, op: u16, val64: u64) -> Result<u64, Cause> {
        let mut argument = OptionArgument {
            size: size(Command::Option),
            option_id,
            op,
            object_id,
            val64,
            ..OptionArgument::default()
        };
        self.run(Command::Option, &mut argument, &mut [], || format!("option {option_id} of object {object_id}"))?;
        Ok(argument.val64)
    }

    /// VFIO_IOAS: which IOAS the old container calls mean; `None` if none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn vfio_ioas(&self) -> Result<Option<u32>, Cause> {
        let mut argument = VfioIoas { size: size(Command::VfioIoas), op: flags::VFIO_IOAS_GET, ..VfioIoas::default() };
        match self.ioctl(Command::VfioIoas, &mut argument, &mut []) {
            Ok(()) => Ok(Some(argument.ioas_id)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(cause(Command::VfioIoas.name(), "the iommufd", errno)),
        }
    }

    /// VFIO_IOAS: sets it, or forgets it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_vfio_ioas(&self, ioas: Option<u32>) -> Result<(), Cause> {
        let op = if ioas.is_some() { flags::VFIO_IOAS_SET } else { flags::VFIO_IOAS_CLEAR };
        let ioas_id = ioas.unwrap_or(0);
        let mut argument = VfioIoas { size: size(Command::VfioIoas), ioas_id, op, ..VfioIoas::default() };
        self.run(Command::VfioIoas, &mut argument, &mut [], || format!("IOAS {ioas_id}"))
    }

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

fn size(command: Command) -> u32 {
    count(command.size())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn mapped(map: &MapRequest) -> String {
    let place = map.iova.map_or("anywhere".into(), |iova| format!("at {iova:#x}"));
    format!("{:#x} bytes {place} of IOAS {}", map.length, map.ioas)
}
