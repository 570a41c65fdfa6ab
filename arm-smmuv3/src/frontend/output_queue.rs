//! Queues that the SMMU writes: events, page requests (§7.2, §7.4).

use super::irq::{IrqConfig, Line};
use super::ring::Ring;
use crate::features::Features;
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventWord0};
use crate::spec::registers::{OutputIndex, QueueBase};
use viommu_plugin::Effects;

/// Base, indices and interrupt of one queue.
#[derive(Debug, Clone)]
pub(super) struct OutputQueue {
    pub(super) base: QueueBase,
    pub(super) prod: OutputIndex,
    pub(super) cons: OutputIndex,
    pub(super) irq: IrqConfig,
    line: Line,
}

impl OutputQueue {
    pub(super) fn new(line: Line) -> Self {
        Self {
            base: QueueBase::new(),
            prod: OutputIndex::new(),
            cons: OutputIndex::new(),
            irq: IrqConfig::default(),
            line,
        }
    }

    /// The guest consumed up to `value`. A CONS ahead of PROD (a replayed guest that was given more records than
    /// we have) counts as "everything consumed".
    pub(super) fn write_cons(&mut self, value: u32, log2_max: u8) {
        let ring = Ring::new(self.base, log2_max, EVENT_BYTES);
        let cons = OutputIndex::from_bits(value);
        let ahead = ring.used(self.prod.index(), cons.index()) > ring.entries();
        self.cons = if ahead { cons.with_index(self.prod.index()) } else { cons };
    }

    /// Appends an event record that names `virt_id`, or overflows.
    pub(super) fn push(
        &mut self,
        virt_id: u32,
        record: &[u64],
        features: &Features,
        interrupt: bool,
        effects: &mut Effects,
    ) {
        let ring = Ring::new(self.base, features.idr1.eventqs(), EVENT_BYTES);
        if ring.used(self.prod.index(), self.cons.index()) >= ring.entries() {
            return self.overflow(features, interrupt, effects);
        }
        let mut words = [0; EVENT_WORDS];
        words.iter_mut().zip(record).for_each(|(to, &from)| *to = from);
        words[0] = EventWord0::from_bits(words[0]).with_stream_id(virt_id).into_bits();
        let mut bytes = [0; EVENT_BYTES as usize];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let slot = ring.slot(self.prod.index());
        effects.store(ring.base + u64::from(slot) * EVENT_BYTES, &bytes);
        self.prod.set_index(ring.advanced(self.prod.index(), 1));
        self.interrupt(features, interrupt, effects);
    }

    /// Shows that records were lost: OVFLG differs from OVACKFLG until the guest acknowledges.
    pub(super) fn overflow(&mut self, features: &Features, interrupt: bool, effects: &mut Effects) {
        if self.prod.overflow() == self.cons.overflow() {
            self.prod.set_overflow(!self.prod.overflow());
            self.interrupt(features, interrupt, effects);
        }
    }

    fn interrupt(&self, features: &Features, enabled: bool, effects: &mut Effects) {
        if enabled {
            self.irq.raise(self.line, features.idr0.msi(), effects);
        }
    }
}
