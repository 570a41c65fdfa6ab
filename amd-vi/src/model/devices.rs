//! From a DeviceID to a [`Route`]: device table look-ups, and their cache.

use super::fault::{Fault, code};
use super::identity::Identity;
use super::registers::Registers;
use super::walk::{Guest, Host};
use crate::spec::dte::{DTE_BYTES, DTE_WORDS, DteWord0, DteWord1, DteWord2, DteWord3, gcr3_table};
use crate::spec::events::flags;
use rustc_hash::FxHashMap;
use viommu_cache::Hint;
use viommu_plugin::ModelHost;

/// What happens to a device's requests.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// V=0: they pass with their address.
    Forward,
    /// TV=0: they abort, without an event.
    Abort,
    /// They are translated, or pass, as the context says.
    Context(Context),
}

/// A legal entry with V=1 and TV=1.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) domain: u16,
    pub(crate) hint: Hint,
    /// I: the device may cache translations.
    pub(crate) ats: bool,
    /// vImuEn: GuestID and GDeviceID.
    pub(crate) own: Option<(u16, u16)>,
    /// SA: page faults are not logged.
    pub(crate) quiet: bool,
    /// IR and IW.
    pub(crate) permissions: u8,
    pub(crate) host: Host,
    pub(crate) guest: Option<Guest>,
    /// GIOV: requests without PASID are PASID 0's.
    pub(crate) giov: bool,
}

impl Context {
    /// The PASID whose guest table a request with `pasid` (`u32::MAX`: without) goes through; `None`: the host's alone.
    #[inline]
    pub(crate) fn pasid(&self, pasid: u32, identity: &Identity) -> Result<Option<u32>, Fault> {
        match (pasid, &self.guest) {
            (u32::MAX, Some(_)) if self.giov => Ok(Some(0)),
            (u32::MAX, _) => Ok(None),
            (pasid, Some(_)) if identity.has_pasid(pasid) => Ok(Some(pasid)),
            _ => Err(Fault::no_pasids()),
        }
    }
}

/// Reads the device table.
pub(crate) struct Lookup<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) registers: &'a Registers,
    pub(crate) memory: &'a dyn ModelHost,
}

impl Lookup<'_> {
    /// The entry of `device` and its address.
    pub(crate) fn entry(&self, device: u32) -> Result<(u64, [u64; DTE_WORDS]), Fault> {
        let table = self.registers.device_table();
        let offset = DTE_BYTES * u64::from(device);
        if offset >= table.bytes() {
            return Err(Fault::entry(code::ENTRY, 0));
        }
        let address = table.address() + offset;
        let mut words = [0; DTE_WORDS];
        let mut bytes = [0; 8];
        for (word, at) in words.iter_mut().zip((address..).step_by(8)) {
            self.memory.read(at, &mut bytes).map_err(|_| Fault::entry_fetch(address))?;
            *word = u64::from_le_bytes(bytes);
        }
        Ok((address, words))
    }

    /// What an entry asks for, checked against what this IOMMU is.
    pub(crate) fn decode(&self, words: &[u64; DTE_WORDS]) -> Result<Route, Fault> {
        let (word0, word1) = (DteWord0::from(words[0]), DteWord1::from(words[1]));
        if !word0.v() {
            return Ok(Route::Forward);
        }
        if !word0.tv() {
            return Ok(Route::Abort);
        }
        if word0.mode() > self.identity.host_levels() {
            return Err(Fault::entry(code::MODE, if word0.mode() > DteWord0::MODE_MOST { flags::RZ } else { 0 }));
        }
        let word3 = DteWord3::from(words[3]);
        let guest = match word0.gv() {
            true => Some(self.guest(word0, word1, words[2].into())?),
            false => None,
        };
        Ok(Route::Context(Context {
            domain: word1.domain_id(),
            hint: Hint::default(),
            ats: word1.i() && self.identity.header.iotlb_sup(),
            own: word3.vimu_en().then(|| (word3.guest_id(), word3.guest_device_id())),
            quiet: word1.sa(),
            permissions: u8::from(word0.ir()) | u8::from(word0.iw()) << 1,
            host: Host { table: word0.host_table(), levels: word0.mode() },
            guest,
            giov: word0.giov() && self.identity.efr.gio_sup(),
        }))
    }

    /// Guest translation, which needs CONTROL.GTEn: without it GV is reserved.
    fn guest(&self, word0: DteWord0, word1: DteWord1, word2: DteWord2) -> Result<Guest, Fault> {
        let control = self.registers.control();
        if !control.gt_en() || word0.glx() == DteWord0::GLX_RESERVED || word0.glx() > self.identity.efr.glx_sup() {
            return Err(Fault::entry(code::ENTRY, flags::RZ));
        }
        let levels = self.identity.guest_levels(word2.guest_paging_mode());
        Ok(Guest {
            gcr3: gcr3_table(word0, word1),
            glx: word0.glx(),
            levels: levels.ok_or(Fault::entry(code::ENTRY, flags::RZ))?,
            translated: control.gcr3_trp_mode(),
        })
    }
}

/// Entries that were read and found legal, until INVALIDATE_DEVTAB_ENTRY names them.
#[derive(Default)]
pub(crate) struct Devices {
    routes: FxHashMap<u32, Route>,
}

impl Devices {
    /// The route of a device, if it is cached.
    #[inline]
    pub(crate) fn route(&self, device: u32) -> Option<&Route> {
        self.routes.get(&device)
    }

    /// The route of a device, read from memory.
    pub(crate) fn fetch(&mut self, device: u32, lookup: &Lookup<'_>) -> Result<&Route, Fault> {
        let (_, words) = lookup.entry(device)?;
        let route = lookup.decode(&words)?;
        Ok(self.routes.entry(device).insert_entry(route).into_mut())
    }

    /// INVALIDATE_DEVTAB_ENTRY.
    pub(crate) fn forget(&mut self, device: u16) {
        self.routes.remove(&u32::from(device));
    }

    /// INVALIDATE_IOMMU_ALL, and power-on.
    pub(crate) fn clear(&mut self) {
        self.routes.clear();
    }
}
