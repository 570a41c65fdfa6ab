//! The life of a virtual machine.

use super::{World, physical};
use crate::guest::{self, LOAN, LOAN_SIZE, Machine, RAM, RAM_SIZE, Stopped, registers_for, retry};
use crate::oracle::{Clause, Inner, Oracle, Violation, commands};
use crate::plan::{Action, VmPlan};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use viommu::backend::{Backing, Mapping, Objects};
use viommu::blocking::Host;
use viommu::objects::ViommuConfig;
use viommu::pipeline::CommandTap;
use viommu::simulation::{self, Simulation};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu::{Cause, Error};
use viommu_plugin::TranslationMode;

/// Shows the oracle what the data path takes.
struct Tap {
    oracle: Oracle,
    vm: u32,
    command_words: usize,
}

impl CommandTap for Tap {
    fn consumed(&self, words: &[u64]) {
        let mut inner = self.oracle.lock();
        let Inner { orders, vms, .. } = &mut *inner;
        let mut wrong = None;
        for command in commands(words, self.command_words) {
            let resides = |domain| vms.get(&self.vm).is_some_and(|shadow| shadow.resides(domain));
            let found = orders.get_mut(&self.vm).and_then(|order| order.took(command, resides));
            wrong = wrong.or(found);
        }
        if let Some(what) = wrong {
            inner.violated(Violation::of_vm(Clause::Order, self.vm, what));
        }
    }
}

impl World {
    pub(super) fn spawn_vm(&self, plan: VmPlan, host: Arc<Host>, simulation: &Simulation) {
        let vm = plan.number;
        for device in &plan.devices {
            self.spawn_device(vm, device, simulation);
        }
        let world = self.clone();
        simulation.spawn(format!("vm{vm}"), move || {
            match world.build(&plan, &host) {
                Ok(machine) => world.live(machine, &plan.actions),
                Err(error) => {
                    world.oracle.count("machine.not-built");
                    simulation::note(|| format!("VM {vm} cannot be built: {error}"));
                }
            }
            drop(host);
            world.left.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// The machine's objects, top down.
    fn build(&self, plan: &VmPlan, host: &Arc<Host>) -> Result<Machine, Error> {
        let address = physical::ram(plan.number);
        let second = self.platform.second.as_ref();
        let file = second.map(|second| second.file(address));
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files([(GuestAddress(RAM), RAM_SIZE as usize, file)]);
        let ram = Arc::new(memory.unwrap_or_else(|error| panic!("{error}")));
        // A second IOMMU knows all memory from the start.
        if let Some(region) = ram.find_region(GuestAddress(RAM)).filter(|_| second.is_none()) {
            let added = self.platform.memory.add_region(address, region.get_mmap());
            added.unwrap_or_else(|cause| panic!("{cause}"));
        }
        let ioas = retry(host, || host.ioas())?;
        let mapping = Mapping { iova: RAM, length: RAM_SIZE, backing: Backing::Physical(address), writable: true };
        retry(host, || match ioas.map(mapping) {
            // A reply that was lost: the backend has it.
            Err(Error { cause: Cause::Exists(_), .. }) => Ok(()),
            other => other,
        })?;
        let parent = retry(host, || ioas.nest_parent())?;
        let lines = Arc::new(crate::guest::Lines::default());
        let mode = if plan.shadowed { TranslationMode::SHADOW } else { TranslationMode::NESTED };
        let offered = Objects::guest_registers(&*self.platform.direct, mode).unwrap_or_default();
        let command_words = guest::language(self.vendor).words;
        let viommu = retry(host, || {
            let registers = registers_for(self.vendor, &offered, plan);
            let tap: Arc<dyn CommandTap> =
                Arc::new(Tap { oracle: self.oracle.clone(), vm: plan.number, command_words });
            let config =
                ViommuConfig { interrupts: lines.clone(), tap: Some(tap), ..ViommuConfig::new(registers, ram.clone()) };
            parent.viommu(config)
        })?;
        self.oracle.enter(plan.number, viommu.id(), viommu.handle().info().owner);
        let mut machine = Machine {
            plan: plan.clone(),
            host: host.clone(),
            oracle: self.oracle.clone(),
            ram,
            lines,
            ioas,
            viommu,
            devices: BTreeMap::new(),
            loans: self.loans.clone(),
            loan: (LOAN, LOAN_SIZE),
            lent: None,
            patience: self.patience,
        };
        for device in plan.devices.iter().filter(|device| device.present) {
            if machine.add(device.number).is_err() {
                break;
            }
        }
        Ok(machine)
    }

    fn live(&self, machine: Machine, actions: &[Action]) {
        let vm = machine.number();
        let mut guest = guest::driver(self.vendor, machine);
        let mut story = || -> Result<(), Stopped> {
            guest.boot()?;
            for action in actions {
                simulation::note(|| format!("VM {vm}: {action:?}"));
                guest.act(action)?;
                self.oracle.count(name(action));
                simulation::yield_now();
            }
            guest.finish()
        };
        let stopped = story();
        let machine = guest.into_machine();
        if stopped == Err(Stopped::OutOfService) {
            machine.count("machine.out-of-service");
            machine.quarantined();
        }
        machine.end();
    }
}

impl Machine {
    /// The host gave the machine up: once that is done, no DMA of it passes.
    fn quarantined(&self) {
        // Answered after whatever the vIOMMU's actor has before it.
        let asked = self.viommu.install_entry(0, &[0; 8]);
        let out = matches!(&asked, Err(Error { cause: Cause::Quarantined(_), .. }));
        simulation::note(|| format!("VM {} is out of service: {asked:?}", self.number()));
        if out {
            self.count("machine.quarantined");
            self.oracle.vm(self.number(), |shadow| shadow.quarantined = true);
            // Its devices go on trying.
            simulation::sleep(std::time::Duration::from_micros(500));
        }
    }

    /// Takes the machine apart.
    fn end(mut self) {
        let present: Vec<_> = self.devices.keys().copied().collect();
        present.into_iter().for_each(|number| self.remove(number));
        self.take_memory();
        let (host, loans) = (self.host.clone(), self.loans.clone());
        drop(loans);
        drop(self);
        drop(host.settle());
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Map { .. } => "action.map",
        Action::MapBlock { .. } => "action.map-block",
        Action::Unmap { .. } => "action.unmap",
        Action::Remap { .. } => "action.remap",
        Action::Protect { .. } => "action.protect",
        Action::ReplaceTable { .. } => "action.replace-table",
        Action::ReplaceTree { .. } => "action.replace-tree",
        Action::Assign { .. } => "action.assign",
        Action::ChangeContext { .. } => "action.change-context",
        Action::Needless { .. } => "action.needless",
        Action::Sync { .. } => "action.sync",
        Action::Strangers { .. } => "action.strangers",
        Action::TwoDoorbells { .. } => "action.two-doorbells",
        Action::Illegal { .. } => "action.illegal",
        Action::Switch { .. } => "action.switch",
        Action::Reset => "action.reset",
        Action::Remove { .. } => "action.remove",
        Action::Add { .. } => "action.add",
        Action::TakeMemory => "action.take-memory",
        Action::GiveMemory => "action.give-memory",
        Action::ReadEvents => "action.read-events",
        Action::Idle { .. } => "action.idle",
        Action::Attack { .. } => "action.attack",
    }
}
