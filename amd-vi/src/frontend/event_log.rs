//! The guest's event log: a ring that the IOMMU writes.

use crate::spec::events::EVENT_BYTES;
use crate::spec::registers::{RingBase, RingPointer};
use viommu_plugin::Effects;

/// Base and pointers of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct EventLog {
    pub(super) base: RingBase,
    pub(super) head: RingPointer,
    pub(super) tail: RingPointer,
    /// It was full or could not be written, and takes no more until the guest enables it anew.
    pub(super) stopped: bool,
}

impl EventLog {
    /// Another log, empty.
    pub(super) fn move_to(&mut self, base: RingBase) {
        (self.base, self.head, self.tail) = (base, RingPointer::new(), RingPointer::new());
    }

    /// Appends a record; `false`, and the log stops, if it is full or what the registers say is no log. One entry always
    /// stays unused.
    pub(super) fn push(&mut self, record: [u64; 2], effects: &mut Effects) -> bool {
        let entries = 1u32 << self.base.length();
        let (head, tail) = (u32::from(self.head.index()), u32::from(self.tail.index()));
        let next = (tail + 1) & (entries - 1);
        if self.base.length() < RingBase::LENGTH_LEAST || tail >= entries || next == head {
            self.stopped = true;
            return false;
        }
        let mut bytes = [0; EVENT_BYTES as usize];
        for (to, word) in bytes.chunks_exact_mut(8).zip(record) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        effects.store(self.base.address() + u64::from(tail) * EVENT_BYTES, &bytes);
        self.tail = RingPointer::new().with_index(next as u16);
        true
    }
}
