//! Devices: binding, and attaching a device or one of its PASIDs to an HWPT.
//!
//! Devices of one group share an HWPT a PASID. Attaching takes an IOAS too: then the device gets an HWPT that is made for
//! the occasion, or one that was, if it can have it.

use super::{
    driver::{BoundDevice, DeviceConfig, Target},
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{Errno, UserMemory};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A bound device.
#[derive(Debug)]
pub(super) struct Device {
    pub bound: BoundDevice,
    pub group: u64,
    /// Its vDEVICE.
    pub vdevice: Option<u32>,
    /// Where its events go, and under which name: as it was when the device was attached.
    pub events: Option<(u32, u64)>,
}

/// Devices that can only be attached together.
#[derive(Debug, Default)]
pub(super) struct Group {
    devices: u32,
    /// By PASID; 0 is the devices themselves.
    pub attachments: BTreeMap<u32, Attachment>,
    /// Whether one of them is being reset.
    pub in_reset: bool,
}

/// What a group's PASID is attached to.
#[derive(Debug)]
pub(super) struct Attachment {
    pub hwpt: u32,
    pub devices: BTreeSet<u32>,
    /// No other attachment has it: page requests belong to an attachment.
    pub serial: u64,
}

/// How an attachment is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing is attached.
    Attach,
    /// Something is.
    Replace,
}

impl State {
    /// Binds a device; its ID. Whoever binds is its user until [`State::unbind`].
    pub(super) fn bind(&mut self, config: &Arc<DeviceConfig>) -> Result<u32, Errno> {
        if !config.coherent {
            return Err(Errno::INVAL);
        }
        self.inject.allocation()?;
        if !config.isolated_msi {
            return Err(Errno::PERM);
        }
        let id = self.reserve()?;
        let group = config.group.map_or_else(
            || {
                self.group_serial += 1;
                (1 << 32) + self.group_serial
            },
            u64::from,
        );
        self.groups.entry(group).or_default().devices += 1;
        let bound = BoundDevice { id, config: config.clone(), private: config.driver.device() };
        self.table.publish(id, Object::Device(Device { bound, group, vdevice: None, events: None }), &[]);
        self.table.hold(id);
        Ok(id)
    }

    /// Unbinds a device that nothing is attached to. Its vDEVICE goes with it and leaves a tombstone.
    pub(super) fn unbind(&mut self, device: u32) {
        if let Some(vdevice) = self.table.device(device).ok().and_then(|device| device.vdevice) {
            self.destroy_object(vdevice, true);
        }
        self.table.release(device);
        if self.table.removable(device).is_ok() {
            self.destroy_object(device, false);
        }
    }

    pub(super) fn leave_group(&mut self, group: u64) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.devices -= 1;
            if members.devices == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Attaches or replaces to an HWPT, or to one of an IOAS; the HWPT.
    pub(super) fn change_hwpt(
        &mut self,
        device: u32,
        pasid: u32,
        pt_id: u32,
        how: How,
        memory: &dyn UserMemory,
    ) -> Result<u32, Errno> {
        let (hwpt, old) = match self.seek_any(pt_id)? {
            Kind::Paging | Kind::Nested => (pt_id, self.change_to(device, pasid, pt_id, how)?),
            Kind::Ioas => self.change_to_automatic(device, pasid, pt_id, how, memory)?,
            _ => return Err(Errno::INVAL),
        };
        if let Some(old) = old {
            self.put_hwpt(old);
        }
        if how == How::Attach {
            self.table.hold(device);
        }
        Ok(hwpt)
    }

    /// The HWPT that it left, if any, still with one user to put.
    fn change_to(&mut self, device: u32, pasid: u32, hwpt: u32, how: How) -> Result<Option<u32>, Errno> {
        match how {
            How::Attach => self.attach_to(device, pasid, hwpt).map(|()| None),
            How::Replace => self.replace_to(device, pasid, hwpt),
        }
    }

