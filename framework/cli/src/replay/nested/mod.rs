//! Recorded guests through the framework: frontend, pipeline, shard, physical queue, software IOMMU; every DMA judged
//! at the physical end.
//!
//! ```text
//!   machine 0 ┐ register writes                                  ┌ DMA of machine 0
//!   machine 1 ┼─────────────────► Host (vIOMMUs) ──► ring ──► model ┼ DMA of machine 1
//!   ...       ┘ (schedule.rs)        (inject.rs)                 └ ... (expect.rs)
//! ```

mod expect;
mod inject;
mod machine;
mod schedule;

use super::args::{Args, Injection, ModelMode};
use super::latency::Histogram;
use super::progress::Progress;
use super::report::{EXPLAINED, Mode, Report, Summary};
use super::{Job, ReplayError, registers};
use expect::Placement;
use inject::{Injector, Roster, Silent};
use machine::{Machine, Streams, Tally, World};
use schedule::{Gate, drive};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use viommu::backend::direct::{self, Direct, DirectOptions, ModelHardware, PhysicalMemory};
use viommu::backend::{Host as HostWords, Sink};
use viommu::vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use viommu_plugin::{GuestFault, ModelConfig};
use viommu_trace::{Header, Trace};

/// Host physical memory of the driver: tables, queues.
const DMA: (u64, u64) = (0x1_0000_0000, 0x4_0000_0000);
/// Host physical address of the first machine's RAM; the others follow at multiples of a power of two, so that stage 2
/// may use the same large blocks for all.
const FIRST_RAM: u64 = 0x100_0000_0000;
/// Host physical page that stands for the MSI doorbell.
const HOST_DOORBELL: u64 = 0xfee0_0000;
/// Host stream of the first machine's first stream: no guest's number, so that a missing translation shows.
const FIRST_STREAM: u32 = 0x400;
/// How long hardware may take for a SYNC, and a guest waits for its queue.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// Replays `job`'s trace as `--vms` machines.
///
/// # Errors
/// [`ReplayError`] if this guest cannot be a vIOMMU's, the plugin or the framework fails, or the file has changed.
pub(super) fn replay(job: &Job<'_>) -> Result<Report, ReplayError> {
    let args = job.args;
    let file = Arc::new(File::open(job.path).map_err(|error| ReplayError::Read(error.to_string()))?);
    let open = || {
        let reader = BufReader::new(ReadAt { file: file.clone(), offset: 0 });
        Trace::from_reader(&job.path.display().to_string(), reader)
    };
    let header = open()?.header().clone();
    let shown = registers::shown(header.vendor, &job.scan);
    // Says by name if no vIOMMU can be what this guest was shown, before anything is built.
    let codec = job.plugin.frontend(&shown).and_then(|_| job.plugin.codec(&shown))?;

    let memory = PhysicalMemory::new();
    memory.add_dma(DMA.0, DMA.1)?;
    let config = ModelConfig { atc: args.atc, ..ModelConfig::default() };
    let hardware = ModelHardware::new(&job.plugin, memory.clone(), config, model_mode(args))?;
    let options = DirectOptions { sync_limit: SYNC_LIMIT, ..DirectOptions::default() };
    let backend = Direct::new(&job.plugin, hardware.clone(), options)?;
    let roster = Arc::new(Roster::default());
    let streams = numbered_streams(job, &header);
    let mut builder = viommu::Host::builder()
        .backend(backend.clone())
        .plugin(job.plugin.clone())
        .shards(args.shards as usize)
        .sync_limit(SYNC_LIMIT);
    if let Some(what) = args.inject {
        let codec = job.plugin.codec(&shown)?;
        let command_words = job.plugin.info().command_words;
        let all = FIRST_STREAM + streams.len() as u32 * args.vms;
        let roster = roster.clone();
        let silent = Silent {
            hardware: hardware.clone(),
            streams: machine_streams(&streams, 0, None, job, &header).dma.into_values().collect(),
        };
        builder = builder.wrap_sink(injecting(what, codec, command_words, all, roster, silent));
    }
    let tally =
        Tally { codec, command_words: job.plugin.info().command_words, opcodes: [const { AtomicU64::new(0) }; 256] };
    let world = World {
        host: builder.build()?.into(),
        hardware,
        shown,
        limit: SYNC_LIMIT,
        tally: Arc::new(tally),
        passed: AtomicU64::new(0),
    };

    let stride = header.ram_size.max(1 << 30).next_power_of_two();
    let mut machines = Vec::new();
    for index in 0..args.vms {
        let placement = Placement {
            ram: (header.ram_base, header.ram_size),
            host_ram: FIRST_RAM + u64::from(index) * stride,
            doorbell: registers::msi_doorbell(header.vendor).map(|page| (page, HOST_DOORBELL)),
        };
        let guest_memory = guest_memory(&memory, &header, placement.host_ram)?;
        let named = machine_streams(&streams, index, args.inject, job, &header);
        let machine = Machine::new(&world, index, open()?, placement, guest_memory, named)?;
        let pipeline = machine.viommu.pipeline();
        roster.enter(pipeline.owner(), pipeline.tag());
        machines.push(machine);
    }
    let start = Instant::now();
    let (machines, switches) = run(job, &world, machines)?;
    let elapsed = start.elapsed().as_secs_f64();
    summarise(job, &header, &world, &backend, machines, switches, elapsed)
}

