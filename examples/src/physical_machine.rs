//! The machine below: memory, and a software IOMMU in the place of the hardware, owned by viommu's direct backend.

use crate::{RecordedGuest, Story};
use std::sync::Arc;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::plugin::{Answer, ModelConfig, Request, Status};
use viommu::vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use viommu_plugin_host::Plugin;
use viommu_trace::{Translation, Vendor};

/// Physical memory for the driver's tables and queues: first address and bytes.
const DRIVER_MEMORY: (u64, u64) = (0x1_0000_0000, 0x4_0000_0000);
/// Physical address of the first guest's RAM, and from one guest's to the next.
const FIRST_RAM: u64 = 0x100_0000_0000;
const RAM_STRIDE: u64 = 0x10_0000_0000;
/// The page that devices write their interrupt messages to: where QEMU's `virt` machine shows it, where it is, its bytes.
const DOORBELL: u64 = 0x0809_0000;
const HOST_DOORBELL: u64 = 0xfee0_0000;
const DOORBELL_BYTES: u64 = 0x1000;

/// A physical machine with one IOMMU.
pub struct PhysicalMachine {
    memory: Arc<PhysicalMemory>,
    iommu: Arc<ModelHardware>,
    backend: Arc<Direct>,
}

impl PhysicalMachine {
    /// A machine whose IOMMU is the plugin's own model, executing commands on a thread of its own.
    ///
    /// # Errors
    /// If the plugin has no model or no driver for it.
    pub fn new(plugin: &Plugin) -> Story<Self> {
        let memory = PhysicalMemory::new();
        memory.add_dma(DRIVER_MEMORY.0, DRIVER_MEMORY.1)?;
        let iommu = ModelHardware::new(plugin, memory.clone(), ModelConfig::default(), ModelMode::Thread)?;
        let backend = Direct::new(plugin, iommu.clone(), DirectOptions::default())?;
        Ok(Self { memory, iommu, backend })
    }

    /// What a [`viommu::Host`] is built on.
    pub fn backend(&self) -> Arc<Direct> {
        self.backend.clone()
    }

    /// RAM for guest number `index`.
    ///
    /// # Errors
    /// If there is not so much, or `index` is taken.
    pub fn guest_ram(&self, recorded: &RecordedGuest, index: u32) -> Story<GuestRam> {
        let (base, bytes) = (recorded.header().ram_base, recorded.header().ram_size);
        if bytes > RAM_STRIDE {
            return Err(format!("{bytes:#x} bytes of RAM are more than this machine has for a guest").into());
        }
        let host = FIRST_RAM + u64::from(index) * RAM_STRIDE;
        let ram = Arc::new(MmapRegion::new(usize::try_from(bytes)?)?);
        self.memory.add_region(host, ram.clone())?;
        let region = GuestRegionMmap::with_arc(ram, GuestAddress(base)).ok_or("RAM beyond the address space")?;
        let guest = Arc::new(GuestMemoryMmap::from_regions(vec![region])?);
        // Where a guest's devices write interrupt messages through its tables, they are in its memory map.
        let doorbell = recorded.header().vendor == Vendor::ARM_SMMUV3;
        Ok(GuestRam { guest, base, bytes, host, doorbell })
    }

    /// What the IOMMU answers when the device with this physical stream makes a recorded piece of DMA.
    ///
    /// # Errors
    /// If the model failed.
    pub fn dma(&self, stream: u32, recorded: &Translation) -> Story<Answer> {
        let (iova, access) = (recorded.iova, recorded.access.into());
        let request = Request { stream, pasid: recorded.pasid.unwrap_or(u32::MAX), iova, access, flags: 0 };
        let mut answers = [Answer::default()];
        self.iommu.translate(&[request], &mut answers)?;
        if answers[0].status == Status::FAULT {
            // Guests run much faster here than when they were recorded: the fault is reported before the next step.
            self.backend.pump_events();
        }
        Ok(answers[0])
    }
}

/// A guest's RAM: where the guest sees it, and where it lies.
#[derive(Debug, Clone)]
pub struct GuestRam {
    guest: Arc<GuestMemoryMmap>,
    base: u64,
    bytes: u64,
    host: u64,
    doorbell: bool,
}

impl GuestRam {
    /// By guest physical address.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.guest
    }

    /// What the guest's IOAS has to hold: RAM, and on an Arm machine the page for interrupt messages.
    pub fn mappings(&self) -> Vec<Mapping> {
        let mapping = |iova, length, host| Mapping { iova, length, backing: Backing::Physical(host), writable: true };
        let mut all = vec![mapping(self.base, self.bytes, self.host)];
        if self.doorbell {
            all.push(mapping(DOORBELL, DOORBELL_BYTES, HOST_DOORBELL));
        }
        all
    }

    /// Whether a physical address is one of this RAM.
    pub fn is_at(&self, host: u64) -> bool {
        host.checked_sub(self.host).is_some_and(|offset| offset < self.bytes)
    }

    /// Where a guest physical address lies, if anywhere.
    pub fn host_address(&self, gpa: u64) -> Option<u64> {
        self.mappings().iter().find_map(|mapping| match mapping.backing {
            Backing::Physical(host) if gpa.checked_sub(mapping.iova)? < mapping.length => {
                Some(host + gpa - mapping.iova)
            }
            _ => None,
        })
    }
}
