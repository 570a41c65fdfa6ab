//! The machine a guest runs on, and whoever runs the machine: registers, memory, devices that come and go.

use crate::oracle::{Clause, Oracle, Violation};
use crate::plan::{Vendor, VmPlan};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Device, Host, Ioas, Vdevice, Viommu};
use viommu::pipeline::Interrupts;
use viommu::simulation::{self, Simulation};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu::{Cause, Error};
use viommu_plugin::Register;

/// Tries of an operation that the host refuses: more than there are faults in a plan.
const TRIES: u32 = 40;

/// The machine does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The host took it out of service.
    OutOfService,
    /// Something that must not be was found.
    Violated,
}

/// Interrupts of the guest's IOMMU: how often each line was pulsed, and how many messages came.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: [AtomicU32; 4],
    messages: AtomicU32,
}

impl Lines {
    pub(crate) fn line_count(&self, line: usize) -> u32 {
        self.lines[line].load(Ordering::SeqCst)
    }

    /// Messages with the data of SYNCs.
    pub(crate) fn sync_messages(&self) -> u32 {
        self.messages.load(Ordering::SeqCst)
    }
}

/// Data of the message that a SYNC sends.
pub(crate) const SYNC_MESSAGE: u32 = 0x51;

impl Interrupts for Lines {
    fn msi(&self, _address: u64, data: u32) {
        self.messages.fetch_add(u32::from(data == SYNC_MESSAGE), Ordering::SeqCst);
    }

    fn line(&self, line: u32) {
        self.lines[line as usize % 4].fetch_add(1, Ordering::SeqCst);
    }
}

/// No IOMMU has a register there: what is in it is the machine's number, for whoever counts a plugin's calls by machine.
const MACHINE_NUMBER: u64 = 1 << 62;

/// The machine that these ID registers are for.
pub(crate) fn machine_of(registers: &[Register]) -> u32 {
    let found = registers.iter().find(|register| register.offset == MACHINE_NUMBER);
    found.map_or(u32::MAX, |register| register.value as u32)
}

/// ID registers for a machine: what the host offers, as its plan wants it, and its number.
pub(crate) fn registers_for(vendor: Vendor, offered: &[Register], plan: &VmPlan) -> Vec<Register> {
    let mut registers = offered.to_vec();
    if vendor == Vendor::ArmSmmuv3 {
        super::arm_smmuv3::messages_and_ranges(&mut registers, plan.messages, plan.ranges);
    }
    registers.push(Register { offset: MACHINE_NUMBER, value: plan.number.into() });
    registers
}

/// Tries an operation again as long as the host refuses it for reasons that pass.
pub(crate) fn retry<T>(host: &Host, mut operation: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        let failed = match operation() {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        tries += 1;
        simulation::note(|| failed.to_string());
        if tries == TRIES || matches!(failed.cause, Cause::Quarantined(_)) {
            return Err(failed);
        }
        simulation::sleep(Duration::from_micros(200));
        if host.settle().is_err() {
            return Err(failed);
        }
    }
}

/// Memory of the host that machines are lent, by physical address.
#[derive(Clone)]
pub(crate) struct Loans(pub(crate) Arc<Mutex<Vec<u64>>>);

impl Loans {
    fn take(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
    fn give(&self, address: u64) {
        // Whoever comes next gets it at once: that is when a stale translation hurts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(address);
    }
}

/// What another processor does.
pub(crate) struct Beside(Option<u64>);

impl Beside {
    pub(crate) fn has_ended(&self) -> bool {
        Simulation::current().zip(self.0).is_none_or(|(simulation, task)| simulation.has_ended(task))
    }
}

/// A virtual machine with its vIOMMU.
pub(crate) struct Machine {
    pub(crate) plan: VmPlan,
    pub(crate) host: Arc<Host>,
    pub(crate) oracle: Oracle,
    pub(crate) ram: Arc<GuestMemoryMmap>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) ioas: Ioas,
    pub(crate) viommu: Viommu,
    pub(crate) devices: BTreeMap<u32, (Device, Vdevice)>,
    pub(crate) loans: Loans,
    /// Where lent memory appears, and how much.
    pub(crate) loan: (u64, u64),
    pub(crate) lent: Option<u64>,
    /// When a SYNC that is not complete is not slow but lost.
    pub(crate) patience: Duration,
}

impl Machine {
    pub(crate) fn number(&self) -> u32 {
        self.plan.number
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.oracle.count(what);
    }

    pub(crate) fn violated(&self, clause: Clause, what: impl Into<String>) -> Stopped {
        self.oracle.violation(Violation::of_vm(clause, self.number(), what));
        Stopped::Violated
    }

