//! Mock devices: made, attached, replaced.

use super::Selftest;
use crate::uapi::{
    Errno,
    dispatcher::{
        Call,
        devices::How,
        driver::DeviceConfig,
        objects::{Kind, Object},
        state::State,
    },
    flags::HW_CAP_PCI_ATS_NOT_SUPPORTED,
    selftest::{DEVICE_NO_DIRTY, DEVICE_PASID, PASID_LOG2, TestCommand, op},
};
use std::sync::Arc;

impl State {
    /// Makes a device and attaches it to an IOAS or HWPT.
    pub(super) fn mock_domain(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let flags = if command.op == op::MOCK_DOMAIN_FLAGS { command.u32_at(28) } else { 0 };
        let pt_id = command.id;
        let (stdev, hwpt, device) = self.with_reserved(|state, id| {
            if flags & !(DEVICE_NO_DIRTY | DEVICE_PASID) != 0 {
                return Err(Errno::INVAL);
            }
            let driver = state.mock.clone().ok_or(Errno::NOTTY)?;
            let config = Arc::new(DeviceConfig {
                pasid_log2: if flags & DEVICE_PASID != 0 { PASID_LOG2 } else { 0 },
                dirty_tracking: flags & DEVICE_NO_DIRTY == 0,
                capabilities: HW_CAP_PCI_ATS_NOT_SUPPORTED,
                ..DeviceConfig::new(driver, 0)
            });
            state.inject.allocation()?;
            let device = state.bind(&config)?;
            let hwpt = state.change_hwpt(device, 0, pt_id, How::Attach, call.memory);
            let hwpt = hwpt.inspect_err(|_| state.unbind(device))?;
            state.table.publish(id, Object::Selftest(Selftest { device }), &[]);
            Ok((id, hwpt, device))
        })?;
        command.set_u32_at(16, stdev);
        command.set_u32_at(20, hwpt);
        command.set_u32_at(24, device);
        Ok(())
    }

    fn mock_device(&self, id: u32) -> Result<u32, Errno> {
        self.seek(id, Kind::Selftest)?;
        Ok(self.table.selftest(id)?.device)
    }

    pub(super) fn mock_domain_replace(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let device = self.mock_device(command.id)?;
        let hwpt = self.change_hwpt(device, 0, command.u32_at(16), How::Replace, call.memory)?;
        command.set_u32_at(16, hwpt);
        Ok(())
    }

    pub(super) fn pasid_attach(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        self.change_pasid(command, How::Attach, call)
    }

    pub(super) fn pasid_replace(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        self.change_pasid(command, How::Replace, call)
    }

    fn change_pasid(&mut self, command: &mut TestCommand, how: How, call: Call<'_>) -> Result<(), Errno> {
        let device = self.mock_device(command.id)?;
        let hwpt = self.change_hwpt(device, command.u32_at(16), command.u32_at(20), how, call.memory)?;
        command.set_u32_at(20, hwpt);
        Ok(())
    }

    pub(super) fn pasid_detach(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let device = self.mock_device(command.id)?;
        self.detach(device, command.u32_at(16));
        Ok(())
    }

    /// EINVAL unless the PASID is attached to this HWPT, or for 0 to none.
    pub(super) fn pasid_check_hwpt(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let device = self.mock_device(command.id)?;
        let attached = self.attachment(device, command.u32_at(16)).map(|there| there.hwpt);
        let wanted = command.u32_at(20);
        if wanted != 0 && !matches!(self.seek_any(wanted)?, Kind::Paging | Kind::Nested) {
            return Err(Errno::INVAL);
        }
        if attached == (wanted != 0).then_some(wanted) { Ok(()) } else { Err(Errno::INVAL) }
    }
}
