//! The AMD IOMMU in software: registers, command buffer, device table, page table walks of one and two stages, TLB,
//! device caches, event log.
//!
//! ```text
//!   mmio_write ─► registers ──► step: commands ──► invalidations ─┐
//!                                                                 ▼
//!   translate ──► devices (DTE cache) ──► atc ──► tlb ──► walk ──► answer, or fault ─► report (event, interrupt)
//! ```
//!
//! It plays two parts: the guest's own IOMMU, driven by a recording, and the host's physical one. What it caches it
//! keeps until a command names it, so a missing invalidation shows as a wrong answer. Deterministic: no clock, no
//! thread.
//!
//! What the manual leaves open, or is not readable here, and this model chose:
//! - V=1, TV=0 aborts without an event.
//! - A device that does not answer INVALIDATE_IOTLB_PAGES: with CONTROL.InvTimeOut the event IOTLB_INV_TIMEOUT (its
//!   address is the command's) is logged at once and the buffer stops behind the command, so that no COMPLETION_WAIT tells
//!   that the device forgot; without, the buffer waits at the command.
//! - GN in an event says that the guest's tables are meant: the address is the device's, with a PASID. A fault of the
//!   host's table under them has GN = 0, the domain, and the guest physical address.
//! - The capability header, which is in PCI configuration space, is read at its pseudo offset.
//! - The head passes a COMPLETION_WAIT only when everything before it is complete.
//! - A write to a ring's base register sets its head and tail to 0.
//! - INVALIDATE_IOMMU_PAGES without GN drops all combined (nested) entries of its domain.
//! - INVALIDATE_IOTLB_PAGES without GN makes a device forget what it holds for PASIDs too: a host does not know a guest's.
//!
//! With EFR.vIommuSup (not the model's own) it also has the hardware vIOMMU, see `viommu`.
//!
//! Not modelled: not-present entries are never cached (whatever NpCache says), hardware updates of accessed and dirty
//! bits, interrupt remapping, page requests, exclusion ranges, device table segments, SNP, DTE.SE, privileged requests
//! (guest tables need US=1), PASID bits 19:16 of INVALIDATE_IOTLB_PAGES.

mod atc;
mod commands;
mod devices;
mod explain;
mod fault;
mod identity;
mod registers;
mod report;
mod ring;
mod tlb;
mod viommu;
mod walk;

pub use fault::code;

use crate::spec::registers::CAPABILITY_HEADER;
use atc::Atc;
use devices::{Context, Devices, Lookup, Route};
use fault::Fault;
use identity::Identity;
use registers::Registers;
use rustc_hash::FxHashSet;
use tlb::{NO_PASID, Tlb};
use viommu::Guests;
use viommu_cache::Translation;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelConfig, ModelHost, Refusal, Request, Status};
use walk::Walker;

/// [`Answer::flags`]: answered from the TLB.
const FROM_TLB: u32 = 1;
/// [`Answer::flags`]: answered from the device's ATC.
const FROM_ATC: u32 = 2;
/// TLB entries kept for each domain unless [`ModelConfig::tlb_capacity`] says otherwise.
const TLB_CAPACITY: usize = 1 << 16;

/// A software AMD IOMMU.
pub struct Iommu {
    host: Box<dyn ModelHost>,
    identity: Identity,
    registers: Registers,
    devices: Devices,
    tlb: Tlb,
    /// `None`: devices cache nothing.
    atc: Option<Atc>,
    stats: CacheStats,
    guests: Guests,
    /// Devices that answer no INVALIDATE_IOTLB_PAGES.
    unresponsive: FxHashSet<u32>,
}

