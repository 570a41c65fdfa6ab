//! The machine of the lab: `/dev/iommu`, and the `edu` devices that are bound to vfio-pci.

use crate::bench::{DEVICES, Engine, Machine};
use crate::edu::Edu;
use crate::late::Late;
use crate::tables::RAM;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use viommu::backend::kernel::sys::RawDevice;
use viommu::backend::kernel::{DeviceSource, IommuSource, KernelBackend, KernelOptions, NotAdopted};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Host, Ioas};
use viommu::plugin::Register;
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_examples::Story;
use viommu_plugin_host::{Plugin, SearchPath};

/// VFIO's number of MSIs.
const MSI: u32 = 1;
/// PCI vendor and device of `edu`.
const EDU: (&str, &str) = ("0x1234", "0x11e8");
/// SMMU_IDR1, and where its SSIDSIZE is.
const IDR1: u64 = 4;
const SSIDSIZE: u64 = 6;

/// How the backend treats what the kernel might refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// As it is for real guests.
    Checked,
    /// Not checked before: the kernel finds it.
    Unchecked,
    /// Not checked, and the kernel's count of what it did is believed.
    EntryNum,
}

pub(crate) struct Kernel {
    plugin: Plugin,
    devices: Vec<(u32, PathBuf)>,
    trust: Trust,
    /// Records that the kernel keeps for each event queue, where that is few, and nobody may read them.
    depth: Option<u32>,
    current: RefCell<Option<Parts>>,
}

/// Devices' files by host stream.
pub(crate) type Files = BTreeMap<u32, Arc<RawDevice>>;

#[derive(Clone)]
struct Parts {
    backend: Arc<KernelBackend>,
    files: Vec<Arc<RawDevice>>,
    late: Option<Arc<Late>>,
}

impl Kernel {
    pub(crate) fn new(trust: Trust) -> Story<Self> {
        let plugin = Plugin::find("arm-smmuv3", &SearchPath::standard())?;
        let devices = found()?;
        if devices.len() < DEVICES {
            return Err(format!("{} edu devices on vfio-pci, {DEVICES} are needed", devices.len()).into());
        }
        Ok(Self { plugin, devices, trust, depth: None, current: RefCell::default() })
    }

    /// With event queues of so few records, which nobody reads when told so ([`Kernel::late`]).
    pub(crate) fn with_depth(depth: u32) -> Story<Self> {
        Ok(Self { depth: Some(depth), ..Self::new(Trust::Checked)? })
    }

    /// Whether event queues are read.
    pub(crate) fn late(&self, late: bool) -> Story {
        self.parts()?.late.ok_or("this machine is never late")?.set(late);
        Ok(())
    }

    fn parts(&self) -> Story<Parts> {
        Ok(self.current.borrow().clone().ok_or("no host yet")?)
    }

    /// Closes the last host's files: whoever comes next can bind the devices.
    pub(crate) fn release(&self) {
        self.current.replace(None);
    }

    /// What its host stands on: the backend, and the devices' files by stream.
    pub(crate) fn files(&self) -> Story<(Arc<KernelBackend>, Files)> {
        let Parts { backend, files, .. } = self.parts()?;
        Ok((backend, self.devices.iter().map(|(stream, _)| *stream).zip(files).collect()))
    }

    /// A host on what another process left; the devices' files by stream, some may be missing. What was not taken over.
    pub(crate) fn adopted(
        &self,
        (iommufd, devices): (OwnedFd, &Files),
        graph: &[u8],
        events: BTreeMap<u32, Vec<OwnedFd>>,
    ) -> Story<(Host, NotAdopted)> {
        let source = |(stream, file): (&u32, &Arc<RawDevice>)| (*stream, DeviceSource::Calls(file.clone()));
        let options = KernelOptions {
            iommu: IommuSource::Fd(iommufd),
            ..KernelOptions::new(devices.iter().map(source).collect())
        };
        let (backend, refused) = KernelBackend::adopt(&self.plugin, options, graph, events)?;
        let backend = Arc::new(backend);
        self.current.replace(Some(Parts {
            backend: backend.clone(),
            files: devices.values().cloned().collect(),
            late: None,
        }));
        Ok((viommu::Host::builder().backend(backend).plugin(self.plugin.clone()).build()?.into(), refused))
    }

    /// Where a device's MSIs go from now on.
    pub(crate) fn message(&self, device: usize) -> Story<Message> {
        let (file, signal) = (self.parts()?.files[device].clone(), eventfd(0, EventfdFlags::CLOEXEC)?);
        file.signal(MSI, Some(signal.as_fd()))?;
        Ok(Message { file, signal })
    }
}

