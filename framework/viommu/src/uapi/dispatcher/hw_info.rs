//! GET_HW_INFO.

use super::{Call, objects::Kind, state::State};
use crate::uapi::{
    Errno,
    flags::{HW_CAP_DIRTY_TRACKING, HW_INFO_FLAG_INPUT_TYPE, HW_INFO_TYPE_NONE},
    layout,
};

impl State {
    pub(super) fn get_hw_info(&mut self, command: &mut layout::HwInfo, call: Call<'_>) -> Result<(), Errno> {
        if command.flags & !HW_INFO_FLAG_INPUT_TYPE != 0 || command.__reserved != [0; 3] {
            return Err(Errno::OPNOTSUPP);
        }
        if command.flags & HW_INFO_FLAG_INPUT_TYPE == 0 {
            command.data_type = HW_INFO_TYPE_NONE;
        }
        self.seek(command.dev_id, Kind::Device)?;
        let config = &self.table.device(command.dev_id)?.bound.config;
        self.inject.allocation()?;
        let info = config.driver.hw_info(config, command.data_type)?;
        let room = command.data_len as usize;
        let copied = info.bytes.len().min(room);
        call.memory.write(command.data_uptr, &info.bytes[..copied])?;
        zero(call, command.data_uptr.wrapping_add(copied as u64), (room - copied) as u64)?;
        command.data_type = info.data_type;
        command.data_len = info.bytes.len() as u32;
        command.out_max_pasid_log2 = config.pasid_log2;
        command.out_capabilities = config.capabilities | if config.dirty_tracking { HW_CAP_DIRTY_TRACKING } else { 0 };
        Ok(())
    }
}

/// Zeros the caller's memory.
fn zero(call: Call<'_>, mut address: u64, mut length: u64) -> Result<(), Errno> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while length > 0 {
        let piece = length.min(ZEROS.len() as u64);
        call.memory.write(address, &ZEROS[..piece as usize])?;
        (address, length) = (address.wrapping_add(piece), length - piece);
    }
    Ok(())
}
