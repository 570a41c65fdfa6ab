//! [`KernelBackend`]: opened, with what the kernel and the plugin say of the hardware.

use super::counters::KernelCounters;
use super::events::Events;
use super::graph::{Graph, Names};
use super::iommufd::{HardwareInfo, Iommufd};
use super::options::{DeviceSource, KernelOptions};
use super::sink::SinkParts;
use super::vfio::VfioDevice;
use crate::backend::ObjectKind;
use crate::seams::{Clock, lock};
use crate::uapi::flags;
use crate::uapi::payload::HwInfoArmSmmuv3;
use crate::{Cause, Error};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu_plugin::{KernelFacts, Nesting, Register, TranslationMode};
use viommu_plugin_host::{KernelAbi, Plugin};
use vm_memory::GuestMemoryMmap;
use zerocopy::FromBytes;

/// Linux's iommufd with the devices behind one physical IOMMU.
///
/// Dropping it detaches the devices and destroys what it made.
pub struct KernelBackend {
    // The thread that reads event queues ends before they go.
    pub(super) events: Events,
    pub(super) graph: Mutex<Graph>,
    pub(super) iommufd: Iommufd,
    pub(super) abi: KernelAbi,
    pub(super) facts: KernelFacts,
    pub(super) sinks: Arc<SinkParts>,
    pub(super) vendor: String,
    pub(super) hardware: HardwareInfo,
    /// By mode.
    pub(super) guest_registers: [Option<Vec<Register>>; 2],
    pub(super) settings: Settings,
    /// Streams by the kernel's number of the device.
    pub(super) device_names: Names,
}

/// What is left of the options.
pub(super) struct Settings {
    pub(super) event_depth: u32,
    pub(super) dirty_tracking: bool,
    pub(super) pasids: bool,
    pub(super) reset_limit: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl std::fmt::Debug for KernelBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelBackend").field("iommufd", &self.iommufd).field("vendor", &self.vendor).finish()
    }
}

impl KernelBackend {
    /// Opens the iommufd and binds all devices to it.
    ///
    /// # Errors
    /// If something cannot be opened or bound, there is no device (the kernel knows an IOMMU by its devices), or the
    /// IOMMU is not of the plugin's vendor.
    pub fn open(plugin: &Plugin, options: KernelOptions) -> Result<Self, Error> {
        Self::take_over(plugin, options).map_err(|cause| cause.of(ObjectKind::Host, None, "open"))
    }

    fn take_over(plugin: &Plugin, options: KernelOptions) -> Result<Self, Cause> {
        Self::take_over_with(plugin, options, BTreeMap::new())
    }

    /// With devices that are bound already.
    pub(super) fn take_over_with(
        plugin: &Plugin,
        options: KernelOptions,
        bound: BTreeMap<u32, Arc<VfioDevice>>,
    ) -> Result<Self, Cause> {
        let vendor = plugin.info().name.to_string();
        let none = || Cause::Unsupported(format!("{vendor}: this plugin knows nothing of Linux's iommufd"));
        let abi = plugin.kernel_abi().ok_or_else(none)?;
        let facts = abi.facts()?;
        let calls = options.iommu.open()?;
        options.memory.into_iter().for_each(|memory| calls.lend(memory));
        let mut graph = Graph::default();
        graph.idle = bound;
        for (stream, source) in options.devices {
            if source.is_bound() {
                let why = format!("the device of stream {stream:#x} is bound already: it can only be taken over");
                return Err(Cause::Invalid(why));
            }
            graph.idle.insert(stream, Arc::new(VfioDevice::bind(source.open()?, &calls, None)?));
        }
        let iommufd = Iommufd::new(calls.clone());
        let (hardware, payload) = hardware(&iommufd, &graph, &facts, &vendor)?;
        let shown = |mode| abi.registers(&payload, hardware.capabilities, mode).ok().filter(|shown| !shown.is_empty());
        let guest_registers = [shown(TranslationMode::NESTED), shown(TranslationMode::SHADOW)];
        let counters = Arc::new(KernelCounters::new(&vendor));
        let reader = (abi.clone(), counters.clone());
        let events = Events::start(calls, reader, options.event_capacity, &*options.threads)?;
        let sinks = Arc::new(SinkParts {
            iommufd: iommufd.clone(),
            abi: abi.clone(),
            facts,
            command_words: plugin.info().command_words,
            repeat: must_repeat(&hardware),
            precheck: options.precheck,
            trust: options.trust_entry_num,
            rate: options.rate,
            clock: options.clock.clone(),
            pause: options.pause.clone(),
            counters,
        });
        let settings = Settings {
            event_depth: options.event_depth,
            dirty_tracking: options.dirty_tracking,
            pasids: options.pasids,
            reset_limit: options.reset_limit,
            clock: options.clock,
            pause: options.pause,
        };
        let device_names: Names = Default::default();
        lock(&device_names).extend(graph.idle.iter().map(|(stream, vfio)| (vfio.id(), *stream)));
        let graph = Mutex::new(graph);
        Ok(Self {
            device_names,
            events,
            graph,
            iommufd,
            abi,
            facts,
            sinks,
            vendor,
            hardware,
            guest_registers,
            settings,
        })
    }

