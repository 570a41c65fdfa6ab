//! Fault status and the fault recording registers (§7.2, §11.4.7).

use super::event::Event;
use crate::spec::registers::{FaultRecord1, FaultStatus};
use viommu_plugin::Effects;

/// What faults are reported with.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    /// FSTS, but for PPF and FRI, which follow from the records.
    pub(super) latched: FaultStatus,
    pub(super) records: Vec<[u64; 2]>,
    /// The record that the next fault goes to.
    pub(super) next: usize,
    pub(super) event: Event,
}

/// What of FSTS is cleared by writing 1.
pub(super) const LATCHED: FaultStatus = FaultStatus::new()
    .with_overflow(true)
    .with_queue_error(true)
    .with_completion_error(true)
    .with_time_out(true)
    .with_page_request_overflow(true);
/// What of FSTS has the queue stand still.
const STOPPED: FaultStatus = FaultStatus::new().with_queue_error(true).with_completion_error(true).with_time_out(true);

impl Faults {
    pub(super) fn new(count: u32) -> Self {
        let records = vec![[0; 2]; count as usize];
        Self { latched: FaultStatus::new(), records, next: 0, event: Event::default() }
    }

    /// Recording registers.
    pub(super) fn count(&self) -> usize {
        self.records.len()
    }

    /// FSTS.
    pub(super) fn status(&self) -> FaultStatus {
        let after = |index: &usize| (self.next + index) % self.records.len();
        let oldest = (0..self.records.len()).map(|index| after(&index)).find(|&index| self.pending(index));
        self.latched.with_pending(oldest.is_some()).with_first_register(oldest.unwrap_or(0) as u8)
    }

    /// Whether the queue stands still.
    pub(super) fn stops_queue(&self) -> bool {
        self.latched.into_bits() & STOPPED.into_bits() != 0
    }

    fn pending(&self, index: usize) -> bool {
        FaultRecord1::from_bits(self.records[index][1]).fault()
    }

    /// One of the four words of a record.
    pub(super) fn read(&self, index: usize, word: usize) -> u32 {
        (self.records[index][word / 2] >> (32 * (word % 2))) as u32
    }

    /// F, in the last word, is cleared by writing 1; nothing else can be written.
    pub(super) fn write(&mut self, index: usize, word: usize, value: u32) {
        if word == 3 && FaultRecord1::from_bits(u64::from(value) << 32).fault() {
            let record = &mut self.records[index][1];
            *record = FaultRecord1::from_bits(*record).with_fault(false).into_bits();
            self.settle();
        }
    }

    /// FSTS is written; whether that lets a queue that stood still go on.
    pub(super) fn acknowledge(&mut self, value: u32) -> bool {
        let stopped = self.stops_queue();
        self.latched = FaultStatus::from_bits(self.latched.into_bits() & !value);
        self.settle();
        stopped && !self.stops_queue()
    }

    /// Nothing is reported any more: nor by a message that was held back.
    fn settle(&mut self) {
        if !self.reports() {
            self.event.withdraw();
        }
    }

    fn reports(&self) -> bool {
        let status = self.status();
        status.pending() || status.into_bits() & LATCHED.into_bits() != 0
    }

    /// Makes a change that is told of by a message, unless something else is reported still: its message was sent.
    fn report(&mut self, effects: &mut Effects, change: impl FnOnce(&mut Self)) {
        let reported = self.reports();
        change(self);
        if !reported {
            self.event.raise(effects);
        }
    }

    /// Records a fault of device `virt_id`, or overflows. Until an overflow is acknowledged, nothing is recorded.
    pub(super) fn record(&mut self, virt_id: u32, record: &[u64], effects: &mut Effects) {
        if self.latched.overflow() {
            return;
        }
        if self.pending(self.next) {
            return self.overflow(effects);
        }
        let mut words = [0; 2];
        words.iter_mut().zip(record).for_each(|(to, &from)| *to = from);
        words[0] &= !0xfff;
        words[1] = FaultRecord1::from_bits(words[1]).with_source_id(virt_id as u16).with_fault(true).into_bits();
        self.report(effects, |faults| {
            faults.records[faults.next] = words;
            faults.next = (faults.next + 1) % faults.records.len();
        });
    }

    /// Shows that faults were lost.
    pub(super) fn overflow(&mut self, effects: &mut Effects) {
        if !self.latched.overflow() {
            self.report(effects, |faults| faults.latched.set_overflow(true));
        }
    }

    /// The queue stops: at a descriptor, or as a device did not answer.
    pub(super) fn queue_error(&mut self, time_out: bool, effects: &mut Effects) {
        self.report(effects, |faults| {
            if time_out { faults.latched.set_time_out(true) } else { faults.latched.set_queue_error(true) }
        });
    }
}
