//! HWPT_ALLOC: paging HWPTs on an IOAS, nested HWPTs on a parent or a vIOMMU.

use super::{
    Call,
    driver::{NestedHwpt, PagingDomain, UserData},
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{
    Errno,
    flags::{HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_NONE, HWPT_FAULT_ID_VALID},
    layout,
};
use std::collections::BTreeSet;

/// A paging HWPT.
#[derive(Debug)]
pub(super) struct Paging {
    pub ioas: u32,
    pub domain: PagingDomain,
    /// The IOMMU's instance that it was made for.
    pub iommu: u32,
    pub nest_parent: bool,
    pub with_pasids: bool,
    /// Made by attaching an IOAS.
    pub automatic: bool,
    pub fault: Option<u32>,
    /// Whether it can track dirty pages.
    pub tracks_dirty: bool,
    /// Whether it does.
    pub tracking: bool,
    /// Dirty pages, by number.
    pub dirty: BTreeSet<u64>,
}

/// A nested HWPT.
#[derive(Debug)]
pub(super) struct Nested {
    /// The nesting parent.
    pub parent: u32,
    /// Through this vIOMMU, if it is not directly on the parent.
    pub viommu: Option<u32>,
    pub iommu: u32,
    pub with_pasids: bool,
    pub fault: Option<u32>,
    pub driver: Box<dyn NestedHwpt>,
}

impl State {
    pub(super) fn hwpt_alloc(&mut self, command: &mut layout::HwptAlloc, call: Call<'_>) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if (command.data_type == HWPT_DATA_NONE) != (command.data_len == 0) {
            return Err(Errno::INVAL);
        }
        self.seek(command.dev_id, Kind::Device)?;
        let kind = self.seek_any(command.pt_id).map_err(|_| Errno::INVAL)?;
        let data = UserData {
            data_type: command.data_type,
            address: command.data_uptr,
            length: command.data_len,
            memory: call.memory,
        };
        let (flags, dev_id, pt_id) = (command.flags, command.dev_id, command.pt_id);
        let hwpt = match kind {
            Kind::Ioas => {
                let hwpt = self.paging_alloc(pt_id, dev_id, flags, (data.length > 0).then_some(data))?;
                if let Err(errno) = self.add_hwpt(pt_id, hwpt, call.memory) {
                    self.destroy_object(hwpt, false);
                    return Err(errno);
                }
                hwpt
            }
            Kind::Paging => self.nested_alloc(pt_id, dev_id, flags, data)?,
            Kind::Viommu => self.nested_alloc_on_viommu(pt_id, dev_id, flags, data)?,
            _ => return Err(Errno::INVAL),
        };
        if flags & HWPT_FAULT_ID_VALID != 0 {
            if let Err(errno) = self.seek(command.fault_id, Kind::Fault) {
                self.destroy_object(hwpt, false);
                return Err(errno);
            }
            match kind {
                Kind::Ioas => self.table.paging_mut(hwpt)?.fault = Some(command.fault_id),
                _ => self.table.nested_mut(hwpt)?.fault = Some(command.fault_id),
            }
            self.table.also_hold(hwpt, command.fault_id);
        }
        command.out_hwpt_id = hwpt;
        Ok(())
    }

    /// A paging HWPT, not yet in its IOAS.
    pub(super) fn paging_alloc(
        &mut self,
        ioas: u32,
        device: u32,
        flags: u32,
        data: Option<UserData<'_>>,
    ) -> Result<u32, Errno> {
        let known = HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_DIRTY_TRACKING | HWPT_FAULT_ID_VALID | HWPT_ALLOC_PASID;
        let config = self.table.device(device)?.bound.config.clone();
        let has = |flag| flags & flag != 0;
        if flags & !known != 0
            || (has(HWPT_ALLOC_DIRTY_TRACKING) && !config.dirty_tracking)
            || (has(HWPT_FAULT_ID_VALID) && has(HWPT_ALLOC_NEST_PARENT))
        {
            return Err(Errno::OPNOTSUPP);
        }
        self.with_reserved(|state, id| {
            state.inject.allocation()?;
            let domain = config.driver.paging(&config, flags & !HWPT_FAULT_ID_VALID, data)?;
            let paging = Paging {
                ioas,
                domain,
                iommu: config.iommu,
                nest_parent: has(HWPT_ALLOC_NEST_PARENT),
                with_pasids: has(HWPT_ALLOC_PASID),
                automatic: false,
                fault: None,
                tracks_dirty: has(HWPT_ALLOC_DIRTY_TRACKING),
                tracking: false,
                dirty: BTreeSet::new(),
            };
            state.table.publish(id, Object::Paging(paging), &[ioas]);
            Ok(id)
        })
    }

    fn nested_alloc(&mut self, parent: u32, device: u32, flags: u32, data: UserData<'_>) -> Result<u32, Errno> {
        let config = self.table.device(device)?.bound.config.clone();
        let known = HWPT_FAULT_ID_VALID | HWPT_ALLOC_PASID;
        if flags & !known != 0 || data.length == 0 || !config.driver.nests_on_parent() {
            return Err(Errno::OPNOTSUPP);
        }
        let on = self.table.paging(parent)?;
        if on.automatic || !on.nest_parent {
            return Err(Errno::INVAL);
        }
        self.with_reserved(|state, id| {
            state.inject.allocation()?;
            let driver = config.driver.nested(&config, flags & !HWPT_FAULT_ID_VALID, data)?;
            let with_pasids = flags & HWPT_ALLOC_PASID != 0;
            let nested = Nested { parent, viommu: None, iommu: config.iommu, with_pasids, fault: None, driver };
            state.table.publish(id, Object::Nested(nested), &[parent]);
            Ok(id)
        })
    }

    fn nested_alloc_on_viommu(
        &mut self,
        viommu: u32,
        device: u32,
        flags: u32,
        data: UserData<'_>,
    ) -> Result<u32, Errno> {
        let on = self.table.viommu(viommu)?;
        let (parent, iommu) = (on.parent, on.iommu);
        if iommu != self.table.device(device)?.bound.config.iommu {
            return Err(Errno::INVAL);
        }
        if flags & !(HWPT_FAULT_ID_VALID | HWPT_ALLOC_PASID) != 0 || data.length == 0 {
            return Err(Errno::OPNOTSUPP);
        }
        self.with_reserved(|state, id| {
            state.inject.allocation()?;
            let driver = state.table.viommu_mut(viommu)?.driver()?.nested(flags & !HWPT_FAULT_ID_VALID, data)?;
            let with_pasids = flags & HWPT_ALLOC_PASID != 0;
            let nested = Nested { parent, viommu: Some(viommu), iommu, with_pasids, fault: None, driver };
            state.table.publish(id, Object::Nested(nested), &[viommu]);
            Ok(id)
        })
    }

    /// Whether devices with PASIDs may be attached, and where page requests go.
    pub(super) fn hwpt_facts(&self, hwpt: u32) -> Result<(bool, Option<u32>), Errno> {
        match self.table.object(hwpt) {
            Some(Object::Paging(paging)) => Ok((paging.with_pasids, paging.fault)),
            Some(Object::Nested(nested)) => Ok((nested.with_pasids, nested.fault)),
            _ => Err(Errno::NOENT),
        }
    }

    /// The IOAS under an HWPT.
    pub(super) fn ioas_of(&self, hwpt: u32) -> Result<u32, Errno> {
        let paging = match self.table.object(hwpt) {
            Some(Object::Nested(nested)) => nested.parent,
            _ => hwpt,
        };
        Ok(self.table.paging(paging)?.ioas)
    }
}
