//! A VT-d remapping unit in software: registers, invalidation queue, root, context and PASID tables, walks of both
//! stages, IOTLB, device-TLBs, faults.
//!
//! ```text
//!   mmio_write ─► registers ──► step: queue ──► invalidations ─┐
//!                                                              ▼
//!   translate ──► configuration (context, PASID cache) ──► atc ──► tlb ──► walk ──► answer, or fault ─► report
//! ```
//!
//! It plays two parts: the guest's own unit, driven by a recording, and the host's physical unit under nesting. What
//! it caches it keeps until a descriptor names it, so a missing invalidation shows as a wrong answer. The head of the
//! queue passes a wait descriptor only when everything before it is complete. Deterministic: no clock, no thread.
//!
//! Not modelled: interrupt remapping, page requests, execute requests, accessed and dirty bits (tables are only read),
//! memory types and snooping, protected memory ranges, advanced fault logging, paging-structure caches. CAP.CM only
//! announces: entries that are not present are never cached.

mod atc;
mod entries;
mod explain;
mod fault;
mod identity;
mod lookup;
mod queue;
mod registers;
mod report;
mod tlb;
mod walk;

use crate::spec::fault_reason::FaultReason;
use crate::spec::registers::TableMode;
use atc::Atc;
use entries::{Context, Route};
use fault::Fault;
use identity::Identity;
use lookup::{Configuration, Lookup, NO_PASID};
use registers::{Effect, Registers};
use rustc_hash::FxHashSet;
use tlb::Tlb;
use viommu_cache::Translation;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelConfig, ModelHost, Refusal, Request, Status};
use walk::{Silent, Stages, Walker};

/// [`Answer::flags`]: answered from the IOTLB.
const FROM_TLB: u32 = 1;
/// [`Answer::flags`]: answered from the device-TLB.
const FROM_ATC: u32 = 2;
/// IOTLB entries kept for each domain-id unless [`ModelConfig::tlb_capacity`] says otherwise.
const TLB_CAPACITY: usize = 1 << 16;

/// A software VT-d unit.
pub struct RemappingUnit {
    host: Box<dyn ModelHost>,
    identity: Identity,
    registers: Registers,
    configuration: Configuration,
    tlb: Tlb,
    /// `None`: devices cache nothing.
    atc: Option<Atc>,
    stats: CacheStats,
    /// Streams whose devices answer no device-TLB invalidation.
    unresponsive: FxHashSet<u32>,
}