/// A reader with a place of its own in a file that all machines share: a thousand machines need one descriptor, and no
/// memory that grows with the recording.
struct ReadAt {
    file: Arc<File>,
    offset: u64,
}

impl Read for ReadAt {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

fn model_mode(args: &Args) -> direct::ModelMode {
    match (args.device_delay, args.model) {
        (Some(seed), _) => direct::ModelMode::Delayed { seed },
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
            streams: (0..streams).collect(),
            roster: roster.clone(),
            invalidations: AtomicU64::new(0),
            batches: AtomicU64::new(0),
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

/// The host streams of machine `index`. Under `swap-stream`, the framework is told the first two header streams with
/// more than 100 stage-1 translations the wrong way round.
fn machine_streams(streams: &[u32], index: u32, inject: Option<Injection>, job: &Job<'_>, header: &Header) -> Streams {
    let first = FIRST_STREAM + index * streams.len() as u32;
    let dma: rustc_hash::FxHashMap<u32, u32> = streams.iter().copied().zip(first..).collect();
    let mut bound = dma.clone();
    if inject == Some(Injection::SwapStream) {
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

/// The guest's RAM, at its guest physical address for the frontend and at `host_ram` for the hardware.
fn guest_memory(memory: &PhysicalMemory, header: &Header, host_ram: u64) -> Result<Arc<GuestMemoryMmap>, ReplayError> {
    let bad = |what: String| ReplayError::Memory { base: header.ram_base, size: header.ram_size, what };
    let size = usize::try_from(header.ram_size).map_err(|error| bad(error.to_string()))?;
    let mapping = Arc::new(MmapRegion::new(size).map_err(|error| bad(error.to_string()))?);
    memory.add_region(host_ram, mapping.clone())?;
    let region = GuestRegionMmap::with_arc(mapping, GuestAddress(header.ram_base))
        .ok_or_else(|| bad("the address space ends before it".into()))?;
    let guest = GuestMemoryMmap::from_regions(vec![region]).map_err(|error| bad(error.to_string()))?;
    Ok(Arc::new(guest))
}

/// All machines to their ends, on `--threads` threads.
fn run<'a>(
    job: &Job<'_>,
    world: &'a World,
    machines: Vec<Machine<'a>>,
) -> Result<(Vec<Machine<'a>>, u64), ReplayError> {
    let threads = (job.args.threads as usize).min(machines.len());
    let gate = Gate::default();
    let mut hands: Vec<Vec<Machine<'a>>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, machine) in machines.into_iter().enumerate() {
        hands[index % threads].push(machine);
    }
    let total = job.scan.records * u64::from(job.args.vms);
    let finished = AtomicU64::new(0);
    let outcome = std::thread::scope(|scope| {
        let started: Vec<_> = hands
            .iter_mut()
            .map(|hand| {
                let (gate, finished) = (&gate, &finished);
                scope.spawn(move || {
                    let outcome = drive(hand, gate);
                    finished.fetch_add(1, Ordering::SeqCst);
                    outcome
                })
            })
            .collect();
        let progress = Progress::new(job.path, total);
        while finished.load(Ordering::SeqCst) < threads as u64 {
            progress.show(world.passed.load(Ordering::Relaxed));
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let mut switches = 0;
        for thread in started {
            switches += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<_, ReplayError>(switches)
    });
    let switches = outcome?;
    let mut machines: Vec<_> = hands.into_iter().flatten().collect();
    machines.sort_by_key(schedule::Turns::index);
    Ok((machines, switches))
}

fn summarise(
    job: &Job<'_>,
    header: &Header,
    world: &World,
    backend: &Direct,
    machines: Vec<Machine<'_>>,
    switches: u64,
    elapsed: f64,
) -> Result<Report, ReplayError> {
    let mut summary = Summary::new(job.path, header.vendor, Mode::Nested);
    summary.vms = job.args.vms;
    summary.vm_switches = switches;
    summary.translations.records = job.scan.translations;
    // Before the machines are torn down, which needs SYNCs and flushes of its own.
    summary.syncs.hardware = backend.ring().syncs();
    let stats = world.hardware.stats()?;
    let mut latency = Histogram::default();
    let mut mismatches = Vec::new();
    for mut machine in machines {
        let sum = &mut summary.translations;
        sum.checked += machine.counts.checked;
        sum.matched += machine.counts.matched;
        sum.mismatched += machine.counts.mismatched;
        sum.stage2_faults += machine.counts.stage2_faults;
        summary.mismatched_by_vm.push(machine.counts.mismatched);
        summary.register_mismatches += machine.register_mismatches;
        latency.merge(&machine.latency);
        mismatches.append(&mut machine.mismatches);
        let counters = machine.viommu.pipeline().counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        summary.commands.total += get(&counters.commands);
        summary.commands.local_stream += get(&counters.local_stream);
        summary.doorbells += get(&counters.doorbells);
        summary.syncs.guest += get(&counters.syncs);
        for (fault, count) in (0..).zip(&counters.faults).filter(|(_, count)| get(count) > 0) {
            *summary.guest_faults.entry(GuestFault(fault).name().to_owned()).or_default() += get(count);
        }
        let nested = machine.viommu.counters();
        summary.nested_hwpts.created += nested.created;
        summary.nested_hwpts.reused += nested.reused;
        summary.nested_hwpts.live += nested.live;
    }
    for (opcode, count) in (0..=u8::MAX).zip(&world.tally.opcodes) {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            let name = world.tally.codec.opcode_name(opcode)?.map_or_else(|| format!("{opcode:#04x}"), str::to_owned);
            summary.commands.by_opcode.insert(name, count);
        }
    }
    summary.tlb.hits = stats.hits;
    summary.tlb.misses = stats.misses;
    summary.tlb.evictions = stats.evictions;
    summary.tlb.s2_hits = stats.stage2_hits;
    summary.latency_ns.p50 = latency.percentile(50);
    summary.latency_ns.p99 = latency.percentile(99);
    summary.elapsed_s = elapsed;
    summary.commands_per_second = summary.commands.total as f64 / elapsed.max(f64::EPSILON);
    mismatches.sort_by_key(|mismatch| (mismatch.record, mismatch.machine));
    mismatches.truncate(EXPLAINED);
    Ok(Report { summary, mismatches })
}
