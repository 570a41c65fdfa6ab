//! The physical IOMMU: the vendor's model, at a pace of its own.

use super::{Backend, World, physical};
use crate::Second;
use crate::draw::Draw;
use crate::guest::{DATA_OFFSET, RAM_SIZE, SLOTS, physical as small, slot};
use crate::inject::Injection;
use crate::oracle::{Clause, Violation};
use crate::plan::{DevicePlan, Fault, Plan, VmPlan};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use viommu::Cause;
use viommu::backend::Objects;
use viommu::backend::direct::{Direct, DirectOptions, Hardware, ModelHardware, ModelMode, PhysicalMemory};
use viommu::plugin::{Answer, ModelConfig, Request};
use viommu::simulation::{self, Simulation};
use viommu::vm_memory::MmapRegion;
use viommu_plugin_host::Plugin;

/// Events that wait for a late reader.
const EVENTS: usize = 8;

/// What is below the backend.
pub(crate) struct Platform {
    pub(crate) hardware: Arc<ModelHardware>,
    pub(crate) memory: Arc<PhysicalMemory>,
    pub(crate) direct: Backend,
    pub(crate) tags: u32,
    pub(crate) second: Option<Arc<dyn Second>>,
}

/// Memory that the second IOMMU has too.
pub(super) fn shared(second: &dyn Second, pa: u64, length: u64) -> Arc<MmapRegion> {
    let mapped = MmapRegion::from_file(second.file(pa), length as usize);
    Arc::new(mapped.unwrap_or_else(|error| panic!("{error}")))
}

/// Tells the second IOMMU of all memory that there will be, so that it finds what strayed.
fn begin(second: &dyn Second, plugin: &Plugin, model: &Arc<ModelHardware>, machines: &[VmPlan]) -> Arc<dyn Hardware> {
    let (lent, length) = physical::lent(machines.len());
    let added = model.memory().add_region(lent, shared(second, lent, length));
    added.unwrap_or_else(|cause| panic!("{cause}"));
    let data = machines.iter().map(|vm| (physical::ram(vm.number) + DATA_OFFSET, RAM_SIZE - DATA_OFFSET));
    let mut places: Vec<_> = data.collect();
    for (vm, (pa, _)) in machines.iter().zip(&places) {
        let ram = physical::ram(vm.number);
        let added = model.memory().add_region(ram, shared(second, ram, RAM_SIZE));
        added.unwrap_or_else(|cause| panic!("{cause} ({pa:#x})"));
    }
    places.push((lent, length));
    second.begin(plugin, model.clone(), &places)
}

/// The answer of a call that does not wait: the backend's calls block.
pub(super) fn now<T>(call: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(Cause::WouldDeadlock),
    }
}

impl Platform {
    /// Takes over an IOMMU with small queues.
    pub(super) fn new(plugin: &Plugin, plan: &Plan, simulation: &Simulation, second: Option<Arc<dyn Second>>) -> Self {
        let (vendor, machines, plan) = (plan.vendor, &plan.vms, &plan.host);
        let model = |memory: Arc<PhysicalMemory>, config: ModelConfig<'_>| {
            let made = ModelHardware::new(plugin, memory, config, ModelMode::ByHand);
            made.unwrap_or_else(|cause| panic!("{cause}"))
        };
        let plain = model(PhysicalMemory::new(), ModelConfig::default());
        let mut registers = second.as_ref().map(|second| second.registers()).unwrap_or_default();
        let own = |at| registers.iter().find(|register| register.offset == at).map(|register| register.value);
        let few = small(vendor, |at| own(at).unwrap_or_else(|| plain.mmio_read(at, 4)), plan.ring_log2);
        registers.retain(|register| few.iter().all(|other| other.offset != register.offset));
        registers.extend(few);
        let memory = PhysicalMemory::new();
        let added = match &second {
            None => memory.add_dma(physical::DMA, physical::DMA_SIZE),
            Some(second) => memory.add_dma_region(physical::DMA, shared(&**second, physical::DMA, physical::DMA_SIZE)),
        };
        added.unwrap_or_else(|cause| panic!("{cause}"));
        let hardware = model(memory.clone(), ModelConfig { registers: &registers, ..ModelConfig::default() });
        let options = DirectOptions {
            sync_limit: plan.sync_limit,
            tag_limit: Some(plan.tags),
            clock: simulation.clock(),
            threads: simulation.threads(),
            event_capacity: EVENTS,
        };
        let driven = second.as_ref().map(|second| begin(&**second, plugin, &hardware, machines));
        let driven = driven.unwrap_or_else(|| hardware.clone());
        let direct = Direct::new(plugin, driven, options).unwrap_or_else(|error| panic!("{error}"));
        Self { hardware, memory, direct, tags: plan.tags, second }
    }

    /// Attaches each device once, so that the driver has what it keeps for ever. Bytes in use then.
    pub(super) fn warm_up(&self, machines: &[Vec<DevicePlan>]) -> u64 {
        let direct = &self.direct;
        let warm = |devices: &[DevicePlan]| {
            let ioas = now(direct.ioas_alloc())?;
            let parent = now(direct.nest_parent_alloc(ioas))?;
            let viommu = now(direct.viommu_alloc(parent))?;
            for device in devices {
                let device = now(direct.device_bind(device.stream))?;
                now(direct.attach(device, viommu.bypass))?;
                now(direct.detach(device))?;
                now(direct.destroy(device))?;
            }
            [viommu.id, parent, ioas].into_iter().try_for_each(|id| now(direct.destroy(id)))
        };
        machines.iter().try_for_each(|devices| warm(devices)).unwrap_or_else(|cause| panic!("{cause}"));
        self.memory.in_use()
    }
}

