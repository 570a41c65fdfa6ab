//! A guest's DeviceID and DomainID maps: tables in the private address space, changed by strobes.

use super::Iommu;
use crate::model::walk::{READ, WRITE};
use crate::spec::viommu::tables::{MapEntry, device_entry, domain_entry};
use crate::spec::viommu::{DidMap, OWN_DEVICE};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// What a guest's maps lead to: the IOMMU remembers it, so that INVALIDATE_IOMMU_ALL of a guest finds it without reading
/// the tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Reachable {
    /// How many of the guest's numbers lead to a domain.
    domains: FxHashMap<u16, u32>,
    /// Host DeviceID by the guest's.
    devices: BTreeMap<u16, u16>,
}

impl Reachable {
    pub(super) fn domains(&self) -> impl Iterator<Item = u16> {
        self.domains.keys().copied()
    }
    pub(super) fn devices(&self) -> impl Iterator<Item = u16> {
        self.devices.values().copied()
    }

    fn domain(&mut self, old: MapEntry, new: u16) {
        if old.valid()
            && let Some(uses) = self.domains.get_mut(&old.host())
        {
            *uses -= 1;
            if *uses == 0 {
                self.domains.remove(&old.host());
            }
        }
        *self.domains.entry(new).or_insert(0) += 1;
    }

    fn device(&mut self, guest: u16, host: u16) {
        match host {
            0 => self.devices.remove(&guest),
            _ => self.devices.insert(guest, host),
        };
    }
}

impl Iommu {
    /// A strobe of the DeviceID map. Host DeviceID 0 is none.
    pub(super) fn map_device(&mut self, id: u16, map: DidMap) {
        if self.strobe(id, map, device_entry(id, map.guest())).is_some()
            && let Some(guest) = self.guests.guests.get_mut(usize::from(id))
        {
            guest.reachable.device(map.guest(), map.host());
        }
    }

    /// A strobe of the DomainID map.
    pub(super) fn map_domain(&mut self, id: u16, map: DidMap) {
        if let Some(old) = self.strobe(id, map, domain_entry(id, map.guest()))
            && let Some(guest) = self.guests.guests.get_mut(usize::from(id))
        {
            guest.reachable.domain(old, map.host());
        }
    }

    /// Writes an entry; what it was. Without strobe or valid bit nothing happens. A table that is not there is the host's
    /// mistake.
    fn strobe(&mut self, id: u16, map: DidMap, at: u64) -> Option<MapEntry> {
        if !map.strobe() || !map.valid() || usize::from(id) >= self.guests.guests.len() {
            return None;
        }
        let old = self.map_entry(at);
        let new = MapEntry::new().with_valid(true).with_host(map.host());
        let address = self.reach(OWN_DEVICE, at, WRITE);
        let written = address.is_some_and(|address| self.host.write(address, &u64::from(new).to_le_bytes()).is_ok());
        if !written {
            self.log_viommu(id, at);
        }
        old.filter(|_| written)
    }

    /// The host's number for a guest's DeviceID.
    pub(super) fn host_device(&mut self, id: u16, device: u16) -> Option<u16> {
        let entry = self.map_entry(device_entry(id, device))?;
        (entry.valid() && entry.host() != 0).then_some(entry.host())
    }

    /// The host's number for a guest's DomainID.
    pub(super) fn host_domain(&mut self, id: u16, domain: u16) -> Option<u16> {
        let entry = self.map_entry(domain_entry(id, domain))?;
        entry.valid().then_some(entry.host())
    }

    fn map_entry(&mut self, at: u64) -> Option<MapEntry> {
        let address = self.reach(OWN_DEVICE, at, READ)?;
        let mut bytes = [0; 8];
        self.host.read(address, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes).into())
    }
}
