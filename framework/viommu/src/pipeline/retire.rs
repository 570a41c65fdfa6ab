//! Step 6: what the guest sees when commands are done: CONS, completion signals, errors.

use super::guest_queue::Fetch;
use super::{GuestCounters, Pipeline};
use viommu_plugin::{Actions, Effects, GuestFault, Msi};
use viommu_plugin_host::CallError;
use vm_memory::{Bytes, GuestAddress};

/// What a frontend call asks for beyond guest memory, kept until the registers' lock is given back.
pub(super) struct Asked {
    pub(super) actions: Actions,
    /// Interrupts to send, if there are any.
    signals: Option<Signals>,
}

struct Signals {
    lines: u32,
    messages: [Option<Msi>; 3],
    /// A record that could not be stored.
    lost: bool,
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
    pub(super) fn sync_done(&self, before: u32, at: usize, fetch: &Fetch) {
        let Ok(mut registers) = self.registers() else { return };
        let moved = if before > 0 { registers.advance(before) } else { Ok(()) };
        let command = fetch.guest_words(at, at + 1);
        let asked = moved.and_then(|()| registers.sync_done(command.as_slice()).map(|effects| self.store(effects)));
        drop(registers);
        GuestCounters::add_alone(&self.counters.syncs, 1, fetch);
        GuestCounters::add_alone(&self.counters.commands, 1, fetch);
        self.metrics.syncs.increment(1);
        self.signal(asked);
    }

    /// The command at CONS failed: the guest sees what hardware shows, and its queue stops.
    pub(super) fn guest_fault(&self, fault: GuestFault) {
        let slot = (fault.0 as usize).min(self.counters.faults.len() - 1);
        GuestCounters::add(&self.counters.faults[slot], 1);
        self.metrics.fault(fault);
        let Ok(mut registers) = self.registers() else { return };
        let asked = registers.fault(fault).map(|effects| self.store(effects));
        drop(registers);
        self.signal(asked);
    }

    /// Stores what a frontend call asks for. With the registers' lock held: a guest that reads the new index of its event
    /// queue finds the record there.
    pub(super) fn store(&self, effects: &Effects) -> Asked {
        if effects.store_count == 0 && effects.msi_count == 0 && effects.lines == 0 {
            return Asked { actions: effects.actions, signals: None };
        }
        let mut signals = Signals { lines: effects.lines, messages: [None; 3], lost: false };
        for (message, msi) in signals.messages[1..].iter_mut().zip(&effects.msis[..effects.msi_count as usize]) {
            *message = Some(*msi);
        }
        for store in &effects.stores[..effects.store_count as usize] {
            let bytes = &store.bytes[..store.len as usize];
            if self.memory.write_slice(bytes, GuestAddress(store.gpa)).is_err() {
                // A word for an address that is no memory is a message: the guest aimed it at its interrupt controller.
                match <[u8; 4]>::try_from(bytes) {
                    Ok(data) => {
                        let data = u32::from_le_bytes(data);
                        signals.messages[0] = Some(Msi { address: store.gpa, data, reserved: 0 });
                    }
                    Err(_) => signals.lost = true,
                }
            }
        }
        let any = signals.lines != 0 || signals.lost || signals.messages.iter().any(Option::is_some);
        Asked { actions: effects.actions, signals: any.then_some(signals) }
    }

    /// Sends the interrupts that were asked for, after the stores. A record that could not be stored is lost, and the
    /// guest told.
    pub(super) fn signal(&self, asked: Result<Asked, CallError>) {
        let signals = match asked {
            Ok(Asked { signals: Some(signals), .. }) => signals,
            Ok(_) => return,
            Err(error) => return self.frontend_failed(&error),
        };
        for msi in signals.messages.iter().flatten() {
            self.interrupts.msi(msi.address, msi.data);
        }
        let mut lines = signals.lines;
        while lines != 0 {
            self.interrupts.line(lines.trailing_zeros());
            lines &= lines - 1;
        }
        if signals.lost {
            self.guest_fault(GuestFault::EVENT_ABORT);
        }
    }

    fn frontend_failed(&self, error: &CallError) {
        tracing::error!(owner = self.owner.0, %error, "frontend failed: guest out of service");
        self.give_up(GuestFault::HOST_ERROR);
    }
}
