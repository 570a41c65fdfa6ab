//! A host with one Tegra241, and a guest with a driver like Linux's for what is tested here.

use arm_smmuv3::spec::cd::{CdTtb, CdWord0};
use arm_smmuv3::spec::registers::{CmdqCons, offset as smmu};
use arm_smmuv3::spec::ste::{Config, SteWord0};
use std::sync::Arc;
use std::time::Duration;
use tegra_vcmdq::TegraVcmdq;
use tegra_vcmdq::spec::{CMDQV, CmdqAlloc, VCMDQ_STRIDE, VintfConfig, offset, page0, page1, vintf, vintf_page1};
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Host, Ioas, Vdevice, Viommu};
use viommu::objects::{MappedPage, ViommuConfig};
use viommu::pipeline::Interrupts;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_plugin::{Answer, ModelConfig, Request};
use viommu_plugin_host::Plugin;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Guest RAM: two pieces that are not side by side in the host.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const PIECE: u64 = 0x20_0000;
const QUEUE: u64 = RAM;
const TABLE: u64 = RAM + 0x1_0000;
const CD: u64 = RAM + 0x2_0000;
const LEVEL2: u64 = RAM + 0x2_1000;
const LEVEL3: u64 = RAM + 0x2_2000;
/// The guest's own queues, 4 KiB each.
pub(crate) const OWN: u64 = RAM + 0x3_0000;
pub(crate) const VA: u64 = 0x5000;
/// Pages that [`VA`] is mapped to.
pub(crate) const PAGES: [u64; 2] = [RAM + 0x10_0000, RAM + 0x10_1000];
pub(crate) const SYNC: [u64; 2] = [0x46, 0];
const S1_RW: u64 = 1 << 10 | 1 << 6 | 1 << 11 | 3;

pub(crate) struct Machine {
    pub(crate) physical: Arc<PhysicalMemory>,
    pub(crate) model: Arc<ModelHardware>,
    pub(crate) host: Host,
}

impl Machine {
    pub(crate) fn new(mode: ModelMode) -> Self {
        let plugin = Plugin::linked::<TegraVcmdq>();
        let physical = PhysicalMemory::new();
        physical.add_dma(0x1_0000_0000, 1 << 30).unwrap();
        let config = ModelConfig { atc: true, ..ModelConfig::default() };
        let model = ModelHardware::new(&plugin, physical.clone(), config, mode).unwrap();
        let options = DirectOptions { sync_limit: LIMIT, ..DirectOptions::default() };
        let backend = Direct::new(&plugin, model.clone(), options).unwrap();
        let host = viommu::Host::builder().backend(backend).plugin(plugin).build().unwrap().into();
        Self { physical, model, host }
    }
}

/// Hands the guest's interrupts to the test.
struct Lines(flume::Sender<u32>);

impl Interrupts for Lines {
    fn msi(&self, _: u64, _: u32) {}
    fn line(&self, line: u32) {
        let _ = self.0.send(line);
    }
}

/// A guest with one device, which it knows as 3.
pub(crate) struct Guest {
    pub(crate) viommu: Viommu,
    pub(crate) vdevice: Vdevice,
    pub(crate) ioas: Ioas,
    pub(crate) lines: flume::Receiver<u32>,
    pub(crate) stream: u32,
    host: u64,
    memory: Arc<GuestMemoryMmap>,
    model: Arc<ModelHardware>,
    prods: [u32; 3],
}

