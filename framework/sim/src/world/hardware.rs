//! The physical IOMMU: the vendor's model, at a pace of its own.

use super::{Backend, World, physical};
use crate::draw::Draw;
use crate::guest::{SLOTS, physical as small, slot};
use crate::inject::Injection;
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
use viommu_plugin_host::Plugin;

/// Events that wait for a late reader.
const EVENTS: usize = 8;

/// What is below the backend.
pub(crate) struct Platform {
    pub(crate) hardware: Arc<ModelHardware>,
    pub(crate) memory: Arc<PhysicalMemory>,
    pub(crate) direct: Backend,
    pub(crate) tags: u32,
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
    pub(super) fn new(plugin: &Plugin, plan: &Plan, simulation: &Simulation) -> Self {
        let (vendor, plan) = (plan.vendor, &plan.host);
        let model = |memory: Arc<PhysicalMemory>, config: ModelConfig<'_>| {
            let made = ModelHardware::new(plugin, memory, config, ModelMode::ByHand);
            made.unwrap_or_else(|cause| panic!("{cause}"))
        };
        let plain = model(PhysicalMemory::new(), ModelConfig::default());
        let registers = small(vendor, |at| plain.mmio_read(at, 4), plan.ring_log2);
        let memory = PhysicalMemory::new();
        memory.add_dma(physical::DMA, physical::DMA_SIZE).unwrap_or_else(|cause| panic!("{cause}"));
        let hardware = model(memory.clone(), ModelConfig { registers: &registers, ..ModelConfig::default() });
        let options = DirectOptions {
            sync_limit: plan.sync_limit,
            tag_limit: Some(plan.tags),
            clock: simulation.clock(),
            threads: simulation.threads(),
            event_capacity: EVENTS,
        };
        let direct = Direct::new(plugin, hardware.clone(), options).unwrap_or_else(|error| panic!("{error}"));
        Self { hardware, memory, direct, tags: plan.tags }
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
