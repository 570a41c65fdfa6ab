//! Two guests on one software SMMUv3.

use crate::guest::{self, CD_1, Guest, RAM, RAM_SIZE, STE_STAGE_1, SYNC};
use arm_smmuv3::ArmSmmuv3;
use arm_smmuv3::spec::registers::offset;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use viommu::Host as AsyncHost;
use viommu::HostBuilder;
use viommu::backend::direct::{Direct, DirectOptions, Hardware, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::{CommandTap, Interrupts};
use viommu::plugin::{Answer, GuestFault, ModelConfig, Register, Request, Status};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_plugin_host::Plugin;

/// The guests' name for their device; neither guest's name is a host stream.
pub(crate) const DEVICE: u32 = 3;
/// Host streams of the two devices.
pub(crate) const STREAM_A: u32 = 0x40;
pub(crate) const STREAM_B: u32 = 0x41;
/// No guest has memory here.
pub(crate) const OUTSIDE: u64 = 0x10_0000_0000;
/// The guests' command queues: where `guest` puts them.
pub(crate) const QUEUE: u64 = RAM;
/// CMDQ_CONS.ERR: CERROR_NONE, CERROR_ILL, CERROR_ABT.
pub(crate) const NONE: u64 = 0;
pub(crate) const ILL: u64 = 1;
pub(crate) const ABT: u64 = 2;
/// GERROR.CMDQ_ERR, GERROR.EVENTQ_ABT_ERR.
pub(crate) const CMDQ_ERR: u64 = 1;
pub(crate) const EVENTQ_ABT_ERR: u64 = 4;
/// Interrupt lines.
pub(crate) const CMD_SYNC_LINE: u32 = 2;
pub(crate) const GERROR_LINE: u32 = 3;

const HOST_RAM: u64 = 0x80_0000_0000;

/// Writes down what the guest was interrupted with.
#[derive(Debug, Default)]
pub(crate) struct Interrupted {
    lines: Mutex<Vec<u32>>,
    messages: Mutex<Vec<(u64, u32)>>,
}

impl Interrupted {
    pub(crate) fn lines(&self) -> Vec<u32> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
    pub(crate) fn messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl Interrupts for Interrupted {
    fn msi(&self, address: u64, data: u32) {
        self.messages.lock().unwrap().push((address, data));
    }
    fn line(&self, line: u32) {
        self.lines.lock().unwrap().push(line);
    }
}

/// One guest with one device, which translates by the guest's tables.
pub(crate) struct Vm {
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) viommu: Viommu,
    pub(crate) guest: Guest,
    pub(crate) interrupted: Arc<Interrupted>,
    stream: u32,
    host_ram: u64,
    _bound: (Vdevice, Device),
}

pub(crate) struct World {
    pub(crate) model: Arc<ModelHardware>,
    pub(crate) host: Host,
    pub(crate) a: Vm,
    pub(crate) b: Vm,
}

/// How a world differs from the plain one.
pub(crate) struct Setup {
    pub(crate) plugin: Plugin,
    /// ID registers of both guests.
    pub(crate) registers: Vec<Register>,
    pub(crate) options: DirectOptions,
    pub(crate) hardware: Box<dyn FnOnce(Arc<ModelHardware>) -> Arc<dyn Hardware>>,
    pub(crate) host: Box<dyn FnOnce(HostBuilder) -> HostBuilder>,
    /// Instead of [`Interrupted`], for guest A.
    pub(crate) interrupts: Option<Arc<dyn Interrupts>>,
    /// Sees guest A's commands.
    pub(crate) tap: Option<Arc<dyn CommandTap>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plugin: Plugin::linked::<ArmSmmuv3>(),
            registers: Vec::new(),
            options: DirectOptions { sync_limit: Duration::from_secs(20), ..DirectOptions::default() },
            hardware: Box::new(|model| model),
            host: Box::new(|builder| builder),
            interrupts: None,
            tap: None,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let Setup { plugin, registers, options, hardware, host, interrupts, tap } = setup;
        let physical = PhysicalMemory::new();
        physical.add_dma(0x1_0000_0000, 256 << 20).unwrap();
        let model = ModelHardware::new(&plugin, physical.clone(), ModelConfig::default(), ModelMode::Inline).unwrap();
        let backend = Direct::new(&plugin, hardware(model.clone()), options).unwrap();
        let host: Host = host(AsyncHost::builder().backend(backend).plugin(plugin)).build().unwrap().into();
        let vm = |number: u64, stream, interrupts: Option<Arc<dyn Interrupts>>, tap| {
            let (memory, interrupted) = (guest::memory(), Arc::new(Interrupted::default()));
            let interrupts = interrupts.unwrap_or_else(|| interrupted.clone());
            let config = ViommuConfig { interrupts, tap, ..ViommuConfig::new(registers.clone(), memory.clone()) };
            Vm::new(&host, &physical, HOST_RAM + number * 0x1000_0000, stream, memory, config, interrupted)
        };
        let (a, b) = (vm(0, STREAM_A, interrupts, tap), vm(1, STREAM_B, None, None));
        Self { model, host, a, b }
    }

    /// A read by the guest's device.
    pub(crate) fn dma(&self, vm: &Vm, iova: u64) -> Answer {
        let mut answers = [Answer::default()];
        let request = Request { stream: vm.stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        assert_eq!(self.model.translate(&[request], &mut answers).unwrap(), 1);
        answers[0]
    }

    /// Whether the guest's device translates as its tables say; and whether the TLB knew.
    pub(crate) fn translates(&self, vm: &Vm) -> (bool, bool) {
        let answer = self.dma(vm, 0x1234);
        let right = (answer.status, answer.output) == (Status::OK, vm.host_ram + 0x1234);
        (right, answer.flags & 1 != 0)
    }

    /// Makes trouble in guest A. Guest B notices nothing, and its IOMMU works as before.
    pub(crate) fn trouble<T>(&self, make: impl FnOnce(&Vm) -> T) -> T {
        let b = &self.b;
        self.translates(b);
        assert_eq!(self.translates(b), (true, true));
        let before = b.look();
        let made = make(&self.a);
        assert_eq!(b.look(), before, "B's registers, objects or counters");
        assert_eq!(self.translates(b), (true, true), "B's DMA, out of the TLB");
        assert_eq!((b.interrupted.lines(), b.interrupted.messages()), (vec![], vec![]), "interrupts of B");
        // Its invalidations complete, and do what they say.
        b.guest.send(&[tlbi_asid(77), SYNC]);
        assert!(b.guest.all_taken());
        assert_eq!(self.translates(b), (true, true), "another ASID than the device's");
        b.guest.send(&[tlbi_asid(1), SYNC]);
        assert!(b.guest.all_taken());
        assert_eq!(self.translates(b), (true, false), "the device's ASID");
        made
    }
}

/// TLBI_NH_ASID.
pub(crate) fn tlbi_asid(asid: u64) -> [u64; 2] {
    [0x11 | asid << 48, 0]
}

impl Vm {
    fn new(
        host: &Host,
        physical: &PhysicalMemory,
        host_ram: u64,
        stream: u32,
        memory: Arc<GuestMemoryMmap>,
        config: ViommuConfig,
        interrupted: Arc<Interrupted>,
    ) -> Self {
        let region = memory.find_region(GuestAddress(RAM)).unwrap();
        physical.add_region(host_ram, region.get_mmap()).unwrap();
        let ioas = host.ioas().unwrap();
        let backing = Backing::Physical(host_ram);
        ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }).unwrap();
        let viommu = ioas.nest_parent().unwrap().viommu(config).unwrap();
        let device = host.device(stream).unwrap();
        let guest = Guest::new(&viommu, &memory);
        guest.enable();
        guest.set_ste(u64::from(DEVICE), STE_STAGE_1 | CD_1);
        let vdevice = viommu.vdevice(&device, DEVICE).unwrap();
        // Every interrupt is enabled: GERROR, PRIQ, EVENTQ.
        guest.write(offset::IRQ_CTRL, 4, 7);
        Self { memory, viommu, guest, interrupted, stream, host_ram, _bound: (vdevice, device) }
    }

    pub(crate) fn read(&self, register: u64) -> u64 {
        self.viommu.mmio_read(register, 4).unwrap()
    }

    /// CMDQ_CONS.RD.
    pub(crate) fn cons(&self) -> u64 {
        self.read(offset::CMDQ_CONS) & 0xf_ffff
    }

    /// CMDQ_CONS.ERR while GERROR.CMDQ_ERR is active, else [`NONE`].
    pub(crate) fn error(&self) -> u64 {
        if self.active() & CMDQ_ERR == 0 { NONE } else { self.read(offset::CMDQ_CONS) >> 24 & 0x7f }
    }

    /// Active bits of GERROR.
    pub(crate) fn active(&self) -> u64 {
        self.read(offset::GERROR) ^ self.read(offset::GERRORN)
    }

    /// Faults of this kind counted so far.
    pub(crate) fn faults(&self, fault: GuestFault) -> u64 {
        self.viommu.pipeline().counters().faults[fault.0 as usize].load(Ordering::Relaxed)
    }

    /// Moves its command queue, empty at `index`. No device translates meanwhile: SMMUEN stays as it is.
    pub(crate) fn move_queue(&self, base: u64, log2: u64, index: u64) {
        let smmuen = self.read(offset::CR0) & 1;
        self.guest.write(offset::CR0, 4, smmuen);
        self.guest.write(offset::CMDQ_BASE, 8, base | log2);
        self.guest.write(offset::CMDQ_PROD, 4, index);
        self.guest.write(offset::CMDQ_CONS, 4, index);
        self.guest.write(offset::CR0, 4, smmuen | 8);
    }

    /// Writes a command, wherever the guest likes.
    pub(crate) fn store(&self, gpa: u64, command: [u64; 2]) {
        for (at, word) in (0..).zip(command) {
            self.memory.write_obj(word.to_le(), GuestAddress(gpa + 8 * at)).unwrap();
        }
    }

    /// Rings the doorbell with this CMDQ_PROD.
    pub(crate) fn ring(&self, producer: u64) {
        self.guest.write(offset::CMDQ_PROD, 4, producer);
        assert!(self.viommu.pipeline().wait_settled(Duration::from_secs(20)), "the queue does not settle");
    }

    /// What a guest sees of its IOMMU, and what the host counts of it.
    fn look(&self) -> (Vec<u64>, Vec<u32>, String) {
        let registers = (0..0xe0).step_by(4).chain([0x100a8, 0x100ac]).map(|at| self.read(at)).collect();
        let nested = self.viommu.nested_hwpts().iter().map(viommu::objects::NestedHwpt::id).collect();
        (registers, nested, format!("{:?} {:?}", self.viommu.pipeline().counters(), self.viommu.key_of(DEVICE)))
    }
}

/// Waits for what another thread will do.
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::yield_now();
    }
}
