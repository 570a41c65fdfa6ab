//! A host on a software kernel with an Arm IOMMU, and guests of it.

use crate::guest::{self, Guest, RAM, RAM_SIZE};
use crate::smmu::Smmu;
use std::collections::BTreeMap;
use std::sync::Arc;
use viommu::backend::kernel::{
    DeviceSource, IommuSource, KernelBackend, KernelOptions, SoftwareDevice, SoftwareIommufd,
};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::uapi::dispatcher::{Dispatcher, Options};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_plugin_host::Plugin;

/// The device's number in the host and in the guest.
pub(crate) const STREAM: u32 = 0x40;
pub(crate) const VIRT_ID: u32 = 3;

/// A host on a software kernel.
pub(crate) struct World {
    pub(crate) smmu: Smmu,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) backend: Arc<KernelBackend>,
    pub(crate) host: Host,
    pub(crate) memory: Arc<GuestMemoryMmap>,
}

/// A guest with one device.
pub(crate) struct Machine {
    pub(crate) guest: Guest,
    pub(crate) vdevice: Vdevice,
    pub(crate) device: Device,
    pub(crate) viommu: Viommu,
}

pub(crate) fn plugin() -> Plugin {
    Plugin::linked::<arm_smmuv3::ArmSmmuv3>()
}

/// Options for a software kernel with one device.
pub(crate) fn options(smmu: &Smmu, dispatcher: &Dispatcher, memory: &Arc<GuestMemoryMmap>) -> KernelOptions {
    let device = SoftwareDevice(dispatcher.device(smmu.device(STREAM)));
    let devices = BTreeMap::from([(STREAM, DeviceSource::Calls(Arc::new(device)))]);
    KernelOptions {
        iommu: IommuSource::Calls(Arc::new(SoftwareIommufd::new(dispatcher.clone()))),
        memory: vec![memory.clone()],
        ..KernelOptions::new(devices)
    }
}

impl World {
    pub(crate) fn new(smmu: Smmu, adjust: impl FnOnce(KernelOptions) -> KernelOptions) -> Self {
        let dispatcher = Dispatcher::new(Options::default());
        let memory = guest::memory();
        let backend = KernelBackend::open(&plugin(), adjust(options(&smmu, &dispatcher, &memory))).unwrap();
        let backend = Arc::new(backend);
        let host = viommu::Host::builder().backend(backend.clone()).plugin(plugin()).build().unwrap().into();
        Self { smmu, dispatcher, backend, host, memory }
    }

    pub(crate) fn usual() -> Self {
        Self::new(Smmu::default(), |options| options)
    }

    pub(crate) fn ram(&self) -> Mapping {
        let address = self.memory.find_region(GuestAddress(RAM)).unwrap().as_ptr() as u64;
        Mapping { iova: RAM, length: RAM_SIZE, backing: Backing::UserVa(address), writable: true }
    }

    pub(crate) fn machine(&self) -> Machine {
        self.machine_with(guest::config(&self.memory))
    }

    pub(crate) fn machine_with(&self, config: ViommuConfig) -> Machine {
        let frontend = config.frontend;
        let ioas = self.host.ioas().unwrap();
        ioas.map(self.ram()).unwrap();
        let viommu = ioas.nest_parent().unwrap().viommu(config).unwrap();
        let device = self.host.device(STREAM).unwrap();
        let vdevice = viommu.vdevice(&device, VIRT_ID).unwrap();
        let guest = if frontend { Guest::new(&viommu, &self.memory) } else { Guest::of(&viommu, &self.memory, 0) };
        Machine { guest, vdevice, device, viommu }
    }
}
