//! One recorded guest as a virtual machine: its memory, its vIOMMU, and its turns.

use super::expect::{self, DOORBELL_BYTES, Placement, Verdict};
use super::schedule::Turns;
use crate::replay::compare::Shown;
use crate::replay::latency::Histogram;
use crate::replay::report::{EXPLAINED, Mismatch, Translations};
use crate::replay::{ReplayError, registers};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use viommu::backend::direct::ModelHardware;
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::{CommandTap, NoInterrupts};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_plugin::{Answer, Register};
use viommu_plugin_host::Codec;
use viommu_trace::{Header, Record, Trace, Translation, Vendor};

/// What all machines of a replay share.
pub(super) struct World {
    pub(super) host: Host,
    pub(super) hardware: Arc<ModelHardware>,
    pub(super) shown: Vec<Register>,
    /// How long a guest waits for its queue.
    pub(super) limit: Duration,
    pub(super) tally: Arc<Tally>,
    /// Records that all machines have behind them.
    pub(super) passed: AtomicU64,
}

/// Counts what guests send, by opcode.
pub(super) struct Tally {
    pub(super) codec: Codec,
    pub(super) command_words: usize,
    pub(super) opcodes: [AtomicU64; 256],
}

impl CommandTap for Tally {
    fn consumed(&self, words: &[u64]) {
        for command in words.chunks_exact(self.command_words) {
            // A codec that fails here fails in the rewrite of the same words, where it is reported.
            if let Ok(opcode) = self.codec.opcode(command) {
                self.opcodes[usize::from(opcode)].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Which host streams the guest's streams are.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    /// In DMA.
    pub(super) dma: FxHashMap<u32, u32>,
    /// In what the framework is told; differs only under `--inject swap-stream`.
    pub(super) bound: FxHashMap<u32, u32>,
}

/// One machine.
pub(super) struct Machine<'a> {
    world: &'a World,
    index: u32,
    vendor: Vendor,
    /// Away only while a turn runs: a record borrows its reader.
    trace: Option<Trace>,
    placement: Placement,
    memory: Arc<GuestMemoryMmap>,
    pub(super) viommu: Viommu,
    streams: Streams,
    devices: FxHashMap<u32, (Vdevice, Device)>,
    records: u64,
    pub(super) counts: Translations,
    pub(super) register_mismatches: u64,
    pub(super) latency: Histogram,
    pub(super) mismatches: Vec<Mismatch>,
}

impl<'a> Machine<'a> {
    /// Builds the machine's objects, with the header's devices bound.
    pub(super) fn new(
        world: &'a World,
        index: u32,
        trace: Trace,
        placement: Placement,
        memory: Arc<GuestMemoryMmap>,
        streams: Streams,
    ) -> Result<Self, ReplayError> {
        let header = trace.header().clone();
        let viommu = build(world, &header, &placement, &memory)?;
        let mut machine = Self {
            world,
            index,
            vendor: header.vendor,
            trace: Some(trace),
            placement,
            memory,
            viommu,
            streams,
            devices: FxHashMap::default(),
            records: 0,
            counts: Translations::default(),
            register_mismatches: 0,
            latency: Histogram::default(),
            mismatches: Vec::new(),
        };
        for device in &header.devices {
            machine.bind(device.sid)?;
        }
        Ok(machine)
    }

    /// Gives the guest's stream a device, if it has none. The device does from then on what the guest's entry says.
    fn bind(&mut self, stream: u32) -> Result<(), ReplayError> {
        if self.devices.contains_key(&stream) {
            return Ok(());
        }
        let host_stream = self.streams.bound.get(&stream).copied().unwrap_or(stream);
        let device = self.world.host.device(host_stream)?;
        let vdevice = self.viommu.vdevice(&device, stream)?;
        self.devices.insert(stream, (vdevice, device));
        Ok(())
    }

    /// One record; whether it was a doorbell.
    fn record(&mut self, number: u64, record: &Record<'_>) -> Result<bool, ReplayError> {
        match *record {
            Record::Mem { gpa, bytes, .. } => {
                let kept = self.memory.write_slice(bytes, GuestAddress(gpa)).is_ok();
                if !kept {
                    tracing::warn!(record = number, gpa = format_args!("{gpa:#x}"), "memory outside RAM, ignored");
                }
            }
            Record::MmioWrite { offset, value, size } => return self.write(number, offset, size.into(), value),
            Record::MmioRead { offset, value, size } if registers::is_compared(self.vendor, offset) => {
                let got = self.viommu.mmio_read(offset, size.into())?;
                if got != value {
                    self.register_mismatches += 1;
                    let offset = format_args!("{offset:#x}");
                    tracing::warn!(record = number, offset, expected = value, got, "register read mismatched");
                }
            }
            Record::Translation(recorded) => self.translate(number, &recorded)?,
            Record::Reset => self.viommu.reset()?,
            _ => {}
        }
        Ok(false)
    }

    /// A guest that rang its doorbell waits until its SYNCs are complete, or its queue stopped. Nothing else is waited
    /// for.
    fn write(&mut self, record: u64, offset: u64, size: u32, value: u64) -> Result<bool, ReplayError> {
        let counters = self.viommu.pipeline().clone();
        let counters = counters.counters();
        let before = counters.doorbells.load(Ordering::Relaxed);
        let start = Instant::now();
        self.viommu.mmio_write(offset, size, value)?;
        if !self.viommu.pipeline().wait_settled(self.world.limit) {
            return Err(ReplayError::Stuck { record, machine: self.index, limit: self.world.limit });
        }
        let doorbell = counters.doorbells.load(Ordering::Relaxed) != before;
        if doorbell {
            self.latency.record(start.elapsed());
        }
        Ok(doorbell)
    }

    fn translate(&mut self, record: u64, recorded: &Translation) -> Result<(), ReplayError> {
        self.bind(recorded.stream)?;
        let stream = self.streams.dma.get(&recorded.stream).copied().unwrap_or(recorded.stream);
        let request = expect::request(recorded, stream);
        let mut answers = [Answer::default()];
        self.world.hardware.tick();
        self.world.hardware.translate(&[request], &mut answers)?;
        self.counts.checked += 1;
        match expect::judge(recorded, &self.placement, &answers[0]) {
            Verdict::Matched => self.counts.matched += 1,
            Verdict::StageTwoFault => self.counts.stage2_faults += 1,
            Verdict::Mismatched => {
                self.counts.mismatched += 1;
                if self.mismatches.len() < EXPLAINED {
                    self.mismatches.push(Mismatch {
                        record,
                        machine: self.index,
                        stream: recorded.stream,
                        iova: recorded.iova,
                        expected: expect::expected(recorded, &self.placement),
                        got: Shown(&answers[0]).to_string(),
                        walk: self.world.hardware.explain(&request),
                    });
                }
            }
        }
        Ok(())
    }
}

fn build(
    world: &World,
    header: &Header,
    placement: &Placement,
    memory: &Arc<GuestMemoryMmap>,
) -> Result<Viommu, ReplayError> {
    let ioas = world.host.ioas()?;
    let (iova, length) = (header.ram_base, header.ram_size);
    ioas.map(Mapping { iova, length, backing: Backing::Physical(placement.host_ram), writable: true })?;
    if let Some((iova, host)) = placement.doorbell {
        let backing = Backing::Physical(host);
        ioas.map(Mapping { iova, length: DOORBELL_BYTES, backing, writable: true })?;
    }
    let parent = ioas.nest_parent()?;
    Ok(parent.viommu(ViommuConfig {
        registers: world.shown.clone(),
        memory: memory.clone(),
        interrupts: Arc::new(NoInterrupts),
        frontend: true,
        tap: Some(world.tally.clone()),
    })?)
}

impl Turns for Machine<'_> {
    type Error = ReplayError;

    fn index(&self) -> u32 {
        self.index
    }

    fn turn(&mut self) -> Result<(bool, u64), ReplayError> {
        let Some(mut trace) = self.trace.take() else { return Ok((false, self.records)) };
        while let Some(entry) = trace.next()? {
            self.records += 1;
            self.world.passed.fetch_add(1, Ordering::Relaxed);
            if self.record(entry.number, &entry.record)? {
                self.trace = Some(trace);
                return Ok((true, self.records));
            }
        }
        Ok((false, self.records))
    }
}