    fn change_to_automatic(
        &mut self,
        device: u32,
        pasid: u32,
        ioas: u32,
        how: How,
        memory: &dyn UserMemory,
    ) -> Result<(u32, Option<u32>), Errno> {
        for hwpt in self.table.ioas(ioas)?.hwpts.clone() {
            if !self.table.paging(hwpt)?.automatic {
                continue;
            }
            match self.change_to(device, pasid, hwpt, how) {
                Ok(old) => return Ok((hwpt, old)),
                // This one is not for this device; another may be.
                Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let hwpt = self.paging_alloc(ioas, device, 0, None)?;
        let changed = match how {
            How::Attach => self.attach_to(device, pasid, hwpt).and_then(|()| {
                let added = self.add_hwpt(ioas, hwpt, memory);
                if added.is_err() {
                    self.detach_from(device, pasid);
                    self.table.release(hwpt);
                }
                added.map(|()| None)
            }),
            How::Replace => self.add_hwpt(ioas, hwpt, memory).and_then(|()| self.replace_to(device, pasid, hwpt)),
        };
        match changed {
            Ok(old) => {
                self.table.paging_mut(hwpt)?.automatic = true;
                Ok((hwpt, old))
            }
            Err(errno) => {
                self.destroy_object(hwpt, false);
                Err(errno)
            }
        }
    }

    fn attach_to(&mut self, device: u32, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        self.inject.allocation()?;
        let group = self.table.device(device)?.group;
        let there = self.groups.get(&group).and_then(|group| group.attachments.get(&pasid));
        match there {
            Some(there) if there.devices.contains(&device) => return Err(Errno::BUSY),
            Some(there) if there.hwpt != hwpt => return Err(Errno::INVAL),
            _ => {}
        }
        let first = there.is_none();
        let ioas = (pasid == 0).then(|| self.ioas_of(hwpt)).transpose()?;
        if let Some(ioas) = ioas {
            self.reserve_for(ioas, device)?;
        }
        if first && let Err(errno) = self.install(device, pasid, hwpt) {
            if let Some(ioas) = ioas {
                self.unreserve_for(ioas, device);
            }
            return Err(errno);
        }
        self.serial += 1;
        let attachment = Attachment { hwpt, devices: BTreeSet::new(), serial: self.serial };
        let attachments = &mut self.groups.entry(group).or_default().attachments;
        attachments.entry(pasid).or_insert(attachment).devices.insert(device);
        self.table.hold(hwpt);
        Ok(())
    }

    fn replace_to(&mut self, device: u32, pasid: u32, hwpt: u32) -> Result<Option<u32>, Errno> {
        let group = self.table.device(device)?.group;
        let there = self.groups.get(&group).and_then(|group| group.attachments.get(&pasid)).ok_or(Errno::INVAL)?;
        if !there.devices.contains(&device) {
            return Err(Errno::INVAL);
        }
        let (old, serial, devices) = (there.hwpt, there.serial, there.devices.clone());
        if old == hwpt {
            return Ok(None);
        }
        let (from, to) = (self.ioas_of(old)?, self.ioas_of(hwpt)?);
        let moves = pasid == 0 && from != to;
        let undo = |state: &mut Self| {
            for device in &devices {
                state.unreserve_for(to, *device);
            }
        };
        if moves {
            for device in &devices {
                if let Err(errno) = self.reserve_for(to, *device) {
                    undo(self);
                    return Err(errno);
                }
            }
        }
        if let Err(errno) = self.install(device, pasid, hwpt) {
            if moves {
                undo(self);
            }
            return Err(errno);
        }
        if moves {
            for device in &devices {
                self.unreserve_for(from, *device);
            }
        }
        self.answer_attachment(old, serial);
        self.serial += 1;
        let serial = self.serial;
        if let Some(there) = self.groups.get_mut(&group).and_then(|group| group.attachments.get_mut(&pasid)) {
            (there.hwpt, there.serial) = (hwpt, serial);
        }
        for _ in &devices {
            self.table.hold(hwpt);
        }
        for _ in 1..devices.len() {
            self.table.release(old);
        }
        Ok(Some(old))
    }

    /// The rules between an HWPT and a device, and the driver's say.
    fn install(&mut self, id: u32, pasid: u32, hwpt: u32) -> Result<(), Errno> {
        let device = self.table.device(id)?;
        let group = self.groups.get(&device.group).ok_or(Errno::NOENT)?;
        let (with_pasids, fault) = self.hwpt_facts(hwpt)?;
        if fault.is_some() && device.bound.config.virtual_function_with_pri {
            return Err(Errno::INVAL);
        }
        let fits = match pasid {
            0 => with_pasids || group.attachments.range(1..).next().is_none(),
            _ => {
                let own = group.attachments.get(&0).map(|there| self.hwpt_facts(there.hwpt)).transpose()?;
                with_pasids && own.is_none_or(|(with_pasids, _)| with_pasids)
            }
        };
        if !fits {
            return Err(Errno::INVAL);
        }
        self.inject.allocation()?;
        if u64::from(pasid) >= 1 << device.bound.config.pasid_log2 {
            return Err(Errno::INVAL);
        }
        if group.in_reset {
            return Err(Errno::BUSY);
        }
        let driver = device.bound.config.driver.clone();
        let events = match self.table.object(hwpt) {
            Some(Object::Paging(paging)) => {
                let target = Target::Paging { dirty_tracking: paging.tracks_dirty, iommu: paging.iommu };
                driver.attach(&device.bound, pasid, &target)?;
                None
            }
            Some(Object::Nested(nested)) => {
                let virt_id = nested.viommu.map(|viommu| self.virt_id(viommu, id)).transpose()?;
                let target = Target::Nested { hwpt: &*nested.driver, iommu: nested.iommu, virt_id };
                driver.attach(&device.bound, pasid, &target)?;
                nested.viommu.zip(virt_id.flatten())
            }
            _ => return Err(Errno::NOENT),
        };
        let device = self.table.device_mut(id)?;
        let same_viommu = device.events.map(|(viommu, _)| viommu) == events.map(|(viommu, _)| viommu);
        if pasid == 0 && (!same_viommu || driver.names_again()) {
            device.events = events;
        }
        Ok(())
    }

    /// Detaches; nothing if nothing is attached.
    pub(super) fn detach(&mut self, device: u32, pasid: u32) {
        if let Some(hwpt) = self.detach_from(device, pasid) {
            self.put_hwpt(hwpt);
            self.table.release(device);
        }
    }

    /// The HWPT that it left, still with one user to put.
    fn detach_from(&mut self, device: u32, pasid: u32) -> Option<u32> {
        let group = self.table.device(device).ok()?.group;
        let there = self.groups.get_mut(&group)?.attachments.get_mut(&pasid)?;
        if !there.devices.remove(&device) {
            return None;
        }
        let (hwpt, serial, empty) = (there.hwpt, there.serial, there.devices.is_empty());
        if empty {
            self.groups.get_mut(&group)?.attachments.remove(&pasid);
            self.answer_attachment(hwpt, serial);
            let bound = self.table.device(device).ok()?.bound.clone();
            // Blocking cannot fail.
            let _ = bound.config.driver.attach(&bound, pasid, &Target::Blocked);
        }
        if pasid == 0 {
            if let Ok(ioas) = self.ioas_of(hwpt) {
                self.unreserve_for(ioas, device);
            }
            self.table.device_mut(device).ok()?.events = None;
        }
        Some(hwpt)
    }

    /// Detaches the PASIDs, then the device.
    pub(super) fn detach_all(&mut self, device: u32) {
        let Ok(group) = self.table.device(device).map(|device| device.group) else { return };
        let attachments = self.groups.get(&group).map(|group| &group.attachments);
        let pasids: Vec<u32> = attachments.into_iter().flat_map(|all| all.keys().rev().copied()).collect();
        for pasid in pasids {
            self.detach(device, pasid);
        }
    }

    /// The attachment that a device's DMA with this PASID goes through.
    pub(super) fn attachment(&self, device: u32, pasid: u32) -> Option<&Attachment> {
        let device = self.table.device(device).ok()?;
        self.groups.get(&device.group)?.attachments.get(&pasid)
    }
}
