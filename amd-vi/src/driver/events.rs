//! The physical event log: one record at a time, with its owner.

use super::{Attached, Ring, Tables};
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventCode, EventWord0, flags};
use crate::spec::registers::{Control, RingPointer, Status, offset};
use crate::spec::viommu::{GUESTS, translate_device};
use std::collections::{BTreeMap, VecDeque};
use viommu_plugin::{EventOwner, Hardware, HostEvent, QueueFaultKind};

/// Reads of a record that the tail shows and memory does not yet (AMD erratum 732).
const POLLS: u32 = 1 << 10;
/// Records kept while only the reason of a stopped command buffer is looked for.
const KEPT: usize = 1 << 12;

const LOST: HostEvent = HostEvent { owner: EventOwner::LOST, stream: 0, code: 0, words: 0, record: [0; 8] };

/// The log, and what was taken from it.
#[derive(Debug)]
pub(super) struct EventLog {
    ring: Ring,
    taken: VecDeque<HostEvent>,
    /// What the newest record about a command says of the stop.
    stopped_by: Option<QueueFaultKind>,
}

impl EventLog {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring, taken: VecDeque::new(), stopped_by: None }
    }

    /// Why the command buffer stopped, as far as the log said.
    pub(super) fn stopped_by(&self) -> Option<QueueFaultKind> {
        self.stopped_by
    }

    pub(super) fn forget_stop(&mut self) {
        self.stopped_by = None;
    }

    /// The oldest record.
    pub(super) fn next(
        &mut self,
        hardware: &dyn Hardware,
        control: Control,
        attached: &BTreeMap<u32, Attached>,
    ) -> Option<HostEvent> {
        self.taken.pop_front().or_else(|| self.take(hardware, control, attached))
    }

    /// Takes everything out of the log; it is given by [`EventLog::next`] later.
    pub(super) fn drain(&mut self, hardware: &dyn Hardware, control: Control, attached: &BTreeMap<u32, Attached>) {
        while self.taken.len() < KEPT {
            let Some(event) = self.take(hardware, control, attached) else { return };
            self.taken.push_back(event);
        }
    }

    /// Takes the oldest record from the ring. Lost records are reported once it is empty: what is still in it is older.
    fn take(
        &mut self,
        hardware: &dyn Hardware,
        control: Control,
        attached: &BTreeMap<u32, Attached>,
    ) -> Option<HostEvent> {
        let pointer = |at| RingPointer::from_bits(hardware.mmio_read(at, 8)).index();
        let head = pointer(offset::EVENT_HEAD);
        if head == pointer(offset::EVENT_TAIL) {
            let status = Status::from_bits(hardware.mmio_read(offset::STATUS, 8));
            if status.event_overflow() {
                restart(hardware, control);
                return Some(LOST);
            }
            // Acknowledged before the ring is looked at again, or a record that comes now would interrupt nobody.
            if !status.event_log_int() {
                return None;
            }
            let acknowledge = Status::new().with_event_log_int(true);
            hardware.mmio_write(offset::STATUS, 8, acknowledge.into_bits());
            if head == pointer(offset::EVENT_TAIL) {
                return None;
            }
        }
        let words = read(hardware, self.ring.entry(head));
        let next = RingPointer::new().with_index(self.ring.next(head));
        hardware.mmio_write(offset::EVENT_HEAD, 8, next.into_bits());
        let Some(words) = words else { return Some(LOST) };
        self.stopped_by = stop(words).or(self.stopped_by);
        let device = EventWord0::from_bits(words[0]).device_id();
        Some(classify(words, attached.get(&device.into()).copied()))
    }
}

