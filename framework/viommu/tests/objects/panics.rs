//! A panic at every step of every handler, in every state of its object: what DMA may reach meanwhile, what the guest and
//! the host's subscribers are told, and that everything comes back in the end.
//!
//! The story runs in a simulation, so that it is the same each time but for the panic. Beside the guest that it is about
//! there is another, whose DMA must not notice anything.

use crate::guest::{self, CD_1, CD_2, Guest, RAM, RAM_SIZE, STE_BYPASS, STE_STAGE_1};
use arm_smmuv3::ArmSmmuv3;
use std::sync::Arc;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping, ObjectKind, Objects};
use viommu::blocking::{Device, Host, Ioas, Vdevice, Viommu};
use viommu::objects::ObjectState;
use viommu::plugin::{Answer, ModelConfig, Request, Status};
use viommu::seams::{FaultPlan, Seen};
use viommu::simulation::Simulation;
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu::{Cause, Error, HostEvent};
use viommu_plugin_host::Plugin;

/// What a device's DMA does, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dma {
    /// Through the guest's stage 1.
    Translates,
    /// Stage 2 only.
    Bypasses,
    Aborts,
}

use Dma::{Aborts, Bypasses, Translates};

struct World {
    model: Arc<ModelHardware>,
    backend: Arc<Direct>,
    host: Host,
    physical: Arc<PhysicalMemory>,
}

impl World {
    fn new(plan: FaultPlan) -> Self {
        let simulation = Simulation::current().expect("in a simulation");
        let plugin = Plugin::linked::<ArmSmmuv3>();
        let physical = PhysicalMemory::new();
        physical.add_dma(0x1_0000_0000, 1 << 28).unwrap();
        let config = ModelConfig { atc: true, ..ModelConfig::default() };
        let model = ModelHardware::new(&plugin, physical.clone(), config, ModelMode::Inline).unwrap();
        let options = DirectOptions { clock: simulation.clock(), threads: simulation.threads(), ..Default::default() };
        let backend = Direct::new(&plugin, model.clone(), options).unwrap();
        let builder = viommu::Host::builder().backend(backend.clone()).plugin(plugin).faults(plan);
        let host = builder.simulated(0).build().unwrap().into();
        Self { model, backend, host, physical }
    }

    fn reaches(&self, stream: u32, iova: u64) -> Option<u64> {
        let mut answers = [Answer::default()];
        let request = Request { stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        assert_eq!(self.model.translate(&[request], &mut answers).unwrap(), 1);
        let [answer] = answers;
        matches!(answer.status, Status::OK | Status::BYPASS | Status::DISABLED).then_some(answer.output)
    }

    /// What the DMA of `stream` does; anything that is none of the three is a leak.
    fn dma(&self, stream: u32, ram: u64) -> Dma {
        match (self.reaches(stream, 0x1234), self.reaches(stream, RAM + 0x1234)) {
            (Some(output), None) if output == ram + 0x1234 => Translates,
            (None, Some(output)) if output == ram + 0x1234 => Bypasses,
            (None, None) => Aborts,
            other => panic!("stream {stream:#x} reaches {other:x?}"),
        }
    }
}

/// A guest's memory and the host memory behind it.
struct Ram {
    memory: Arc<GuestMemoryMmap>,
    host: u64,
}

impl Ram {
    fn new(world: &World, host: u64) -> Self {
        let memory = guest::memory();
        let region = memory.find_region(GuestAddress(RAM)).unwrap();
        world.physical.add_region(host, region.get_mmap()).unwrap();
        Self { memory, host }
    }

    fn ioas(&self, host: &Host) -> Result<Ioas, Error> {
        let ioas = again(|| host.ioas())?;
        let backing = Backing::Physical(self.host);
        again(|| ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }))?;
        Ok(ioas)
    }
}

/// As a control plane does it: what panicked is asked for again.
fn again<T>(mut operation: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut last = operation();
    for _ in 0..8 {
        match last {
            Err(error) if matches!(error.cause, Cause::Panicked(_)) => last = operation(),
            done => return done,
        }
    }
    last
}

/// The neighbour, up and translating.
struct Neighbour {
    ram: Ram,
    _held: (Viommu, Device, Vdevice),
}

const NEIGHBOUR: u32 = 0x50;
const STREAM: u32 = 0x40;

impl Neighbour {
    fn new(world: &World) -> Self {
        let ram = Ram::new(world, 0x9000_0000);
        let viommu = ram.ioas(&world.host).unwrap().nest_parent().unwrap().viommu(guest::config(&ram.memory)).unwrap();
        let guest = Guest::new(&viommu, &ram.memory);
        guest.store_ste(3, STE_STAGE_1 | CD_1);
        guest.enable();
        let device = world.host.device(NEIGHBOUR).unwrap();
        let vdevice = viommu.vdevice(&device, 3).unwrap();
        Self { ram, _held: (viommu, device, vdevice) }
    }

    fn unharmed(&self, world: &World, when: &str) {
        assert_eq!(world.dma(NEIGHBOUR, self.ram.host), Translates, "the neighbour, {when}");
    }
}

