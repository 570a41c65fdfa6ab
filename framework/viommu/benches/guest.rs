//! A guest with a command queue in its memory, over a device that needs no time.

use arm_smmuv3::ArmSmmuv3;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use viommu::backend::direct::{
    Direct, DirectOptions, Hardware, InterruptHandler, ModelHardware, ModelMode, PhysicalMemory,
};
use viommu::backend::{Objects, Owner};
use viommu::pipeline::{GuestIds, NoInterrupts, Pipeline, PipelineParts, Shard, ShardMode, ShardParts};
use viommu::plugin::{ModelConfig, NO_STREAM, RingGeometry};
use viommu::seams::{MonotonicClock, OsThreads};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_plugin_host::Plugin;
use viommu_trace::{Record, Role, Trace};

/// Guest physical address of the command queue.
const QUEUE: u64 = 0x4000_0000;
/// log2 of its size in commands: small enough to stay in the cache, as commands do that a guest has just written (the
/// floor reads its words from there too); or large enough for every doorbell of a recording.
const REPEATING_LOG2: u32 = 12;
const RECORDED_LOG2: u32 = 19;
/// SMMU_CR0, SMMU_CMDQ_BASE, SMMU_CMDQ_PROD (IHI 0070, 6.3).
const CR0: u64 = 0x20;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CR0_CMDQEN: u64 = 8;
/// CMD_TLBI_NH_VA of ASID 1, leaf; CMD_SYNC with CS = SEV.
const TLBI: [u64; 2] = [0x12 | 1 << 48, 0x1234_5000 | 1];
const SYNC: [u64; 2] = [0x46 | 2 << 12, 0];

/// The model until the driver is up; then a queue whose consumer is always where the producer is.
struct NoTime {
    model: Arc<ModelHardware>,
    memory: Arc<PhysicalMemory>,
    ring: OnceLock<RingGeometry>,
    index: AtomicU32,
}

impl Hardware for NoTime {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        match self.ring.get() {
            Some(ring) if offset == ring.consumer => self.index.load(Ordering::Relaxed).into(),
            _ => self.model.mmio_read(offset, size),
        }
    }
    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        match self.ring.get() {
            Some(ring) if offset == ring.producer => self.index.store(value as u32, Ordering::Relaxed),
            _ => self.model.mmio_write(offset, size, value),
        }
    }
    fn memory(&self) -> &PhysicalMemory {
        &self.memory
    }
    fn relax(&self) {}
    fn on_interrupt(&self, handler: InterruptHandler) {
        self.model.on_interrupt(handler);
    }
    fn ring_ready(&self, ring: &RingGeometry) {
        self.index.store(self.model.mmio_read(ring.consumer, 4) as u32, Ordering::Relaxed);
        let _ = self.ring.set(*ring);
    }
}

/// A guest whose queue is full of work; only the doorbell is missing.
pub(crate) struct Guest {
    pipeline: Arc<Pipeline>,
    memory: Arc<GuestMemoryMmap>,
    queue_log2: u32,
    batch: usize,
    producer: u32,
    /// Producer index after each recorded doorbell.
    stops: Vec<u32>,
}

