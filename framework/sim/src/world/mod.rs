//! A world: one host over the vendor's model, its machines, everything that goes wrong, and the end.

mod dma;
mod end;
mod hardware;
mod physical;
mod vm;

pub(crate) use physical::somewhere;

use crate::faults::{FaultyBackend, Panicking, Watched, enter_world, plan_panics};
use crate::guest::{self, Loans};
use crate::inject::Injection;
use crate::oracle::{Clause, Oracle, Order, Shadow, Violation, Window};
use crate::plan::{Fault, Plan, Vendor};
use crate::{Counters, Second, oracle};
use hardware::Platform;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use viommu::HostBuilder;
use viommu::backend::direct::Direct;
use viommu::blocking::Host;
use viommu::pipeline::ShardMode;
use viommu::seams::FaultPlan;
use viommu::simulation::Simulation;
use viommu_plugin_host::Plugin;

/// Simulated time in which every story ends.
const LIMIT: Duration = Duration::from_secs(8);

/// How a story is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep the log's lines.
    pub log: bool,
    /// What is broken on purpose.
    pub injection: Option<Injection>,
}

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What should not have been.
    pub violation: Option<Violation>,
    /// What happened how often.
    pub counters: Counters,
    /// Things that happened.
    pub steps: u64,
    /// Simulated time.
    pub time: Duration,
    /// The log, if it was kept.
    pub log: Vec<String>,
    /// A sum over the log, kept or not.
    pub fingerprint: u64,
}

/// What the tasks of a world share.
#[derive(Clone)]
pub(crate) struct World {
    vendor: Vendor,
    oracle: Oracle,
    platform: Arc<Platform>,
    loans: Loans,
    patience: Duration,
    /// The hardware is taken over: it may stand still.
    started: Arc<AtomicBool>,
    /// Machines that live.
    left: Arc<AtomicU32>,
    /// Hardware stops.
    over: Arc<AtomicBool>,
}

/// Tells the story of a plan, on this thread, and judges it. The same plan and options have the same outcome.
///
/// # Panics
/// If this thread is a simulation already.
pub fn run(plan: &Plan, options: Options) -> Outcome {
    run_with(plan, options, None)
}

/// As [`run`], with a second IOMMU beside the model. The story is the same; what devices do too is up to the second.
///
/// # Panics
/// If this thread is a simulation already, or memory cannot be mapped.
pub fn run_beside(plan: &Plan, options: Options, second: &Arc<dyn Second>) -> Outcome {
    run_with(plan, options, Some(second.clone()))
}

fn run_with(plan: &Plan, options: Options, second: Option<Arc<dyn Second>>) -> Outcome {
    let simulation = match Simulation::enter(plan.seed) {
        Ok(simulation) => simulation,
        Err(cause) => panic!("{cause}"),
    };
    if options.log {
        simulation.keep_log();
    }
    plan_panics(&plan.faults);
    let oracle = Oracle::default();
    let told = catch_unwind(AssertUnwindSafe(|| tell(plan, options, &simulation, &oracle, second.clone())));
    if let Err(panic) = told {
        oracle.violation(Violation::new(Clause::Panic, words(panic.as_ref())));
    }
    let struck = plan_panics(&[]);
    let counted = second.as_ref().map(|second| second.counted()).unwrap_or_default();
    if let Some(what) = second.and_then(|second| second.end()) {
        oracle.violation(Violation::new(Clause::Differs, what));
    }
    let mut inner = oracle.lock();
    counted.into_iter().for_each(|(name, n)| inner.counters.add(name, n));
    inner.counters.add("fault.plugin", struck);
    inner.counters.add("fault.planned", plan.faults.len() as u64);
    let counters = std::mem::take(&mut inner.counters);
    drop(inner);
    let outcome = Outcome {
        violation: oracle.take_violation(),
        counters,
        steps: simulation.steps(),
        time: simulation.now(),
        log: simulation.log(),
        fingerprint: simulation.fingerprint(),
    };
    simulation.leave();
    outcome
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".into())
}

