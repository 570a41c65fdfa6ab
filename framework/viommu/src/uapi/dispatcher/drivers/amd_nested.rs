//! AMD's rules for guests with tables of their own (GCR3), which Linux 7.3 has and offers nobody: its vIOMMU has no way to
//! them. Here they can be reached.

use super::amd_vi::AmdVi;
use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PagingDomain,
        Parent, UserData, ViommuDriver,
    },
    flags::HWPT_DATA_AMD_GUEST,
    payload::HwptAmdGuest,
};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of the guest's DTE: V and GV of the first word, and what must be zero there, Mode and HostTRP.
const V: u64 = 1;
const GV: u64 = 1 << 55;
const HOST_TABLE: u64 = 7 << 9 | ((1 << 40) - 1) << 12;
/// GCR3: bits 14:12 in the first word, 30:15 and 51:31 in the second.
const GCR3: [u64; 2] = [7 << 58, 0xffff << 16 | ((1 << 21) - 1) << 43];

/// AMD's driver with the nesting code of Linux 7.3 within reach.
#[derive(Debug, Clone)]
pub struct AmdNested {
    /// The driver as it is.
    pub host: AmdVi,
    /// Whether the IOMMU walks guest tables of five levels.
    pub five_levels: bool,
    domains: Arc<Mutex<Domains>>,
}

/// The host's domain numbers, one pool for all.
#[derive(Debug)]
struct Domains {
    last: u16,
    used: BTreeSet<u16>,
    /// By vIOMMU and the guest's number: the host's, and how many nested HWPTs have it.
    guests: BTreeMap<(u64, u16), (u16, u32)>,
    viommus: u64,
}

impl AmdNested {
    /// With the host's domain numbers 1 to `last`.
    pub fn new(host: AmdVi, last: u16) -> Self {
        let domains = Domains { last, used: BTreeSet::new(), guests: BTreeMap::new(), viommus: 0 };
        Self { host, five_levels: false, domains: Arc::new(Mutex::new(domains)) }
    }

    /// Which numbers are in use: the vIOMMU, counted from 1, the guest's number there, the host's.
    pub fn domains(&self) -> Vec<(u64, u16, u16)> {
        lock(&self.domains).guests.iter().map(|((viommu, guest), (host, _))| (*viommu, *guest, *host)).collect()
    }
}

impl Domains {
    /// The host's number for one of a guest's, shared by all of this vIOMMU that have it.
    fn take(&mut self, viommu: u64, guest: u16) -> Result<(), Errno> {
        if let Some((_, users)) = self.guests.get_mut(&(viommu, guest)) {
            *users += 1;
            return Ok(());
        }
        let host = (1..=self.last).find(|host| !self.used.contains(host)).ok_or(Errno::NOSPC)?;
        self.used.insert(host);
        self.guests.insert((viommu, guest), (host, 1));
        Ok(())
    }

    /// One nested HWPT less: with the last one the number is free.
    fn put(&mut self, viommu: u64, guest: u16) {
        let Some((host, users)) = self.guests.get_mut(&(viommu, guest)) else { return };
        *users -= 1;
        if *users == 0 {
            self.used.remove(host);
            self.guests.remove(&(viommu, guest));
        }
    }
}

fn lock(domains: &Mutex<Domains>) -> MutexGuard<'_, Domains> {
    domains.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A guest's DTE as nesting takes it, in the order of the driver's checks: its domain number.
fn checked(dte: [u64; 4], five_levels: bool) -> Result<u16, Errno> {
    if dte[0] & HOST_TABLE != 0 {
        return Err(Errno::INVAL);
    }
    let has_tables = dte[0] & GCR3[0] != 0 || dte[1] & GCR3[1] != 0;
    if dte[0] & V != 0 && dte[0] & GV != 0 && !has_tables {
        return Err(Errno::INVAL);
    }
    let (levels, glx) = (dte[2] >> 54 & 3, dte[0] >> 56 & 3);
    if levels > 1 || glx == 3 {
        return Err(Errno::INVAL);
    }
    if levels == 1 && !five_levels {
        return Err(Errno::OPNOTSUPP);
    }
    Ok((dte[1] & 0xffff) as u16)
}

#[derive(Debug)]
struct NestedViommu {
    number: u64,
    five_levels: bool,
    domains: Arc<Mutex<Domains>>,
}

/// A nested HWPT: it keeps its domain's number.
#[derive(Debug)]
struct Nested {
    viommu: u64,
    guest: u16,
    domains: Arc<Mutex<Domains>>,
}

impl Drop for Nested {
    fn drop(&mut self) {
        lock(&self.domains).put(self.viommu, self.guest);
    }
}

impl NestedHwpt for Nested {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Driver for AmdNested {
    fn hw_info(&self, device: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        self.host.hw_info(device, data_type)
    }

    fn paging(&self, device: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        self.host.paging(device, flags, data)
    }

    fn has_viommu(&self, device: &DeviceConfig, viommu_type: u32) -> bool {
        self.host.has_viommu(device, viommu_type)
    }

    fn viommu(
        &self,
        _: &BoundDevice,
        _: Parent,
        _: u32,
        _: Option<UserData<'_>>,
        _: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        let mut domains = lock(&self.domains);
        domains.viommus += 1;
        let number = domains.viommus;
        Ok(Box::new(NestedViommu { number, five_levels: self.five_levels, domains: self.domains.clone() }))
    }
}

impl ViommuDriver for NestedViommu {
    fn nested(&mut self, _: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if data.data_type != HWPT_DATA_AMD_GUEST {
            return Err(Errno::OPNOTSUPP);
        }
        let payload: HwptAmdGuest = data.read(HWPT_DATA_AMD_GUEST, size_of::<HwptAmdGuest>())?;
        let guest = checked(payload.dte, self.five_levels)?;
        lock(&self.domains).take(self.number, guest)?;
        Ok(Box::new(Nested { viommu: self.number, guest, domains: self.domains.clone() }))
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, _: &FindDevice<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        Err(Errno::OPNOTSUPP)
    }
}
