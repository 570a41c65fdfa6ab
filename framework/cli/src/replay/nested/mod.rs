//! Recorded guests through the framework: frontend, pipeline, shard, physical queue, software IOMMU; every DMA judged
//! at the physical end.
//!
//! ```text
//!   machine 0 ┐ register writes                                  ┌ DMA of machine 0
//!   machine 1 ┼─────────────────► Host (vIOMMUs) ──► ring ──► model ┼ DMA of machine 1
//!   ...       ┘ (schedule.rs)        (inject.rs)                 └ ... (expect.rs)
//!              └── migrate.rs: all machines to the next Physical (physical.rs) ──┘
//! ```

mod before;
mod expect;
mod inject;
mod machine;
mod migrate;
mod own_queues;
mod physical;
mod schedule;
mod watch;

use super::latency::Histogram;
use super::progress::Progress;
use super::report::{EXPLAINED, Mode, Report, Summary};
use super::{Job, ReplayError, registers};
use machine::{Machine, Tally, World};
use migrate::{Removal, Schedule};
use physical::{Physical, SYNC_LIMIT};
use schedule::{Gate, drive};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use viommu::vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use viommu_plugin::{GuestFault, TranslationMode};
use viommu_trace::{Header, Trace};

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
    let shown = registers::shown(&header, &job.scan, &job.plugin);
    // Says by name if no vIOMMU can be what this guest was shown, before anything is built.
    let codec = job.plugin.frontend(&shown).and_then(|_| job.plugin.codec(&shown))?;
    let mode = codec.mode()?;
    if let Some(injection) = args.inject.filter(|injection| !injection.is_for(mode)) {
        return Err(ReplayError::NotInShadow(injection));
    }
    let tally =
        Tally { codec, command_words: job.plugin.info().command_words, opcodes: [const { AtomicU64::new(0) }; 256] };
    let physical = Arc::new(Physical::new(job, &header, &shown, 0)?);
    let migrations = Schedule::new(args);
    let world = World {
        shown,
        mode,
        inject: args.inject,
        limit: SYNC_LIMIT,
        tally: Arc::new(tally),
        passed: AtomicU64::new(0),
        migrations,
    };
    let mut machines = Vec::new();
    for index in 0..args.vms {
        let (ram, mut memory) = guest_memory(&header)?;
        if args.vcpus.is_some() {
            let with_rings = memory.insert_region(own_queues::memory()?);
            memory = Arc::new(with_rings.map_err(|error| viommu::Cause::Invalid(error.to_string()))?);
        }
        machines.push(Machine::new(&world, index, open()?, (ram, memory), job, &physical)?);
    }
    let start = Instant::now();
    let shadow = mode == TranslationMode::SHADOW;
    let summary = Summary::new(job.path, header.vendor, if shadow { Mode::Shadow } else { Mode::Nested });
    let mut removal = Removal { job, header: &header, world: &world, physical, summary };
    let (machines, switches) = run(&mut removal, machines)?;
    let elapsed = start.elapsed().as_secs_f64();
    summarise(removal, machines, switches, elapsed)
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

/// The guest's RAM, by itself and at its guest physical address.
fn guest_memory(header: &Header) -> Result<(Arc<MmapRegion>, Arc<GuestMemoryMmap>), ReplayError> {
    let bad = |what: String| ReplayError::Memory { base: header.ram_base, size: header.ram_size, what };
    let size = usize::try_from(header.ram_size).map_err(|error| bad(error.to_string()))?;
    let mapping = Arc::new(MmapRegion::new(size).map_err(|error| bad(error.to_string()))?);
    let region = GuestRegionMmap::with_arc(mapping.clone(), GuestAddress(header.ram_base))
        .ok_or_else(|| bad("the address space ends before it".into()))?;
    let guest = GuestMemoryMmap::from_regions(vec![region]).map_err(|error| bad(error.to_string()))?;
    Ok((mapping, Arc::new(guest)))
}

/// All machines to their ends, on `--threads` threads.
fn run<'a>(removal: &mut Removal<'_>, machines: Vec<Machine<'a>>) -> Result<(Vec<Machine<'a>>, u64), ReplayError> {
    let (job, world) = (removal.job, removal.world);
    let threads = (job.args.threads as usize).min(machines.len());
    let gate = Gate::default();
    let mut hands: Vec<Vec<Machine<'a>>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, machine) in machines.into_iter().enumerate() {
        hands[index % threads].push(machine);
    }
    let total = job.scan.records * u64::from(job.args.vms);
    let finished = AtomicU64::new(0);
    // Machines that move are all on one thread.
    let mut removal = Some(removal).filter(|_| world.migrations.is_some());
    let outcome = std::thread::scope(|scope| {
        let started: Vec<_> = hands
            .iter_mut()
            .map(|hand| {
                let (gate, finished, mut removal) = (&gate, &finished, removal.take());
                scope.spawn(move || {
                    let outcome = drive(hand, gate, |machines| {
                        removal.as_mut().map_or(Ok(()), |removal| removal.move_those_due(machines))
                    });
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
    removal: Removal<'_>,
    machines: Vec<Machine<'_>>,
    switches: u64,
    elapsed: f64,
) -> Result<Report, ReplayError> {
    let Removal { job, world, physical, mut summary, .. } = removal;
    summary.vms = job.args.vms;
    summary.vm_switches = switches;
    summary.translations.records = job.scan.translations;
    // Before the machines are torn down.
    physical.count(&mut summary)?;
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
        machine.count();
        summary.nested_hwpts.live += machine.nested_live();
        let counted = machine.counted;
        summary.commands.total += counted.commands;
        summary.commands.local_stream += counted.local_stream;
        summary.doorbells += counted.doorbells;
        summary.syncs.guest += counted.syncs;
        for (fault, count) in counted.faults {
            *summary.guest_faults.entry(GuestFault(fault).name().to_owned()).or_default() += count;
        }
        summary.nested_hwpts.created += counted.nested_created;
        summary.nested_hwpts.reused += counted.nested_reused;
        summary.late_attaches += machine.late_attaches;
        if let Some(own) = &machine.own {
            let direct = summary.direct.get_or_insert_default();
            direct.syncs += own.syncs;
            direct.by_queue.resize(direct.by_queue.len().max(own.commands.len()), 0);
            direct.by_queue.iter_mut().zip(&own.commands).for_each(|(sum, count)| *sum += count);
        }
    }
    for (opcode, count) in (0..=u8::MAX).zip(&world.tally.opcodes) {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            let name = world.tally.codec.opcode_name(opcode)?.map_or_else(|| format!("{opcode:#04x}"), str::to_owned);
            summary.commands.by_opcode.insert(name, count);
        }
    }
    summary.latency_ns.p50 = latency.percentile(50);
    summary.latency_ns.p99 = latency.percentile(99);
    summary.elapsed_s = elapsed;
    summary.commands_per_second = summary.commands.total as f64 / elapsed.max(f64::EPSILON);
    mismatches.sort_by_key(|mismatch| (mismatch.record, mismatch.machine));
    mismatches.truncate(EXPLAINED);
    Ok(Report { summary, mismatches })
}
