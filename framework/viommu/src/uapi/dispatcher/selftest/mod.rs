//! The commands of the kernel's mock driver.

mod accesses;
mod checks;
mod mock_devices;

use super::{Call, ioas::last, objects::Kind, space::Owner, state::State};
use crate::uapi::{
    Errno,
    payload::HwptPgfault,
    selftest::{TestCommand, VEVENTQ_TYPE, VeventSelftest, op},
};
use zerocopy::IntoBytes;

/// What keeps a mock device.
#[derive(Debug)]
pub(super) struct Selftest {
    pub device: u32,
}

impl State {
    pub(super) fn test(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        match command.op {
            op::ADD_RESERVED => self.add_reserved(command),
            op::MOCK_DOMAIN | op::MOCK_DOMAIN_FLAGS => self.mock_domain(command, call),
            op::MOCK_DOMAIN_REPLACE => self.mock_domain_replace(command, call),
            op::PASID_ATTACH => self.pasid_attach(command, call),
            op::PASID_REPLACE => self.pasid_replace(command, call),
            op::PASID_DETACH => self.pasid_detach(command),
            op::PASID_CHECK_HWPT => self.pasid_check_hwpt(command),
            op::MD_CHECK_MAP => self.check_map(command, call),
            op::MD_CHECK_REFS => self.check_refs(command, call),
            op::MD_CHECK_IOTLB => self.check_iotlb(command),
            op::DEV_CHECK_CACHE => self.check_cache(command),
            op::DIRTY => self.test_dirty(command, call),
            op::TRIGGER_IOPF => self.trigger_iopf(command),
            op::TRIGGER_VEVENT => self.trigger_vevent(command),
            op::CREATE_ACCESS => self.create_access(command),
            op::ACCESS_PAGES => self.access_pages(command, call),
            op::DESTROY_ACCESS_PAGES => self.destroy_access_pages(command),
            op::ACCESS_RW => self.access_rw(command, call),
            op::ACCESS_REPLACE_IOAS => self.access_replace_ioas(command),
            // A buffer of the kernel's own that nothing here has.
            op::SET_TEMP_MEMORY_LIMIT => {
                if command.u32_at(16) < 12 {
                    Err(Errno::INVAL)
                } else {
                    Ok(())
                }
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn add_reserved(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let start = command.u64_at(16);
        let last = last(start, command.u64_at(24))?;
        self.seek(command.id, Kind::Ioas)?;
        self.inject.allocation()?;
        self.table.ioas_mut(command.id)?.space.reserve(start, last, Owner::Test)
    }

    fn trigger_iopf(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let dev_id = command.u32_at(16);
        self.seek(dev_id, Kind::Device)?;
        self.page_request(HwptPgfault {
            dev_id,
            pasid: command.u32_at(20),
            grpid: command.u32_at(24),
            perm: command.u32_at(28),
            addr: command.u64_at(32),
            ..HwptPgfault::default()
        })
    }

    fn trigger_vevent(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let device = command.u32_at(16);
        self.seek(device, Kind::Device)?;
        let (viommu, virt_id) =
            self.table.device(device)?.events.filter(|(_, virt_id)| *virt_id != 0).ok_or(Errno::NOENT)?;
        self.report(viommu, VEVENTQ_TYPE, VeventSelftest { virt_id: virt_id as u32 }.as_bytes())
    }
}
