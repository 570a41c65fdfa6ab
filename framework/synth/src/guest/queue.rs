//! A command queue as a driver fills it: some commands, then the doorbell.

use crate::draw::Draw;
use crate::memory::Memory;
use viommu_trace::Role;

/// A ring of entries in guest memory, which the IOMMU empties at every doorbell.
pub(crate) struct Queue {
    pub(crate) base: u64,
    /// Entries; a power of two.
    pub(crate) entries: u64,
    /// Words of an entry.
    pub(crate) words: u64,
    /// Index of the next entry, not wrapped.
    pub(crate) tail: u64,
    /// Entries since the last doorbell, and how many there will be at the next.
    waiting: u64,
    batch: u64,
    /// Stores that the waits among them ask for: where, and the bytes.
    pub(crate) stores: Vec<(u64, Vec<u8>)>,
}

/// Most commands announced by one doorbell.
const BATCH: u64 = 8;

impl Queue {
    /// A queue of `entries` entries.
    pub(crate) fn new(memory: &mut Memory, entries: u64, words: u64) -> Self {
        let pages = (entries * words * 8).div_ceil(4096).next_power_of_two();
        let base = memory.run(pages, pages, Role::QUEUE);
        Self { base, entries, words, tail: 0, waiting: 0, batch: BATCH, stores: Vec::new() }
    }

    /// Writes an entry; whether it is time for the doorbell.
    pub(crate) fn push(&mut self, memory: &mut Memory, entry: &[u64]) -> bool {
        let at = self.base + self.tail % self.entries * self.words * 8;
        for (word, &value) in (at..).step_by(8).zip(entry.iter().chain(&[0; 4]).take(self.words as usize)) {
            memory.write(word, value, Role::QUEUE);
        }
        self.tail += 1;
        self.waiting += 1;
        self.waiting >= self.batch
    }

    /// Whether there is anything to announce; afterwards there is not.
    pub(crate) fn ring(&mut self, draw: &mut Draw) -> bool {
        let any = self.waiting > 0;
        self.waiting = 0;
        self.batch = 1 + draw.below(BATCH);
        any
    }
}
