//! The guest's half of its command queue: room, commands, doorbell, SYNC, errors.

use super::System;
use crate::guest::iommu::{Iommu, Ring, Wait};
use crate::guest::{Machine, Stopped};
use crate::oracle::{Clause, Command, Effect};
use crate::plan::Signal;
use std::time::Duration;
use viommu::simulation::{self, Simulation};

/// Between two looks at the consumer index.
const POLL: Duration = Duration::from_micros(7);

/// How long a malicious guest waits.
const HASTE: Duration = Duration::from_micros(500);

/// Places run on without bound; the registers hold their low bits.
pub(in crate::guest) struct Queue {
    ring: Ring,
    /// Where the next command goes.
    pub(super) head: u64,
    /// What the doorbell was last told.
    rung: u64,
    /// Everything before is consumed.
    consumed: u64,
    /// Everything before is complete, and the guest knows.
    pub(in crate::guest) synced: u64,
    /// SYNCs sent.
    syncs: u32,
    /// Errors seen.
    pub(super) errors: u64,
    /// Acknowledges none.
    pub(in crate::guest) stubborn: bool,
}

impl Queue {
    pub(in crate::guest) fn new(ring: Ring) -> Self {
        Self { ring, head: 0, rung: 0, consumed: 0, synced: 0, syncs: 0, errors: 0, stubborn: false }
    }

    fn entries(&self) -> u64 {
        1 << self.ring.log2
    }

    /// Commands that fit.
    fn capacity(&self) -> u64 {
        self.entries() - u64::from(!self.ring.wraps)
    }

    /// Commands that certainly fit, and a SYNC.
    pub(super) fn room(&self) -> u8 {
        u8::try_from(self.capacity() - 1).unwrap_or(u8::MAX)
    }

    fn modulus(&self) -> u64 {
        if self.ring.wraps { 2 * self.entries() } else { self.entries() }
    }

    pub(in crate::guest) fn index(&self, place: u64) -> u64 {
        place & (self.modulus() - 1)
    }

    fn slot(&self, place: u64) -> u64 {
        self.ring.base + 8 * self.ring.words as u64 * (place & (self.entries() - 1))
    }

    fn store(&self, machine: &Machine, place: u64, command: Command) {
        machine.store(self.slot(place), &command[..self.ring.words]);
    }
}

impl<V: Iommu> System<V> {
    /// Writes a command, after making room. Nobody is told yet.
    pub(in crate::guest) fn push(&mut self, command: Command, effects: &[Effect]) -> Result<(), Stopped> {
        if self.queue.head - self.queue.consumed == self.queue.capacity() {
            self.ring()?;
            let place = self.queue.head - self.queue.capacity();
            self.wait_for(|system| system.queue.consumed > place)?;
        }
        let (queue, machine) = (&mut self.queue, &self.machine);
        queue.store(machine, queue.head, command);
        let mut oracle = machine.oracle.lock();
        oracle.counters.add("command.written", 1);
        if let Some(order) = oracle.orders.get_mut(&machine.number()) {
            order.wrote(command);
        }
        if let Some(shadow) = oracle.vms.get_mut(&machine.number()) {
            effects.iter().for_each(|effect| shadow.issued(queue.head, *effect));
        }
        queue.head += 1;
        Ok(())
    }

    /// The doorbell.
    fn ring(&mut self) -> Result<(), Stopped> {
        self.queue.rung = self.queue.head;
        let (offset, size, value) = self.iommu.doorbell(self.queue.index(self.queue.head));
        self.machine.write(offset, size, value)?;
        self.look()
    }

    /// Two processors ring the doorbell.
    pub(super) fn ring_twice(&mut self) -> Result<(), Stopped> {
        let (offset, size, value) = self.iommu.doorbell(self.queue.index(self.queue.head));
        self.queue.rung = self.queue.head;
        let other = self.machine.beside(move |viommu| drop(viommu.mmio_write(offset, size, value)));
        let turn = Simulation::current().is_some_and(|simulation| simulation.choose(2) == 0);
        if turn {
            simulation::yield_now();
        }
        let written = self.machine.write(offset, size, value);
        while !other.has_ended() {
            simulation::sleep(POLL);
        }
        written.and_then(|()| self.look())
    }

