//! A host whose SMMU is QEMU's, and guests with tables and queues in QEMU's memory.

use arm_smmuv3::ArmSmmuv3;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use viommu::backend::direct::{Direct, DirectOptions, Hardware};
use viommu::backend::{Backing, Mapping, Sink};
use viommu::blocking::{Device, Host, Ioas, Vdevice, Viommu};
use viommu::objects::ObjectState;
use viommu::objects::ViommuConfig;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_plugin_host::Plugin;
use viommu_qemu::{Got, Options, QemuError, QemuHardware};

/// A guest's RAM: its tables in the lower half, in the upper one words that name their host physical address.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 4 << 20;
pub(crate) const DATA: u64 = RAM + RAM_BYTES / 2;
/// Where the guest's tables map its first page of data.
pub(crate) const VIRTUAL: u64 = 0x1234_5000;
/// The guest's number for its device, the same in all guests.
pub(crate) const VIRT_ID: u32 = 5;
pub(crate) const ASID: u64 = 7;
/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const DMA: u64 = 0x1_0000_0000;
const GUESTS: u64 = 0x1_4000_0000;
const STREAM_TABLE: u64 = RAM;
const CONTEXT: u64 = RAM + 0x1000;
/// The first word of a legal one.
pub(crate) const CONTEXT_LOW: u64 =
    25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 30 | 1 << 31 | 2 << 32 | 7 << 45 | 1 << 41 | ASID << 48;
pub(crate) const LEVELS: [u64; 3] = [RAM + 0x2000, RAM + 0x3000, RAM + 0x4000];
const COMMANDS: u64 = RAM + 0x8000;
const COMMANDS_LOG2: u64 = 6;
const EVENTS: u64 = RAM + 0x9000;
const EVENTS_LOG2: u64 = 5;

/// In CMDQ_CONS: how far it is. Behind it is what the last error was.
pub(crate) const INDEX: u64 = 0xf_ffff;

pub(crate) mod at {
    pub(super) const CR0: u64 = 0x20;
    pub(crate) const GERROR: u64 = 0x60;
    pub(crate) const GERRORN: u64 = 0x64;
    pub(super) const STRTAB_BASE: u64 = 0x80;
    pub(super) const STRTAB_BASE_CFG: u64 = 0x88;
    pub(super) const CMDQ_BASE: u64 = 0x90;
    pub(super) const CMDQ_PROD: u64 = 0x98;
    pub(crate) const CMDQ_CONS: u64 = 0x9c;
    pub(super) const EVENTQ_BASE: u64 = 0xa0;
    pub(super) const EVENTQ_PROD: u64 = 0x100a8;
}

pub(crate) type Wrap =
    fn(Arc<dyn Sink<Accepts = viommu::backend::Host>>) -> Arc<dyn Sink<Accepts = viommu::backend::Host>>;

pub(crate) struct Lab {
    pub(crate) qemu: Arc<QemuHardware>,
    pub(crate) direct: Arc<Direct>,
    pub(crate) host: Host,
}

pub(crate) struct Guest {
    qemu: Arc<QemuHardware>,
    pub(crate) ioas: Ioas,
    pub(crate) viommu: Viommu,
    _device: (Vdevice, Device),
    ram: Arc<GuestMemoryMmap>,
    slot: u32,
    /// Host physical address of its data.
    pub(crate) data: u64,
    produced: AtomicU32,
}

