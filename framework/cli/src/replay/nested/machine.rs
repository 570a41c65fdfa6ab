//! One recorded guest as a virtual machine: its memory, its vIOMMU, and its turns.

use super::before::Before;
use super::expect::{self, DOORBELL_BYTES, Placement, Verdict};
use super::migrate::Schedule;
use super::own_queues::{self, OwnQueues};
use super::physical::Physical;
use super::schedule::Turns;
use super::watch::Written;
use crate::replay::args::Injection;
use crate::replay::compare::Shown;
use crate::replay::latency::Histogram;
use crate::replay::report::{EXPLAINED, Mismatch, Translations};
use crate::replay::{Job, ReplayError, registers};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use viommu::Cause;
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, NestParent, Vdevice, Viommu};
use viommu::objects::{RestoreConfig, ViommuConfig};
use viommu::pipeline::{CommandTap, NoInterrupts};
use viommu::save::SavedViommu;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use viommu_plugin::{Answer, Register, TranslationMode};
use viommu_plugin_host::Codec;
use viommu_trace::{Header, Record, Role, Trace, Translation, Vendor};

/// What all machines of a replay share, wherever they are.
pub(super) struct World {
    pub(super) shown: Vec<Register>,
    /// How the guests are served.
    pub(super) mode: TranslationMode,
    pub(super) inject: Option<Injection>,
    /// How long a guest waits for its queue.
    pub(super) limit: Duration,
    pub(super) tally: Arc<Tally>,
    /// Records that all machines have behind them.
    pub(super) passed: AtomicU64,
    /// When the machines move to another host.
    pub(super) migrations: Option<Schedule>,
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

/// What a machine has on the host it is on.
struct Seat {
    physical: Arc<Physical>,
    placement: Placement,
    viommu: Viommu,
    streams: Streams,
    devices: FxHashMap<u32, (Vdevice, Device)>,
}

/// What a machine's vIOMMUs counted, one after the other.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) commands: u64,
    pub(super) local_stream: u64,
    pub(super) doorbells: u64,
    pub(super) syncs: u64,
    pub(super) faults: BTreeMap<u32, u64>,
    pub(super) nested_created: u64,
    pub(super) nested_reused: u64,
}

