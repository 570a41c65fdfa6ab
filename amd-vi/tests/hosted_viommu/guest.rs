//! A host with one AMD IOMMU that has the hardware vIOMMU, and a guest with a driver like Linux's for what is tested here.

use amd_vi::AmdVi;
use amd_vi::features::Features;
use amd_vi::spec::commands::{CompletionWait, InvalidateIommuPages, Opcode, encode_span};
use amd_vi::spec::dte::{DteWord0, DteWord1, with_gcr3_table};
use amd_vi::spec::pte::{Gcr3Entry, GuestPte};
use amd_vi::spec::registers::{Control, DeviceTableBase, Efr, Efr2, RingBase, RingPointer, offset};
use amd_vi::spec::size::ALL_LOG2;
use std::sync::Arc;
use std::time::Duration;
use viommu::backend::direct::{Direct, DirectOptions, Hardware as _, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Host, Ioas, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::Interrupts;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_plugin::{Answer, ModelConfig, Register, Request};
use viommu_plugin_host::Plugin;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Guest RAM: two pieces that are not side by side in the host.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const PIECE: u64 = 0x20_0000;
/// 512 commands, half of them in each piece: the IOMMU fetches them by guest physical address.
pub(crate) const COMMANDS: u64 = RAM + PIECE - 0x1000;
pub(crate) const EVENTS: u64 = RAM + 0x1_0000;
const STORE: u64 = RAM + 0x2_0000;
pub(crate) const DEVICE_TABLE: u64 = RAM + 0x3_0000;
/// Tables of domain n: GCR3, levels 4 to 1.
const TABLES: u64 = RAM + 0x4_0000;
pub(crate) const VA: u64 = 0x5000;
pub(crate) const PAGES: [u64; 3] = [RAM + 0x10_0000, RAM + 0x10_1000, RAM + PIECE + 0x10_0000];
/// The guest's number of its device.
pub(crate) const DEVICE: u32 = 3;

pub(crate) struct Machine {
    pub(crate) physical: Arc<PhysicalMemory>,
    pub(crate) model: Arc<ModelHardware>,
    pub(crate) host: Host,
}

/// What the machine says of itself.
fn identity() -> [Register; 2] {
    let efr = Efr::new().with_gt_sup(true).with_ia_sup(true).with_gio_sup(true).with_pas_max(15).with_hats(1);
    let efr2 = Efr2::new().with_gcr3_trp_mode(true);
    [(offset::EFR, efr.with_pref_sup(true).with_viommu_sup(true).into_bits()), (offset::EFR2, efr2.into_bits())]
        .map(|(offset, value)| Register { offset, value })
}

impl Machine {
    pub(crate) fn new(mode: ModelMode) -> Self {
        let plugin = Plugin::linked::<AmdVi>();
        let physical = PhysicalMemory::new();
        physical.add_dma(0x1_0000_0000, 1 << 30).unwrap();
        let config = ModelConfig { registers: &identity(), ..ModelConfig::default() };
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

/// What a guest is shown: that it drives its part itself, or not.
pub(crate) fn shown(own: bool) -> Vec<Register> {
    let features = Features::default();
    Features { efr: features.efr.with_glx_sup(0).with_viommu_sup(own), ..features }.registers().to_vec()
}

/// A guest with one device.
pub(crate) struct Guest {
    pub(crate) viommu: Viommu,
    pub(crate) vdevice: Vdevice,
    pub(crate) ioas: Ioas,
    pub(crate) lines: flume::Receiver<u32>,
    stream: u32,
    host: u64,
    memory: Arc<GuestMemoryMmap>,
    model: Arc<ModelHardware>,
    tail: u16,
    waits: u64,
}

impl Guest {
    pub(crate) fn new(machine: &Machine, number: u32, own: bool) -> Self {
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
        let config =
            ViommuConfig { interrupts: Arc::new(Lines(sender)), ..ViommuConfig::new(shown(own), memory.clone()) };
        let viommu = ioas.nest_parent().unwrap().viommu(config).unwrap();
        let stream = 0x40 + number;
        let vdevice = viommu.vdevice(&machine.host.device(stream).unwrap(), DEVICE).unwrap();
        let _events = viommu.event_queue();
        let model = machine.model.clone();
        let guest = Self { viommu, vdevice, ioas, lines, stream, host, memory, model, tail: 0, waits: 0 };
        let ring = |at: u64, length| RingBase::new().with_base(at >> 12).with_length(length).into_bits();
        let control = Control::new().with_iommu_en(true).with_event_log_en(true).with_event_int_en(true);
        for (at, value) in [
            (offset::DEVICE_TABLE_BASE, DeviceTableBase::new().with_base(DEVICE_TABLE >> 12).into_bits()),
            (offset::COMMAND_BASE, ring(COMMANDS, 9)),
            (offset::EVENT_BASE, ring(EVENTS, 8)),
            (offset::COMMAND_HEAD, 0),
            (offset::COMMAND_TAIL, 0),
            (offset::CONTROL, control.with_cmd_buf_en(true).into_bits()),
        ] {
            guest.write(at, value);
        }
        guest
    }

    pub(crate) fn put(&self, gpa: u64, words: &[u64]) {
        for (at, word) in (gpa..).step_by(8).zip(words) {
            self.memory.write_obj(word.to_le(), GuestAddress(at)).unwrap();
        }
    }
    pub(crate) fn get(&self, gpa: u64) -> u64 {
        u64::from_le(self.memory.read_obj(GuestAddress(gpa)).unwrap())
    }
    pub(crate) fn write(&self, at: u64, value: u64) {
        self.viommu.mmio_write(at, 8, value).unwrap();
    }
    pub(crate) fn read(&self, at: u64) -> u64 {
        self.viommu.mmio_read(at, 8).unwrap()
    }

    /// Maps [`VA`] of a domain to `page`, in the guest's tables and nowhere else.
    pub(crate) fn map(&self, domain: u16, page: u64) {
        let pte = GuestPte::new().with_p(true).with_rw(true).with_us(true);
        let tables = tables(domain);
        self.put(tables, &[Gcr3Entry::new().with_v(true).with_address((tables + 0x1000) >> 12).into()]);
        for level in 1..4 {
            self.put(tables + 0x1000 * level, &[pte.with_address((tables + 0x1000 * (level + 1)) >> 12).into()]);
        }
        self.put(tables + 0x4000 + 8 * (VA >> 12), &[pte.with_address(page >> 12).into()]);
    }

    /// Writes the device's entry, in memory and nowhere else.
    pub(crate) fn entry(&self, domain: Option<u16>) {
        let on = domain.is_some();
        let word0 = DteWord0::new().with_v(true).with_tv(on).with_gv(on).with_giov(on).with_ir(on).with_iw(on);
        let word1 = DteWord1::new().with_domain_id(domain.unwrap_or(0));
        let (word0, word1) = with_gcr3_table(word0, word1, domain.map_or(0, tables));
        self.put(DEVICE_TABLE + 32 * u64::from(DEVICE), &[word0.into(), word1.into(), 0, 0]);
    }

    /// The write of the entry traps.
    pub(crate) fn trap(&self) -> u32 {
        assert_eq!(self.viommu.watched_pages().unwrap(), [DEVICE_TABLE]);
        self.viommu.memory_written(DEVICE_TABLE + 32 * u64::from(DEVICE), 32).unwrap()
    }

    /// Where the device's access to [`VA`] goes, as an address of the guest.
    pub(crate) fn reaches(&self) -> Option<u64> {
        let mut answer = [Answer::default()];
        let request = Request { stream: self.stream, pasid: u32::MAX, iova: VA, access: 1, flags: 0 };
        assert_eq!(self.model.translate(&[request], &mut answer).unwrap(), 1);
        let at = answer[0].output.wrapping_sub(self.host);
        let at = if at >= 2 * PIECE { at - PIECE } else { at };
        (answer[0].status.0 == 0).then(|| at + RAM)
    }

    /// Puts commands and a COMPLETION_WAIT on the guest's own ring, and polls its store; whether it comes.
    pub(crate) fn sync(&mut self, commands: &[[u64; 2]]) -> bool {
        self.waits += 1;
        let wait = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).with_s(true).with_data(self.waits);
        for command in commands.iter().chain([&wait.with_store_address(STORE).words()]) {
            self.put(COMMANDS + 16 * u64::from(self.tail), command);
            self.tail = (self.tail + 1) % 512;
        }
        self.write(offset::COMMAND_TAIL, RingPointer::new().with_index(self.tail).into());
        for _ in 0..100_000 {
            if self.get(STORE) == self.waits {
                return true;
            }
            if !self.status().cmd_buf_run() {
                return false;
            }
            self.model.relax();
            std::thread::yield_now();
        }
        false
    }

    pub(crate) fn status(&self) -> amd_vi::spec::registers::Status {
        self.read(offset::STATUS).into()
    }
}

fn tables(domain: u16) -> u64 {
    TABLES + 0x8000 * u64::from(domain)
}

/// INVALIDATE_IOMMU_PAGES of all of PASID 0 in the guest's domain.
pub(crate) fn flush(domain: u16) -> [u64; 2] {
    let (s, address) = encode_span(0, ALL_LOG2);
    let command = InvalidateIommuPages::new().with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0).with_domain_id(domain);
    command.with_gn(true).with_s(s).with_address(address).words()
}
