//! One event queue that is read: what it is, and what it lost.

use crate::backend::PageRequest;
use crate::backend::kernel::graph::Names;
use crate::uapi::flags::{PGFAULT_FLAGS_LAST_PAGE, PGFAULT_FLAGS_PASID_VALID};
use crate::uapi::payload::HwptPgfault;

/// Sequence numbers go up to this, and begin again.
const SEQUENCE_MASK: u32 = i32::MAX as u32;

/// A queue that is read.
#[derive(Clone)]
pub(in super::super) enum Source {
    /// A vIOMMU's events.
    Events {
        /// The framework's ID.
        viommu: u32,
        /// VEVENTQ_ALLOC type.
        kind: u32,
        /// Bytes of a payload.
        payload: usize,
        /// The vIOMMU's devices.
        names: Names,
    },
    /// Page requests.
    Faults {
        /// The framework's ID of the queue.
        queue: u32,
        /// Devices by the kernel's ID: stream.
        devices: Names,
    },
}

/// One queue, and where its sequence is.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) next: Option<u32>,
    /// Events that nobody took from the channel in time.
    pub(super) unsent: u64,
}

impl Reader {
    /// Events between the last record and this one, which were lost; a marker counts as the last of them.
    pub(super) fn count(&mut self, sequence: u32, marker: bool) -> u32 {
        // A queue that was taken over may begin anywhere; one of ours begins at 0, but its first records may be lost.
        let expected = self.next.unwrap_or(if marker { 0 } else { sequence });
        self.next = Some(sequence.wrapping_add(1) & SEQUENCE_MASK);
        (sequence.wrapping_sub(expected) & SEQUENCE_MASK) + u32::from(marker)
    }
}

pub(super) fn request(queue: u32, stream: Option<u32>, fault: &HwptPgfault) -> PageRequest {
    PageRequest {
        queue,
        stream,
        pasid: (fault.flags & PGFAULT_FLAGS_PASID_VALID != 0).then_some(fault.pasid),
        group: fault.grpid,
        last: fault.flags & PGFAULT_FLAGS_LAST_PAGE != 0,
        permissions: fault.perm,
        address: fault.addr,
        cookie: fault.cookie,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader { source: Source::Faults { queue: 1, devices: Names::default() }, next: None, unsent: 0 }
    }

    #[test]
    fn gaps_and_markers_count_what_was_lost() {
        let mut reader = reader();
        let counted: Vec<_> = [(8, false), (9, false), (12, false), (21, true), (22, false), (25, true)]
            .map(|(sequence, marker)| reader.count(sequence, marker))
            .into();
        assert_eq!(counted, [0, 0, 2, 9, 0, 3]);
    }

    #[test]
    fn the_sequence_begins_again_after_its_last_number() {
        let mut reader = reader();
        assert_eq!(reader.count(SEQUENCE_MASK, false), 0);
        assert_eq!(reader.count(0, false), 0);
        assert_eq!(reader.count(2, false), 1);
    }

    #[test]
    fn a_queue_that_begins_with_a_marker_lost_all_before_it() {
        assert_eq!(reader().count(4, true), 5);
    }
}