impl Machine for Kernel {
    fn host(&self) -> Story<Host> {
        // A device is bound to one iommufd at a time.
        self.release();
        let files = self.devices.iter().map(|(_, node)| Ok(Arc::new(RawDevice::open(node)?)));
        let files = files.collect::<Story<Vec<_>>>()?;
        let source = |file: &Arc<RawDevice>| DeviceSource::Calls(file.clone());
        let devices: BTreeMap<_, _> =
            self.devices.iter().map(|(stream, _)| *stream).zip(files.iter().map(source)).collect();
        let usual = KernelOptions::new(devices);
        let late = self.depth.map(|_| Late::open()).transpose()?;
        let options = KernelOptions {
            iommu: late.clone().map_or(usual.iommu, |late| IommuSource::Calls(late)),
            event_depth: self.depth.unwrap_or(usual.event_depth),
            precheck: self.trust == Trust::Checked,
            trust_entry_num: self.trust == Trust::EntryNum,
            ..usual
        };
        let backend = Arc::new(KernelBackend::open(&self.plugin, options)?);
        self.current.replace(Some(Parts { backend: backend.clone(), files, late }));
        Ok(viommu::Host::builder().backend(backend).plugin(self.plugin.clone()).build()?.into())
    }

    fn registers(&self) -> Story<Vec<Register>> {
        let mut registers = self.parts()?.backend.guest_registers().to_vec();
        // A guest that is believed to have substreams may send what the kernel, which has none, refuses.
        if self.trust != Trust::Checked {
            let idr1 = registers.iter_mut().find(|register| register.offset == IDR1).ok_or("no IDR1")?;
            idr1.value |= 8 << SSIDSIZE;
        }
        Ok(registers)
    }

    fn map(&self, ioas: &Ioas, memory: &Arc<GuestMemoryMmap>, gpa: u64, bytes: u64) -> Story {
        if gpa == RAM {
            self.parts()?.backend.lend(memory.clone());
        }
        let backing = Backing::UserVa(memory.get_host_address(GuestAddress(gpa))? as u64);
        Ok(ioas.map(Mapping { iova: gpa, length: bytes, backing, writable: true })?)
    }

    fn stream(&self, device: usize) -> u32 {
        self.devices[device].0
    }

    fn engine(&self, device: usize) -> Story<Box<dyn Engine>> {
        Ok(Box::new(Edu::new(self.parts()?.files[device].clone())?))
    }
}

/// A device's MSIs, as an eventfd that the kernel writes.
pub(crate) struct Message {
    file: Arc<RawDevice>,
    signal: OwnedFd,
}

impl Message {
    /// MSIs that arrive within `limit`.
    pub(crate) fn within(&self, limit: Duration) -> Story<u64> {
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: limit.as_nanos().min(999_999_999) as i64 };
        let mut fds = [PollFd::new(&self.signal, PollFlags::IN)];
        if poll(&mut fds, Some(&limit))? == 0 {
            return Ok(0);
        }
        let mut count = [0; 8];
        rustix::io::read(&self.signal, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Err(error) = self.file.signal(MSI, None) {
            println!("# MSIs stay on: {error}");
        }
    }
}

/// The stream and the VFIO node of each `edu` that vfio-pci has. On PCI a stream is the device's place on its bus.
pub(crate) fn found() -> Story<Vec<(u32, PathBuf)>> {
    let mut devices = Vec::new();
    for device in fs::read_dir("/sys/bus/pci/devices")? {
        let device = device?.path();
        let is = |file, value| -> Story<bool> { Ok(fs::read_to_string(device.join(file))?.trim() == value) };
        if !is("vendor", EDU.0)? || !is("device", EDU.1)? {
            continue;
        }
        let name = device.file_name().and_then(|name| name.to_str()).ok_or("a device without a name")?;
        // 0000:00:02.0: domain, bus, slot and function, in hexadecimal.
        let parts: Vec<_> =
            name.split([':', '.']).map(|part| u32::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
        let [_, bus, slot, function] = parts[..] else { return Err(format!("{name} is no PCI device").into()) };
        for node in fs::read_dir(device.join("vfio-dev"))? {
            devices.push((bus << 8 | slot << 3 | function, Path::new("/dev/vfio/devices").join(node?.file_name())));
        }
    }
    devices.sort();
    Ok(devices)
}
