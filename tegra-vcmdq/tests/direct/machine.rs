//! A machine: memory, the model behind the driver, and guests with tables, devices and queues of their own.

use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::spec::cd::{CdTtb, CdWord0};
use arm_smmuv3::spec::commands::{AtcInv, Opcode, Sync, Tlbi};
use arm_smmuv3::spec::registers::{CmdqCons, offset as smmu};
use arm_smmuv3::spec::ste::{Config, SteWord0, SteWord1};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tegra_vcmdq::driver::TegraDriver;
use tegra_vcmdq::model::Tegra;
use tegra_vcmdq::spec::{VCMDQ_STRIDE, page0};
use viommu_plugin::{
    Answer, Codec, Driver, Hardware, HwQueueKind, HwQueueRequest, Model, ModelConfig, ModelHost, Refusal, Register,
    Request, TranslationMode, Unreadable, VirtualInterface,
};

const END: u64 = 1 << 40;
const S1_RW: u64 = 1 << 10 | 1 << 6 | 1 << 11 | 3;
pub(crate) const CD: u64 = 0x1000;
const LEVEL2: u64 = 0x2000;
const LEVEL3: u64 = 0x3000;
/// Where a guest's queues are, 4 KiB each.
pub(crate) const QUEUES: u64 = 0x8000;
/// Commands of a guest's queue.
pub(crate) const CAPACITY: u32 = 256;
/// The page that every guest maps.
pub(crate) const VA: u64 = 0x5000;
const RAM: u64 = 0x20_0000;

#[derive(Default)]
struct Board {
    words: HashMap<u64, u64>,
    top: u64,
    irqs: Vec<u32>,
}

/// Cloned, it is the same machine.
#[derive(Clone)]
pub(crate) struct Machine {
    board: Arc<Mutex<Board>>,
    tegra: Arc<Mutex<Tegra>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if pa.checked_add(bytes.len() as u64).is_none_or(|end| end > END) {
            return Err(Unreadable);
        }
        for (byte, at) in bytes.iter_mut().zip(pa..) {
            let word = self.words.get(&(at & !7)).copied().unwrap_or(0);
            *byte = word.to_le_bytes()[(at & 7) as usize];
        }
        Ok(())
    }
    fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        if pa.checked_add(bytes.len() as u64).is_none_or(|end| end > END) {
            return Err(Unreadable);
        }
        for (byte, at) in bytes.iter().zip(pa..) {
            let word = self.words.entry(at & !7).or_default();
            let mut parts = word.to_le_bytes();
            parts[(at & 7) as usize] = *byte;
            *word = u64::from_le_bytes(parts);
        }
        Ok(())
    }
}

struct ModelSide(Arc<Mutex<Board>>);

impl ModelHost for ModelSide {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        lock(&self.0).read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        lock(&self.0).write(pa, bytes)
    }
    fn irq(&self, line: u32) {
        lock(&self.0).irqs.push(line);
    }
}

impl Machine {
    pub(crate) fn with(registers: &[Register], atc: bool) -> Self {
        let board = Arc::new(Mutex::new(Board { top: 0x1_0000_0000, ..Board::default() }));
        let config = ModelConfig { registers, atc, tlb_capacity: 0 };
        let tegra = Tegra::new(Box::new(ModelSide(board.clone())), config).unwrap();
        Self { board, tegra: Arc::new(Mutex::new(tegra)) }
    }

    /// The machine, with its driver in charge.
    pub(crate) fn driven(atc: bool) -> (Self, TegraDriver) {
        let machine = Self::with(&[], atc);
        let driver = TegraDriver::new(Box::new(machine.clone())).unwrap();
        (machine, driver)
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Tegra> {
        lock(&self.tegra)
    }
    pub(crate) fn put(&self, pa: u64, words: &[u64]) {
        for (at, word) in (pa..).step_by(8).zip(words) {
            lock(&self.board).words.insert(at, *word);
        }
    }
    pub(crate) fn take_irqs(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.board).irqs)
    }
    pub(crate) fn dma(&self, stream: u32, iova: u64) -> Answer {
        let mut answer = [Answer::default()];
        let request = Request { stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        assert_eq!(self.model().translate(&[request], &mut answer), 1);
        answer[0]
    }
}

impl Hardware for Machine {
    fn mmio_read(&self, at: u64, size: u32) -> u64 {
        self.model().mmio_read(at, size)
    }
    fn mmio_write(&self, at: u64, size: u32, value: u64) {
        let mut tegra = self.model();
        tegra.mmio_write(at, size, value);
        tegra.step(u32::MAX);
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        lock(&self.board).read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        lock(&self.board).write(pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let mut board = lock(&self.board);
        let base = board.top.next_multiple_of(align);
        board.top = base + len;
        Ok(base)
    }
    fn free(&self, _: u64, _: u64) {}
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let base = self.mmio_read(smmu::CMDQ_BASE, 8);
        let (base, log2) = (base & 0x000f_ffff_ffff_ffe0, base & 0x1f);
        let mut prod = self.mmio_read(smmu::CMDQ_PROD, 4);
        for command in commands.chunks_exact(2).chain([&sync()[..]]) {
            self.put(base + (prod & ((1 << log2) - 1)) * 16, command);
            prod = (prod + 1) & ((2 << log2) - 1);
        }
        self.mmio_write(smmu::CMDQ_PROD, 4, prod);
        match (self.mmio_read(smmu::GERROR, 4) ^ self.mmio_read(smmu::GERRORN, 4)) & 1 {
            0 => Ok(()),
            _ => Err(Refusal::new(Refusal::EIO, "the physical queue stopped")),
        }
    }
}