impl Guest {
    fn new(queue_log2: u32) -> Self {
        let plugin = Plugin::linked::<ArmSmmuv3>();
        let physical = PhysicalMemory::new();
        physical.add_dma(0x1_0000_0000, 1 << 30).expect("mmap");
        let model =
            ModelHardware::new(&plugin, physical.clone(), ModelConfig::default(), ModelMode::Inline).expect("model");
        let hardware = NoTime { model, memory: physical, ring: OnceLock::new(), index: AtomicU32::new(0) };
        let backend = Direct::new(&plugin, Arc::new(hardware), DirectOptions::default()).expect("driver");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let (viommu, sink) = runtime.block_on(async {
            let ioas = backend.ioas_alloc().await.expect("IOAS");
            let parent = backend.nest_parent_alloc(ioas).await.expect("nesting parent");
            let viommu = backend.viommu_alloc(parent).await.expect("vIOMMU");
            (viommu, backend.sink(viommu.id).expect("sink"))
        });
        let shard = Shard::new(ShardParts {
            number: Some(0),
            sink,
            vendor: "bench",
            mode: ShardMode::Direct,
            sync_limit: Duration::from_secs(1),
            clock: Arc::new(MonotonicClock::default()),
            threads: &OsThreads,
        });
        let shard = shard.expect("thread");
        let size = 16usize << queue_log2;
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(QUEUE), size)]).expect("mmap"));
        let pipeline = Pipeline::new(PipelineParts {
            owner: Owner(1),
            tag: viommu.tag,
            plugin: plugin.info().clone(),
            frontend: Some(plugin.frontend(&[]).expect("frontend")),
            codec: plugin.codec(&[]).expect("codec"),
            memory: memory.clone(),
            shard,
            backend,
            page: None,
            interrupts: Arc::new(NoInterrupts),
            on_configuration: Box::new(|request| panic!("no configuration here: {request:?}")),
            tap: None,
        });
        let mut streams = vec![NO_STREAM; 0x400];
        (0u32..).zip(&mut streams).for_each(|(virt_id, stream)| *stream = 0x400 + virt_id);
        pipeline.publish(GuestIds { streams, domains: Vec::new() });
        let write = |offset, size, value| pipeline.mmio_write(offset, size, value).expect("register write");
        write(CMDQ_BASE, 8, QUEUE | u64::from(queue_log2));
        write(CR0, 4, CR0_CMDQEN);
        Self { pipeline, memory, queue_log2, batch: 0, producer: 0, stops: Vec::new() }
    }

    /// A guest that sends `batch - 1` equal TLBIs and a SYNC, again and again.
    pub(crate) fn repeating(batch: usize) -> Self {
        let mut guest = Self::new(REPEATING_LOG2);
        guest.batch = batch;
        let words = guest.batch_words();
        for index in 0..(1usize << REPEATING_LOG2) / batch {
            guest.fill(index * batch, &words);
        }
        guest
    }

    /// A guest that sends what a recorded one sent, doorbell by doorbell.
    pub(crate) fn recorded(doorbells: &[Vec<u64>]) -> Self {
        let mut guest = Self::new(RECORDED_LOG2);
        let mut at = 0;
        for words in doorbells {
            guest.fill(at, words);
            at += words.len() / 2;
            guest.stops.push(at as u32);
        }
        assert!(at < 1 << RECORDED_LOG2, "the recording does not fit the queue");
        guest
    }

    fn fill(&self, index: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write_slice(&bytes, GuestAddress(QUEUE + 16 * index as u64)).expect("queue memory");
    }

    /// The words of one batch.
    pub(crate) fn batch_words(&self) -> Vec<u64> {
        let mut words = TLBI.repeat(self.batch - 1);
        words.extend(SYNC);
        words
    }

    /// One doorbell for one batch.
    pub(crate) fn ring_doorbell(&mut self) {
        self.producer = (self.producer + self.batch as u32) & ((2 << self.queue_log2) - 1);
        self.pipeline.mmio_write(CMDQ_PROD, 4, self.producer.into()).expect("doorbell");
    }

    /// All recorded doorbells once; ns a doorbell.
    pub(crate) fn ring_recorded(&mut self) -> f64 {
        // The queue starts again at index 0, as after a reset of the queue by the guest.
        self.pipeline.mmio_write(CR0, 4, 0).expect("register write");
        self.pipeline.mmio_write(CMDQ_PROD, 4, 0).expect("register write");
        self.pipeline.mmio_write(0x9c, 4, 0).expect("register write");
        self.pipeline.mmio_write(CR0, 4, CR0_CMDQEN).expect("register write");
        let start = Instant::now();
        for &stop in &self.stops {
            self.pipeline.mmio_write(CMDQ_PROD, 4, stop.into()).expect("doorbell");
        }
        start.elapsed().as_nanos() as f64 / self.stops.len() as f64
    }
}

/// The commands of each doorbell of a recorded guest, without those that change table entries: they leave the data path.
pub(crate) fn recorded_doorbells() -> Vec<Vec<u64>> {
    const CONFIGURATION: [u64; 2] = [0x03, 0x04];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/arm73-strict-blk.gtrace.zst");
    let mut trace = Trace::open(path).expect("the recording is in the repo");
    let ram = trace.header().clone();
    let image =
        GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(ram.ram_base), ram.ram_size as usize)]).expect("mmap");
    let (mut base, mut consumed) = (0u64, 0u64);
    let mut doorbells = Vec::new();
    while let Some(entry) = trace.next().expect("whole recording") {
        match entry.record {
            Record::Mem { role: Role::QUEUE, gpa, bytes } => {
                image.write_slice(bytes, GuestAddress(gpa)).expect("queue memory");
            }
            Record::MmioWrite { offset: CMDQ_BASE, value, .. } => (base, consumed) = (value, 0),
            Record::MmioWrite { offset: CMDQ_PROD, value, .. } if base != 0 => {
                let log2 = base & 31;
                let mut words = Vec::new();
                while consumed != value {
                    let slot = consumed & ((1 << log2) - 1);
                    let mut bytes = [0; 16];
                    let address = (base & 0x000f_ffff_ffff_ffe0) + 16 * slot;
                    image.read_slice(&mut bytes, GuestAddress(address)).expect("queue memory");
                    let pair = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")));
                    if !CONFIGURATION.contains(&(pair[0] & 0xff)) {
                        words.extend(pair);
                    }
                    consumed = (consumed + 1) & ((2 << log2) - 1);
                }
                if !words.is_empty() {
                    doorbells.push(words);
                }
            }
            _ => {}
        }
    }
    doorbells
}