/// A record, cleared behind the reader so that its place says when the next one is there.
fn read(hardware: &dyn Hardware, at: u64) -> Option<[u64; EVENT_WORDS]> {
    for _ in 0..POLLS {
        let mut bytes = [0; EVENT_BYTES as usize];
        hardware.read(at, &mut bytes).ok()?;
        let mut words = [0; EVENT_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if EventWord0::from_bits(words[0]).code() != 0 {
            hardware.write(at, &[0; EVENT_BYTES as usize]).ok()?;
            return Some(words);
        }
        std::thread::yield_now();
    }
    None
}

/// A log that was full runs again once it was disabled and enabled.
fn restart(hardware: &dyn Hardware, control: Control) {
    hardware.mmio_write(offset::CONTROL, 8, control.with_event_log_en(false).into_bits());
    let overflow = Status::new().with_event_overflow(true).with_event_log_int(true);
    hardware.mmio_write(offset::STATUS, 8, overflow.into_bits());
    hardware.mmio_write(offset::CONTROL, 8, control.into_bits());
}

/// What a record about a command says of a command buffer that stopped.
fn stop(words: [u64; EVENT_WORDS]) -> Option<QueueFaultKind> {
    match EventCode(EventWord0::from_bits(words[0]).code()) {
        EventCode::ILLEGAL_COMMAND_ERROR => Some(QueueFaultKind::ILLEGAL),
        EventCode::COMMAND_HARDWARE_ERROR => Some(QueueFaultKind::FETCH),
        EventCode::IOTLB_INV_TIMEOUT => Some(QueueFaultKind::ATC_TIMEOUT),
        _ => None,
    }
}

/// Whose affair a record is. A guest sees what its own tables did not allow, in its own numbers: a domain becomes the
/// guest's, a PASID is the guest's. Faults of the host's table under a guest's (GN = 0), the physical tables, fetches and
/// commands are the host's.
fn classify(words: [u64; EVENT_WORDS], attached: Option<Attached>) -> HostEvent {
    let word0 = EventWord0::from_bits(words[0]);
    let of_guest_table = word0.flags() & flags::GN != 0;
    let guests = match (EventCode(word0.code()), attached.map(|attached| attached.tables)) {
        (EventCode::IO_PAGE_FAULT, Some(Tables::Shadowed)) => true,
        (EventCode::IO_PAGE_FAULT | EventCode::INVALID_DEVICE_REQUEST, Some(Tables::Nested)) => of_guest_table,
        _ => false,
    };
    let mut own = word0.with_device_id(0);
    if !of_guest_table {
        own = own.with_pasid_high(0).with_domain_id(attached.map_or(0, |attached| attached.domain));
    }
    let mut record = [0; 8];
    record[..EVENT_WORDS].copy_from_slice(&[own.into_bits(), words[1]]);
    let device = match EventCode(word0.code()) {
        // Names a GuestID.
        EventCode::VIOMMU_HARDWARE_ERROR => translate_device(word0.device_id().min(GUESTS - 1)),
        _ => word0.device_id(),
    };
    HostEvent {
        owner: if guests { EventOwner::GUEST } else { EventOwner::HOST },
        stream: device.into(),
        code: word0.code().into(),
        words: EVENT_WORDS as u32,
        record,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: Option<Attached> = Some(Attached { tables: Tables::Nested, domain: 9 });
    const SHADOWED: Option<Attached> = Some(Attached { tables: Tables::Shadowed, domain: 9 });

    fn record(code: EventCode, flags: u16, attached: Option<Attached>) -> HostEvent {
        let word0 = EventWord0::new().with_code(code.0).with_flags(flags).with_device_id(0x10).with_domain_id(0xd00d);
        classify([word0.into_bits(), 0x1000], attached)
    }

    #[test]
    fn a_guest_sees_its_own_tables_faults_in_its_own_numbers() {
        let event = record(EventCode::IO_PAGE_FAULT, flags::GN | flags::RW, NESTED);
        assert_eq!((event.owner, event.stream, event.code, event.words), (EventOwner::GUEST, 0x10, 2, 2));
        assert_eq!(
            event.record[..2],
            [0x2021_d00d_0000_0000, 0x1000],
            "the PASID is the guest's, the device's field zero"
        );
        let event = record(EventCode::IO_PAGE_FAULT, flags::RW, SHADOWED);
        assert_eq!(event.owner, EventOwner::GUEST);
        assert_eq!(event.record[..2], [0x2020_0009_0000_0000, 0x1000], "the domain is the guest's number");
        assert_eq!(record(EventCode::INVALID_DEVICE_REQUEST, flags::GN, NESTED).owner, EventOwner::GUEST);
    }

    #[test]
    fn host_tables_fetches_and_commands_are_the_hosts() {
        for (code, flags, attached) in [
            (EventCode::IO_PAGE_FAULT, 0, NESTED),
            (EventCode::IO_PAGE_FAULT, 0, None),
            (EventCode::IO_PAGE_FAULT, flags::GN, None),
            (EventCode::ILLEGAL_DEV_TABLE_ENTRY, flags::GN, NESTED),
            (EventCode::PAGE_TAB_HARDWARE_ERROR, flags::GN, NESTED),
            (EventCode::DEV_TAB_HARDWARE_ERROR, 0, SHADOWED),
            (EventCode::ILLEGAL_COMMAND_ERROR, 0, SHADOWED),
            (EventCode(0xf), flags::GN, NESTED),
        ] {
            let event = record(code, flags, attached);
            assert_eq!(event.owner, EventOwner::HOST, "{code:?}");
            assert!(
                flags & super::flags::GN != 0 || event.record[0] >> 32 & 0xffff != 0xd00d,
                "{code:?}: the host's domain"
            );
        }
    }
}
