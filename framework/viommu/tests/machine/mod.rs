//! A host with one software SMMUv3 under the direct backend, and guests with tables of their own.

#![allow(dead_code)] // each test program uses a part

use arm_smmuv3::ArmSmmuv3;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Batch, Host, Mapping, Objects, Owner, Position, Sink, SinkError, ViommuAlloc, Words};
use viommu::plugin::{Answer, Classes, EntryKey, KeyKind, ModelConfig, Register, Request};
use viommu::vm_memory::MmapRegion;
use viommu_plugin_host::Plugin;

/// Guest physical address of a guest's RAM, and its size.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 4 << 20;
/// The virtual address that a guest's tables translate to `RAM + RAM_BYTES / 2`.
pub(crate) const VIRTUAL: u64 = 0x2000_0000;
/// What that is in guest physical addresses.
pub(crate) const TARGET: u64 = RAM + RAM_BYTES / 2;

const IDR0: u64 = 0;
/// Both stages, AArch64 tables, coherent, ATS, 16-bit ASIDs, no stalls, two-level stream table; VMID16 as asked.
const IDR0_VALUE: u64 = 0x3 | 2 << 2 | 1 << 4 | 1 << 10 | 1 << 12 | 1 << 19 | 2 << 21 | 1 << 24 | 1 << 27;

pub(crate) struct Machine {
    pub(crate) plugin: Plugin,
    pub(crate) memory: Arc<PhysicalMemory>,
    pub(crate) model: Arc<ModelHardware>,
    pub(crate) direct: Arc<Direct>,
}

/// A guest with one device.
pub(crate) struct Guest {
    pub(crate) ioas: u32,
    pub(crate) parent: u32,
    pub(crate) viommu: ViommuAlloc,
    pub(crate) device: u32,
    pub(crate) vdevice: u32,
    pub(crate) stream: u32,
    /// Host physical address of its RAM.
    pub(crate) host: u64,
    pub(crate) owner: Owner,
}

