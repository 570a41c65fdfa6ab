//! The guest's invalidation queue (§6.5.2, §11.4.9): head and tail in bytes, no wrap bit, so that one slot stays empty.

use super::descriptor_words;
use crate::features::Features;
use crate::spec::registers::{QueueAddress, QueueError, QueueErrorInfo};
use viommu_plugin::{GuestFault, GuestQueue, QueueState};

/// IQH.QH, IQT.QT.
pub(super) const INDEX_BITS: u32 = 0x7_fff0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Queue {
    pub(super) address: QueueAddress,
    pub(super) head: u32,
    pub(super) tail: u32,
    /// IQERCD.
    pub(super) error: QueueError,
}

impl Queue {
    /// IQT is written.
    pub(super) fn ring(&mut self, value: u32) {
        self.tail = value & INDEX_BITS;
    }

    /// GCMD.QIE changed: the head is 0 again.
    pub(super) fn restart(&mut self) {
        self.head = 0;
    }

    /// Whether descriptors have 256 bits: IQA.DW counts in scalable mode only.
    fn wide(&self, features: &Features) -> bool {
        self.address.wide() && features.ecap.scalable_mode()
    }

    fn bytes(&self) -> u32 {
        self.address.bytes() as u32
    }

    fn descriptor_bytes(&self, features: &Features) -> u32 {
        if self.wide(features) { 32 } else { 16 }
    }

    /// What is wrong with the tail: it is beyond the queue, or in the middle of a descriptor.
    fn tail_error(&self, features: &Features) -> Option<QueueErrorInfo> {
        if self.tail >= self.bytes() {
            return Some(QueueErrorInfo::TAIL);
        }
        (!self.tail.is_multiple_of(self.descriptor_bytes(features))).then_some(QueueErrorInfo::TAIL_UNALIGNED)
    }

    /// The queue as the framework sees it.
    pub(super) fn describe(&self, features: &Features, state: QueueState) -> GuestQueue {
        let size = self.descriptor_bytes(features);
        let wrong = self.tail_error(features).is_some();
        GuestQueue {
            base: self.address.address(),
            capacity: self.bytes() / size,
            head: self.head / size,
            pending: if wrong { 0 } else { (self.tail.wrapping_sub(self.head) & (self.bytes() - 1)) / size },
            command_words: descriptor_words(self.wide(features)),
            state,
            fault: if wrong { GuestFault::QUEUE_CONFIG } else { GuestFault::NONE },
        }
    }

    /// The head passes `commands` descriptors, but never the tail.
    pub(super) fn advance(&mut self, features: &Features, commands: u32) {
        let commands = commands.min(self.describe(features, QueueState::RUNNING).pending);
        self.head = (self.head + commands * self.descriptor_bytes(features)) & (self.bytes() - 1);
    }

    /// Says in IQERCD why the queue stops.
    pub(super) fn explain(&mut self, features: &Features, fault: GuestFault) {
        let info = match fault {
            GuestFault::ILLEGAL_OPCODE => QueueErrorInfo::TYPE,
            GuestFault::RESERVED_BITS => QueueErrorInfo::RESERVED,
            GuestFault::FETCH_ABORT => QueueErrorInfo::FETCH,
            GuestFault::QUEUE_CONFIG => self.tail_error(features).unwrap_or(QueueErrorInfo::NONE),
            // A device that does not answer, or the host's own trouble: nothing is wrong with the descriptor.
            _ => QueueErrorInfo::NONE,
        };
        self.error = QueueError::new().with_info(info.0);
    }
}
