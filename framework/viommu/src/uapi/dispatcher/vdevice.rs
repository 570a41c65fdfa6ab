//! VDEVICE_ALLOC: the guest's name for a device.

use super::{
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{Errno, layout};

/// A vDEVICE.
#[derive(Debug)]
pub(super) struct Vdevice {
    pub viommu: u32,
    pub device: u32,
    pub virt_id: u64,
}

impl State {
    pub(super) fn vdevice_alloc(&mut self, command: &mut layout::VdeviceAlloc) -> Result<(), Errno> {
        let (viommu, device, virt_id) = (command.viommu_id, command.dev_id, command.virt_id);
        self.seek(viommu, Kind::Viommu)?;
        self.seek(device, Kind::Device)?;
        let bound = self.table.device(device)?.bound.clone();
        if self.table.viommu(viommu)?.iommu != bound.config.iommu {
            return Err(Errno::INVAL);
        }
        if self.table.device(device)?.vdevice.is_some() {
            return Err(Errno::EXIST);
        }
        command.out_vdevice_id = self.with_reserved(|state, id| {
            state.inject.allocation()?;
            let owner = state.table.viommu_mut(viommu)?;
            if owner.devices.contains_key(&virt_id) {
                return Err(Errno::EXIST);
            }
            // The driver sees the device before anybody can find it by its name.
            owner.driver()?.vdevice(&bound, virt_id)?;
            owner.devices.insert(virt_id, device);
            state.table.device_mut(device)?.vdevice = Some(id);
            state.table.publish(id, Object::Vdevice(Vdevice { viommu, device, virt_id }), &[viommu, device]);
            Ok(id)
        })?;
        Ok(())
    }

    pub(super) fn vdevice_gone(&mut self, vdevice: &Vdevice) {
        if let Ok(viommu) = self.table.viommu_mut(vdevice.viommu) {
            viommu.devices.remove(&vdevice.virt_id);
            if let Ok(driver) = viommu.driver() {
                driver.vdevice_destroy(vdevice.virt_id);
            }
        }
        if let Ok(device) = self.table.device_mut(vdevice.device) {
            device.vdevice = None;
        }
    }
}
