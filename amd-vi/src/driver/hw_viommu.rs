//! Guests' own parts of the IOMMU: GuestIDs, mapping tables, translate DeviceIDs. As out-of-tree drivers do it (see
//! [`crate::spec::viommu`]); never run on silicon.
//!
//! Differs from them where docs/amd-viommu.md says so: the order of taking a guest's part back, and the DeviceID map, which
//! is not preset.

mod bring_up;
mod queues;

use super::invalidate::everything;
use super::{AmdDriver, no_table};
use crate::spec::commands::{Opcode, ResetVmmio};
use crate::spec::dte::DteWord3;
use crate::spec::viommu::{
    DEVICES, DidMap, GUEST_PAGE, GUESTS, GuestMisc, PAGE, PRIVATE_DOMAIN, control, tables, translate_device, vf, vfctl,
};
use crate::tables::{ABORT, HostTable, physical_dte};
pub(super) use bring_up::bring_up;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use viommu_plugin::{EntryKey, HostEvent, KeyKind, Refusal, VirtualInterface};

/// What is on once an IOMMU's vIOMMU is.
pub(super) struct HwViommu {
    /// The private address space.
    private: HostTable,
    guests: BTreeMap<u16, Owned>,
    /// GuestIDs whose part did not come back.
    lost: BTreeSet<u16>,
    /// GuestID and the guest's own number, by DeviceID.
    names: BTreeMap<u32, (u16, u16)>,
    /// What guests are to be told, one a guest.
    events: VecDeque<HostEvent>,
}

/// A part that is a guest's.
#[derive(Debug)]
struct Owned {
    stage2: u32,
    /// The nesting parent's DomainID.
    parent: u16,
    /// Physical addresses of the maps.
    device_map: u64,
    domain_map: u64,
    /// DomainIDs of the guest that lead to one of their own.
    domains: BTreeSet<u16>,
    queues: queues::Queues,
}

impl HwViommu {
    /// What a device's entry says of its guest.
    pub(super) fn word3(&self, stream: u32) -> u64 {
        self.names.get(&stream).map_or(0, |&(guest, device)| {
            DteWord3::new().with_vimu_en(true).with_guest_id(guest).with_guest_device_id(device).into()
        })
    }

    pub(super) fn next_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    fn owned(&mut self, guest: u32) -> Result<&mut Owned, Refusal> {
        let id = u16::try_from(guest).ok();
        let found = id.and_then(|id| self.guests.get_mut(&id));
        found.ok_or_else(|| Refusal::new(Refusal::ENOENT, format!("GuestID {guest} is nobody's")))
    }
}

fn beyond(what: &str, number: u32) -> Refusal {
    Refusal::new(Refusal::EINVAL, format!("{what} {number:#x} has more than 16 bits"))
}

impl AmdDriver {
    fn own(&mut self) -> Result<&mut HwViommu, Refusal> {
        let none = || Refusal::new(Refusal::EOPNOTSUPP, "this IOMMU has no hardware vIOMMU, or it does not come up");
        self.own.as_mut().ok_or_else(none)
    }

    fn write_control(&self, guest: u16, register: u64, value: u64) {
        self.hardware.mmio_write(vfctl(guest) + register, 8, value);
    }

    fn map_domain(&self, guest: u16, domain: u16, host: u16) {
        let map = DidMap::new().with_valid(true).with_strobe(true).with_guest(domain).with_host(host);
        self.write_control(guest, control::DOMAIN_MAP, map.into());
    }

    fn map_device(&self, guest: u16, device: u16, host: u16) {
        let map = DidMap::new().with_valid(true).with_strobe(true).with_guest(device).with_host(host);
        self.write_control(guest, control::DEVICE_MAP, map.into());
    }

    fn reset_registers(&self, guest: u16) -> Result<(), Refusal> {
        let reset = ResetVmmio::new().with_opcode(Opcode::RESET_VMMIO.0).with_guest_id(guest);
        self.hardware.issue(&reset.with_all(true).with_vcmd(true).words())
    }