fn tell(plan: &Plan, options: Options, simulation: &Simulation, oracle: &Oracle, second: Option<Arc<dyn Second>>) {
    let plugin = match plan.vendor {
        Vendor::ArmSmmuv3 => Plugin::linked::<Panicking<arm_smmuv3::ArmSmmuv3>>(),
        Vendor::AmdVi => Plugin::linked::<Panicking<amd_vi::AmdVi>>(),
        Vendor::IntelVtd => Plugin::linked::<Panicking<intel_vtd::IntelVtd>>(),
    };
    enter_world(Some((oracle.clone(), options.injection)));
    let platform = Platform::new(&plugin, plan, simulation, second);
    enter_world(None);
    let (left, over) = (Arc::new(AtomicU32::new(plan.vms.len() as u32)), Arc::new(AtomicBool::new(false)));
    let patience = plan.host.sync_limit * 20;
    oracle.set_patience(patience);
    let world = World {
        vendor: plan.vendor,
        oracle: oracle.clone(),
        platform: Arc::new(platform),
        loans: physical::loans(plan.vms.len()),
        patience,
        started: Arc::default(),
        left,
        over,
    };
    world.spawn_hardware(plan, options.injection, simulation);
    // The hardware is taken over once; what the driver keeps for ever is in use before anybody counts.
    let direct = world.on_task(simulation, "take over", {
        let platform = world.platform.clone();
        let machines: Vec<_> = plan.vms.iter().map(|vm| vm.devices.clone()).collect();
        move || platform.warm_up(&machines)
    });
    let Some(in_use) = direct else { return };
    world.started.store(true, Ordering::SeqCst);
    let host = host(plan, options, plugin, &world);
    oracle.listen(host.events());
    let host = Arc::new(host);
    for vm in &plan.vms {
        enter(oracle, plan.vendor, vm);
        world.spawn_vm(vm.clone(), host.clone(), simulation);
    }
    world.wait(simulation, "the machines", || world.left.load(Ordering::SeqCst) == 0);
    if oracle.violated() {
        return;
    }
    world.end(simulation, host, in_use, options.injection);
}

fn host(plan: &Plan, options: Options, plugin: Plugin, world: &World) -> Host {
    let backend = FaultyBackend {
        inner: world.platform.direct.clone(),
        oracle: world.oracle.clone(),
        faults: plan.faults.clone(),
        injection: options.injection,
        state: Default::default(),
    };
    let (oracle, injection, language) = (world.oracle.clone(), options.injection, guest::language(plan.vendor));
    let builder = viommu::Host::builder()
        .backend(Arc::new(backend))
        .plugin(plugin)
        .shards(plan.host.shards as usize)
        .shard_mode(if plan.host.mailbox { ShardMode::Mailbox } else { ShardMode::Direct })
        .sync_limit(plan.host.sync_limit)
        .wrap_sink(move |inner| {
            let (oracle, invalidations) = (oracle.clone(), Default::default());
            Arc::new(Watched { inner, oracle, language, injection, invalidations })
        })
        .faults(handlers(&plan.faults))
        .simulated(plan.seed);
    HostBuilder::build(builder).unwrap_or_else(|error| panic!("{error}")).into()
}

fn handlers(faults: &[Fault]) -> FaultPlan {
    faults.iter().fold(FaultPlan::none(), |plan, fault| match *fault {
        Fault::Actor { kind, operation, nth } => plan.panic(kind, operation, nth),
        _ => plan,
    })
}

/// What the oracle must know of a machine before it starts.
fn enter(oracle: &Oracle, vendor: Vendor, vm: &crate::plan::VmPlan) {
    let mut shadow = Shadow::new(vm.correct);
    // These drivers stop a device while more than one word of its entry changes.
    shadow.gaps = vendor != Vendor::ArmSmmuv3;
    shadow.interrupts = (vendor == Vendor::IntelVtd).then_some((0xfee0_0000, 0xfeef_ffff));
    let window = |base, length, backing| Window { base, length, backing: oracle::History::new(backing) };
    let ram = physical::ram(vm.number);
    shadow.windows.push(window(guest::RAM, guest::RAM_SIZE, Some(ram)));
    shadow.windows.push(window(guest::LOAN, guest::LOAN_SIZE, None));
    vm.devices.iter().for_each(|device| shadow.add_stream(device.virt_id));
    let mut inner = oracle.lock();
    inner.vms.insert(vm.number, shadow);
    if vm.correct {
        inner.orders.insert(vm.number, Order::new(guest::language(vendor), vm.shadowed));
    }
}

impl World {
    /// Steps until `done`; who is stuck otherwise.
    fn wait(&self, simulation: &Simulation, whom: &str, done: impl Fn() -> bool) {
        if let Err(stuck) = simulation.run_until(LIMIT, || done() || self.oracle.violated()) {
            let what = format!("{whom} did not come to an end: {stuck}");
            self.oracle.violation(Violation::new(Clause::Stuck, what));
        }
    }

    /// Does something that waits for hardware.
    fn on_task<T: Send + 'static>(
        &self,
        simulation: &Simulation,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let answer = Arc::new(Mutex::new(None));
        let place = answer.clone();
        simulation.spawn(name, move || {
            let done = work();
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        });
        self.wait(simulation, name, || answer.lock().is_ok_and(|answer| answer.is_some()));
        answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The backend, for what the world does with it itself.
pub(crate) type Backend = Arc<Direct>;