/// One guest's life. Judges its DMA after each step; ends early where a step is refused for good.
fn story(world: &World, neighbour: &Neighbour) -> Result<(), Error> {
    let host = &world.host;
    let ram = Ram::new(world, 0x8000_0000);
    let judge = |when: &str, may: &[Dma]| {
        let does = world.dma(STREAM, ram.host);
        assert!(may.contains(&does), "{when}: DMA {does:?}, may {may:?}");
        neighbour.unharmed(world, when);
    };
    let ioas = ram.ioas(host)?;
    let parent = again(|| ioas.nest_parent())?;
    let viommu = again(|| parent.viommu(guest::config(&ram.memory)))?;
    let _events = again(|| viommu.event_queue())?;
    let _faults = again(|| host.fault_queue())?;
    let device = again(|| host.device(STREAM))?;
    judge("bound", &[Aborts]);
    let guest = Guest::new(&viommu, &ram.memory);
    guest.abort_while_off(true);
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    guest.enable();
    judge("enabled", &[Aborts]);
    let vdevice = again(|| viommu.vdevice(&device, 3))?;
    judge("named", &[Translates, Aborts]);
    let mut before = Translates;
    for (entry, now) in [(STE_BYPASS, Bypasses), (STE_STAGE_1 | CD_2, Translates), (STE_BYPASS | CD_2, Bypasses)] {
        guest.set_ste(3, entry);
        for _ in 0..8 {
            if guest.all_taken() || viommu.pipeline().is_quarantined() {
                break;
            }
            judge("the guest was told that its command failed", &[before, now, Aborts]);
            guest.acknowledge();
        }
        match (viommu.pipeline().is_quarantined(), guest.all_taken()) {
            (true, _) => judge("quarantined", &[Aborts]),
            (false, true) => judge("the guest saw its SYNC complete", &[now, Aborts]),
            (false, false) => judge("the guest gave up", &[before, now, Aborts]),
        }
        before = now;
    }
    guest.disable();
    judge("disabled: GBPA.ABORT", &[Aborts]);
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    guest.enable();
    judge("enabled again", &[Translates, Aborts]);
    again(|| viommu.reset())?;
    judge("reset", &[Bypasses, Aborts]);
    let removed = again(|| vdevice.clone().destroy());
    if removed.is_ok() {
        judge("removed", &[Aborts]);
    }
    drop(vdevice);
    again(|| ioas.unmap(RAM, RAM_SIZE))?;
    judge("unmapped", &[Aborts]);
    removed
}

