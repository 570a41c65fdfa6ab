//! Commands dropped on purpose out of a guest's own queue: whoever consumes it finds a SYNC in their place. So where there
//! is no physical queue to drop them from: bare replay, and guests in shadow mode.

use super::args::Injection;
use super::commands::{Command, waiting};
use super::registers;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use viommu_plugin::GuestQueue;
use viommu_plugin_host::{CallError, Codec};
use viommu_trace::Vendor;

/// Hides commands while the queue is consumed.
pub(crate) struct Dropper {
    opcodes: &'static [RangeInclusive<u8>],
    sync: u64,
    every: NonZeroU64,
    seen: u64,
    hidden: Vec<Command>,
}

impl Dropper {
    /// What `injection` drops; `None` if it is not about dropping commands, or if it is not known how the vendor's
    /// commands look.
    pub(crate) fn new(vendor: Vendor, injection: Injection) -> Option<Self> {
        let known = registers::commands(vendor)?;
        let (opcodes, every) = match injection {
            Injection::DropInvalidation { every } => (known.tlb, every),
            Injection::DropAtc => (known.atc, NonZeroU64::MIN),
            _ => return None,
        };
        Some(Self { opcodes, sync: known.sync, every, seen: 0, hidden: Vec::new() })
    }

    /// Puts SYNCs over the commands to be dropped among those that wait in `queue`. `read` and `write` are the guest's
    /// memory.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(crate) fn hide(
        &mut self,
        queue: &GuestQueue,
        codec: &Codec,
        read: impl FnMut(u64, &mut [u8]) -> bool,
        mut write: impl FnMut(u64, &[u8]),
    ) -> Result<(), CallError> {
        for command in waiting(queue, queue.pending, read) {
            let opcode = codec.opcode(command.words())?;
            if !self.opcodes.iter().any(|opcodes| opcodes.contains(&opcode)) {
                continue;
            }
            self.seen += 1;
            if self.seen.is_multiple_of(self.every.get()) {
                let mut words = vec![0; command.words().len()];
                words.iter_mut().take(1).for_each(|first| *first = self.sync);
                write(command.address, &bytes(&words));
                self.hidden.push(command);
            }
        }
        Ok(())
    }

    /// Puts the hidden commands back where the guest wrote them.
    pub(crate) fn restore(&mut self, mut write: impl FnMut(u64, &[u8])) {
        self.hidden.drain(..).for_each(|command| write(command.address, &bytes(command.words())));
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
