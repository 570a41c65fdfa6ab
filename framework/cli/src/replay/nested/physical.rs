//! The physical side of a replay: memory, software IOMMU, backend, host. One, or with `--migrate-every` one after the
//! other, each with other numbers for everything.

use super::expect::Placement;
use super::inject::{Injector, Roster, Silent};
use super::machine::Streams;
use crate::replay::args::{Args, Injection, ModelMode};
use crate::replay::report::Summary;
use crate::replay::{Job, ReplayError, registers};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use viommu::backend::direct::{self, Direct, DirectOptions, ModelHardware, PhysicalMemory, Speculated};
use viommu::backend::{Host as HostWords, Objects, Sink};
use viommu::blocking::{Host, NestParent};
use viommu::vm_memory::MmapRegion;
use viommu_plugin::{ModelConfig, Register};
use viommu_trace::Header;

/// Host physical memory of the driver: tables, queues.
const DMA: (u64, u64) = (0x1_0000_0000, 0x4_0000_0000);
/// Host physical address of the first machine's RAM; the others follow at multiples of a power of two, so that stage 2
/// may use the same large blocks for all.
const FIRST_RAM: u64 = 0x100_0000_0000;
/// Host physical page that stands for the MSI doorbell.
const HOST_DOORBELL: u64 = 0xfee0_0000;
/// Host stream of the first machine's first stream: no guest's number, so that a missing translation shows.
const FIRST_STREAM: u32 = 0x400;
/// Domain numbers that commands can name.
const DOMAINS: u32 = 1 << 16;
/// Numbers that no machine has on a host, so that every machine has another one on the next.
const SPARE: u64 = 7;
/// How long hardware may take for a SYNC.
pub(super) const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// One physical machine with its host.
pub(super) struct Physical {
    pub(super) host: Host,
    pub(super) hardware: Arc<ModelHardware>,
    pub(super) roster: Arc<Roster>,
    memory: Arc<PhysicalMemory>,
    backend: Arc<Direct>,
    /// The how-manieth this is, from 0.
    generation: u64,
    /// Tags of guests that are not ours: ours have other ones than on the host before.
    others: Vec<NestParent>,
}

impl Physical {
    /// The `generation`-th host of this replay.
    ///
    /// # Errors
    /// If its parts cannot be had.
    pub(super) fn new(
        job: &Job<'_>,
        header: &Header,
        shown: &[Register],
        generation: u64,
    ) -> Result<Self, ReplayError> {
        let args = job.args;
        let memory = PhysicalMemory::new();
        memory.add_dma(DMA.0 + generation % 3 * DMA.1, DMA.1)?;
        let config = ModelConfig { atc: args.atc, ..ModelConfig::default() };
        let hardware = ModelHardware::new(&job.plugin, memory.clone(), config, model_mode(args, generation))?;
        if let Some(seed) = args.hostile_hardware {
            hardware.speculate(seed.wrapping_add(generation));
        }
        let options = DirectOptions { sync_limit: SYNC_LIMIT, ..DirectOptions::default() };
        let backend = Direct::new(&job.plugin, hardware.clone(), options)?;
        let roster = Arc::new(Roster::default());
        let mut builder = viommu::Host::builder()
            .backend(backend.clone())
            .plugin(job.plugin.clone())
            .shards(args.shards as usize)
            .sync_limit(SYNC_LIMIT);
        if let Some(what) = args.inject.filter(|what| *what != Injection::ForgetEntry) {
            let codec = job.plugin.codec(shown)?;
            let command_words = job.plugin.info().command_words;
            let all = FIRST_STREAM + numbered_streams(job, header).len() as u32 * args.vms;
            let silent = Silent {
                hardware: hardware.clone(),
                streams: machine_streams(0, generation, job, header).dma.into_values().collect(),
            };
            builder = builder.wrap_sink(injecting(what, codec, command_words, all, roster.clone(), silent));
        }
        let host: Host = builder.build()?.into();
        let others = if generation == 0 { 0 } else { 1 + generation % SPARE };
        let others = (0..others).map(|_| host.ioas()?.nest_parent()).collect::<Result<_, _>>()?;
        Ok(Self { host, hardware, roster, memory, backend, generation, others })
    }

    /// Where machine `index` lies here, and `ram` with it.
    ///
    /// # Errors
    /// If the place is taken.
    pub(super) fn place(
        &self,
        args: &Args,
        index: u32,
        header: &Header,
        ram: &Arc<MmapRegion>,
    ) -> Result<Placement, ReplayError> {
        let stride = header.ram_size.max(1 << 30).next_power_of_two();
        let slot = (u64::from(index) + self.generation) % (u64::from(args.vms) + SPARE);
        let placement = Placement {
            ram: (header.ram_base, header.ram_size),
            host_ram: FIRST_RAM + slot * stride,
            doorbell: registers::msi_doorbell(header.vendor).map(|page| (page, HOST_DOORBELL)),
        };
        self.memory.add_region(placement.host_ram, ram.clone())?;
        Ok(placement)
    }