impl Guest {
    pub(crate) fn new(machine: &Machine, number: u32) -> Self {
        let pieces = [RAM, RAM + PIECE].map(|at| (GuestAddress(at), PIECE as usize));
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&pieces).unwrap());
        let host = 0x8000_0000 + 0x100_0000 * u64::from(number);
        let ioas = machine.host.ioas().unwrap();
        for (index, (at, _)) in pieces.into_iter().enumerate() {
            let pa = host + 2 * PIECE * index as u64;
            machine.physical.add_region(pa, memory.find_region(at).unwrap().get_mmap()).unwrap();
            ioas.map(Mapping { iova: at.0, length: PIECE, backing: Backing::Physical(pa), writable: true }).unwrap();
        }
        let (sender, lines) = flume::unbounded();
        let parent = ioas.nest_parent().unwrap();
        let config =
            ViommuConfig { interrupts: Arc::new(Lines(sender)), ..ViommuConfig::new(Vec::new(), memory.clone()) };
        let viommu = parent.viommu(config).unwrap();
        let stream = 0x40 + number;
        let device = machine.host.device(stream).unwrap();
        let vdevice = viommu.vdevice(&device, 3).unwrap();
        let _events = viommu.event_queue();
        let model = machine.model.clone();
        let guest = Self { viommu, vdevice, ioas, lines, stream, host, memory, model, prods: [0; 3] };
        guest.bring_up();
        guest
    }

    fn bring_up(&self) {
        let cd = CdWord0::new().with_v(true).with_t0sz(39).with_epd1(true).with_ips(4).with_aa64(true);
        let cd = cd.with_r(true).with_a(true).with_asid(1);
        self.put(CD, &[cd.into(), CdTtb::new().with_ttb(LEVEL2 >> 4).into()]);
        self.put(LEVEL2, &[LEVEL3 | 3]);
        self.map(PAGES[0]);
        let ste = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
        self.put(TABLE + 64 * 3, &[ste.into(), 2]);
        self.write(smmu::STRTAB_BASE, 8, TABLE);
        self.write(smmu::STRTAB_BASE_CFG, 4, 8);
        self.write(smmu::CMDQ_BASE, 8, QUEUE | 8);
        self.write(smmu::CR0, 4, 8);
        self.write(smmu::CR0, 4, 9);
        self.write(CMDQV + offset::CONFIG, 4, 1);
        self.write(CMDQV + offset::VINTF + vintf::CONFIG, 4, VintfConfig::new().with_en(true).into_bits().into());
    }

    pub(crate) fn put(&self, gpa: u64, words: &[u64]) {
        for (at, word) in (gpa..).step_by(8).zip(words) {
            self.memory.write_obj(word.to_le(), GuestAddress(at)).unwrap();
        }
    }
    pub(crate) fn write(&self, at: u64, size: u32, value: u64) {
        self.viommu.mmio_write(at, size, value).unwrap();
    }
    pub(crate) fn read(&self, at: u64) -> u64 {
        self.viommu.mmio_read(at, 4).unwrap()
    }

    /// Changes the guest's page table, and nothing else.
    pub(crate) fn map(&self, page: u64) {
        self.put(LEVEL3 + 8 * (VA >> 12), &[page | S1_RW]);
    }

    /// Where the device's access to [`VA`] goes, as an address of the guest.
    pub(crate) fn reaches(&self) -> u64 {
        let mut answer = [Answer::default()];
        let request = Request { stream: self.stream, pasid: u32::MAX, iova: VA, access: 1, flags: 0 };
        assert_eq!(self.model.translate(&[request], &mut answer).unwrap(), 1);
        answer[0].output.wrapping_sub(self.host).wrapping_add(RAM)
    }

    /// Asks for a queue of its own, as Linux does: CMDQ_ALLOC, then BASE.
    pub(crate) fn ask(&self, index: u64) {
        let alloc = CmdqAlloc::new().with_allocated(true).with_lvcmdq(index as u8).into_bits();
        self.write(CMDQV + offset::CMDQ_ALLOC + 4 * index, 4, alloc.into());
        self.base(index, (OWN + 0x1000 * index) | 8);
    }
    pub(crate) fn base(&self, index: u64, base: u64) {
        self.write(CMDQV + vintf_page1(0) + VCMDQ_STRIDE * index + page1::BASE, 8, base);
    }

    pub(crate) fn page(&self) -> MappedPage {
        let place = self.viommu.page().unwrap();
        self.viommu.map_page(place.offset, place.length).unwrap()
    }

    /// Puts commands into a queue of its own, and polls CONS until hardware stops; whether it took all of them.
    pub(crate) fn say(&mut self, page: &MappedPage, index: u64, commands: &[[u64; 2]]) -> bool {
        let prod = &mut self.prods[index as usize];
        for command in commands {
            let slot = OWN + 0x1000 * index + 16 * u64::from(*prod % 256);
            for (at, word) in (slot..).step_by(8).zip(command) {
                self.memory.write_obj(word.to_le(), GuestAddress(at)).unwrap();
            }
            *prod = (*prod + 1) % 512;
        }
        let (at, prod) = (VCMDQ_STRIDE * index, *prod);
        page.write(at + page0::PROD, 4, prod.into());
        for _ in 0..1_000_000 {
            let cons = CmdqCons::from_bits(page.read(at + page0::CONS, 4) as u32);
            let errors = page.read(at + page0::GERROR, 4) ^ page.read(at + page0::GERRORN, 4);
            if cons.rd() == prod || errors != 0 {
                return cons.rd() == prod && errors == 0;
            }
            page.relax();
            std::thread::yield_now();
        }
        false
    }
}

/// TLBI_NH_VA of [`VA`], ASID 1.
pub(crate) fn tlbi() -> [u64; 2] {
    [0x12 | 1 << 48, VA]
}
