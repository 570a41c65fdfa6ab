//! VIOMMU_ALLOC: one VM's share of one IOMMU.

use super::{
    Call,
    driver::{Parent, UserData, ViommuDriver},
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{Errno, flags::VIOMMU_TYPE_DEFAULT, layout};
use std::collections::BTreeMap;

/// A vIOMMU.
#[derive(Debug)]
pub(super) struct Viommu {
    /// The nesting parent.
    pub parent: u32,
    /// The IOMMU's instance.
    pub iommu: u32,
    /// Devices by the guest's name for them.
    pub devices: BTreeMap<u64, u32>,
    /// Event queues by type.
    pub veventqs: BTreeMap<u32, u32>,
    /// Hardware queues by index.
    pub hw_queues: BTreeMap<u32, u32>,
    driver: Option<Box<dyn ViommuDriver>>,
}

impl Viommu {
    pub(super) fn driver(&mut self) -> Result<&mut dyn ViommuDriver, Errno> {
        match &mut self.driver {
            Some(driver) => Ok(&mut **driver),
            None => Err(Errno::NOENT),
        }
    }

    /// Lends the vendor's part out, for a call that needs other objects too.
    pub(super) fn take_driver(&mut self) -> Result<Box<dyn ViommuDriver>, Errno> {
        self.driver.take().ok_or(Errno::NOENT)
    }

    pub(super) fn put_driver(&mut self, driver: Box<dyn ViommuDriver>) {
        self.driver = Some(driver);
    }
}

impl State {
    pub(super) fn viommu_alloc(&mut self, command: &mut layout::ViommuAlloc, call: Call<'_>) -> Result<(), Errno> {
        if command.flags != 0 || command.r#type == VIOMMU_TYPE_DEFAULT {
            return Err(Errno::OPNOTSUPP);
        }
        self.seek(command.dev_id, Kind::Device)?;
        let device = self.table.device(command.dev_id)?.bound.clone();
        if !device.config.driver.has_viommu(&device.config, command.r#type) {
            return Err(Errno::OPNOTSUPP);
        }
        self.seek(command.hwpt_id, Kind::Paging)?;
        let parent = self.table.paging(command.hwpt_id)?;
        if !parent.nest_parent {
            return Err(Errno::INVAL);
        }
        let on = Parent { hwpt: command.hwpt_id, iommu: parent.iommu };
        let data = (command.data_len > 0).then_some(UserData {
            data_type: command.r#type,
            address: command.data_uptr,
            length: command.data_len,
            memory: call.memory,
        });
        let (parent, viommu_type, iommu) = (command.hwpt_id, command.r#type, device.config.iommu);
        command.out_viommu_id = self.with_reserved(|state, id| {
            let mut map = |registers| {
                state.inject.allocation()?;
                state.mmaps.offer(id, registers)
            };
            let driver = device.config.driver.viommu(&device, on, viommu_type, data, &mut map);
            let driver = driver.inspect_err(|_| state.mmaps.remove(id))?;
            let viommu = Viommu {
                parent,
                iommu,
                devices: BTreeMap::new(),
                veventqs: BTreeMap::new(),
                hw_queues: BTreeMap::new(),
                driver: Some(driver),
            };
            state.table.publish(id, Object::Viommu(viommu), &[parent]);
            Ok(id)
        })?;
        Ok(())
    }

    /// The guest's name for a device in a vIOMMU.
    pub(super) fn virt_id(&self, viommu: u32, device: u32) -> Result<Option<u64>, Errno> {
        let names = &self.table.viommu(viommu)?.devices;
        Ok(names.iter().find(|(_, named)| **named == device).map(|(virt_id, _)| *virt_id))
    }
}
