//! The guest's half of its command queue: room, commands, doorbell, SYNC, errors.

use super::words::{self, Command, at};
use crate::guest::{Machine, Stopped};
use crate::oracle::{Clause, Effect};
use crate::plan::Signal;
use std::time::Duration;
use viommu::simulation::{self, Simulation};

/// Between two looks at the consumer index.
const POLL: Duration = Duration::from_micros(7);

/// How long a malicious guest waits.
const HASTE: Duration = Duration::from_micros(500);

/// Places run on without bound; the registers hold their low bits.
pub(super) struct Queue {
    base: u64,
    log2: u8,
    /// Where the next command goes.
    pub(super) head: u64,
    /// What the doorbell was last told.
    rung: u64,
    /// Everything before is consumed.
    consumed: u64,
    /// Everything before is complete, and the guest knows.
    pub(super) synced: u64,
    /// Where the messages of SYNCs go.
    message: u64,
    messages: u32,
    /// Errors seen.
    pub(super) errors: u64,
    /// Acknowledges none.
    pub(super) stubborn: bool,
}

impl Queue {
    pub(super) fn new(base: u64, log2: u8, message: u64) -> Self {
        Self { base, log2, head: 0, rung: 0, consumed: 0, synced: 0, message, messages: 0, errors: 0, stubborn: false }
    }

    /// CMDQ_BASE.
    pub(super) fn register(&self) -> u64 {
        self.base | u64::from(self.log2)
    }

    fn entries(&self) -> u64 {
        1 << self.log2
    }

    fn index(&self, place: u64) -> u64 {
        place & (2 * self.entries() - 1)
    }

    fn slot(&self, place: u64) -> u64 {
        self.base + 16 * (place & (self.entries() - 1))
    }

    /// Writes a command, after making room. Nobody is told yet.
    pub(super) fn push(&mut self, machine: &Machine, command: Command, effect: Option<Effect>) -> Result<(), Stopped> {
        if self.head - self.consumed == self.entries() {
            self.ring(machine)?;
            let place = self.head - self.entries();
            self.wait_for(machine, |queue, _| queue.consumed > place)?;
        }
        machine.store(self.slot(self.head), &command);
        let mut oracle = machine.oracle.lock();
        oracle.counters.add("command.written", 1);
        if let Some(order) = oracle.orders.get_mut(&machine.number()) {
            order.wrote(command);
        }
        if let (Some(effect), Some(shadow)) = (effect, oracle.vms.get_mut(&machine.number())) {
            shadow.issued(self.head, effect);
        }
        self.head += 1;
        Ok(())
    }

    /// The doorbell.
    pub(super) fn ring(&mut self, machine: &Machine) -> Result<(), Stopped> {
        self.rung = self.head;
        machine.write(at::CMDQ_PROD, 4, self.index(self.head))?;
        self.look(machine)
    }

    /// Two processors ring the doorbell.
    pub(super) fn ring_twice(&mut self, machine: &Machine) -> Result<(), Stopped> {
        let index = self.index(self.head);
        self.rung = self.head;
        let other = machine.beside(move |viommu| drop(viommu.mmio_write(at::CMDQ_PROD, 4, index)));
        let turn = Simulation::current().is_some_and(|simulation| simulation.choose(2) == 0);
        if turn {
            simulation::yield_now();
        }
        let written = machine.write(at::CMDQ_PROD, 4, index);
        while !other.has_ended() {
            simulation::sleep(POLL);
        }
        written.and_then(|()| self.look(machine))
    }

