//! Step 6: what the guest sees when commands are done: CONS, completion signals, errors.

use super::guest_queue::Fetch;
use super::{GuestCounters, Pipeline};
use viommu_plugin::{Actions, Effects, GuestFault};
use viommu_plugin_host::CallError;
use vm_memory::{Bytes, GuestAddress};

/// What a register write asks for, taken out of the frontend's answer before its lock is given back.
pub(super) struct Asked {
    pub(super) actions: Actions,
    /// Stores and interrupts, if there are any.
    pub(super) outside: Option<Effects>,
}

impl Asked {
    pub(super) fn of(effects: &Effects) -> Self {
        let any = effects.store_count > 0 || effects.msi_count > 0 || effects.lines != 0;
        Self { actions: effects.actions, outside: any.then_some(*effects) }
    }
}

impl Pipeline {
    /// CONS moves past `commands` commands: all of them are on the hardware queue, or needed no hardware.
    pub(super) fn advance(&self, commands: u32) {
        if commands == 0 {
            return;
        }
        let Ok(mut registers) = self.registers() else { return };
        if let Err(error) = registers.advance(commands) {
            drop(registers);
            self.frontend_failed(&error);
        }
    }

    /// The hardware finished everything before this SYNC: CONS moves past it (and past the `before` commands before it,
    /// if it has not yet), and its signal goes out.
    pub(super) fn sync_done(&self, before: u32, at: usize, fetch: &mut Fetch) {
        let Ok(mut registers) = self.registers() else { return };
        let moved = if before > 0 { registers.advance(before) } else { Ok(()) };
        let command = fetch.guest_words(at, at + 1);
        let asked = moved.and_then(|()| registers.sync_done(command.as_slice()).map(Asked::of));
        fetch.seen = registers.queue_into(&mut fetch.queue).is_ok();
        drop(registers);
        GuestCounters::add_alone(&self.counters.syncs, 1, fetch);
        GuestCounters::add_alone(&self.counters.commands, 1, fetch);
        self.metrics.syncs.increment(1);
        match asked {
            Ok(asked) => asked.outside.iter().for_each(|effects| self.signal(effects)),
            Err(error) => self.frontend_failed(&error),
        }
    }

    /// The command at CONS failed: the guest sees what hardware shows, and its queue stops.
    pub(super) fn guest_fault(&self, fault: GuestFault) {
        let slot = (fault.0 as usize).min(self.counters.faults.len() - 1);
        GuestCounters::add(&self.counters.faults[slot], 1);
        self.metrics.fault(fault);
        let Ok(mut registers) = self.registers() else { return };
        let effects = registers.fault(fault).copied();
        drop(registers);
        self.signal_result(effects);
    }

    pub(super) fn signal_result(&self, effects: Result<Effects, CallError>) {
        match effects {
            Ok(effects) => self.signal(&effects),
            Err(error) => self.frontend_failed(&error),
        }
    }

    /// Stores first, then interrupts: a guest that takes the interrupt finds the record. A record that cannot be stored is
    /// lost, and the guest told.
    pub(super) fn signal(&self, effects: &Effects) {
        for store in effects.stores.iter().take(effects.store_count as usize) {
            let bytes = &store.bytes[..(store.len as usize).min(store.bytes.len())];
            if self.memory.write_slice(bytes, GuestAddress(store.gpa)).is_err() {
                // A word for an address that is no memory is a message: the guest aimed it at its interrupt controller.
                match <[u8; 4]>::try_from(bytes) {
                    Ok(data) => self.interrupts.msi(store.gpa, u32::from_le_bytes(data)),
                    Err(_) => self.guest_fault(GuestFault::EVENT_ABORT),
                }
            }
        }
        for msi in effects.msis.iter().take(effects.msi_count as usize) {
            self.interrupts.msi(msi.address, msi.data);
        }
        let mut lines = effects.lines;
        while lines != 0 {
            self.interrupts.line(lines.trailing_zeros());
            lines &= lines - 1;
        }
    }

    fn frontend_failed(&self, error: &CallError) {
        tracing::error!(owner = self.owner.0, %error, "frontend failed: guest out of service");
        self.give_up(GuestFault::HOST_ERROR);
    }
}
