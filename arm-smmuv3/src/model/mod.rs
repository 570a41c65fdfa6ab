//! The SMMUv3 in software: registers, command queue, stream table, two-stage walks, TLB, device caches, events.
//!
//! ```text
//!   mmio_write ─► registers ──► step: cmdq ──► invalidations ─┐
//!                                                             ▼
//!   translate ──► streams (STE, CD cache) ──► atc ──► tlb ──► walk ──► answer, or fault ─► report (event, interrupt)
//! ```
//!
//! It plays two parts: the guest's own SMMU, driven by a recording, and the host's physical SMMU under nesting. What it
//! caches it keeps until a command names it, so a missing invalidation shows as a wrong answer. Deterministic: no
//! clock, no thread.
//!
//! Not modelled: EL2 and Secure streams, stalls, PRI, hardware update of access flag and dirty state, big-endian
//! tables, 52-bit addresses with other granules than 64 KiB, F_ADDR_SIZE of bypassing traffic.

mod atc;
mod cmdq;
mod context;
mod explain;
mod fault;
mod identity;
mod queue;
mod registers;
mod report;
mod stream;
mod tlb;
mod walk;

pub use queue::Queue;

use atc::Atc;
use context::{Context, Route};
use fault::Fault;
use identity::Identity;
use registers::Registers;
use rustc_hash::FxHashSet;
use stream::{Lookup, Streams};
use tlb::Tlb;
use viommu_cache::Translation;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelConfig, ModelHost, Refusal, Request, Status};
use walk::{Silent, Walker};

/// [`Answer::flags`]: answered from the TLB.
const FROM_TLB: u32 = 1;
/// [`Answer::flags`]: answered from the device's ATC.
const FROM_ATC: u32 = 2;
/// TLB entries kept for each VMID unless [`ModelConfig::tlb_capacity`] says otherwise.
const TLB_CAPACITY: usize = 1 << 16;

/// A software SMMUv3.
pub struct Smmu {
    host: Box<dyn ModelHost>,
    identity: Identity,
    registers: Registers,
    streams: Streams,
    tlb: Tlb,
    /// `None`: devices cache nothing.
    atc: Option<Atc>,
    stats: CacheStats,
    /// Streams whose devices answer no ATC invalidation.
    unresponsive: FxHashSet<u32>,
    /// An ATC_INV since the last CMD_SYNC was not answered.
    atc_timed_out: bool,
    /// CMD_SYNCs that the command queue completed or stopped at, ever.
    syncs: u64,
}

impl Smmu {
    /// An SMMU after power-on: disabled, all traffic bypassing. ID registers not in `config` have the model's own
    /// values: both stages, all granules, 16-bit VMIDs and ASIDs, ATS, range invalidation, 24-bit StreamIDs.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the ID registers describe an SMMU without VMSAv8-64 tables or without any stage.
    pub fn new(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self, Refusal> {
        let identity = Identity::new(config.registers)?;
        let capacity = if config.tlb_capacity == 0 { TLB_CAPACITY } else { config.tlb_capacity as usize };
        Ok(Self {
            host,
            registers: Registers::new(&identity),
            identity,
            streams: Streams::default(),
            tlb: Tlb::new(capacity),
            atc: config.atc.then(Atc::default),
            stats: CacheStats::default(),
            unresponsive: FxHashSet::default(),
            atc_timed_out: false,
            syncs: 0,
        })
    }

    /// What the SMMU reaches: for blocks beside it that fetch commands of their own.
    pub fn host(&self) -> &dyn ModelHost {
        &*self.host
    }

    /// log2 of the largest command queue (IDR1.CMDQS).
    pub fn command_queue_log2(&self) -> u8 {
        self.identity.idr1().cmdqs()
    }

    /// CMD_SYNCs that its own command queue came to, ever.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if !self.registers.cr0().smmuen() {
            return match self.registers.gbpa().abort() {
                true => Answer { status: Status::ABORT, ..Answer::default() },
                false => untranslated(Status::DISABLED, request.iova),
            };
        }
        let route = match self.streams.route(request.stream, request.pasid) {
            Some(route) => route,
            None => {
                let walker = Walker { memory: &*self.host, narrator: Silent };
                let lookup = Lookup { identity: &self.identity, registers: &self.registers, walker };
                match self.streams.fetch(request.stream, request.pasid, lookup) {
                    Ok(route) => route,
                    Err(fault) => return self.refuse(fault, request),
                }
            }
        };
        let context = match route {
            Route::Abort => return Answer { status: Status::ABORT, ..Answer::default() },
            Route::Bypass => return untranslated(Status::BYPASS, request.iova),
            Route::Translate(context) => context,
        };
        let input = context.canonical(request.iova);
        let counted = u64::from(request.flags & Request::SPECULATIVE == 0);
        let atc = self.atc.as_mut().filter(|_| context.ats);
        if let Some(atc) = atc {
            if let Some(hit) = atc.find(request.stream, request.pasid, input).filter(|hit| grants(hit, request)) {
                self.stats.atc_hits += counted;
                return translated(context, hit, input, FROM_ATC);
            }
            self.stats.atc_misses += counted;
        }
        let (hits, misses) = match context.tag.is_stage1() {
            true => (&mut self.stats.hits, &mut self.stats.misses),
            false => (&mut self.stats.stage2_hits, &mut self.stats.stage2_misses),
        };
        let hit = self.tlb.find(context.vmid, context.tag, &context.hint, input).filter(|hit| grants(hit, request));
        if let (Some(hit), true) = (hit, self.atc.is_none()) {
            *hits += counted;
            return translated(context, hit, input, FROM_TLB);
        }
        *(if hit.is_some() { hits } else { misses }) += counted;
        let (context, hit) = (context.clone(), hit.copied());
        self.fill(&context, hit, input, request)
    }

    /// The rest of a look-up that has a cache to fill: the TLB, if it had no entry that grants the access, by a walk;
    /// and the device's.
    #[inline(never)]
    fn fill(&mut self, context: &Context, hit: Option<Translation>, input: u64, request: &Request) -> Answer {
        let (found, source) = match hit {
            Some(hit) => (hit, FROM_TLB),
            None => {
                let mut walker = Walker { memory: &*self.host, narrator: Silent };
                let (found, global) = match walker.translate(&context.stages, input, access(request)) {
                    Ok(found) => found,
                    Err(fault) => return self.refuse(fault, request),
                };
                let tag = if global { tlb::Tag::GLOBAL } else { context.tag };
                self.tlb.insert(context.vmid, tag, input, found);
                (found, 0)
            }
        };
        if let Some(atc) = self.atc.as_mut().filter(|_| context.ats) {
            atc.insert(request.stream, request.pasid, input, found);
        }
        translated(context, &found, input, source)
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
        stage: if context.stages.stage1.is_some() { 1 } else { 2 },
        output: translation.apply(input),
        permissions: u32::from(translation.permissions),
        leaf_log2: u32::from(translation.log2),
        flags,
        ..Answer::default()
    }
}

impl Model for Smmu {
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64 {
        self.registers.read(offset, size)
    }

    fn mmio_write(&mut self, offset: u64, size: u32, value: u64) {
        self.registers.write(offset, size, value);
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
        self.registers = Registers::new(&self.identity);
        self.streams.clear();
        self.tlb.clear();
        if let Some(atc) = &mut self.atc {
            atc.clear();
        }
        self.atc_timed_out = false;
    }
}