/// One machine.
pub(super) struct Machine<'a> {
    world: &'a World,
    index: u32,
    vendor: Vendor,
    header: Header,
    /// Away only while a turn runs: a record borrows its reader.
    trace: Option<Trace>,
    ram: Arc<MmapRegion>,
    memory: Arc<GuestMemoryMmap>,
    /// Away only between two hosts.
    seat: Option<Seat>,
    /// Whether it moves before its guest's next access.
    pub(super) is_due: bool,
    records: u64,
    pub(super) counted: Counted,
    pub(super) counts: Translations,
    /// Tables written since the last record that was none.
    written: Written,
    /// What is broken in the guest's own queue.
    before: Option<Before>,
    pub(super) late_attaches: u64,
    /// If it has command queues of its own.
    pub(super) own: Option<OwnQueues>,
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
        (ram, memory): (Arc<MmapRegion>, Arc<GuestMemoryMmap>),
        job: &Job<'_>,
        physical: &Arc<Physical>,
    ) -> Result<Self, ReplayError> {
        let header = trace.header().clone();
        let trace_vendor = header.vendor;
        let mut machine = Self {
            world,
            index,
            vendor: header.vendor,
            header,
            trace: Some(trace),
            ram,
            memory,
            seat: None,
            is_due: false,
            records: 0,
            counted: Counted::default(),
            counts: Translations::default(),
            written: Written::default(),
            before: Before::new(world, job, trace_vendor)?,
            late_attaches: 0,
            own: None,
            register_mismatches: 0,
            latency: Histogram::default(),
            mismatches: Vec::new(),
        };
        let (parent, placement) = machine.parent(job, physical)?;
        let viommu = parent.viommu(ViommuConfig {
            registers: world.shown.clone(),
            memory: machine.memory.clone(),
            interrupts: Arc::new(NoInterrupts),
            frontend: true,
            tap: Some(world.tally.clone()),
        })?;
        let streams = physical.streams(index, job, &machine.header);
        machine.sit_down(physical, placement, viommu, streams, FxHashMap::default());
        if let Some(vcpus) = job.args.vcpus {
            let facts = (&*world.shown, index, vcpus, world.limit);
            machine.own = Some(OwnQueues::new(job, facts, machine.viommu())?);
        }
        for device in machine.header.devices.clone() {
            machine.bind(device.sid)?;
        }
        Ok(machine)
    }

    fn seat(&self) -> &Seat {
        self.seat.as_ref().expect("a machine between two hosts is asked for nothing")
    }

    /// The vIOMMU it has now.
    fn viommu(&self) -> &Viommu {
        &self.seat().viommu
    }

    /// Its memory on `physical`, with a stage 2 that leads there.
    fn parent(&self, job: &Job<'_>, physical: &Arc<Physical>) -> Result<(NestParent, Placement), ReplayError> {
        let placement = physical.place(job.args, self.index, &self.header, &self.ram)?;
        let ioas = physical.host.ioas()?;
        let (iova, length) = placement.ram;
        ioas.map(Mapping { iova, length, backing: Backing::Physical(placement.host_ram), writable: true })?;
        if let Some((iova, host)) = placement.doorbell {
            let backing = Backing::Physical(host);
            ioas.map(Mapping { iova, length: DOORBELL_BYTES, backing, writable: true })?;
        }
        if job.args.vcpus.is_some() {
            let host = own_queues::HOST_MEMORY + u64::from(self.index) * own_queues::BYTES;
            let region = self.memory.find_region(GuestAddress(own_queues::MEMORY));
            physical.memory(host, region.map(GuestRegionMmap::get_mmap))?;
            let (iova, length, backing) = (own_queues::MEMORY, own_queues::BYTES, Backing::Physical(host));
            ioas.map(Mapping { iova, length, backing, writable: true })?;
        }
        Ok((ioas.nest_parent()?, placement))
    }

    fn sit_down(
        &mut self,
        physical: &Arc<Physical>,
        placement: Placement,
        viommu: Viommu,
        streams: Streams,
        devices: FxHashMap<u32, (Vdevice, Device)>,
    ) {
        let pipeline = viommu.pipeline();
        physical.roster.enter(pipeline.owner(), pipeline.tag());
        self.seat = Some(Seat { physical: physical.clone(), placement, viommu, streams, devices });
    }

    /// Whether it is the first of all.
    pub(super) fn is_first(&self) -> bool {
        self.index == 0
    }

    /// What its IOMMU takes along.
    pub(super) fn save(&self) -> Result<SavedViommu, ReplayError> {
        Ok(self.viommu().save()?)
    }

    /// Gives back everything it has on the host it is on.
    pub(super) fn leave(&mut self) {
        self.count();
        self.seat = None;
    }

    /// Takes its place on another host, as it was saved, and waits for what it asked for on the old one.
    pub(super) fn arrive(
        &mut self,
        job: &Job<'_>,
        physical: &Arc<Physical>,
        saved: &SavedViommu,
    ) -> Result<(), ReplayError> {
        let (parent, placement) = self.parent(job, physical)?;
        let streams = physical.streams(self.index, job, &self.header);
        let mut bound = BTreeMap::new();
        for vdevice in &saved.vdevices {
            let host_stream = streams.bound.get(&vdevice.virt_id).copied().unwrap_or(vdevice.virt_id);
            bound.insert(vdevice.virt_id, physical.host.device(host_stream)?);
        }
        let handles = bound.iter().map(|(virt_id, device)| (*virt_id, device.handle().clone())).collect();
        let config =
            RestoreConfig { tap: Some(self.world.tally.clone()), ..RestoreConfig::new(self.memory.clone(), handles) };
        let restored = parent.restore_viommu(config, saved)?;
        let named = restored.vdevices.into_iter().zip(bound);
        let devices = named.map(|(vdevice, (virt_id, device))| (virt_id, (vdevice, device))).collect();
        self.sit_down(physical, placement, restored.viommu, streams, devices);
        self.is_due = false;
        self.settle(self.records)
    }

    /// Adds what the vIOMMU it has now has counted.
    pub(super) fn count(&mut self) {
        let pipeline = self.viommu().pipeline().clone();
        let (counters, nested) = (pipeline.counters(), self.viommu().counters());
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = &mut self.counted;
        sum.commands += get(&counters.commands);
        sum.local_stream += get(&counters.local_stream);
        sum.doorbells += get(&counters.doorbells);
        sum.syncs += get(&counters.syncs);
        for (fault, count) in (0..).zip(&counters.faults).filter(|(_, count)| get(count) > 0) {
            *sum.faults.entry(fault).or_default() += get(count);
        }
        sum.nested_created += nested.created;
        sum.nested_reused += nested.reused;
    }

    /// Nested HWPTs alive.
    pub(super) fn nested_live(&self) -> u64 {
        self.viommu().counters().live
    }

    /// Gives the guest's stream a device, if it has none. The device does from then on what the guest's entry says.
    fn bind(&mut self, stream: u32) -> Result<(), ReplayError> {
        let seat = self.seat.as_mut().expect("as in `seat`");
        if seat.devices.contains_key(&stream) {
            return Ok(());
        }
        let host_stream = seat.streams.bound.get(&stream).copied().unwrap_or(stream);
        let device = seat.physical.host.device(host_stream)?;
        let vdevice = seat.viommu.vdevice(&device, stream)?;
        seat.devices.insert(stream, (vdevice, device));
        Ok(())
    }

    /// One record; whether it was a doorbell.
    fn record(&mut self, number: u64, record: &Record<'_>) -> Result<bool, ReplayError> {
        if !matches!(record, Record::Mem { .. }) && !self.written.is_empty() {
            let written = std::mem::take(&mut self.written);
            if self.world.inject != Some(Injection::Unwatched) {
                self.late_attaches += unless_quarantined(written.deliver(self.viommu()))?;
            }
        }
        match *record {
            Record::Mem { role, gpa, bytes } => {
                if role == Role::STREAM_TABLE || role == Role::CONTEXT {
                    self.distrust_tables();
                    self.written.note(gpa, bytes.len() as u64);
                }
                let kept = self.memory.write_slice(bytes, GuestAddress(gpa)).is_ok();
                if !kept {
                    tracing::warn!(record = number, gpa = format_args!("{gpa:#x}"), "memory outside RAM, ignored");
                }
            }
            Record::MmioWrite { offset, value, size } => return self.write(number, offset, size.into(), value),
            Record::MmioRead { offset, value, size } if registers::is_compared(self.vendor, offset) => {
                let got = self.viommu().mmio_read(offset, size.into())?;
                if got != value {
                    self.register_mismatches += 1;
                    let offset = format_args!("{offset:#x}");
                    tracing::warn!(record = number, offset, expected = value, got, "register read mismatched");
                }
            }
            Record::Translation(recorded) => self.translate(number, &recorded)?,
            Record::Reset => {
                self.distrust_tables();
                if let Some(before) = &mut self.before {
                    before.reset()?;
                }
                unless_quarantined(self.viommu().reset())?;
                if let Some(own) = &mut self.own {
                    own.reset()?;
                }
            }
            _ => {}
        }
        Ok(false)
    }

    /// The guest's configuration changes. A recording looks into translation tables before a translation and with
    /// TLB invalidations, not when a configuration names new ones: what was recorded of their memory may be from the
    /// time when it was another table, and cleared since. Hardware that speculates must not read it.
    fn distrust_tables(&self) {
        let seat = self.seat();
        seat.physical.hardware.spare_tables(|stream| seat.streams.dma.values().any(|own| *own == stream));
    }

    /// A guest that rang its doorbell waits until its SYNCs are complete, or its queue stopped. Nothing else is waited
    /// for.
    fn write(&mut self, record: u64, offset: u64, size: u32, value: u64) -> Result<bool, ReplayError> {
        let pipeline = self.viommu().pipeline().clone();
        let doorbells = || pipeline.counters().doorbells.load(Ordering::Relaxed);
        let before = doorbells();
        if let Some(before) = &mut self.before {
            before.hide(offset, size, value, &self.memory)?;
        }
        let start = Instant::now();
        self.guest_writes(offset, size, value)?;
        // A machine that moves now moves with its queue as it is, and waits on its new host.
        self.is_due = doorbells() != before && self.world.migrations.as_ref().is_some_and(Schedule::is_time);
        if self.is_due {
            return Ok(true);
        }
        self.settle(record)?;
        if let Some(before) = &mut self.before {
            before.restore(&self.memory)?;
        }
        let doorbell = doorbells() != before;
        if doorbell {
            self.latency.record(start.elapsed());
        }
        Ok(doorbell)
    }

    fn guest_writes(&mut self, offset: u64, size: u32, value: u64) -> Result<(), ReplayError> {
        let Some(mut own) = self.own.take() else {
            return Ok(unless_quarantined(self.viommu().mmio_write(offset, size, value))?);
        };
        let seat = self.seat();
        let has_device = |stream| seat.devices.contains_key(&stream);
        let written = own.write((&seat.viommu, &self.memory), has_device, (offset, size, value));
        self.own = Some(own);
        written
    }

    /// Waits until the guest's queue has come to rest.
    fn settle(&self, record: u64) -> Result<(), ReplayError> {
        let settled = self.viommu().pipeline().wait_settled(self.world.limit);
        let stuck = ReplayError::Stuck { record, machine: self.index, limit: self.world.limit };
        if settled { Ok(()) } else { Err(stuck) }
    }

    fn translate(&mut self, record: u64, recorded: &Translation) -> Result<(), ReplayError> {
        self.bind(recorded.stream)?;
        let seat = self.seat();
        let (hardware, placement) = (seat.physical.hardware.clone(), seat.placement);
        let stream = seat.streams.dma.get(&recorded.stream).copied().unwrap_or(recorded.stream);
        let request = expect::request(recorded, stream);
        let mut answers = [Answer::default()];
        hardware.tick();
        hardware.translate(&[request], &mut answers)?;
        self.counts.checked += 1;
        let refused = registers::refused(self.vendor, self.world.mode, recorded.fault);
        let recorded = &expect::refused_as(recorded, refused);
        match expect::judge(recorded, &placement, self.world.mode, &answers[0]) {
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
                        expected: expect::expected(recorded, &placement),
                        got: Shown(&answers[0]).to_string(),
                        walk: hardware.explain(&request),
                    });
                }
            }
        }
        Ok(())
    }
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

/// A guest hears nothing of its IOMMU's being put out of service: it goes on writing, and the replay with it.
pub(super) fn unless_quarantined<T: Default>(written: Result<T, viommu::Error>) -> Result<T, viommu::Error> {
    match written {
        Err(error) if matches!(error.cause, Cause::Quarantined(_)) => Ok(T::default()),
        other => other,
    }
}
