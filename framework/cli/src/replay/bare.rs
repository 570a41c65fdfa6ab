//! A recorded guest on the software IOMMU itself: no framework, no stage 2.

use super::commands::{GuestCommands, waiting};
use super::compare::{self, Expectation, Shown};
use super::drop::Dropper;
use super::image::{Image, ModelMemory};
use super::latency::Histogram;
use super::progress::Progress;
use super::registers;
use super::report::{EXPLAINED, Mismatch, Mode, Report, Summary};
use super::{Job, ReplayError};
use std::time::Instant;
use viommu_plugin::{Answer, Classes, GuestQueue, HostIds, Message, ModelConfig, Register, Stop};
use viommu_plugin_host::{CallError, Model, Plugin};
use viommu_trace::{Record, Trace, Translation, Vendor};

/// Commands a model executes in one call.
const STEP: u32 = 4096;
/// More commands than any queue holds twice: a model that consumes so many after one register write never ends.
const ENDLESS: u64 = 1 << 21;
/// Words that a tally's rewrite may write.
const REWRITTEN_WORDS: usize = 8;

/// Replays `job`'s trace bare.
///
/// # Errors
/// [`ReplayError`] if the plugin fails, or the file has changed since it was scanned.
pub(crate) fn replay(job: &Job<'_>) -> Result<Report, ReplayError> {
    let mut trace = Trace::open(job.path)?;
    let header = trace.header().clone();
    let shown = registers::shown(&header, &job.scan, &job.plugin);
    let memory = ModelMemory::new(Image::new(&header));
    let dropper = match job.args.inject {
        Some(injection) => Some(Dropper::new(header.vendor, injection).ok_or(ReplayError::Injection(header.vendor))?),
        None => None,
    };
    let config = ModelConfig { registers: &shown, atc: job.args.atc, tlb_capacity: 0 };
    let mut bare = Bare {
        vendor: header.vendor,
        model: job.plugin.model(Box::new(memory.clone()), config)?,
        tally: Tally::new(&job.plugin, &shown)?,
        dropper,
        memory,
        latency: Histogram::default(),
        report: Report { summary: Summary::new(job.path, header.vendor, Mode::Bare), mismatches: Vec::new() },
    };
    let progress = Progress::new(job.path, job.scan.records);
    let start = Instant::now();
    while let Some(entry) = trace.next()? {
        progress.at(entry.number);
        bare.record(entry.number, &entry.record)?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let Bare { model, tally, latency, mut report, .. } = bare;
    tally.finish(&mut report.summary)?;
    let stats = model.stats()?;
    let summary = &mut report.summary;
    summary.translations.records = job.scan.translations;
    summary.tlb.hits = stats.hits;
    summary.tlb.misses = stats.misses;
    summary.tlb.evictions = stats.evictions;
    summary.tlb.s2_hits = stats.stage2_hits;
    summary.latency_ns.p50 = latency.percentile(50);
    summary.latency_ns.p99 = latency.percentile(99);
    summary.elapsed_s = elapsed;
    summary.commands_per_second = summary.commands.total as f64 / elapsed.max(f64::EPSILON);
    Ok(report)
}

struct Bare {
    vendor: Vendor,
    model: Model,
    tally: Tally,
    dropper: Option<Dropper>,
    memory: ModelMemory,
    latency: Histogram,
    report: Report,
}

impl Bare {
    fn record(&mut self, number: u64, record: &Record<'_>) -> Result<(), ReplayError> {
        match *record {
            Record::Mem { gpa, bytes, .. } => {
                let kept = self.memory.image().put(gpa, bytes);
                if !kept {
                    tracing::warn!(record = number, gpa = format_args!("{gpa:#x}"), "memory outside RAM, ignored");
                }
            }
            Record::MmioWrite { offset, value, size } => self.write(number, offset, size.into(), value)?,
            Record::MmioRead { offset, value, size } if registers::is_compared(self.vendor, offset) => {
                let got = self.model.mmio_read(offset, size.into())?;
                if got != value {
                    self.report.summary.register_mismatches += 1;
                    let offset = format_args!("{offset:#x}");
                    tracing::warn!(record = number, offset, expected = value, got, "register read mismatched");
                }
            }
            Record::Translation(recorded) => self.translate(number, &recorded)?,
            Record::Reset => {
                self.model.reset()?;
                self.tally.guest.frontend.reset()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, record: u64, offset: u64, size: u32, value: u64) -> Result<(), ReplayError> {
        let queue = self.tally.write(offset, size, value)?;
        if let Some(dropper) = &mut self.dropper {
            let (read, memory) = (self.memory.clone(), self.memory.clone());
            dropper.hide(
                &queue,
                &self.tally.guest.codec,
                |gpa, bytes| read.image().get(gpa, bytes).is_ok(),
                |gpa, bytes| _ = memory.image().put(gpa, bytes),
            )?;
        }
        let start = Instant::now();
        self.model.mmio_write(offset, size, value)?;
        let mut commands = 0;
        loop {
            match self.model.step(STEP)? {
                0 => break,
                consumed => commands += u64::from(consumed),
            }
            if commands > ENDLESS {
                return Err(ReplayError::Endless { record, commands });
            }
        }
        if queue.pending > 0 {
            self.latency.record(start.elapsed());
        }
        if let Some(dropper) = &mut self.dropper {
            dropper.restore(|gpa, bytes| _ = self.memory.image().put(gpa, bytes));
        }
        Ok(self.tally.consumed(&queue, commands, &self.memory)?)
    }

    fn translate(&mut self, record: u64, recorded: &Translation) -> Result<(), ReplayError> {
        let request = compare::request(recorded);
        let mut answers = [Answer::default()];
        let translations = &mut self.report.summary.translations;
        translations.checked += 1;
        self.model.translate(&[request], &mut answers)?;
        let expected = Expectation::of(recorded);
        if expected.is_met_by(&answers[0]) {
            translations.matched += 1;
            return Ok(());
        }
        translations.mismatched += 1;
        if self.report.mismatches.len() < EXPLAINED {
            let unknown = self.memory.image().take_unknown_read();
            let mut walk = Message::default();
            self.model.explain(&request, &mut walk)?;
            let mut walk = walk.text();
            if let Some(address) = unknown {
                walk += &format!("\n(last read of memory that the recording never shows: {address:#x})");
            }
            self.report.mismatches.push(Mismatch {
                record,
                machine: 0,
                stream: recorded.stream,
                iova: recorded.iova,
                expected: expected.to_string(),
                got: Shown(&answers[0]).to_string(),
                walk,
            });
        }
        Ok(())
    }
}

/// Counts the commands that a guest sends, beside the model that executes them.
struct Tally {
    guest: GuestCommands,
    opcodes: [u64; 256],
    commands: u64,
    syncs: u64,
    doorbells: u64,
}

impl Tally {
    fn new(plugin: &Plugin, shown: &[Register]) -> Result<Self, CallError> {
        let guest = GuestCommands::new(plugin, shown)?;
        Ok(Self { guest, opcodes: [0; 256], commands: 0, syncs: 0, doorbells: 0 })
    }

    /// Sees a register write; the guest's queue after it.
    fn write(&mut self, offset: u64, size: u32, value: u64) -> Result<GuestQueue, CallError> {
        let queue = self.guest.write(offset, size, value)?;
        self.doorbells += u64::from(queue.pending > 0);
        Ok(queue)
    }

    /// The model consumed `commands` commands from the head of `queue`.
    fn consumed(&mut self, queue: &GuestQueue, commands: u64, memory: &ModelMemory) -> Result<(), CallError> {
        let fetched = u64::from(queue.pending).min(commands) as u32;
        for command in waiting(queue, fetched, memory.image().reader()) {
            self.command(command.words())?;
        }
        self.commands += commands;
        self.guest.frontend.advance(fetched)
    }

    fn command(&mut self, command: &[u64]) -> Result<(), CallError> {
        self.opcodes[usize::from(self.guest.codec.opcode(command)?)] += 1;
        let nobody = HostIds { tag: 0, streams: &[], domains: &[] };
        let rewritten = self.guest.codec.rewrite(command, Classes::NONE, nobody, &mut [0; REWRITTEN_WORDS])?;
        self.syncs += u64::from(rewritten.stop == Stop::SYNC);
        Ok(())
    }

    fn finish(&self, summary: &mut Summary) -> Result<(), CallError> {
        for (opcode, &count) in (0..=u8::MAX).zip(&self.opcodes).filter(|(_, count)| **count > 0) {
            summary.commands.by_opcode.insert(self.guest.opcode_name(opcode)?, count);
        }
        let unread = self.commands - self.opcodes.iter().sum::<u64>();
        if unread > 0 {
            summary.commands.by_opcode.insert("unknown".into(), unread);
        }
        summary.commands.total = self.commands;
        summary.syncs.guest = self.syncs;
        summary.syncs.hardware = self.syncs;
        summary.doorbells = self.doorbells;
        Ok(())
    }
}
