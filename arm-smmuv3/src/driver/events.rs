//! The physical event queue: one record at a time, with its owner.

use super::ArmDriver;
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventId, EventWord0, EventWord1};
use crate::spec::registers::{Gerror, OutputIndex, offset};
use viommu_plugin::{EventOwner, HostEvent};

impl ArmDriver {
    /// Takes the oldest record. Lost records are reported once the queue is empty: what is still in it is older.
    pub(super) fn next_event(&mut self) -> Option<HostEvent> {
        let prod = OutputIndex::from_bits(self.hardware.mmio_read(offset::EVENTQ_PROD, 4) as u32);
        let cons = OutputIndex::from_bits(self.hardware.mmio_read(offset::EVENTQ_CONS, 4) as u32);
        if self.events.index(prod.index()) == self.events.index(cons.index()) {
            return self.lost(prod, cons);
        }
        let at = self.events.base + self.events.slot(cons.index()) * EVENT_BYTES;
        let mut bytes = [0; EVENT_BYTES as usize];
        let read = self.hardware.read(at, &mut bytes);
        let next = cons.with_index(self.events.index(cons.index() + 1));
        self.hardware.mmio_write(offset::EVENTQ_CONS, 4, next.into_bits().into());
        if read.is_err() {
            return Some(HostEvent { owner: EventOwner::LOST, ..HostEvent::default() });
        }
        let mut words = [0; EVENT_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(classify(words))
    }

    /// Acknowledges an overflow, or a record that could not be written.
    fn lost(&self, prod: OutputIndex, cons: OutputIndex) -> Option<HostEvent> {
        let overflow = prod.overflow() != cons.overflow();
        if overflow {
            let acknowledged = cons.with_overflow(prod.overflow());
            self.hardware.mmio_write(offset::EVENTQ_CONS, 4, acknowledged.into_bits().into());
        }
        let aborted = self.active_errors().eventq_abt_err();
        if aborted {
            self.acknowledge(Gerror::new().with_eventq_abt_err(true));
        }
        (overflow || aborted).then(|| HostEvent { owner: EventOwner::LOST, ..HostEvent::default() })
    }
}

/// Whose affair a record is. A guest sees what its own stage 1 did wrong; stage 2, the physical tables and fetches
/// are the host's, and so is a stalled transaction, which no guest here was offered.
fn classify(words: [u64; EVENT_WORDS]) -> HostEvent {
    let (word0, word1) = (EventWord0::from_bits(words[0]), EventWord1::from_bits(words[1]));
    let guests = matches!(
        EventId(word0.id()),
        EventId::C_BAD_STE
            | EventId::F_STREAM_DISABLED
            | EventId::C_BAD_SUBSTREAMID
            | EventId::C_BAD_CD
            | EventId::F_TRANSLATION
            | EventId::F_ADDR_SIZE
            | EventId::F_ACCESS
            | EventId::F_PERMISSION
    );
    let owner = if guests && !word1.s2() && !word1.stall() { EventOwner::GUEST } else { EventOwner::HOST };
    let mut record = [0; 8];
    record[..EVENT_WORDS].copy_from_slice(&words);
    record[0] = word0.with_stream_id(0).into_bits();
    HostEvent { owner, stream: word0.stream_id(), code: word0.id().into(), words: EVENT_WORDS as u32, record }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: EventId, word1: EventWord1) -> HostEvent {
        classify([EventWord0::new().with_id(id.0).with_stream_id(0x10).into_bits(), word1.into_bits(), 0x1000, 0x2000])
    }

    #[test]
    fn stage_1_faults_are_the_guests() {
        let event = record(EventId::F_TRANSLATION, EventWord1::new().with_rnw(true));
        assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, 0x10, 0x10, 4));
        assert_eq!(event.record[..4], [0x10, 1 << 35, 0x1000, 0x2000], "the stream's field is zero");
    }

    #[test]
    fn stage_2_fetches_and_stalls_are_the_hosts() {
        for (id, word1) in [
            (EventId::F_TRANSLATION, EventWord1::new().with_s2(true)),
            (EventId::F_PERMISSION, EventWord1::new().with_stall(true)),
            (EventId::F_STE_FETCH, EventWord1::new()),
            (EventId::F_CD_FETCH, EventWord1::new()),
            (EventId::C_BAD_STREAMID, EventWord1::new()),
            (EventId(0xee), EventWord1::new()),
        ] {
            assert_eq!(record(id, word1).owner, EventOwner::HOST, "{id:?}");
        }
    }
}
