//! C9: allocations and lookups fail, one at a time.
//!
//! Which of them there are, and in which order, is each implementation's own: a row says that all are refused by an errno
//! that such a failure may have, and what is left then.

mod machine;
mod sweep;

use super::sequence::life;
use crate::row::Row;
use crate::session::{Said, Session, word};
use machine::Machine;
use std::collections::BTreeSet;
use sweep::{can_fail, each_failure, in_a_word, said, with_failure};

/// A row for a step of [`Machine`].
macro_rules! step {
    ($id:literal, $step:literal, $expected:literal) => {
        Row {
            id: $id,
            stimulus: concat!($step, ": each thing in it that can fail does; done again; everything is taken down"),
            expected: $expected,
            run: |s| each_failure(s, $step),
        }
    };
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C9.1",
        stimulus: "the sequence of the kernel's failure injection, untouched",
        expected: "passed",
        run: |s| {
            life(s)?;
            s.note("passed");
            Ok(())
        },
    },
    Row {
        id: "C9.2",
        stimulus: "the same with the first thing failing, the second, ... until it passes; all closed each time; pins",
        expected: "refused; 0 pins",
        run: lives,
    },
    step!("C9.3", "IOAS_ALLOC", "refused; ok; nothing left"),
    step!("C9.4", "IOAS_MAP", "refused; ok; nothing left"),
    step!("C9.5", "a device's attach to the IOAS", "refused; ok; nothing left"),
    step!("C9.6", "GET_HW_INFO", "refused; ok; nothing left"),
    step!("C9.7", "HWPT_ALLOC, a nesting parent", "refused; ok; nothing left"),
    step!("C9.8", "VIOMMU_ALLOC with data", "refused; ok; nothing left"),
    step!("C9.9", "VDEVICE_ALLOC", "refused; ok; nothing left"),
    step!("C9.10", "VEVENTQ_ALLOC", "refused; ok; nothing left"),
    step!("C9.11", "FAULT_QUEUE_ALLOC", "refused; ok; nothing left"),
    step!("C9.12", "HWPT_ALLOC, nested on the vIOMMU", "refused; ok; nothing left"),
    step!("C9.13", "HWPT_ALLOC, nested with the fault queue", "refused; ok; nothing left"),
    step!("C9.14", "HW_QUEUE_ALLOC", "refused; ok; nothing left"),
    step!("C9.15", "a replace to the nested", "refused; ok; nothing left"),
    step!("C9.16", "a replace to the nested with faults", "refused; ok; nothing left"),
    step!("C9.17", "HWPT_INVALIDATE on the vIOMMU", "refused; ok; nothing left"),
    step!("C9.18", "HWPT_INVALIDATE on the nested", "refused; ok; nothing left"),
    step!("C9.19", "a PASID's attach to the nested", "refused; ok; nothing left"),
    step!("C9.20", "a PASID's replace", "refused; ok; nothing left"),
    step!("C9.21", "a PASID's detach", "refused; ok; nothing left"),
    step!("C9.22", "HWPT_ALLOC with dirty tracking", "refused; ok; nothing left"),
    step!("C9.23", "SET_DIRTY_TRACKING", "refused; ok; nothing left"),
    step!("C9.24", "GET_DIRTY_BITMAP", "refused; ok; nothing left"),
    step!("C9.25", "DESTROY of the vdevice", "nothing can fail; ok; nothing left"),
    step!("C9.26", "DESTROY of the HW queue", "nothing can fail; ok; nothing left"),
    step!("C9.27", "IOAS_UNMAP", "refused; ok; nothing left"),
    Row {
        id: "C9.28",
        stimulus: "an event, each thing in it that can fail does; what the queue has then",
        expected: "ENOENT: no event or ENOMEM: seq 0 LOST_EVENTS",
        run: events,
    },
];

/// The whole sequence, its things failing one after the other.
fn lives(s: &mut Session<'_>) -> Said {
    if !can_fail(s) {
        return Ok(());
    }
    let mut ends = Vec::new();
    for nth in 1.. {
        s.memory().store(0, &[1]);
        let ended = with_failure(s, nth, || life(s));
        s.reopen()?;
        if s.pins(0).is_err() {
            s.note(format!("pins are left by failure {nth}"));
        }
        if !ended.failed {
            ended.result?;
            break;
        }
        ends.push(ended.result);
    }
    s.note(in_a_word(&ends));
    s.note("0 pins");
    Ok(())
}

/// An event that cannot be kept is lost, and the queue says so.
fn events(s: &mut Session<'_>) -> Said {
    if !can_fail(s) {
        return Ok(());
    }
    let mut ends = BTreeSet::new();
    for nth in 1.. {
        let machine = Machine::before(s, "HWPT_INVALIDATE on the vIOMMU")?;
        let ended = with_failure(s, nth, || machine.event(s));
        if !ended.failed {
            break;
        }
        ends.insert(format!("{}: {}", word(&ended.result), machine.events(s)));
        machine.take_down(s);
        s.reopen()?;
    }
    s.note(said(ends, "nothing can fail"));
    Ok(())
}
