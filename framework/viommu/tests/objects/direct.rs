//! The same objects over a software SMMUv3: what devices' DMA really does.

use crate::guest::{self, CD_1, Guest, RAM, RAM_SIZE, STE_BYPASS, STE_STAGE_1};
use arm_smmuv3::ArmSmmuv3;
use std::sync::Arc;
use viommu::Host as AsyncHost;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::Host;
use viommu::plugin::{Answer, ModelConfig, Request, Status};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend};
use viommu_plugin_host::Plugin;

pub(crate) struct Machine {
    pub(crate) physical: Arc<PhysicalMemory>,
    pub(crate) model: Arc<ModelHardware>,
    backend: Arc<Direct>,
    pub(crate) host: Host,
}

pub(crate) fn machine(options: DirectOptions) -> Machine {
    let plugin = Plugin::linked::<ArmSmmuv3>();
    let physical = PhysicalMemory::new();
    physical.add_dma(0x1_0000_0000, 1 << 30).unwrap();
    let config = ModelConfig { atc: true, ..ModelConfig::default() };
    let model = ModelHardware::new(&plugin, physical.clone(), config, ModelMode::Inline).unwrap();
    let backend = Direct::new(&plugin, model.clone(), options).unwrap();
    let host = AsyncHost::builder().backend(backend.clone()).plugin(plugin).build().unwrap().into();
    Machine { physical, model, backend, host }
}

impl Machine {
    pub(crate) fn dma(&self, stream: u32, iova: u64) -> Answer {
        let mut answers = [Answer::default()];
        let request = Request { stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        assert_eq!(self.model.translate(&[request], &mut answers).unwrap(), 1);
        answers[0]
    }
}

#[test]
fn dma_follows_the_guests_entry_through_stage_2() {
    const HOST_RAM: u64 = 0x8000_0000;
    let machine = machine(DirectOptions::default());
    let memory = guest::memory();
    let region = memory.find_region(GuestAddress(RAM)).unwrap();
    machine.physical.add_region(HOST_RAM, region.get_mmap()).unwrap();
    let ioas = machine.host.ioas().unwrap();
    let backing = Backing::Physical(HOST_RAM);
    ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }).unwrap();
    let viommu = ioas.nest_parent().unwrap().viommu(guest::config(&memory)).unwrap();
    let device = machine.host.device(0x40).unwrap();
    let guest = Guest::new(&viommu, &memory);
    assert_ne!(machine.dma(0x40, RAM).status, Status::OK, "a device without a name aborts");
    guest.enable();
    guest.set_ste(3, STE_STAGE_1 | CD_1);
    let vdevice = viommu.vdevice(&device, 3).unwrap();
    let nested = machine.dma(0x40, 0x1234);
    assert_eq!((nested.status, nested.output), (Status::OK, HOST_RAM + 0x1234), "{nested:?}");

    // Bypass, with S1ContextPtr still set: the nested HWPT is freed and the next DMA is untranslated by the guest.
    let freed = viommu.nested_hwpts().remove(0).id();
    guest.set_ste(3, STE_BYPASS | CD_1);
    assert!(guest.all_taken());
    assert_eq!(viommu.counters().live, 0);
    assert!(viommu::backend::Objects::live(machine.backend.as_ref()).iter().all(|(id, _)| *id != freed));
    let bypass = machine.dma(0x40, RAM + 0x1234);
    assert_eq!(bypass.output, HOST_RAM + 0x1234, "{bypass:?}");
    assert_eq!(machine.dma(0x40, 0x1234).status, Status::FAULT, "the guest's IPA has no stage 2 there");

    // Unmapped under the guest: gone for the device when the call returns.
    assert_eq!(ioas.unmap(RAM, RAM_SIZE).unwrap(), RAM_SIZE);
    assert_eq!(machine.dma(0x40, RAM + 0x1234).status, Status::FAULT);
    vdevice.destroy().unwrap();
    assert_ne!(machine.dma(0x40, RAM).status, Status::OK);
    drop((guest, viommu, ioas, device));
    assert!(machine.host.shutdown().unwrap().is_empty());
}

#[test]
fn three_hundred_guests_find_an_8_bit_tag_pool_empty_and_a_freed_tag_serves_again() {
    let machine = machine(DirectOptions { tag_limit: Some(255), ..DirectOptions::default() });
    let memory = guest::memory();
    let ioas = machine.host.ioas().unwrap();
    let mut guests = Vec::new();
    let mut refused = 0;
    for _ in 0..300 {
        match ioas.nest_parent() {
            Ok(parent) => guests.push(parent.viommu(guest::config(&memory)).unwrap()),
            Err(error) => {
                assert_eq!(error.errno(), 28, "{error}");
                assert!(error.to_string().contains("exhausted: all 255 in use"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((guests.len(), refused), (255, 45));
    let mut tags: Vec<_> = guests.iter().map(|guest| guest.handle().info().tag).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 255, "a tag given twice");
    guests.swap_remove(100);
    machine.host.settle().unwrap();
    guests.push(ioas.nest_parent().unwrap().viommu(guest::config(&memory)).unwrap());
    drop((guests, ioas));
    assert!(machine.host.shutdown().unwrap().is_empty());
}