/// A guest: memory, a stage 2, a VINTF, one device with stage-1 tables, ASID 1.
pub(crate) struct Guest {
    machine: Machine,
    pub(crate) interface: VirtualInterface,
    pub(crate) ram: u64,
    pub(crate) stream: u32,
    prods: [u32; 2],
}

impl Guest {
    /// The guest's device is `virt_id` to it, and maps [`VA`] to the guest's page `page`.
    pub(crate) fn new(machine: &Machine, driver: &mut TegraDriver, vmid: u32, virt_id: u32) -> Self {
        let stream = 0x100 + vmid;
        let ram = machine.alloc(RAM, RAM).unwrap();
        let stage2 = driver.stage2_create(vmid).unwrap();
        driver.stage2_map(stage2, 0, ram, RAM, 3).unwrap();
        let interface = driver.interface_create(stage2).unwrap();
        driver.interface_stream_set(interface.handle, virt_id, stream).unwrap();
        let cd = CdWord0::new().with_v(true).with_t0sz(39).with_epd1(true).with_ips(5).with_aa64(true);
        let cd = cd.with_r(true).with_a(true).with_asid(1);
        machine.put(ram + CD, &[cd.into(), CdTtb::new().with_ttb(LEVEL2 >> 4).into(), 0]);
        machine.put(ram + LEVEL2, &[LEVEL3 | 3]);
        let guest = Self { machine: machine.clone(), interface, ram, stream, prods: [0; 2] };
        guest.map(VA, 0x1_0000);
        let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
        let ste = [word0.into(), SteWord1::new().with_eats(1).into(), 0, 0, 0, 0, 0, 0];
        let ats = driver.guest_registers(TranslationMode::NESTED);
        let key = ArmCodec::new(&ats).unwrap().entry_key(&ste);
        driver.attach(stream, stage2, vmid, &key).unwrap();
        guest
    }

    /// Changes the guest's page table, and nothing else.
    pub(crate) fn map(&self, va: u64, ipa: u64) {
        self.machine.put(self.ram + LEVEL3 + 8 * (va >> 12), &[ipa | S1_RW]);
    }

    /// Where the device's access to [`VA`] goes, as an address of the guest; `None` if it goes nowhere.
    pub(crate) fn reaches(&self) -> Option<u64> {
        let answer = self.machine.dma(self.stream, VA);
        (answer.status.0 == 0).then(|| answer.output - self.ram)
    }

    pub(crate) fn request(&self, index: u32) -> HwQueueRequest {
        let (iova, length) = (QUEUES + 0x1000 * u64::from(index), u64::from(CAPACITY) * 16);
        HwQueueRequest { kind: HwQueueKind::COMMAND, index, iova, length }
    }

    /// A queue of the guest's own, enabled by the guest.
    pub(crate) fn queue(&mut self, driver: &mut TegraDriver, index: u32) -> u32 {
        let request = self.request(index);
        let queue = driver.hw_queue_create(self.interface.handle, &request, self.ram + request.iova).unwrap();
        self.prods[index as usize] = 0;
        self.write(index, page0::CONFIG, 1);
        assert_eq!(self.read(index, page0::STATUS), 1);
        queue
    }

    /// A register of the guest's own page.
    pub(crate) fn read(&self, index: u32, register: u64) -> u32 {
        let at = self.interface.page + VCMDQ_STRIDE * u64::from(index) + register;
        self.machine.mmio_read(at, 4) as u32
    }
    pub(crate) fn write(&self, index: u32, register: u64, value: u32) {
        let at = self.interface.page + VCMDQ_STRIDE * u64::from(index) + register;
        self.machine.mmio_write(at, 4, value.into());
    }

    /// Puts commands into a queue and rings its doorbell; whether hardware took all of them.
    pub(crate) fn say(&mut self, index: u32, commands: &[[u64; 2]]) -> bool {
        let base = self.ram + self.request(index).iova;
        for command in commands {
            let prod = &mut self.prods[index as usize];
            self.machine.put(base + 16 * u64::from(*prod % CAPACITY), command);
            *prod = (*prod + 1) % (2 * CAPACITY);
        }
        self.write(index, page0::PROD, self.prods[index as usize]);
        self.cons(index).rd() == self.prods[index as usize]
    }

    pub(crate) fn cons(&self, index: u32) -> CmdqCons {
        CmdqCons::from_bits(self.read(index, page0::CONS))
    }

    /// What Linux does about a command that hardware refused: a SYNC in its place, and the acknowledgement.
    pub(crate) fn skip(&self, index: u32) {
        let slot = u64::from(self.cons(index).rd() % CAPACITY);
        self.machine.put(self.ram + self.request(index).iova + 16 * slot, &sync());
        self.write(index, page0::GERRORN, self.read(index, page0::GERROR));
    }
}

pub(crate) fn sync() -> [u64; 2] {
    Sync::new().with_opcode(Opcode::SYNC.0).words()
}
pub(crate) fn tlbi_va(vmid: u16) -> [u64; 2] {
    let tlbi = Tlbi::new().with_opcode(Opcode::TLBI_NH_VA.0).with_vmid(vmid).with_asid(1);
    tlbi.with_address(VA >> 12).words()
}
pub(crate) fn tlbi_asid() -> [u64; 2] {
    Tlbi::new().with_opcode(Opcode::TLBI_NH_ASID.0).with_asid(1).words()
}
pub(crate) fn atc_inv(virt_id: u32) -> [u64; 2] {
    AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(virt_id).with_size(AtcInv::SIZE_ALL).words()
}
