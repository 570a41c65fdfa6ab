//! Step 1: command words out of the guest's memory.

use crate::backend::{Guest, Words};
use viommu_plugin::{Classes, GuestFault, GuestQueue};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Commands taken from the guest at once.
pub(super) const BATCH: usize = 64;

/// The working memory of a guest queue, allocated once.
#[derive(Debug)]
pub(super) struct Fetch {
    command_words: usize,
    /// Words as fetched: our copy, so that a guest that changes them meanwhile changes nothing.
    guest: Box<[u64]>,
    /// Room for the rewritten words.
    pub(super) host: Box<[u64]>,
    /// Classes on the hardware queue without a SYNC behind them.
    pub(super) before: Classes,
}

impl Fetch {
    pub(super) fn new(command_words: usize) -> Self {
        let words = command_words * BATCH;
        Self {
            command_words,
            guest: vec![0; words].into_boxed_slice(),
            host: vec![0; words].into_boxed_slice(),
            before: Classes::NONE,
        }
    }

    /// Copies the next commands of `queue`: at most [`BATCH`], and not past the end of the ring. How many.
    pub(super) fn fill(&mut self, memory: &GuestMemoryMmap, queue: &GuestQueue) -> Result<usize, GuestFault> {
        let command_words = queue.command_words as usize;
        if queue.fault != GuestFault::NONE || command_words == 0 || command_words > self.command_words {
            return Err(if queue.fault == GuestFault::NONE { GuestFault::QUEUE_CONFIG } else { queue.fault });
        }
        let to_end = queue.capacity.saturating_sub(queue.head);
        let commands = (queue.pending.min(to_end) as usize).min(BATCH);
        let bytes = 8 * command_words as u64;
        let start = queue.base.checked_add(u64::from(queue.head) * bytes).ok_or(GuestFault::FETCH_ABORT)?;
        let words = &mut self.guest[..commands * command_words];
        read_words(memory, start, words).ok_or(GuestFault::FETCH_ABORT)?;
        Ok(commands)
    }

    /// The commands `from..to` of the last [`Fetch::fill`].
    pub(super) fn guest_words(&self, from: usize, to: usize) -> Words<'_, Guest> {
        Words::of(&self.guest[from * self.command_words..to * self.command_words])
    }

    /// The same, with the room for host words, for a rewrite.
    pub(super) fn halves(&mut self, from: usize, to: usize) -> (Words<'_, Guest>, &mut [u64]) {
        let guest = Words::of(&self.guest[from * self.command_words..to * self.command_words]);
        (guest, &mut self.host)
    }
}

/// Little-endian words from guest memory. `None` if any byte is outside it.
fn read_words(memory: &GuestMemoryMmap, start: u64, words: &mut [u64]) -> Option<()> {
    let mut chunk = [0u8; 8 * BATCH];
    let mut address = start;
    for run in words.chunks_mut(BATCH) {
        let bytes = &mut chunk[..8 * run.len()];
        memory.read_slice(bytes, GuestAddress(address)).ok()?;
        for (word, bytes) in run.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        address = address.checked_add(8 * run.len() as u64)?;
    }
    Some(())
}