impl Iommu {
    /// An IOMMU after power-on: disabled, all requests pass. Feature registers not in `config` have the model's own
    /// values: host tables of six levels, guest tables of five, GCR3 tables of three, 16-bit PASIDs, ATS.
    ///
    /// # Errors
    /// None today.
    pub fn new(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self, Refusal> {
        let identity = Identity::new(config.registers);
        let capacity = if config.tlb_capacity == 0 { TLB_CAPACITY } else { config.tlb_capacity as usize };
        Ok(Self {
            host,
            registers: Registers::new(&identity),
            guests: Guests::new(identity.efr.viommu_sup()),
            identity,
            devices: Devices::default(),
            tlb: Tlb::new(capacity),
            atc: config.atc.then(Atc::default),
            stats: CacheStats::default(),
            unresponsive: FxHashSet::default(),
        })
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if !self.registers.control().iommu_en() {
            return untranslated(Status::DISABLED, request.iova, 3);
        }
        let route = match self.devices.route(request.stream) {
            Some(route) => route,
            None => {
                let lookup = Lookup { identity: &self.identity, registers: &self.registers, memory: &*self.host };
                match self.devices.fetch(request.stream, &lookup) {
                    Ok(route) => route,
                    Err(fault) => return self.refuse(fault, request, None),
                }
            }
        };
        let context = match route {
            Route::Forward => return untranslated(Status::BYPASS, request.iova, 3),
            Route::Abort => return Answer { status: Status::ABORT, ..Answer::default() },
            Route::Context(context) => context,
        };
        let pasid = match context.pasid(request.pasid, &self.identity) {
            Ok(None) if context.host.levels == 0 => {
                return match context.allow(3, access(request)) {
                    Ok(permissions) => untranslated(Status::BYPASS, request.iova, permissions),
                    Err(fault) => self.refuse_in(fault, request),
                };
            }
            Ok(pasid) => pasid,
            Err(fault) => return self.refuse_in(fault, request),
        };
        let counted = u64::from(request.flags & Request::SPECULATIVE == 0);
        let grants = |hit: &&Translation| access(request) & !(hit.permissions & context.permissions) == 0;
        if let Some(atc) = self.atc.as_ref().filter(|_| context.ats) {
            if let Some(hit) = atc.find(request.stream, request.pasid, request.iova).filter(grants) {
                self.stats.atc_hits += counted;
                return translated(context, pasid, hit, request, FROM_ATC);
            }
            self.stats.atc_misses += counted;
        }
        let (hits, misses) = match pasid {
            Some(_) => (&mut self.stats.hits, &mut self.stats.misses),
            None => (&mut self.stats.stage2_hits, &mut self.stats.stage2_misses),
        };
        let tag = pasid.unwrap_or(NO_PASID);
        let hit = self.tlb.find(context.domain, tag, &context.hint, request.iova).filter(grants);
        *(if hit.is_some() { hits } else { misses }) += counted;
        if let (Some(hit), true) = (hit, self.atc.is_none()) {
            return translated(context, pasid, hit, request, FROM_TLB);
        }
        let (context, hit) = (context.clone(), hit.copied());
        self.fill(&context, pasid, hit, request)
    }

    /// The rest of a look-up that has a cache to fill: the TLB, if it had no entry that grants the access, by a walk;
    /// and the device's.
    #[inline(never)]
    fn fill(&mut self, context: &Context, pasid: Option<u32>, hit: Option<Translation>, request: &Request) -> Answer {
        let (found, source) = match hit {
            Some(hit) => (hit, FROM_TLB),
            None => {
                let mut walker = Walker { memory: &*self.host, tell: |_: std::fmt::Arguments<'_>| {} };
                let guest = context.guest.as_ref().zip(pasid);
                let walked = walker.translate(&context.host, guest, request.iova, access(request));
                let allowed = walked.and_then(|found| context.allow(found.permissions, access(request)).map(|_| found));
                let found = match allowed {
                    Ok(found) => found,
                    Err(fault) => return self.refuse(fault, request, Some(context)),
                };
                self.tlb.insert(context.domain, pasid.unwrap_or(NO_PASID), request.iova, found);
                (found, 0)
            }
        };
        if let Some(atc) = self.atc.as_mut().filter(|_| context.ats) {
            let told = Translation { permissions: found.permissions & context.permissions, ..found };
            atc.insert(request.stream, request.pasid, pasid.is_some(), request.iova, told);
        }
        translated(context, pasid, &found, request, source)
    }

    /// Refuses a request, and tells software unless the request was speculative.
    #[inline(never)]
    fn refuse(&mut self, fault: Fault, request: &Request, context: Option<&Context>) -> Answer {
        if request.flags & Request::SPECULATIVE == 0 {
            self.log_fault(&fault, request, context);
        }
        fault.answer()
    }

    /// [`Self::refuse`] in the cached context of the request's device.
    #[inline(never)]
    fn refuse_in(&mut self, fault: Fault, request: &Request) -> Answer {
        let context = match self.devices.route(request.stream) {
            Some(Route::Context(context)) => Some(context.clone()),
            _ => None,
        };
        self.refuse(fault, request, context.as_ref())
    }
}

impl Context {
    /// `permissions` as far as the entry's IR and IW allow them.
    fn allow(&self, permissions: u8, access: u8) -> Result<u8, Fault> {
        let allowed = permissions & self.permissions;
        match access & !allowed {
            0 => Ok(allowed),
            _ => Err(Fault::page(0, crate::spec::events::flags::PE, 0)),
        }
    }
}

/// The permissions a request needs.
#[inline]
fn access(request: &Request) -> u8 {
    (request.access & 3) as u8
}

fn untranslated(status: Status, iova: u64, permissions: u8) -> Answer {
    Answer { status, output: iova, permissions: permissions.into(), ..Answer::default() }
}

#[inline]
fn translated(context: &Context, pasid: Option<u32>, found: &Translation, request: &Request, flags: u32) -> Answer {
    Answer {
        status: Status::OK,
        stage: if pasid.is_some() { 1 } else { 2 },
        output: found.apply(request.iova),
        permissions: u32::from(found.permissions & context.permissions),
        leaf_log2: u32::from(found.log2),
        flags,
        ..Answer::default()
    }
}

impl Model for Iommu {
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64 {
        match (offset, size) {
            (CAPABILITY_HEADER, 4) => self.identity.header.into_bits().into(),
            _ if Self::is_guests(offset) => self.read_guests(offset, size),
            _ => self.registers.read(offset, size),
        }
    }

    fn mmio_write(&mut self, offset: u64, size: u32, value: u64) {
        if Self::is_guests(offset) {
            self.write_guests(offset, size, value);
        } else {
            self.registers.write(offset, size, value);
        }
    }

    /// Every buffer in turn, one command each: the host's, then the guests'. Counts turns, so that the host's buffer never
    /// takes more than what is returned.
    fn step(&mut self, budget: u32) -> u32 {
        for turn in 0..budget {
            if !self.guests.have_work() {
                return turn + self.consume(budget - turn);
            }
            let own = self.consume(1) > 0;
            if !self.step_guests() && !own {
                return turn;
            }
        }
        budget
    }

    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> usize {
        for (request, answer) in requests.iter().zip(answers.iter_mut()) {
            *answer = self.answer(request);
        }
        requests.len().min(answers.len())
    }

    fn explain(&mut self, request: &Request, text: &mut Message) {
        self.tell(request, text);
    }

    fn stats(&self) -> CacheStats {
        CacheStats { evictions: self.tlb.evictions(), ..self.stats }
    }

    fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) {
        if unresponsive {
            self.unresponsive.insert(stream);
        } else {
            self.unresponsive.remove(&stream);
        }
    }

    fn reset(&mut self) {
        self.registers = Registers::new(&self.identity);
        self.guests = Guests::new(self.identity.efr.viommu_sup());
        self.devices.clear();
        self.tlb.clear();
        if let Some(atc) = &mut self.atc {
            atc.clear();
        }
    }
}