/// Runs what never waits for anything but the hardware.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(ModelMode::Inline, ModelConfig::default(), DirectOptions::default())
    }

    /// Devices with caches of their own.
    pub(crate) fn with_caches() -> Self {
        Self::with(ModelMode::Inline, ModelConfig { atc: true, ..Default::default() }, DirectOptions::default())
    }

    /// VMIDs of 8 bits.
    pub(crate) fn with_few_tags() -> Self {
        let registers = [Register { offset: IDR0, value: IDR0_VALUE }];
        let config = ModelConfig { registers: &registers, ..Default::default() };
        Self::with(ModelMode::Inline, config, DirectOptions::default())
    }

    pub(crate) fn with(mode: ModelMode, config: ModelConfig<'_>, options: DirectOptions) -> Self {
        let plugin = Plugin::linked::<ArmSmmuv3>();
        let memory = PhysicalMemory::new();
        memory.add_dma(0x1_0000_0000, 256 << 20).expect("DMA memory");
        let model = ModelHardware::new(&plugin, memory.clone(), config, mode).expect("model");
        let options = DirectOptions { sync_limit: Duration::from_secs(20), ..options };
        let direct = Direct::new(&plugin, model.clone(), options).expect("driver");
        Self { plugin, memory, model, direct }
    }

    /// Guest `number`: RAM, tables in it, a device named 0 to it and not attached.
    pub(crate) fn guest(&self, number: u32) -> Guest {
        let host = 0x20_0000_0000 + u64::from(number) * 0x1000_0000;
        let ram = Arc::new(MmapRegion::new(RAM_BYTES as usize).expect("RAM"));
        self.memory.add_region(host, ram).expect("free address");
        let ioas = now(self.direct.ioas_alloc()).expect("IOAS");
        // Two mappings, so that one can go without the tables of the guest.
        for half in [0, RAM_BYTES / 2] {
            now(self.direct.ioas_map(ioas, ram_mapping(host, half))).expect("map");
        }
        let parent = now(self.direct.nest_parent_alloc(ioas)).expect("nesting parent");
        let viommu = now(self.direct.viommu_alloc(parent)).expect("vIOMMU");
        let stream = 0x100 * (number + 1);
        let device = now(self.direct.device_bind(stream)).expect("device");
        let vdevice = now(self.direct.vdevice_alloc(viommu.id, device, 0)).expect("vdevice");
        let guest = Guest { ioas, parent, viommu, device, vdevice, stream, host, owner: Owner(number + 1) };
        guest.write_tables(&self.memory);
        guest
    }

    /// The key of the guest's stream table entry: translate by the guest's tables, ATS on.
    pub(crate) fn translate_key(&self) -> EntryKey {
        let codec = self.plugin.codec(self.direct.guest_registers()).expect("codec");
        let ste = [1 | 5 << 1 | RAM, 1 << 28, 0, 0, 0, 0, 0, 0];
        let key = codec.entry_key(&ste).expect("key");
        assert_eq!(key.kind, KeyKind::TRANSLATE);
        key
    }

    /// Attaches the guest's device to a new nested HWPT over its tables.
    pub(crate) fn translate(&self, guest: &Guest) -> u32 {
        let hwpt = now(self.direct.nested_hwpt_alloc(guest.viommu.id, &self.translate_key())).expect("nested HWPT").id;
        now(self.direct.attach(guest.device, hwpt)).expect("attach");
        hwpt
    }

    /// A read by the guest's device.
    pub(crate) fn dma(&self, guest: &Guest, iova: u64) -> Answer {
        self.dma_of(guest.stream, iova)
    }

    /// A read by the device with this stream.
    pub(crate) fn dma_of(&self, stream: u32, iova: u64) -> Answer {
        let request = Request { stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        let mut answer = [Answer::default()];
        assert_eq!(self.model.translate(&[request], &mut answer), Ok(1));
        println!("{}", self.model.explain(&request));
        answer[0]
    }

    /// Puts commands of the guest on the ring, with a SYNC.
    pub(crate) fn put(&self, guest: &Guest, words: &[u64], classes: Classes) -> Result<Position, SinkError> {
        let sink = self.direct.ring();
        sink.submit(Batch { owner: guest.owner, words: Words::<Host>::injected(words), classes, sync: true })
    }

    pub(crate) fn wait(&self, guest: &Guest, position: Position) -> Result<(), SinkError> {
        self.direct.ring().wait(guest.owner, position)
    }

    pub(crate) fn put_and_wait(&self, guest: &Guest, words: &[u64], classes: Classes) -> Result<(), SinkError> {
        self.wait(guest, self.put(guest, words, classes)?)
    }
}

/// Half of a guest's RAM.
pub(crate) fn ram_mapping(host: u64, half: u64) -> Mapping {
    Mapping { iova: RAM + half, length: RAM_BYTES / 2, backing: Backing::Physical(host + half), writable: true }
}

impl Guest {
    /// A context descriptor, and two levels of tables with one block of 2 MiB.
    fn write_tables(&self, memory: &PhysicalMemory) {
        let (cd, level1, level2) = (0, 0x1000, 0x2000);
        // T0SZ 25 (39 bits), 4 KiB granule, EPD1, valid, IPS 40 bits, AArch64, R, A, ASID 1.
        let word0 = 25 | 1 << 30 | 1 << 31 | 2 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 48;
        let word = |at: u64, value| memory.store(self.host + at, value).expect("RAM");
        word(cd, word0);
        word(cd + 8, RAM + level1);
        word(level1, (RAM + level2) | 3);
        // Access flag set, inner shareable, read and write for devices, which are not privileged.
        word(level2 + (VIRTUAL >> 21) * 8, TARGET | 1 << 10 | 3 << 8 | 1 << 6 | 1);
    }
}

/// Words of physical commands.
pub(crate) mod command {
    /// TLBI_NH_ALL of a VMID.
    pub(crate) fn nh_all(tag: u32) -> [u64; 2] {
        [0x10 | u64::from(tag) << 32, 0]
    }
    /// ATC_INV of everything a stream's device holds.
    pub(crate) fn atc_all(stream: u32) -> [u64; 2] {
        [0x40 | u64::from(stream) << 32, 52]
    }
    /// No command.
    pub(crate) const ILLEGAL: [u64; 2] = [0xff, 0];
}