impl RemappingUnit {
    /// A unit after power-on: translation off, all requests pass. Of VER, CAP and ECAP those not in `config` have the
    /// model's own values: legacy and scalable mode, both stages, nesting, PASIDs, ATS, eight fault records.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if CAP and ECAP describe a unit without any stage.
    pub fn new(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self, Refusal> {
        let identity = Identity::new(config.registers)?;
        let capacity = if config.tlb_capacity == 0 { TLB_CAPACITY } else { config.tlb_capacity as usize };
        Ok(Self {
            host,
            registers: Registers::new(identity),
            identity,
            configuration: Configuration::default(),
            tlb: Tlb::new(capacity),
            atc: config.atc.then(Atc::default),
            stats: CacheStats::default(),
            unresponsive: FxHashSet::default(),
        })
    }

    /// Whether RTADDR.TTM aborts every request.
    #[inline]
    fn aborts(&self) -> bool {
        TableMode(self.registers.root().mode()) == TableMode::ABORT && self.identity.ecap.abort_mode()
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if !self.registers.status().translation() {
            return untranslated(Status::DISABLED, request.iova);
        }
        if self.aborts() {
            return Answer { status: Status::ABORT, ..Answer::default() };
        }
        if is_interrupt(request) && request.pasid == NO_PASID {
            return untranslated(Status::BYPASS, request.iova);
        }
        let route = match self.configuration.route(request.stream, request.pasid) {
            Some(route) => route,
            None => {
                let walker = Walker { memory: &*self.host, narrator: Silent };
                let lookup = Lookup { identity: &self.identity, root: self.registers.root(), walker };
                match self.configuration.fetch(request.stream, request.pasid, lookup) {
                    Ok(route) => route,
                    Err(fault) => return self.refuse(fault, request),
                }
            }
        };
        let context = match route {
            Route::PassThrough => return untranslated(Status::BYPASS, request.iova),
            Route::Translate(context) => context,
        };
        if is_interrupt(request) {
            let fault = Fault::configuration(FaultReason::SM_INTERRUPT_ADDRESS).unless(!context.records);
            return self.refuse(fault, request);
        }
        let counted = u64::from(request.flags & Request::SPECULATIVE == 0);
        let atc = self.atc.as_mut().filter(|_| context.ats);
        if let Some(atc) = atc {
            let hit = atc.find(request.stream, request.pasid, request.iova);
            if let Some(hit) = hit.filter(|hit| grants(hit, request)) {
                self.stats.atc_hits += counted;
                return translated(context, hit, request.iova, FROM_ATC);
            }
            self.stats.atc_misses += counted;
        }
        let (hits, misses) = match context.tag.is_first_stage() {
            true => (&mut self.stats.hits, &mut self.stats.misses),
            false => (&mut self.stats.stage2_hits, &mut self.stats.stage2_misses),
        };
        let hit = self.tlb.find(context.domain, context.tag, &context.hint, request.iova);
        let hit = hit.filter(|hit| grants(hit, request));
        if let (Some(hit), true) = (hit, self.atc.is_none()) {
            *hits += counted;
            return translated(context, hit, request.iova, FROM_TLB);
        }
        *(if hit.is_some() { hits } else { misses }) += counted;
        let (context, hit) = (context.clone(), hit.copied());
        self.fill(&context, hit, request)
    }

    /// The rest of a look-up that has a cache to fill: the IOTLB, if it had no entry that grants the access, by a walk;
    /// and the device's.
    #[inline(never)]
    fn fill(&mut self, context: &Context, hit: Option<Translation>, request: &Request) -> Answer {
        let (found, source) = match hit {
            Some(hit) => (hit, FROM_TLB),
            None => {
                let mut walker = Walker { memory: &*self.host, narrator: Silent };
                match walker.translate(&context.stages, request.iova, access(request)) {
                    Ok(found) => {
                        self.tlb.insert(context.domain, context.tag, request.iova, found);
                        (found, 0)
                    }
                    Err(fault) => return self.refuse(fault.unless(!context.records), request),
                }
            }
        };
        if let Some(atc) = self.atc.as_mut().filter(|_| context.ats) {
            atc.insert(request.stream, request.pasid, request.iova, found);
        }
        translated(context, &found, request.iova, source)
    }

    /// Refuses a request, and tells software unless the request was speculative.
    #[inline(never)]
    fn refuse(&mut self, fault: Fault, request: &Request) -> Answer {
        if request.flags & Request::SPECULATIVE == 0 {
            self.record(&fault, request);
        }
        fault.answer()
    }
}

/// The permissions a request needs.
#[inline]
fn access(request: &Request) -> u8 {
    (request.access & 3) as u8
}

/// Whether a request goes to 0xfeex_xxxx: an interrupt, which DMA remapping lets pass without PASID (§3.14) and
/// refuses with.
#[inline]
fn is_interrupt(request: &Request) -> bool {
    request.iova >> 20 == 0xfee
}

/// Whether a cached translation may answer: one that does not grant the access leaves the fault to a walk.
#[inline]
fn grants(translation: &Translation, request: &Request) -> bool {
    access(request) & !translation.permissions == 0
}

fn untranslated(status: Status, iova: u64) -> Answer {
    Answer { status, output: iova, permissions: 3, ..Answer::default() }
}

#[inline]
fn translated(context: &Context, translation: &Translation, input: u64, flags: u32) -> Answer {
    Answer {
        status: Status::OK,
        stage: if matches!(context.stages, Stages::Second(_)) { 2 } else { 1 },
        output: translation.apply(input),
        permissions: u32::from(translation.permissions),
        leaf_log2: u32::from(translation.log2),
        flags,
        ..Answer::default()
    }
}

impl Model for RemappingUnit {
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64 {
        self.registers.read(offset, size)
    }

    fn mmio_write(&mut self, offset: u64, size: u32, value: u64) {
        let words = match size {
            4 => 1,
            8 if offset.is_multiple_of(8) => 2,
            _ => 0,
        };
        for (at, word) in
            [(offset, value as u32), (offset.wrapping_add(4), (value >> 32) as u32)].into_iter().take(words)
        {
            match self.registers.write(at, word) {
                Effect::None => {}
                Effect::RootTable if self.identity.cap.set_root_table_invalidates() => {
                    self.configuration.clear();
                    self.tlb.clear();
                }
                Effect::RootTable => {}
                Effect::ContextCommand => self.context_command(),
                Effect::IotlbCommand => self.iotlb_command(),
                Effect::Event(control) => self.release(control),
            }
        }
    }

    fn step(&mut self, budget: u32) -> u32 {
        self.consume(budget)
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
        self.registers = Registers::new(self.identity);
        self.configuration.clear();
        self.tlb.clear();
        if let Some(atc) = &mut self.atc {
            atc.clear();
        }
    }
}