impl Lab {
    /// `None` where there is no QEMU: said loudly, and the test that asked has shown nothing.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|sink| sink)
    }

    pub(crate) fn with(wrap: Wrap) -> Option<Self> {
        let qemu = match QemuHardware::start(Options { devices: 3, limit: LIMIT, ..Options::default() }) {
            Ok(qemu) => qemu,
            Err(QemuError::Missing(program)) => {
                // Past the test's capture: nobody may take this for a pass.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed: nothing was shown");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        qemu.memory().add_dma_region(DMA, qemu.mapping(DMA, 64 << 20).unwrap()).unwrap();
        let plugin = Plugin::linked::<ArmSmmuv3>();
        let options = DirectOptions { sync_limit: LIMIT, ..DirectOptions::default() };
        let direct = Direct::new(&plugin, qemu.clone(), options).unwrap();
        let builder = viommu::Host::builder().backend(direct.clone()).plugin(plugin).wrap_sink(wrap).sync_limit(LIMIT);
        Some(Self { qemu, direct, host: builder.build().unwrap().into() })
    }

    /// With guests that have booted, and whose first translation QEMU has cached.
    pub(crate) fn booted<const GUESTS: usize>() -> Option<(Self, [Guest; GUESTS])> {
        Self::booted_with(|sink| sink)
    }

    pub(crate) fn booted_with<const GUESTS: usize>(wrap: Wrap) -> Option<(Self, [Guest; GUESTS])> {
        let lab = Self::with(wrap)?;
        let guests = std::array::from_fn(|number| {
            let guest = lab.guest(number as u64);
            guest.boot();
            assert_eq!(guest.lands(VIRTUAL), Some(0));
            guest
        });
        Some((lab, guests))
    }

    pub(crate) fn state_of(&self, guest: &Guest) -> ObjectState {
        let id = guest.viommu.id();
        self.host.objects().iter().find(|object| object.id == id).expect("a live vIOMMU").state
    }

    /// Guest `number` with the device in slot `number + 1`. Its SMMU is off.
    pub(crate) fn guest(&self, number: u64) -> Guest {
        let pa = GUESTS + number * 2 * RAM_BYTES;
        self.qemu.memory().add_region(pa, self.qemu.mapping(pa, RAM_BYTES).unwrap()).unwrap();
        let data = pa + (DATA - RAM);
        self.qemu.watch(data, RAM_BYTES / 2);
        let range = (GuestAddress(RAM), RAM_BYTES as usize, Some(self.qemu.file(pa).unwrap()));
        let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap());
        let ioas = self.host.ioas().unwrap();
        for half in [0, RAM_BYTES / 2] {
            let backing = Backing::Physical(pa + half);
            ioas.map(Mapping { iova: RAM + half, length: RAM_BYTES / 2, backing, writable: true }).unwrap();
        }
        let registers = self.direct.guest_registers().to_vec();
        let viommu = ioas.nest_parent().unwrap().viommu(ViommuConfig::new(registers, ram.clone())).unwrap();
        let slot = number as u32 + 1;
        let device = self.host.device(slot << 3).unwrap();
        let vdevice = viommu.vdevice(&device, VIRT_ID).unwrap();
        let qemu = self.qemu.clone();
        Guest { qemu, ioas, viommu, _device: (vdevice, device), ram, slot, data, produced: AtomicU32::new(0) }
    }
}

impl Guest {
    pub(crate) fn store(&self, at: u64, word: u64) {
        self.ram.write_obj(word.to_le(), GuestAddress(at)).unwrap();
    }

    pub(crate) fn load(&self, at: u64) -> u64 {
        u64::from_le(self.ram.read_obj(GuestAddress(at)).unwrap())
    }

    pub(crate) fn write(&self, at: u64, size: u32, value: u64) {
        self.viommu.mmio_write(at, size, value).unwrap();
        assert!(self.viommu.pipeline().wait_settled(LIMIT), "the guest's queue is stuck");
    }

    /// Tables, one page mapped at [`VIRTUAL`], queues, SMMU on.
    pub(crate) fn boot(&self) {
        self.produced.store(0, Ordering::Relaxed);
        self.context(LEVELS[0]);
        self.entry(1 | 5 << 1 | CONTEXT);
        let index = |level: u32| (VIRTUAL >> (12 + 9 * (2 - level)) & 511) * 8;
        self.store(LEVELS[0] + index(0), LEVELS[1] | 3);
        self.store(LEVELS[1] + index(1), LEVELS[2] | 3);
        self.map(0, DATA);
        self.write(at::STRTAB_BASE, 8, STREAM_TABLE);
        self.write(at::STRTAB_BASE_CFG, 4, 6);
        self.write(at::CMDQ_BASE, 8, COMMANDS | COMMANDS_LOG2);
        self.write(at::EVENTQ_BASE, 8, EVENTS | EVENTS_LOG2);
        self.write(at::CR0, 4, 0xd);
        self.run(&[command::cfgi_all()]);
    }

    /// The first word of its device's table entry, behind the others.
    pub(crate) fn entry(&self, word: u64) {
        let at = STREAM_TABLE + 64 * u64::from(VIRT_ID);
        self.store(at + 8, 1 << 2 | 1 << 4 | 3 << 6);
        self.store(at, word);
    }

    /// The device's context descriptor: 39 bits, 4 KiB pages, faults recorded.
    pub(crate) fn context(&self, root: u64) {
        self.context_words(CONTEXT_LOW, root);
    }

    /// A context with this first word.
    pub(crate) fn context_words(&self, low: u64, root: u64) {
        self.store(CONTEXT + 8, root);
        self.store(CONTEXT + 24, 0xff);
        self.store(CONTEXT, low);
    }