    /// The commands under it, for what the framework has no words for. IDs there are the kernel's.
    pub fn iommufd(&self) -> &Iommufd {
        &self.iommufd
    }

    /// What the kernel tells of the IOMMU.
    pub fn hardware(&self) -> &HardwareInfo {
        &self.hardware
    }

    /// ID registers that a guest of this IOMMU may be shown, in the mode that new guests are served in.
    pub fn guest_registers(&self) -> &[Register] {
        let mode = if self.nests() { TranslationMode::NESTED } else { TranslationMode::SHADOW };
        self.registers_in(mode).unwrap_or_default()
    }

    pub(super) fn registers_in(&self, mode: TranslationMode) -> Option<&[Register]> {
        self.guest_registers.get(mode.0 as usize)?.as_deref()
    }

    /// Whether the kernel nests guests of this vendor on this hardware.
    pub(super) fn nests(&self) -> bool {
        match self.facts.nesting {
            Nesting::VIOMMU => true,
            Nesting::PARENT => self.registers_in(TranslationMode::NESTED).is_some(),
            _ => false,
        }
    }

    /// [`TranslationMode::bit`] of each mode in which guests can be served.
    pub(super) fn modes(&self) -> u32 {
        let shadows = self.facts.nesting != Nesting::VIOMMU && self.registers_in(TranslationMode::SHADOW).is_some();
        let modes = [(self.nests(), TranslationMode::NESTED), (shadows, TranslationMode::SHADOW)];
        modes.into_iter().filter(|(is, _)| *is).map(|(_, mode)| mode.bit()).sum()
    }

    /// What it did so far.
    pub fn counters(&self) -> &KernelCounters {
        &self.sinks.counters
    }

    /// Memory that IOAS_MAP may map from, from now on for as long as this lives.
    pub fn lend(&self, memory: Arc<GuestMemoryMmap>) {
        self.iommufd.calls().lend(memory);
    }

    /// One more device, which is behind the same IOMMU.
    ///
    /// # Errors
    /// If the stream is taken (EEXIST), or the device cannot be opened or bound.
    pub fn add_device(&self, stream: u32, source: DeviceSource) -> Result<(), Error> {
        let add = || {
            let device = Arc::new(VfioDevice::bind(source.open()?, self.iommufd.calls(), None)?);
            let mut graph = lock(&self.graph);
            if graph.idle.contains_key(&stream) || graph.device_of(stream).is_some() {
                return Err(Cause::Exists(format!("stream {stream:#x} is a device already")));
            }
            lock(&self.device_names).insert(device.id(), stream);
            graph.idle.insert(stream, device);
            Ok(())
        };
        add().map_err(|cause| cause.of(ObjectKind::Device, None, "bind"))
    }