    /// Puts memory of a machine that no recording knows at `host`.
    ///
    /// # Errors
    /// If the place is taken.
    pub(super) fn memory(&self, host: u64, region: Option<Arc<MmapRegion>>) -> Result<(), ReplayError> {
        let region = region.ok_or_else(|| viommu::Cause::Invalid("the machine has no such memory".into()))?;
        Ok(self.memory.add_region(host, region)?)
    }

    /// The host streams of machine `index` here.
    pub(super) fn streams(&self, index: u32, job: &Job<'_>, header: &Header) -> Streams {
        machine_streams(index, self.generation, job, header)
    }

    /// Adds what this hardware counted. To be asked before the machines are torn down, which needs SYNCs and flushes of
    /// its own.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(super) fn count(&self, summary: &mut Summary) -> Result<(), ReplayError> {
        let stats = self.hardware.stats()?;
        summary.syncs.hardware += self.backend.ring().syncs();
        summary.tlb.hits += stats.hits;
        summary.tlb.misses += stats.misses;
        summary.tlb.evictions += stats.evictions;
        summary.tlb.s2_hits += stats.stage2_hits;
        let Speculated { requests, tlb_fills, atc_fills } = self.hardware.speculated();
        summary.speculation.requests += requests;
        summary.speculation.tlb_fills += tlb_fills;
        summary.speculation.atc_fills += atc_fills;
        Ok(())
    }

    /// Tears it down, all of it. The machines have left.
    ///
    /// # Errors
    /// If anything is left over.
    pub(super) fn tear_down(self) -> Result<(), ReplayError> {
        drop(self.others);
        let left = self.host.shutdown()?;
        let live = self.backend.live();
        if left.is_empty() && live.is_empty() {
            Ok(())
        } else {
            Err(ReplayError::Leftovers(format!("{left:?}, {live:?}")))
        }
    }
}

fn model_mode(args: &Args, generation: u64) -> direct::ModelMode {
    match (args.device_delay, args.model) {
        (Some(seed), _) => direct::ModelMode::Delayed { seed: seed.wrapping_add(generation) },
        (None, ModelMode::Inline) => direct::ModelMode::Inline,
        (None, ModelMode::Thread) => direct::ModelMode::Thread,
    }
}

type WrapSink = Box<dyn Fn(Arc<dyn Sink<Accepts = HostWords>>) -> Arc<dyn Sink<Accepts = HostWords>> + Send + Sync>;

fn injecting(
    what: Injection,
    codec: viommu_plugin_host::Codec,
    command_words: usize,
    streams: u32,
    roster: Arc<Roster>,
    silent: Silent,
) -> WrapSink {
    let (codec, silent) = (Arc::new(codec), Arc::new(silent));
    Box::new(move |inner| {
        Arc::new(Injector {
            inner,
            what,
            codec: codec.clone(),
            command_words,
            itself: (0..streams.max(DOMAINS)).collect(),
            roster: roster.clone(),
            invalidations: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            held: Default::default(),
            silent: silent.clone(),
            done: false.into(),
        })
    })
}

/// Every stream of the recording, in a fixed order.
fn numbered_streams(job: &Job<'_>, header: &Header) -> Vec<u32> {
    let named = header.devices.iter().map(|device| device.sid);
    let all: BTreeSet<u32> = named.chain(job.scan.streams.keys().copied()).collect();
    all.into_iter().collect()
}

/// The host streams of machine `index` on the `generation`-th host. Under `swap-stream`, the framework is told the first
/// two header streams with more than 100 stage-1 translations the wrong way round.
fn machine_streams(index: u32, generation: u64, job: &Job<'_>, header: &Header) -> Streams {
    let streams = numbered_streams(job, header);
    let (each, vms) = (streams.len() as u64, u64::from(job.args.vms));
    let host_stream = |place: u64| {
        let number = (u64::from(index) * each + place + 3 * generation) % (each * vms + SPARE);
        FIRST_STREAM + number as u32
    };
    let dma: rustc_hash::FxHashMap<u32, u32> = streams.iter().copied().zip((0..).map(host_stream)).collect();
    let mut bound = dma.clone();
    if job.args.inject == Some(Injection::SwapStream) {
        let busy = |stream: &u32| job.scan.streams.get(stream).is_some_and(|counts| counts.stage1 > 100);
        let mut pair = header.devices.iter().map(|device| device.sid).filter(busy);
        if let (Some(one), Some(other)) = (pair.next(), pair.next())
            && let (Some(&a), Some(&b)) = (dma.get(&one), dma.get(&other))
        {
            bound.insert(one, b);
            bound.insert(other, a);
        }
    }
    Streams { dma, bound }
}