    /// A SYNC, and if it is not for later, the wait for it.
    pub(in crate::guest) fn sync(&mut self, signal: Signal) -> Result<(), Stopped> {
        self.queue.syncs += 1;
        let (command, wait) = self.iommu.sync(signal, self.queue.syncs);
        if signal == Signal::Later {
            self.push(command, &[])?;
            return self.ring();
        }
        if let Wait::Interrupt = wait {
            self.iommu.expect_interrupt(&self.machine)?;
        }
        let before = V::interrupts(&self.machine);
        self.push(command, &[])?;
        let place = self.queue.head - 1;
        self.machine.count(match (signal, wait) {
            (Signal::Poll, _) => "sync.polled",
            (_, Wait::Store { .. }) => "sync.message",
            _ => "sync.line",
        });
        self.ring()?;
        self.wait_for(|system| match wait {
            Wait::Index => system.queue.consumed > place,
            Wait::Store { address, data } => system.machine.half(address) == data,
            // Another SYNC's interrupt looks the same: the index says whose it was.
            Wait::Interrupt => V::interrupts(&system.machine) != before && system.queue.consumed > place,
        })?;
        self.seen(place)?;
        self.recycle();
        Ok(())
    }

    /// The guest knows that the SYNC at `place` is complete.
    fn seen(&mut self, place: u64) -> Result<(), Stopped> {
        self.queue.synced = place + 1;
        self.machine.oracle.synced(self.machine.number(), place);
        simulation::note(|| format!("VM {} saw SYNC {place}", self.machine.number()));
        self.machine.check()
    }

    /// Reads the consumer index; acknowledges errors.
    fn look(&mut self) -> Result<(), Stopped> {
        let look = self.iommu.look(&self.machine)?;
        let queue = &mut self.queue;
        queue.consumed += look.consumer.wrapping_sub(queue.consumed) & (queue.modulus() - 1);
        let beyond = queue.consumed > queue.rung;
        if beyond && !self.machine.plan.correct {
            queue.consumed = queue.rung;
        } else if beyond {
            return Err(self.machine.violated(
                Clause::Order,
                format!("the queue is at {}, but only {} commands were announced", queue.consumed, queue.rung),
            ));
        }
        match look.error.filter(|_| !queue.stubborn) {
            Some(illegal) => self.acknowledge(illegal),
            None => Ok(()),
        }
    }

    /// As Linux does: an illegal command becomes a SYNC; anything else is tried again.
    fn acknowledge(&mut self, illegal: bool) -> Result<(), Stopped> {
        let (queue, machine) = (&mut self.queue, &self.machine);
        queue.errors += 1;
        machine.count(if illegal { "error.illegal" } else { "error.other" });
        simulation::note(|| {
            let kind = if illegal { "illegal command" } else { "error" };
            format!("VM {}: {kind} at {}", machine.number(), queue.consumed)
        });
        if illegal && queue.consumed < queue.head {
            let (sync, _) = self.iommu.sync(Signal::Later, 0);
            queue.store(machine, queue.consumed, sync);
            if let Some(order) = machine.oracle.lock().orders.get_mut(&machine.number()) {
                order.rewrote(queue.consumed, sync);
            }
        }
        self.iommu.acknowledge(machine)
    }

    /// Waits. A malicious guest does not wait for long: it goes on as if it had seen it.
    fn wait_for(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Stopped> {
        let clock = Simulation::current().map(|simulation| simulation.clock());
        let now = || clock.as_ref().map_or(Duration::ZERO, |clock| clock.now());
        let patience = if self.machine.plan.correct { self.machine.patience } else { HASTE };
        let end = now() + patience;
        loop {
            self.look()?;
            if done(self) {
                return Ok(());
            }
            self.machine.check()?;
            if now() > end {
                if !self.machine.plan.correct {
                    self.queue.consumed = self.queue.head;
                    return Ok(());
                }
                let (at, head) = (self.queue.consumed, self.queue.head);
                let what = format!("no progress at command {at} of {head} for {patience:?}");
                return Err(self.machine.violated(Clause::Liveness, what));
            }
            simulation::sleep(POLL);
        }
    }
}
