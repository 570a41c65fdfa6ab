//! A host of any vendor on a software kernel, and what its devices reach.

use crate::guest::{RAM, RAM_SIZE};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu::backend::kernel::{
    Calls, DeviceSource, IommuSource, KernelBackend, KernelOptions, Lent, Mapped, SoftwareDevice, SoftwareIommufd,
};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, Host, Ioas, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::{Dispatcher, Options};
use viommu::uapi::{Command, Errno, ProcessMemory, layout};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_plugin_host::Plugin;
use zerocopy::IntoBytes;

/// Host stream of the first device; the others follow.
pub(crate) const FIRST_STREAM: u32 = 0x40;
/// The guest's number of the first device; the others follow.
pub(crate) const FIRST_ID: u32 = 3;

/// The host.
pub(crate) struct Rig {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) log: Arc<Recording>,
    pub(crate) devices: Vec<Arc<SoftwareDevice>>,
    pub(crate) backend: Arc<KernelBackend>,
    pub(crate) host: Host,
    pub(crate) memory: Arc<GuestMemoryMmap>,
}

/// A machine with all of its devices.
pub(crate) struct Machine {
    pub(crate) ioas: Ioas,
    pub(crate) viommu: Viommu,
    pub(crate) vdevices: Vec<Vdevice>,
    pub(crate) devices: Vec<Device>,
}

/// Calls that are noted, and that all answer one errno if told to.
pub(crate) struct Recording {
    calls: SoftwareIommufd,
    seen: Mutex<Vec<(Command, u32)>>,
    answer: Mutex<Option<Errno>>,
}

impl Recording {
    pub(crate) fn new(dispatcher: &Dispatcher) -> Self {
        let calls = SoftwareIommufd::new(dispatcher.clone());
        Self { calls, seen: Mutex::default(), answer: Mutex::default() }
    }

    /// From here on commands answer this.
    pub(crate) fn answer(&self, errno: Option<Errno>) {
        *self.answer.lock().unwrap() = errno;
    }

    /// Commands since the last time: HW_QUEUE_ALLOC with the index, DESTROY with the ID.
    pub(crate) fn take(&self) -> Vec<(Command, u32)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Calls for Recording {
    fn number(&self) -> i32 {
        self.calls.number()
    }
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        let word = |at: usize| u32::from_ne_bytes(argument[at..at + 4].try_into().unwrap());
        let seen = match Command::from_code(code) {
            Some(Command::HwQueueAlloc) => Some((Command::HwQueueAlloc, word(16))),
            Some(Command::Destroy) => Some((Command::Destroy, word(4))),
            Some(command) => Some((command, 0)),
            None => None,
        };
        self.seen.lock().unwrap().extend(seen);
        self.answer.lock().unwrap().map_or(Ok(()), Err)?;
        self.calls.ioctl(code, argument, lent)
    }
    fn lend(&self, memory: Arc<GuestMemoryMmap>) {
        self.calls.lend(memory);
    }
    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.calls.read(fd, bytes)
    }
    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.calls.write(fd, bytes)
    }
    fn poll(&self, fds: &[i32], limit: Duration) -> Result<Vec<i32>, Errno> {
        self.calls.poll(fds, limit)
    }
    fn wake(&self) {
        self.calls.wake();
    }
    fn close(&self, fd: i32) -> Result<(), Errno> {
        self.calls.close(fd)
    }
    fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        self.calls.map(offset, length)
    }
}

/// The kernel's lowest free ID: what is left behind makes it higher.
pub(crate) fn next_id(dispatcher: &Dispatcher) -> u32 {
    let mut alloc = layout::IoasAlloc { size: 12, ..layout::IoasAlloc::default() };
    dispatcher.ioctl(0x3b81, alloc.as_mut_bytes(), &ProcessMemory).unwrap();
    let mut destroy = layout::Destroy { size: 8, id: alloc.out_ioas_id };
    dispatcher.ioctl(0x3b80, destroy.as_mut_bytes(), &ProcessMemory).unwrap();
    alloc.out_ioas_id
}

impl Rig {
    /// Devices behind one IOMMU; `memory` is the guest's.
    pub(crate) fn new(
        plugin: fn() -> Plugin,
        memory: &Arc<GuestMemoryMmap>,
        devices: Vec<DeviceConfig>,
        adjust: impl FnOnce(KernelOptions) -> KernelOptions,
    ) -> Self {
        let dispatcher = Dispatcher::new(Options::default());
        let devices: Vec<_> =
            devices.into_iter().map(|config| Arc::new(SoftwareDevice(dispatcher.device(config)))).collect();
        let log = Arc::new(Recording::new(&dispatcher));
        let options = adjust(Self::options(&log, &devices, memory));
        let backend = Arc::new(KernelBackend::open(&plugin(), options).unwrap());
        Self::over(plugin, dispatcher, log, devices, backend, memory.clone())
    }

