//! VEVENTQ: a vIOMMU's events, for its guest.
//!
//! A full queue loses the event and says so: a header without payload stands at the tail, with the number of the last
//! event lost, until the next event that finds room takes its place; the gap in the numbers tells the rest.

use super::{
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{
    Errno,
    flags::{VEVENTQ_DEPTH_MAX, VEVENTQ_FLAG_LOST_EVENTS, VEVENTQ_TYPE_DEFAULT},
    layout,
    payload::VeventHeader,
};
use std::collections::VecDeque;
use zerocopy::IntoBytes;

/// An event, or the mark of lost ones.
#[derive(Debug)]
struct Record {
    header: VeventHeader,
    payload: Vec<u8>,
}

/// A queue of events.
#[derive(Debug)]
pub(super) struct Veventq {
    pub viommu: u32,
    pub event_type: u32,
    depth: usize,
    /// Events there are, the mark not counted.
    events: usize,
    records: VecDeque<Record>,
    sequence: u32,
}

impl Veventq {
    fn new(viommu: u32, event_type: u32, depth: u32) -> Self {
        Self { viommu, event_type, depth: depth as usize, events: 0, records: VecDeque::new(), sequence: 0 }
    }

    /// An event; without room (or `memory`) it is lost.
    fn push(&mut self, payload: &[u8], memory: bool) {
        if self.records.back().is_some_and(|record| record.header.flags == VEVENTQ_FLAG_LOST_EVENTS) {
            self.records.pop_back();
        }
        let kept = memory && self.events < self.depth;
        let flags = if kept { 0 } else { VEVENTQ_FLAG_LOST_EVENTS };
        let payload = if kept { payload.to_vec() } else { Vec::new() };
        self.events += usize::from(kept);
        self.records.push_back(Record { header: VeventHeader { flags, sequence: self.sequence }, payload });
        self.sequence = (self.sequence + 1) & i32::MAX as u32;
    }

    /// As many whole records as fit; EINVAL if not even one does.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if buffer.len() < size_of::<VeventHeader>() {
            return Err(Errno::INVAL);
        }
        let mut done = 0;
        while let Some(record) = self.records.front() {
            let length = size_of::<VeventHeader>() + record.payload.len();
            let Some(room) = buffer[done..].get_mut(..length) else {
                return if done == 0 { Err(Errno::INVAL) } else { Ok(done) };
            };
            let (header, payload) = room.split_at_mut(size_of::<VeventHeader>());
            header.copy_from_slice(record.header.as_bytes());
            payload.copy_from_slice(&record.payload);
            self.events -= usize::from(record.header.flags == 0);
            self.records.pop_front();
            done += length;
        }
        Ok(done)
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.records.is_empty()
    }
}

impl State {
    pub(super) fn veventq_alloc(&mut self, command: &mut layout::VeventqAlloc) -> Result<(), Errno> {
        if command.flags != 0 || command.__reserved != 0 || command.r#type == VEVENTQ_TYPE_DEFAULT {
            return Err(Errno::OPNOTSUPP);
        }
        if command.veventq_depth == 0 || command.veventq_depth > VEVENTQ_DEPTH_MAX {
            return Err(Errno::INVAL);
        }
        let (viommu, event_type, depth) = (command.viommu_id, command.r#type, command.veventq_depth);
        self.seek(viommu, Kind::Viommu)?;
        if self.table.viommu(viommu)?.veventqs.contains_key(&event_type) {
            return Err(Errno::EXIST);
        }
        (command.out_veventq_id, command.out_veventq_fd) = self.with_reserved(|state, id| {
            let fd = state.new_fd()?;
            state.table.viommu_mut(viommu)?.veventqs.insert(event_type, id);
            state.table.publish(id, Object::Veventq(Veventq::new(viommu, event_type, depth)), &[viommu]);
            state.table.hold(id);
            state.fds.insert(fd, id);
            Ok((id, fd as u32))
        })?;
        Ok(())
    }

    /// Reports an event of a vIOMMU; EOPNOTSUPP without a queue of its type. A full queue is no error.
    pub(super) fn report(&mut self, viommu: u32, event_type: u32, payload: &[u8]) -> Result<(), Errno> {
        let queue = *self.table.viommu(viommu)?.veventqs.get(&event_type).ok_or(Errno::OPNOTSUPP)?;
        let memory = self.inject.allocation();
        self.table.veventq_mut(queue)?.push(payload, memory.is_ok());
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(queue: &mut Veventq) -> Vec<(u32, u32)> {
        let mut bytes = vec![0; 256];
        let length = queue.read(&mut bytes).unwrap();
        let (mut at, mut records) = (0, Vec::new());
        while at < length {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            records.push((word(at), word(at + 4)));
            at += if word(at) == 0 { 12 } else { 8 };
        }
        records
    }

    #[test]
    fn c6_23_and_24_lost_events_leave_a_mark_and_a_gap() {
        let mut queue = Veventq::new(1, 1, 2);
        for event in 0..3u32 {
            queue.push(&event.to_ne_bytes(), true);
        }
        assert_eq!(numbers(&mut queue), [(0, 0), (0, 1), (1, 2)]);
        queue.push(&[0; 4], true);
        assert_eq!(numbers(&mut queue), [(0, 3)]);
        for _ in 0..5 {
            queue.push(&[0; 4], true);
        }
        assert_eq!(queue.read(&mut [0; 12]), Ok(12));
        queue.push(&[0; 4], true);
        assert_eq!(numbers(&mut queue), [(0, 5), (0, 9)], "the mark went, the gap from 5 to 9 tells");
    }

    #[test]
    fn sequence_numbers_wrap_at_two_to_the_31() {
        let mut queue = Veventq::new(1, 1, 8);
        queue.sequence = i32::MAX as u32;
        queue.push(&[0; 4], true);
        queue.push(&[0; 4], false);
        assert_eq!(numbers(&mut queue), [(0, i32::MAX as u32), (1, 0)], "no memory is a loss too");
    }

    #[test]
    fn c6_18_and_20_a_read_takes_whole_records() {
        let mut queue = Veventq::new(1, 1, 8);
        assert_eq!(
            [queue.read(&mut []), queue.read(&mut [0; 7]), queue.read(&mut [0; 8])],
            [Err(Errno::INVAL), Err(Errno::INVAL), Ok(0)]
        );
        queue.push(&[9; 4], true);
        assert_eq!(queue.read(&mut [0; 8]), Err(Errno::INVAL));
        assert!(queue.is_readable());
        assert_eq!(queue.read(&mut [0; 23]), Ok(12));
    }
}