    /// The lowest free GuestID, for the guest of this stage 2: its registers reset, its translate DeviceID set up, its maps
    /// in place, every DomainID of it the nesting parent's.
    pub(super) fn create_interface(&mut self, stage2: u32) -> Result<VirtualInterface, Refusal> {
        let parent = self.tables.get(&stage2).ok_or_else(|| no_table(stage2))?.tag();
        let own = self.own()?;
        let free = (1..GUESTS).find(|id| !own.guests.contains_key(id) && !own.lost.contains(id));
        let full = || Refusal::new(Refusal::ENOSPC, format!("GuestIDs exhausted: all {} are in use", GUESTS - 1));
        let id = free.ok_or_else(full)?;
        self.reset_registers(id)?;
        let bypass = EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() };
        let dte = physical_dte(&bypass, self.table(stage2)?, parent, false);
        self.write_dte(translate_device(id).into(), &dte)?;
        let misc = GuestMisc::new().with_translate(translate_device(id));
        self.write_control(id, control::MISC, misc.into());
        let maps = match self.create_maps(id) {
            Ok(maps) => maps,
            Err(refusal) => {
                self.write_control(id, control::MISC, 0);
                self.write_dte(translate_device(id).into(), &ABORT)?;
                return Err(refusal);
            }
        };
        (0..=u16::MAX).for_each(|domain| self.map_domain(id, domain, parent));
        let [device_map, domain_map] = maps;
        let owned =
            Owned { stage2, parent, device_map, domain_map, domains: BTreeSet::new(), queues: Default::default() };
        self.own()?.guests.insert(id, owned);
        Ok(VirtualInterface { handle: id.into(), flags: 0, page: vf(id), page_length: PAGE, guest_page: GUEST_PAGE })
    }

    /// Zeroed maps in the guest's places of the private address space.
    fn create_maps(&mut self, id: u16) -> Result<[u64; 2], Refusal> {
        let places =
            [(tables::device_map(id), tables::DEVICE_MAP_BYTES), (tables::domain_map(id), tables::DOMAIN_MAP_BYTES)];
        let Self { hardware, own: Some(own), .. } = self else { return Err(no_table(0)) };
        let mut made: Vec<u64> = Vec::new();
        for (ipa, bytes) in places {
            let mapped = hardware.alloc(bytes, PAGE).and_then(|pa| {
                let mapped = own.private.map(&**hardware, ipa, pa, bytes, 3);
                mapped.map(|()| pa).inspect_err(|_| hardware.free(pa, bytes))
            });
            match mapped {
                Ok(pa) => made.push(pa),
                Err(refusal) => {
                    // Nobody has touched them yet, so nothing of them is cached.
                    for (&pa, (ipa, bytes)) in made.iter().zip(places) {
                        own.private.unmap(&**hardware, ipa, bytes)?;
                        hardware.free(pa, bytes);
                    }
                    return Err(refusal);
                }
            }
        }
        Ok([made[0], made[1]])
    }

    /// In the order in which nothing is looked up that is not there: rings off, maps cleared, no translate DeviceID, reset,
    /// then the tables out of the private address space, out of its caches, and freed.
    pub(super) fn destroy_interface(&mut self, guest: u32) -> Result<(), Refusal> {
        self.own()?.owned(guest)?;
        let id = guest as u16;
        let done = self.take_back(id);
        let own = self.own()?;
        let owned = own.guests.remove(&id);
        own.names.retain(|_, (owner, _)| *owner != id);
        own.events.retain(|event| event.stream != guest);
        match (done, owned) {
            (Ok(()), Some(owned)) => {
                self.hardware.free(owned.device_map, tables::DEVICE_MAP_BYTES);
                self.hardware.free(owned.domain_map, tables::DOMAIN_MAP_BYTES);
                Ok(())
            }
            (done, _) => {
                own.lost.insert(id);
                done
            }
        }
    }

    fn take_back(&mut self, id: u16) -> Result<(), Refusal> {
        for register in [control::COMMAND, control::EVENT] {
            self.write_control(id, register, 0);
        }
        let own = self.own()?;
        let owned = own.owned(id.into())?;
        let (parent, domains) = (owned.parent, std::mem::take(&mut owned.domains));
        let devices: Vec<_> = own.names.values().filter(|(owner, _)| *owner == id).map(|(_, device)| *device).collect();
        devices.into_iter().for_each(|device| self.map_device(id, device, 0));
        domains.into_iter().for_each(|domain| self.map_domain(id, domain, parent));
        self.write_control(id, control::MISC, 0);
        self.reset_registers(id)?;
        self.write_dte(translate_device(id).into(), &ABORT)?;
        let Self { hardware, own: Some(own), .. } = self else { return Ok(()) };
        own.private.unmap(&**hardware, tables::device_map(id), tables::DEVICE_MAP_BYTES)?;
        hardware.issue(&everything(PRIVATE_DOMAIN))?;
        own.private.unmap(&**hardware, tables::domain_map(id), tables::DOMAIN_MAP_BYTES)?;
        hardware.issue(&everything(PRIVATE_DOMAIN))
    }

    /// The map first, then the entry: from there on the guest's log names the device.
    pub(super) fn name_stream(&mut self, guest: u32, virt_id: u32, stream: u32) -> Result<(), Refusal> {
        let device = u16::try_from(virt_id).map_err(|_| beyond("guest DeviceID", virt_id))?;
        let own = self.own()?;
        own.owned(guest)?;
        let id = guest as u16;
        if own.names.values().any(|name| *name == (id, device)) || own.names.contains_key(&stream) {
            return Err(Refusal::new(
                Refusal::EEXIST,
                format!("DeviceID {virt_id:#x} or {stream:#x} is named already"),
            ));
        }
        // Host DeviceID 0 says "none" in a map.
        if stream == 0 || stream >= DEVICES {
            let text = format!("DeviceID {stream:#x} cannot be a guest's of the hardware vIOMMU");
            return Err(Refusal::new(Refusal::EINVAL, text));
        }
        own.names.insert(stream, (id, device));
        self.map_device(id, device, stream as u16);
        self.rename(stream)
    }

    pub(super) fn unname_stream(&mut self, guest: u32, virt_id: u32) -> Result<(), Refusal> {
        let own = self.own()?;
        own.owned(guest)?;
        let named = own.names.iter().find(|(_, name)| (u32::from(name.0), u32::from(name.1)) == (guest, virt_id));
        let missing = || Refusal::new(Refusal::ENOENT, format!("DeviceID {virt_id:#x} is not named"));
        let (&stream, &(id, device)) = named.ok_or_else(missing)?;
        own.names.remove(&stream);
        self.map_device(id, device, 0);
        self.rename(stream)
    }

    /// Writes the upper half of a device's entry as it is to be now.
    fn rename(&mut self, stream: u32) -> Result<(), Refusal> {
        let mut dte = self.devices.read(&*self.hardware, stream)?;
        dte[3] = self.own()?.word3(stream);
        self.write_dte(stream, &dte)
    }

    pub(super) fn set_domain(&mut self, guest: u32, domain: u32, tag: u32) -> Result<(), Refusal> {
        let number = u16::try_from(domain).map_err(|_| beyond("guest DomainID", domain))?;
        let host = super::domain_id(tag)?;
        self.own()?.owned(guest)?.domains.insert(number);
        self.map_domain(guest as u16, number, host);
        Ok(())
    }

    pub(super) fn clear_domain(&mut self, guest: u32, domain: u32) -> Result<(), Refusal> {
        let number = u16::try_from(domain).map_err(|_| beyond("guest DomainID", domain))?;
        let owned = self.own()?.owned(guest)?;
        owned.domains.remove(&number);
        let parent = owned.parent;
        self.map_domain(guest as u16, number, parent);
        Ok(())
    }

    /// A guest's tables are only for devices that it knows.
    pub(super) fn is_named_for(&self, stream: u32, stage2: u32) -> bool {
        let Some(own) = &self.own else { return true };
        let Some((id, _)) = own.guests.iter().find(|(_, owned)| owned.stage2 == stage2) else { return true };
        own.names.get(&stream).is_some_and(|(guest, _)| guest == id)
    }
}

/// DeviceIDs that devices can have.
pub(super) fn devices(own: Option<&HwViommu>, all: u32) -> u32 {
    if own.is_some() { all.min(DEVICES) } else { all }
}
