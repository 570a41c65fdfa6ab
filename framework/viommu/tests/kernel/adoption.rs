//! A second process takes over: nothing is attached, replaced or made anew, and the guest goes on.

use crate::guest::{self, CD_1, Guest, STE_BYPASS, STE_STAGE_1, SYNC};
use crate::smmu::Smmu;
use crate::{Machine, STREAM, VIRT_ID, World, plugin};
use std::collections::BTreeMap;
use std::sync::Arc;
use viommu::backend::ObjectKind;
use viommu::backend::kernel::{
    DeviceSource, IommuSource, KernelBackend, KernelOptions, SoftwareDevice, SoftwareIommufd,
};
use viommu::blocking::Host;
use viommu::objects::{RestoreConfig, ViommuConfig};
use viommu::uapi::dispatcher::{Dispatcher, Options};

/// What outlives a process: files that somebody keeps open.
struct Files {
    iommufd: Arc<SoftwareIommufd>,
    device: Arc<SoftwareDevice>,
}

impl Files {
    fn new(smmu: &Smmu) -> Self {
        let dispatcher = Dispatcher::new(Options::default());
        let device = Arc::new(SoftwareDevice(dispatcher.device(smmu.device(STREAM))));
        Self { iommufd: Arc::new(SoftwareIommufd::new(dispatcher)), device }
    }

    fn options(&self) -> KernelOptions {
        KernelOptions {
            iommu: IommuSource::Calls(self.iommufd.clone()),
            ..KernelOptions::new([(STREAM, DeviceSource::Calls(self.device.clone()))].into())
        }
    }

    fn world(&self, smmu: &Smmu, backend: KernelBackend) -> World {
        let (backend, memory) = (Arc::new(backend), guest::memory());
        backend.lend(memory.clone());
        let host: Host = viommu::Host::builder().backend(backend.clone()).plugin(plugin()).build().unwrap().into();
        World { smmu: smmu.clone(), dispatcher: self.iommufd.dispatcher().clone(), backend, host, memory }
    }
}

/// A guest whose device translates, with an event queue.
fn running(world: &World) -> Machine {
    let shown = world.backend.guest_registers().to_vec();
    let machine = world.machine_with(ViommuConfig::new(shown, world.memory.clone()));
    machine.guest.enable();
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    machine
}

#[test]
fn a_host_that_takes_over_touches_no_dma_and_serves_the_guest() {
    let smmu = Smmu::default();
    let files = Files::new(&smmu);
    let old = files.world(&smmu, KernelBackend::open(&plugin(), files.options()).unwrap());
    let machine = running(&old);
    let events = machine.viommu.event_queue().unwrap();
    let (saved, graph) = (machine.viommu.save().unwrap(), old.backend.save_graph());
    let attached = smmu.seen.lock().unwrap().attached.clone();
    let (ram, memory) = (old.ram(), old.memory.clone());
    old.backend.hand_over();
    drop((machine, events, old));
    assert_eq!(smmu.seen.lock().unwrap().attached, attached, "the old process has touched nothing since");

    let (backend, refused) = KernelBackend::adopt(&plugin(), files.options(), &graph, BTreeMap::new()).unwrap();
    assert_eq!(refused, []);
    assert!(backend.unclaimed().len() > 5);
    let new = files.world(&smmu, backend);
    new.backend.lend(memory.clone());
    let ioas = new.host.ioas().unwrap();
    ioas.map(ram).unwrap();
    let device = new.host.device(STREAM).unwrap().handle().clone();
    let config = RestoreConfig::new(memory.clone(), BTreeMap::from([(VIRT_ID, device)]));
    let restored = ioas.nest_parent().unwrap().restore_viommu(config, &saved).unwrap();
    assert_eq!(new.backend.unclaimed(), [], "everything was asked for");
    assert_eq!(smmu.seen.lock().unwrap().attached, attached, "nothing was attached anew");

    // The guest goes on: what it invalidates and what it changes reaches the hardware.
    smmu.take();
    let producer = restored.viommu.mmio_read(0x98, 4).unwrap();
    let guest = Guest::of(&restored.viommu, &memory, producer);
    guest.send(&[[0x11 | 1 << 48, 0], SYNC]);
    assert_eq!(smmu.take(), [[0x11 | 1 << 48, 0]]);
    guest.set_ste(VIRT_ID.into(), STE_BYPASS);
    assert_eq!(smmu.seen.lock().unwrap().attached.last(), Some(&STE_BYPASS));
    drop((restored, ioas, guest));
    assert!(new.host.shutdown().unwrap().is_empty());
}

#[test]
fn what_is_gone_is_said_and_what_nobody_wants_can_be_discarded() {
    let smmu = Smmu::default();
    let files = Files::new(&smmu);
    let old = files.world(&smmu, KernelBackend::open(&plugin(), files.options()).unwrap());
    let machine = running(&old);
    let graph = old.backend.save_graph();
    // The kernel's fault queue goes behind the graph's back, and with it nothing else.
    let faults = old.host.fault_queue().unwrap();
    let with_faults = old.backend.save_graph();
    faults.destroy().unwrap();
    old.backend.hand_over();
    drop((machine, old));

    let no_device = KernelOptions { devices: BTreeMap::new(), ..files.options() };
    assert!(KernelBackend::adopt(&plugin(), no_device, &graph, BTreeMap::new()).is_err(), "no device at all");
    assert!(KernelBackend::adopt(&plugin(), files.options(), &graph[..graph.len() - 1], BTreeMap::new()).is_err());
    let (backend, refused) = KernelBackend::adopt(&plugin(), files.options(), &with_faults, BTreeMap::new()).unwrap();
    assert_eq!(refused.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>(), [ObjectKind::FaultQueue]);
    assert_eq!(backend.discard_unclaimed(), []);
    assert_eq!(backend.unclaimed(), []);
}