    /// A second set of tables: the page is at `to`.
    pub(crate) fn other_tables(&self, to: u64) -> u64 {
        let base = RAM + 0x1_0000;
        for (level, table) in [base, base + 0x1000, base + 0x2000].into_iter().enumerate() {
            let next = if level == 2 { leaf(to) } else { (table + 0x1000) | 3 };
            self.store(table + (VIRTUAL >> (30 - 9 * level) & 511) * 8, next);
        }
        base
    }

    /// Maps the `page`th page from [`VIRTUAL`] on.
    pub(crate) fn map(&self, page: u64, to: u64) {
        self.store(LEVELS[2] + (((VIRTUAL >> 12) + page) & 511) * 8, leaf(to));
    }

    /// Commands with a SYNC, which is complete when this returns.
    pub(crate) fn run(&self, commands: &[[u64; 2]]) {
        self.submit(commands);
        let produced = u64::from(self.produced.load(Ordering::Relaxed));
        assert_eq!(self.register(at::CMDQ_CONS) & INDEX, produced, "the SYNC is complete");
        assert_eq!(self.register(at::GERROR), self.register(at::GERRORN), "nothing was illegal");
    }

    /// Commands with a SYNC, whatever becomes of them; the place of the first.
    pub(crate) fn submit(&self, commands: &[[u64; 2]]) -> u32 {
        let first = self.produced.load(Ordering::Relaxed);
        let mut produced = first;
        for command in commands.iter().chain([&[0x46, 0]]) {
            self.place(produced, command);
            produced = (produced + 1) & ((2 << COMMANDS_LOG2) - 1);
        }
        self.produced.store(produced, Ordering::Relaxed);
        self.write(at::CMDQ_PROD, 4, produced.into());
        first
    }

    /// Writes a command to a place of the queue, and tells nobody.
    pub(crate) fn place(&self, place: u32, command: &[u64; 2]) {
        let slot = COMMANDS + 16 * u64::from(place & ((1 << COMMANDS_LOG2) - 1));
        self.store(slot, command[0]);
        self.store(slot + 8, command[1]);
    }

    pub(crate) fn register(&self, at: u64) -> u64 {
        self.viommu.mmio_read(at, 4).unwrap()
    }

    /// A record of its event queue, when there is one.
    pub(crate) fn event(&self, nth: u64) -> [u64; 4] {
        let until = std::time::Instant::now() + LIMIT;
        while self.events() <= nth {
            assert!(std::time::Instant::now() < until, "no event came");
            std::thread::yield_now();
        }
        [0, 8, 16, 24].map(|word| self.load(EVENTS + 32 * nth + word))
    }

    pub(crate) fn events(&self) -> u64 {
        self.register(at::EVENTQ_PROD)
    }

    /// Where a write by its device lands, in its data.
    pub(crate) fn lands(&self, iova: u64) -> Option<u64> {
        self.qemu.write(self.slot, iova, None).unwrap().map(|pa| pa - self.data)
    }

    /// Where a read by its device comes from, in its data.
    pub(crate) fn reads(&self, iova: u64) -> Option<u64> {
        match self.qemu.read(self.slot, iova).unwrap() {
            Got::Nothing => None,
            Got::From(pa) => Some(pa - self.data),
            Got::Word(word) => panic!("read {word:#x}, which is no word of data"),
        }
    }
}

/// Access flag, shareable, writable, unprivileged.
fn leaf(to: u64) -> u64 {
    to | 3 | 1 << 6 | 3 << 8 | 1 << 10
}

pub(crate) mod command {
    use super::{ASID, VIRT_ID};

    pub(crate) fn cfgi_all() -> [u64; 2] {
        [0x04, 31]
    }
    pub(crate) fn cfgi_ste() -> [u64; 2] {
        [0x03 | u64::from(VIRT_ID) << 32, 1]
    }
    pub(crate) fn cfgi_cd() -> [u64; 2] {
        [0x05 | u64::from(VIRT_ID) << 32, 1]
    }
    pub(crate) fn nh_all() -> [u64; 2] {
        [0x10, 0]
    }
    pub(crate) fn nh_asid() -> [u64; 2] {
        [0x11 | ASID << 48, 0]
    }
    pub(crate) fn nh_va(va: u64) -> [u64; 2] {
        [0x12 | ASID << 48, va | 1]
    }
    pub(crate) fn nh_vaa(va: u64) -> [u64; 2] {
        [0x13, va | 1]
    }
    pub(crate) fn nsnh_all() -> [u64; 2] {
        [0x30, 0]
    }
    /// `pages` (at most 32) pages of 4 KiB by range.
    pub(crate) fn nh_range(va: u64, pages: u64) -> [u64; 2] {
        [0x12 | ASID << 48 | (pages - 1) << 12, va | 1 | 1 << 10 | 3 << 8]
    }
}
