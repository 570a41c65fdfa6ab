//! Step 1: command words out of the guest's memory.

use super::id_map::Snapshot;
use crate::backend::{Guest, Words};
use viommu_plugin::{Classes, GuestFault, GuestQueue};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::IntoBytes;

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
    /// The guest's IDs as last seen.
    pub(super) ids: Snapshot,
    /// Where the guest's queue is, if `seen`; only true as long as nobody moved its head.
    pub(super) queue: GuestQueue,
    /// Whether `queue` is fresh. Taken by whoever acts on it.
    pub(super) seen: bool,
}

impl Fetch {
    pub(super) fn new(command_words: usize) -> Self {
        let words = command_words * BATCH;
        Self {
            command_words,
            guest: vec![0; words].into_boxed_slice(),
            host: vec![0; words].into_boxed_slice(),
            before: Classes::NONE,
            ids: Snapshot::default(),
            queue: GuestQueue::default(),
            seen: false,
        }
    }

    /// Copies the next commands of the queue as seen: at most [`BATCH`], and not past the end of the ring. How many.
    pub(super) fn fill(&mut self, memory: &GuestMemoryMmap) -> Result<usize, GuestFault> {
        let queue = &self.queue;
        let command_words = queue.command_words as usize;
        if queue.fault != GuestFault::NONE {
            return Err(queue.fault);
        }
        if !(1..=self.command_words).contains(&command_words) {
            return Err(GuestFault::QUEUE_CONFIG);
        }
        let to_end = queue.capacity.saturating_sub(queue.head);
        let mut commands = (queue.pending.min(to_end) as usize).min(BATCH);
        let bytes = 8 * command_words as u64;
        let start = queue.base.checked_add(u64::from(queue.head) * bytes).ok_or(GuestFault::FETCH_ABORT)?;
        let words = &mut self.guest[..commands * command_words];
        match memory.get_slice(GuestAddress(start), words.len() * 8) {
            Ok(slice) => slice.copy_to(words.as_mut_bytes()),
            // Not in one piece of memory: in several, or some of it nowhere.
            Err(_) => {
                commands = read_one_by_one(memory, start, words, command_words)?;
                commands * command_words * 8
            }
        };
        words.iter_mut().for_each(|word| *word = u64::from_le(*word));
        if command_words < self.command_words {
            self.widen(command_words, commands);
        }
        Ok(commands)
    }

    /// Commands of a queue with shorter ones (VT-d with 128-bit descriptors) get the words they lack, which are zero.
    #[cold]
    fn widen(&mut self, short: usize, commands: usize) {
        for command in (0..commands).rev() {
            let at = command * self.command_words;
            self.guest.copy_within(command * short..(command + 1) * short, at);
            self.guest[at + short..at + self.command_words].fill(0);
        }
    }

    /// The commands `from..to` of the last [`Fetch::fill`].
    pub(super) fn guest_words(&self, from: usize, to: usize) -> Words<'_, Guest> {
        Words::of(&self.guest[from * self.command_words..to * self.command_words])
    }

    /// What a rewrite works on: guest words `from..to`, room for host words, the IDs as last seen.
    pub(super) fn parts(&mut self, from: usize, to: usize) -> (Words<'_, Guest>, &mut [u64], &mut Snapshot) {
        let guest = Words::of(&self.guest[from * self.command_words..to * self.command_words]);
        (guest, &mut self.host, &mut self.ids)
    }
}

/// Commands as far as they are in memory; an error if not even the first is.
#[cold]
fn read_one_by_one(
    memory: &GuestMemoryMmap,
    start: u64,
    words: &mut [u64],
    command_words: usize,
) -> Result<usize, GuestFault> {
    let mut read = 0;
    for command in words.chunks_exact_mut(command_words) {
        let at = start.checked_add((read * 8 * command_words) as u64);
        if at.is_none_or(|at| memory.read_slice(command.as_mut_bytes(), GuestAddress(at)).is_err()) {
            break;
        }
        read += 1;
    }
    if read > 0 { Ok(read) } else { Err(GuestFault::FETCH_ABORT) }
}