    /// Whether the machine may go on.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.oracle.violated() {
            return Err(Stopped::Violated);
        }
        if self.viommu.pipeline().is_quarantined() { Err(Stopped::OutOfService) } else { Ok(()) }
    }

    pub(crate) fn write(&self, offset: u64, size: u32, value: u64) -> Result<(), Stopped> {
        self.check()?;
        self.oracle.waits(self.number(), true);
        let written = self.viommu.mmio_write(offset, size, value);
        self.oracle.waits(self.number(), false);
        written.map_err(|error| self.broken(&error))
    }

    pub(crate) fn read(&self, offset: u64, size: u32) -> Result<u64, Stopped> {
        self.viommu.mmio_read(offset, size).map_err(|error| self.broken(&error))
    }

    /// A register access that failed: the host gave the machine up.
    fn broken(&self, error: &Error) -> Stopped {
        simulation::note(|| format!("VM {}: {error}", self.number()));
        self.count("machine.given-up");
        self.oracle.vm(self.number(), |vm| vm.forgiven.get_or_insert(error.to_string()).len());
        Stopped::OutOfService
    }

    /// Reads a word of the guest's memory; 0 where there is none.
    pub(crate) fn word(&self, address: u64) -> u64 {
        self.ram.read_obj::<u64>(GuestAddress(address)).map(u64::from_le).unwrap_or_default()
    }

    pub(crate) fn half(&self, address: u64) -> u32 {
        self.ram.read_obj::<u32>(GuestAddress(address)).map(u32::from_le).unwrap_or_default()
    }

    /// Writes words of the guest's memory.
    pub(crate) fn store(&self, address: u64, words: &[u64]) {
        for (at, word) in (address..).step_by(8).zip(words) {
            drop(self.ram.write_obj(word.to_le(), GuestAddress(at)));
        }
    }

    /// A reset of the machine. `false` if the host could not.
    pub(crate) fn reset(&self) -> Result<(), Stopped> {
        self.check()?;
        self.viommu.reset().map_err(|error| self.broken(&error))
    }

    /// Another processor of the guest, at the same time.
    pub(crate) fn beside(&self, work: impl FnOnce(&Viommu) + Send + 'static) -> Beside {
        let (viommu, name) = (self.viommu.clone(), format!("vm{} cpu1", self.number()));
        Beside(Simulation::current().map(|simulation| simulation.spawn(name, move || work(&viommu))))
    }

    /// Puts a device into the machine.
    pub(crate) fn add(&mut self, number: u32) -> Result<(), Stopped> {
        let Some(device) = self.plan.devices.iter().find(|device| device.number == number).cloned() else {
            return Ok(());
        };
        if self.devices.contains_key(&number) {
            return Ok(());
        }
        self.check()?;
        let (vm, virt_id) = (self.number(), device.virt_id);
        let Ok(bound) = retry(&self.host, || self.host.device(device.stream)) else {
            self.count("device.not-bound");
            return Ok(());
        };
        self.oracle.vm(vm, |shadow| shadow.set_presence(virt_id, true));
        match retry(&self.host, || self.viommu.vdevice(&bound, virt_id)) {
            Ok(vdevice) => {
                self.oracle.vm(vm, |shadow| shadow.presence_is_set(virt_id));
                self.devices.insert(number, (bound, vdevice));
            }
            Err(_) => {
                self.count("device.not-added");
                self.oracle.vm(vm, |shadow| {
                    shadow.set_presence(virt_id, false);
                    shadow.presence_is_set(virt_id);
                });
            }
        }
        Ok(())
    }

    /// Takes a device out of the machine.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some((device, vdevice)) = self.devices.remove(&number) else { return };
        let (vm, virt_id) = (self.number(), vdevice.handle().virt_id());
        self.oracle.vm(vm, |shadow| shadow.set_presence(virt_id, false));
        match retry(&self.host, || vdevice.clone().destroy()) {
            Ok(()) => drop(self.oracle.vm(vm, |shadow| shadow.presence_is_set(virt_id))),
            Err(error) => {
                // The handle goes with the host's promise to try again.
                self.oracle.count("device.not-removed");
                simulation::note(|| format!("VM {vm}: {error}"));
            }
        }
        drop((vdevice, device));
        drop(self.host.settle());
    }

    /// The host lends the guest memory.
    pub(crate) fn give_memory(&mut self) {
        let Some(address) = self.loans.take().filter(|_| self.lent.is_none()) else { return };
        let (vm, (base, length)) = (self.number(), self.loan);
        self.oracle.vm(vm, |shadow| shadow.set_backing(base, Some(address)));
        let mapping = Mapping { iova: base, length, backing: Backing::Physical(address), writable: true };
        match retry(&self.host, || self.ioas.map(mapping)) {
            Ok(()) => self.lent = Some(address),
            Err(_) => {
                self.oracle.vm(vm, |shadow| shadow.set_backing(base, None));
                self.loans.give(address);
            }
        }
        self.oracle.vm(vm, |shadow| shadow.backing_is_set(base));
    }

    /// The host takes it back.
    pub(crate) fn take_memory(&mut self) {
        let Some(address) = self.lent.take() else { return };
        let (vm, (base, length)) = (self.number(), self.loan);
        self.oracle.vm(vm, |shadow| shadow.set_backing(base, None));
        match retry(&self.host, || self.ioas.unmap(base, length)) {
            Ok(_) => self.loans.give(address),
            Err(_) => {
                self.lent = Some(address);
                self.oracle.vm(vm, |shadow| shadow.set_backing(base, Some(address)));
            }
        }
        self.oracle.vm(vm, |shadow| shadow.backing_is_set(base));
    }
}