struct Run {
    seen: Vec<(ObjectKind, &'static str, Seen)>,
    before: Vec<(ObjectKind, &'static str, Seen)>,
    told: Vec<HostEvent>,
    refused: Option<Error>,
}

/// The story under a plan: everything is back at the end, and each panic was told.
fn run(plan: FaultPlan) -> Run {
    let simulation = Simulation::enter(0).unwrap();
    let world = World::new(plan);
    let neighbour = Neighbour::new(&world);
    let before = world.host.host().faults().seen();
    let events = world.host.events();
    let refused = story(&world, &neighbour).err();
    world.host.settle().unwrap();
    neighbour.unharmed(&world, "after the story");
    drop(neighbour);
    // A destroy that panicked is tried again at each settling.
    for _ in 0..8 {
        world.host.settle().unwrap();
    }
    assert_eq!(world.host.objects(), [], "objects without a handle");
    assert_eq!(world.backend.live(), [], "left in the backend");
    assert_eq!(world.dma(STREAM, 0), Aborts);
    let seen = world.host.host().faults().seen();
    let told: Vec<_> = events.try_iter().collect();
    let World { host, model, backend, physical } = world;
    assert!(host.shutdown().unwrap().is_empty());
    drop((model, backend, physical));
    simulation.leave();
    Run { seen, before, told, refused }
}

/// Every kind of message there is in the story, with how many of them came before it, how many in it, and their steps.
fn messages() -> Vec<(ObjectKind, &'static str, u64, u64, u32)> {
    let Run { seen, before, told, refused } = run(FaultPlan::none());
    let calm = told.iter().all(|event| matches!(event, HostEvent::HostFault { .. }));
    assert!(refused.is_none() && calm, "{refused:?} {told:?}");
    let earlier = |kind, operation| {
        let found = before.iter().find(|(of, name, _)| (*of, *name) == (kind, operation));
        found.map_or(0, |(_, _, seen)| seen.messages)
    };
    let all = seen.into_iter().map(|(kind, operation, seen)| {
        let first = earlier(kind, operation);
        (kind, operation, first, seen.messages - first, seen.steps)
    });
    all.filter(|(_, _, _, own, _)| *own > 0).collect()
}

fn panics(run: &Run) -> u64 {
    run.seen.iter().map(|(_, _, seen)| seen.panics).sum()
}

#[test]
fn a_panic_at_every_step_of_every_handler_is_contained() {
    let messages = messages();
    let (mut runs, mut struck) = (0, 0);
    for &(kind, operation, first, own, steps) in &messages {
        for nth in first + 1..=first + own {
            for step in 0..=steps {
                let what = format!("{operation} of a {kind}, message {nth}, step {step}");
                let run = run_named(&what, FaultPlan::none().panic_after(kind, operation, nth..=nth, step));
                let degraded = run.told.iter().filter(|event| matches!(event, HostEvent::Degraded { .. })).count();
                assert_eq!(degraded as u64, panics(&run), "{what}: every panic is told: {:?}", run.told);
                assert!(run.refused.is_none(), "{what}: one panic ends nothing: {:?}", run.refused);
                runs += 1;
                struck += panics(&run);
            }
        }
    }
    println!("{} kinds of messages, {runs} runs, {struck} panics", messages.len());
    assert!(messages.len() >= 15, "the story has only {messages:?}");
    assert!(struck >= runs / 2, "most plans struck: {struck} of {runs}");
}

#[test]
fn two_panics_in_a_row_strike_an_object_that_is_degraded() {
    for (kind, operation, first, own, steps) in messages() {
        for step in [0, steps.min(1)] {
            let what = format!("{operation} of a {kind}, twice, step {step}");
            let run = run_named(&what, FaultPlan::none().panic_after(kind, operation, first + 1..=first + 2, step));
            assert!(run.refused.is_none(), "{what}: {:?}", run.refused);
            assert!(step > 0 || panics(&run) >= own.min(2), "{what}: only {} panics", panics(&run));
        }
    }
}

#[test]
fn more_panics_than_the_intensity_allows_quarantine_the_object_and_only_it() {
    for (kind, operation, first, _, _) in messages() {
        let what = format!("{operation} of a {kind}, always");
        let run = run_named(&what, FaultPlan::none().panic_after(kind, operation, first + 1..=first + 6, 0));
        let count = |wanted: fn(&HostEvent) -> bool| run.told.iter().filter(|event| wanted(event)).count();
        let degraded = count(|event| matches!(event, HostEvent::Degraded { .. }));
        let quarantined = count(|event| matches!(event, HostEvent::Quarantined { .. }));
        // A kind of which the story has several objects spreads the panics over them.
        assert!(degraded as u64 >= panics(&run).min(3), "{what}: three are forgiven: {:?}", run.told);
        assert!(quarantined <= 1, "{what}: told once: {:?}", run.told);
        assert!(quarantined == 1 || degraded as u64 == panics(&run), "{what}: {:?}", run.told);
    }
}

fn run_named(what: &str, plan: FaultPlan) -> Run {
    println!("{what}");
    run(plan)
}

/// The oracle sees DMA that it should not: a device left on stage 2 when the guest said abort.
#[test]
#[should_panic(expected = "may [Aborts]")]
fn dma_that_goes_on_is_noticed() {
    let _simulation = Simulation::enter(0).unwrap();
    let world = World::new(FaultPlan::none());
    let ram = Ram::new(&world, 0x8000_0000);
    let viommu = ram.ioas(&world.host).unwrap().nest_parent().unwrap().viommu(guest::config(&ram.memory)).unwrap();
    let (device, guest) = (world.host.device(STREAM).unwrap(), Guest::new(&viommu, &ram.memory));
    guest.abort_while_off(true);
    let _vdevice = viommu.vdevice(&device, 3).unwrap();
    let hwpt = viommu.handle().info().bypass;
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(world.backend.attach(device.id(), hwpt))
        .unwrap();
    let does = world.dma(STREAM, ram.host);
    assert!([Aborts].contains(&does), "DMA {does:?}, may [Aborts]");
}

/// A quarantined vIOMMU: its state says so, its device aborts, and it can be taken apart.
#[test]
fn a_guest_whose_every_change_panics_ends_in_quarantine() {
    let simulation = Simulation::enter(0).unwrap();
    let world = World::new(FaultPlan::none().panic_after(ObjectKind::Viommu, "reconfigure", 5..=u64::MAX, 0));
    let ram = Ram::new(&world, 0x8000_0000);
    let viommu = ram.ioas(&world.host).unwrap().nest_parent().unwrap().viommu(guest::config(&ram.memory)).unwrap();
    let (device, guest) = (world.host.device(STREAM).unwrap(), Guest::new(&viommu, &ram.memory));
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    guest.enable();
    let vdevice = viommu.vdevice(&device, 3).unwrap();
    assert_eq!(world.dma(STREAM, ram.host), Translates);
    let state = || world.host.objects().into_iter().find(|object| object.id == viommu.id()).unwrap().state;
    for _ in 0..32 {
        guest.set_ste(3, STE_BYPASS);
        if state() == ObjectState::Quarantined {
            break;
        }
        guest.acknowledge();
    }
    assert_eq!((state(), world.dma(STREAM, ram.host)), (ObjectState::Quarantined, Aborts));
    let refused = viommu.invalidate(&[0x11 | 1 << 48, 0]).unwrap_err();
    assert!(matches!(refused.cause, Cause::Quarantined(_)), "{refused}");
    vdevice.destroy().unwrap();
    drop((viommu, device, guest));
    assert!(world.host.shutdown().unwrap().is_empty());
    simulation.leave();
}