    /// A SYNC, and if it is not for later, the wait for it.
    pub(super) fn sync(&mut self, machine: &Machine, signal: Signal) -> Result<(), Stopped> {
        let place = self.head;
        match signal {
            Signal::Later => {
                self.push(machine, words::sync_event(), None)?;
                self.ring(machine)
            }
            Signal::Poll => {
                self.push(machine, words::sync(), None)?;
                machine.count("sync.polled");
                self.ring(machine)?;
                self.wait_for(machine, |queue, _| queue.consumed > place)?;
                self.seen(machine, place)
            }
            Signal::Interrupt if machine.plan.messages => {
                self.messages += 1;
                let (address, data) = (self.message, self.messages);
                self.push(machine, words::sync_interrupt(address, data), None)?;
                machine.count("sync.message");
                self.ring(machine)?;
                self.wait_for(machine, |_, machine| machine.half(address) == data)?;
                self.seen(machine, place)
            }
            Signal::Interrupt => {
                let before = machine.lines.0[2].count();
                self.push(machine, words::sync_interrupt(0, 0), None)?;
                machine.count("sync.line");
                self.ring(machine)?;
                // Another SYNC's interrupt looks the same: the index says whose it was.
                self.wait_for(machine, |queue, machine| {
                    machine.lines.0[2].count() != before && queue.consumed > place
                })?;
                self.seen(machine, place)
            }
        }
    }

    /// The guest knows that the SYNC at `place` is complete.
    fn seen(&mut self, machine: &Machine, place: u64) -> Result<(), Stopped> {
        self.synced = place + 1;
        machine.oracle.synced(machine.number(), place);
        simulation::note(|| format!("VM {} saw SYNC {place}", machine.number()));
        machine.check()
    }

    /// Reads the consumer index; acknowledges errors.
    fn look(&mut self, machine: &Machine) -> Result<(), Stopped> {
        let cons = machine.read(at::CMDQ_CONS, 4)?;
        let moved = cons.wrapping_sub(self.consumed) & (2 * self.entries() - 1);
        self.consumed += moved;
        let beyond = self.consumed > self.rung;
        if beyond && !machine.plan.correct {
            self.consumed = self.rung;
        } else if beyond {
            return Err(machine.violated(
                Clause::Order,
                format!("CMDQ_CONS is at {}, but only {} commands were announced", self.consumed, self.rung),
            ));
        }
        let active = machine.read(at::GERROR, 4)? ^ machine.read(at::GERRORN, 4)?;
        if active & words::CMDQ_ERR != 0 && !self.stubborn {
            self.acknowledge(machine, cons >> 24 & 0x7f)
        } else {
            Ok(())
        }
    }

    /// As Linux does: an illegal command becomes a SYNC; anything else is tried again.
    fn acknowledge(&mut self, machine: &Machine, error: u64) -> Result<(), Stopped> {
        self.errors += 1;
        machine.count(if error == words::CERROR_ILL { "error.illegal" } else { "error.other" });
        simulation::note(|| format!("VM {}: CERROR {error} at {}", machine.number(), self.consumed));
        if error == words::CERROR_ILL && self.consumed < self.head {
            machine.store(self.slot(self.consumed), &words::sync());
            if let Some(order) = machine.oracle.lock().orders.get_mut(&machine.number()) {
                order.rewrote(self.consumed, words::sync());
            }
        }
        let gerror = machine.read(at::GERROR, 4)?;
        machine.write(at::GERRORN, 4, gerror)?;
        Ok(())
    }

    /// Waits. A malicious guest does not wait for long: it goes on as if it had seen it.
    fn wait_for(&mut self, machine: &Machine, done: impl Fn(&Self, &Machine) -> bool) -> Result<(), Stopped> {
        let clock = Simulation::current().map(|simulation| simulation.clock());
        let now = || clock.as_ref().map_or(Duration::ZERO, |clock| clock.now());
        let patience = if machine.plan.correct { machine.patience } else { HASTE };
        let end = now() + patience;
        loop {
            self.look(machine)?;
            if done(self, machine) {
                return Ok(());
            }
            machine.check()?;
            if now() > end {
                if !machine.plan.correct {
                    self.consumed = self.head;
                    return Ok(());
                }
                let (at, head) = (self.consumed, self.head);
                let what = format!("no progress at command {at} of {head} for {patience:?}");
                return Err(machine.violated(Clause::Liveness, what));
            }
            simulation::sleep(POLL);
        }
    }
}