    /// Closes a device's file, which unbinds it. Its device object is destroyed first.
    ///
    /// # Errors
    /// EBUSY while there is a device object of it, ENOENT if there is no such device.
    pub fn remove_device(&self, stream: u32) -> Result<(), Error> {
        let mut graph = lock(&self.graph);
        let remove = |graph: &mut Graph| {
            if let Some(device) = graph.device_of(stream) {
                return Err(Cause::Busy { users: format!("device {device}") });
            }
            let none = || Cause::Absent(format!("no device has stream {stream:#x}"));
            graph.idle.remove(&stream).map(drop).ok_or_else(none)
        };
        remove(&mut graph).map_err(|cause| cause.of(ObjectKind::Device, None, "unbind"))
    }

    /// The VFIO device of a stream, for what the framework has no words for: PASIDs that are attached one by one. What they
    /// are attached to the caller makes, and invalidates.
    ///
    /// # Errors
    /// ENOENT if there is no such device.
    pub fn vfio_device(&self, stream: u32) -> Result<Arc<VfioDevice>, Error> {
        let graph = lock(&self.graph);
        let taken = graph.device_of(stream).and_then(|device| graph.device(device).ok()).map(|device| &device.vfio);
        let none = || Cause::Absent(format!("no device has stream {stream:#x}"));
        let found = taken.or_else(|| graph.idle.get(&stream)).cloned();
        found.ok_or_else(|| none().of(ObjectKind::Device, None, "find"))
    }

    /// The kernel's ID of one of the framework's objects; `None` if there is no such object, or not in the kernel.
    pub fn kernel_id(&self, id: u32) -> Option<u32> {
        lock(&self.graph).objects.get(&id)?.kernel_id()
    }

    /// Whether devices here can have caches of their own.
    pub(super) fn has_ats(&self) -> bool {
        self.hardware.capabilities & flags::HW_CAP_PCI_ATS_NOT_SUPPORTED == 0
    }

    /// Tries again while the kernel says EBUSY: a device that is being reset can be neither attached nor replaced.
    pub(super) fn patiently<T>(&self, mut operation: impl FnMut() -> Result<T, Cause>) -> Result<T, Cause> {
        let end = self.settings.clock.now() + self.settings.reset_limit;
        let mut delay = Duration::from_millis(1);
        loop {
            match operation() {
                Err(Cause::Busy { .. }) if self.settings.clock.now() < end => {
                    self.sinks.counters.busy.add(1);
                    (self.settings.pause)(delay);
                    delay = (delay * 2).min(Duration::from_millis(100));
                }
                done => return done,
            }
        }
    }
}

/// What the kernel tells of the IOMMU that all devices are behind: the capabilities are those of every device. And the
/// payload that the plugin reads, with the second one behind the first.
fn hardware(
    iommufd: &Iommufd,
    graph: &Graph,
    facts: &KernelFacts,
    vendor: &str,
) -> Result<(HardwareInfo, Vec<u8>), Cause> {
    let any = graph.any_device()?;
    let mut found = iommufd.hardware_info(any, None)?;
    if facts.hw_info_type != 0 && found.data_type != facts.hw_info_type {
        return Err(Cause::Unsupported(format!(
            "this host's IOMMU has hardware info of type {}, and the plugin {vendor} is for type {}",
            found.data_type, facts.hw_info_type
        )));
    }
    for vfio in graph.idle.values() {
        let other = iommufd.hardware_info(vfio.id(), None)?;
        found.capabilities &= other.capabilities;
        found.max_pasid_log2 = found.max_pasid_log2.min(other.max_pasid_log2);
    }
    let mut payload = found.data.clone();
    payload.resize(facts.hw_info_bytes as usize, 0);
    if facts.hw_info_more_type != 0 {
        let more = iommufd.hardware_info(any, Some(facts.hw_info_more_type)).map(|more| more.data).unwrap_or_default();
        let length = payload.len() + facts.hw_info_more_bytes as usize;
        payload.extend(more);
        payload.resize(length, 0);
    }
    Ok((found, payload))
}

/// The erratum REPEAT_TLBI_CFGI.
fn must_repeat(hardware: &HardwareInfo) -> bool {
    let arm = HwInfoArmSmmuv3::read_from_prefix(&hardware.data).ok().map(|(arm, _)| arm);
    hardware.data_type == flags::HW_INFO_TYPE_ARM_SMMUV3
        && arm.is_some_and(|arm| arm.flags & flags::HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI != 0)
}
