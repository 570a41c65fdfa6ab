//! Memory: what an IOAS maps, and the options about it.

use super::{Iommufd, count, size};
use crate::Cause;
#[cfg(doc)]
use crate::backend::kernel::calls::Calls;
use crate::backend::kernel::calls::Lent;
use crate::backend::kernel::errors::cause;
use crate::uapi::layout::{
    IoasAlloc, IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasMap, IoasMapFile, IoasNoiommuGetPa,
    IoasUnmap, IovaRange, OptionArgument, VfioIoas,
};
use crate::uapi::{Command, Errno, flags};
use std::mem::offset_of;
use zerocopy::IntoBytes;

/// Memory to map: what, where, and what devices may do with it.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// The IOAS.
    pub ioas: u32,
    /// Where; `None` lets the kernel choose.
    pub iova: Option<u64>,
    /// Bytes.
    pub length: u64,
    /// Whether devices may read.
    pub readable: bool,
    /// Whether devices may write.
    pub writable: bool,
}

impl MapRequest {
    fn flags(&self) -> u32 {
        let read = if self.readable { flags::IOAS_MAP_READABLE } else { 0 };
        let fixed = if self.iova.is_some() { flags::IOAS_MAP_FIXED_IOVA } else { 0 };
        let write = if self.writable { flags::IOAS_MAP_WRITEABLE } else { 0 };
        read | fixed | write
    }
}

impl Iommufd {
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
}

fn mapped(map: &MapRequest) -> String {
    let place = map.iova.map_or("anywhere".into(), |iova| format!("at {iova:#x}"));
    format!("{:#x} bytes {place} of IOAS {}", map.length, map.ioas)
}