impl World {
    /// What a second IOMMU complains of.
    pub(super) fn heed(&self, second: &dyn Second) {
        if let Some(what) = second.complaint() {
            self.oracle.violation(Violation::new(Clause::Differs, what));
        }
    }

    /// Where the hardware translates ahead: often where something changed lately.
    fn ahead(&self, vm: u32, virt_id: u32, draw: &mut Draw) -> u64 {
        let lately = if draw.chance(50) { self.lately(vm, virt_id, draw) } else { None };
        lately.map_or_else(|| slot(draw.below(SLOTS as u32) as usize), |(base, _)| base)
    }

    /// Commands execute one by one, each after a time of its own; the hardware stands still where the plan says so, and
    /// translates ahead of the devices between two commands.
    pub(super) fn spawn_hardware(&self, plan: &Plan, injection: Option<Injection>, simulation: &Simulation) {
        let stalls = plan.faults.iter().filter_map(|fault| match *fault {
            Fault::Stall { after, time } => Some((u64::from(after), time)),
            _ => None,
        });
        let (stalls, world, host) = (stalls.collect::<Vec<_>>(), self.clone(), plan.host.clone());
        let of_vm = |vm: &VmPlan| {
            vm.devices.iter().map(|device| (vm.number, device.virt_id, device.stream)).collect::<Vec<_>>()
        };
        let streams: Vec<_> = plan.vms.iter().flat_map(of_vm).collect();
        let mut draw = Draw::new(plan.seed, 4);
        simulation.spawn("hardware", move || {
            let mut executed = 0;
            while !world.over.load(Ordering::SeqCst) {
                if draw.chance(host.speculation) && !streams.is_empty() {
                    let requests: Vec<_> = (0..4)
                        .map(|_| {
                            let (vm, virt_id, stream) = draw.pick(&streams);
                            let iova = world.ahead(vm, virt_id, &mut draw);
                            Request { stream, pasid: u32::MAX, iova, access: 0, flags: Request::SPECULATIVE }
                        })
                        .collect();
                    let mut answers = [Answer::default(); 4];
                    drop(world.platform.hardware.translate(&requests, &mut answers));
                    world.oracle.count("dma.speculative");
                }
                let done = world.platform.hardware.step(1);
                if let Some(second) = &world.platform.second {
                    second.keep_up();
                    world.heed(&**second);
                }
                // Taking it over and counting at the end are no part of the story.
                let told = done > 0 && world.started.load(Ordering::SeqCst);
                executed += u64::from(told);
                for (_, time) in stalls.iter().filter(|(after, _)| told && *after == executed) {
                    world.oracle.count("fault.stall");
                    simulation::note(|| format!("the hardware stands still for {time:?}"));
                    simulation::sleep(*time);
                }
                simulation::sleep(Duration::from_micros(1 + u64::from(draw.below(host.pace))));
            }
            if injection == Some(Injection::LeakTask) {
                loop {
                    simulation::sleep(Duration::from_millis(10));
                }
            }
        });
    }
}
