//! The commands that wait in a recorded guest's queue, read and not executed.

use viommu_plugin::{GuestQueue, Register};
use viommu_plugin_host::{CallError, Codec, Frontend, Plugin};

/// Words of a command, at most, that are looked at.
const COMMAND_WORDS: usize = 8;

/// Where a guest's queue is, and what its commands are: a frontend that is given the guest's register writes, beside
/// whatever executes them, and a codec.
pub(crate) struct GuestCommands {
    pub(crate) frontend: Frontend,
    pub(crate) codec: Codec,
}

/// A command: where it stands, and its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    /// Guest physical address.
    pub(crate) address: u64,
    words: [u64; COMMAND_WORDS],
    length: usize,
}

impl Command {
    pub(crate) fn words(&self) -> &[u64] {
        &self.words[..self.length]
    }
}

impl GuestCommands {
    /// For a guest that was shown these ID registers.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(crate) fn new(plugin: &Plugin, shown: &[Register]) -> Result<Self, CallError> {
        // Registers that no vIOMMU offers are refused, but where the queue is does not depend on them.
        let frontend = plugin.frontend(shown).or_else(|_| plugin.frontend(&[]))?;
        let codec = plugin.codec(shown).or_else(|_| plugin.codec(&[]))?;
        Ok(Self { frontend, codec })
    }

    /// Sees a register write; the guest's queue after it.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(crate) fn write(&mut self, offset: u64, size: u32, value: u64) -> Result<GuestQueue, CallError> {
        self.frontend.write(offset, size, value)?;
        self.frontend.queue()
    }

    /// An opcode's name in the manual, or its number.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(crate) fn opcode_name(&self, opcode: u8) -> Result<String, CallError> {
        Ok(self.codec.opcode_name(opcode)?.map_or_else(|| format!("{opcode:#04x}"), str::to_owned))
    }
}

/// The first `count` commands that wait in `queue`, as far as `read` has them: it fills bytes from an address, and says
/// whether it could.
pub(crate) fn waiting(
    queue: &GuestQueue,
    count: u32,
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> impl Iterator<Item = Command> {
    let queue = *queue;
    let length = (queue.command_words as usize).min(COMMAND_WORDS);
    (0..u64::from(count.min(queue.pending))).filter_map(move |index| {
        // The head lies within the queue, and a queue holds at least one command.
        let slot = (u64::from(queue.head) + index) % u64::from(queue.capacity.max(1));
        let address = queue.base.wrapping_add(slot * 8 * u64::from(queue.command_words));
        let mut bytes = [0; COMMAND_WORDS * 8];
        if !read(address, &mut bytes[..length * 8]) {
            return None;
        }
        let mut words = [0; COMMAND_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        Some(Command { address, words, length })
    })
}
