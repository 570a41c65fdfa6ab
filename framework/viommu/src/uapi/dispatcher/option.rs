//! OPTION, VFIO_IOAS, IOAS_CHANGE_PROCESS and IOAS_NOIOMMU_GET_PA.

use super::{
    objects::{Kind, Object},
    space::Source,
    state::State,
};
use crate::uapi::{
    Errno,
    flags::{
        OPTION_HUGE_PAGES, OPTION_OP_GET, OPTION_OP_SET, OPTION_RLIMIT_MODE, VFIO_IOAS_CLEAR, VFIO_IOAS_GET,
        VFIO_IOAS_SET,
    },
    layout,
};

impl State {
    pub(super) fn option(&mut self, command: &mut layout::OptionArgument) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        match command.option_id {
            OPTION_RLIMIT_MODE => self.rlimit_mode(command),
            OPTION_HUGE_PAGES => self.huge_pages(command),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn rlimit_mode(&mut self, command: &mut layout::OptionArgument) -> Result<(), Errno> {
        if command.object_id != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        match command.op {
            OPTION_OP_GET => command.val64 = u64::from(self.by_process),
            OPTION_OP_SET if !self.privileged => return Err(Errno::PERM),
            OPTION_OP_SET if !self.table.is_empty() => return Err(Errno::BUSY),
            OPTION_OP_SET => self.by_process = boolean(command.val64)?,
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    fn huge_pages(&mut self, command: &mut layout::OptionArgument) -> Result<(), Errno> {
        self.seek(command.object_id, Kind::Ioas)?;
        let space = &mut self.table.ioas_mut(command.object_id)?.space;
        match command.op {
            OPTION_OP_GET => command.val64 = u64::from(!space.small_pages),
            OPTION_OP_SET => {
                let small = !boolean(command.val64)?;
                if small && !space.small_pages && !space.domains.is_empty() && !space.is_empty() {
                    return Err(Errno::INVAL);
                }
                let before = space.small_pages;
                space.small_pages = small;
                space.realign().inspect_err(|_| space.small_pages = before)?;
            }
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    pub(super) fn vfio_ioas(&mut self, command: &mut layout::VfioIoas) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        match command.op {
            VFIO_IOAS_GET => command.ioas_id = self.vfio_ioas.ok_or(Errno::NODEV)?,
            VFIO_IOAS_SET => {
                self.seek(command.ioas_id, Kind::Ioas)?;
                self.vfio_ioas = Some(command.ioas_id);
            }
            VFIO_IOAS_CLEAR => self.vfio_ioas = None,
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    /// Only files can change hands: memory of a process stays its own.
    pub(super) fn ioas_change_process(&mut self, command: &mut layout::IoasChangeProcess) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let stays = self.table.iter().any(|(_, _, object)| match object {
            Object::Ioas(ioas) => ioas.space.areas().any(|(_, area)| matches!(area.pages.source, Source::User(_))),
            _ => false,
        });
        if stays { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// Devices here always have an IOMMU, so that there is no mapping whose physical address may be told.
    pub(super) fn ioas_noiommu_get_pa(&mut self, command: &mut layout::IoasNoiommuGetPa) -> Result<(), Errno> {
        if !self.privileged {
            return Err(Errno::PERM);
        }
        if command.flags != 0 || command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if command.length == 0 {
            return Err(Errno::INVAL);
        }
        if command.iova == u64::MAX {
            return Err(Errno::OVERFLOW);
        }
        self.seek(command.ioas_id, Kind::Ioas)?;
        self.table.ioas(command.ioas_id)?.space.first_area(command.iova, command.iova).ok_or(Errno::NOENT)?;
        Err(Errno::OPNOTSUPP)
    }
}

fn boolean(value: u64) -> Result<bool, Errno> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::INVAL),
    }
}
