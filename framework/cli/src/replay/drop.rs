//! Bare replay with commands dropped on purpose: the software IOMMU finds a SYNC in their place.

use super::args::Injection;
use super::commands::{Command, waiting};
use super::image::ModelMemory;
use super::registers;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use viommu_plugin::GuestQueue;
use viommu_plugin_host::{CallError, Codec};
use viommu_trace::Vendor;

/// Hides commands from a model while it consumes them.
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

    /// Puts SYNCs over the commands to be dropped among those that wait in `queue`.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(crate) fn hide(&mut self, queue: &GuestQueue, codec: &Codec, memory: &ModelMemory) -> Result<(), CallError> {
        let mut image = memory.image();
        let first = self.hidden.len();
        for command in waiting(queue, queue.pending, &mut image) {
            let opcode = codec.opcode(command.words())?;
            if !self.opcodes.iter().any(|opcodes| opcodes.contains(&opcode)) {
                continue;
            }
            self.seen += 1;
            if self.seen.is_multiple_of(self.every.get()) {
                self.hidden.push(command);
            }
        }
        for command in &self.hidden[first..] {
            let mut words = vec![0; command.words().len()];
            words.iter_mut().take(1).for_each(|first| *first = self.sync);
            image.put(command.address, &bytes(&words));
        }
        Ok(())
    }

    /// Puts the hidden commands back where the guest wrote them.
    pub(crate) fn restore(&mut self, memory: &ModelMemory) {
        let mut image = memory.image();
        self.hidden.drain(..).for_each(|command| {
            image.put(command.address, &bytes(command.words()));
        });
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