    pub(crate) fn options(
        log: &Arc<Recording>,
        devices: &[Arc<SoftwareDevice>],
        memory: &Arc<GuestMemoryMmap>,
    ) -> KernelOptions {
        let sources =
            (FIRST_STREAM..).zip(devices).map(|(stream, device)| (stream, DeviceSource::Calls(device.clone())));
        KernelOptions {
            iommu: IommuSource::Calls(log.clone()),
            memory: vec![memory.clone()],
            ..KernelOptions::new(sources.collect())
        }
    }

    pub(crate) fn over(
        plugin: fn() -> Plugin,
        dispatcher: Dispatcher,
        log: Arc<Recording>,
        devices: Vec<Arc<SoftwareDevice>>,
        backend: Arc<KernelBackend>,
        memory: Arc<GuestMemoryMmap>,
    ) -> Self {
        let host = viommu::Host::builder().backend(backend.clone()).plugin(plugin()).build().unwrap().into();
        Self { dispatcher, log, devices, backend, host, memory }
    }

    fn host_address(&self) -> u64 {
        self.memory.find_region(GuestAddress(RAM)).unwrap().as_ptr() as u64
    }

    /// A piece of guest RAM, mapped where the guest has it.
    pub(crate) fn piece(&self, offset: u64, length: u64, writable: bool) -> Mapping {
        let backing = Backing::UserVa(self.host_address() + offset);
        Mapping { iova: RAM + offset, length, backing, writable }
    }

    pub(crate) fn machine(&self, shown: Vec<viommu::plugin::Register>) -> Result<Machine, viommu::Error> {
        let ioas = self.host.ioas()?;
        ioas.map(self.piece(0, RAM_SIZE / 2, true))?;
        ioas.map(self.piece(RAM_SIZE / 2, RAM_SIZE / 2, true))?;
        let viommu = ioas.nest_parent()?.viommu(ViommuConfig::new(shown, self.memory.clone()))?;
        let streams = FIRST_STREAM..FIRST_STREAM + self.devices.len() as u32;
        let devices = streams.map(|stream| self.host.device(stream)).collect::<Result<Vec<_>, _>>()?;
        let named = (FIRST_ID..).zip(&devices).map(|(virt_id, device)| viommu.vdevice(device, virt_id));
        let vdevices = named.collect::<Result<Vec<_>, _>>()?;
        Ok(Machine { ioas, viommu, vdevices, devices })
    }

    /// Where DMA of the device with this number goes, in the guest's addresses, and whether it may write; for devices that go
    /// through paging HWPTs.
    pub(crate) fn reach(&self, device: usize, iova: u64) -> Option<(u64, bool)> {
        let reached = self.dispatcher.translate(device as u32 + 1, 0, iova).unwrap()?;
        let offset = reached.address.wrapping_sub(self.host_address());
        assert!(offset < RAM_SIZE, "{iova:#x} leads out of the guest's memory: {reached:x?}");
        Some((RAM + offset, reached.write))
    }

    /// Brings the host down; nothing may be left in the kernel but the devices.
    pub(crate) fn down(self) {
        self.host.settle().unwrap();
        let left = self.host.shutdown().unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(next_id(&self.dispatcher), self.devices.len() as u32 + 1, "something is left");
    }
}

/// Writes words of the guest's memory.
pub(crate) fn put(memory: &GuestMemoryMmap, gpa: u64, words: &[u64]) {
    for (at, word) in (gpa..).step_by(8).zip(words) {
        memory.write_obj(word.to_le(), GuestAddress(at)).unwrap();
    }
}

/// Every allocation and lookup of the kernel's fails once while a machine is set up: whatever fails, nothing is left.
pub(crate) fn fails_anywhere(rig: &Rig, set_up: impl Fn(&Rig) -> Result<(), viommu::Error>) {
    let clean = next_id(&rig.dispatcher);
    let mut failures = 0;
    for nth in 1..400 {
        rig.dispatcher.fail_nth(nth);
        let done = set_up(rig);
        let failed = rig.dispatcher.failed();
        rig.dispatcher.fail_nth(0);
        rig.host.settle().unwrap();
        assert_eq!(next_id(&rig.dispatcher), clean, "allocation {nth} failed: {done:?}");
        failures += u32::from(done.is_err());
        if !failed {
            assert!(done.is_ok() && failures > 5, "{failures} failures in {nth}: {done:?}");
            return;
        }
    }
    panic!("there is no end of allocations");
}
