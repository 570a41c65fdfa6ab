//! One thing after the other fails.

use super::machine::Machine;
use crate::iommufd::errno_name;
use crate::session::{Failed, Session, word};
use std::collections::BTreeSet;
use viommu::uapi::Errno;

/// More things than any command has that can fail.
const MANY: u32 = 2000;
/// What a failure of memory, of a lookup, or of taking hold of the caller's memory may be answered by.
const REFUSALS: [Errno; 5] = [Errno::NOMEM, Errno::NOENT, Errno::INVAL, Errno::FAULT, Errno::OPNOTSUPP];
/// What a row says on an iommufd that cannot let anything fail.
const NOT_HERE: &str = "kernel without fault injection";

/// What a command answered, with something in it failing or not.
pub(super) struct Ended {
    pub(super) result: Result<(), Failed>,
    /// The failure that was asked for happened.
    pub(super) failed: bool,
}

/// Does something with the `nth` thing in it failing.
pub(super) fn with_failure(s: &Session<'_>, nth: u32, act: impl FnOnce() -> Result<(), Failed>) -> Ended {
    s.iommufd().fail_nth(nth);
    let result = act();
    let failed = s.iommufd().failed();
    s.iommufd().fail_nth(0);
    Ended { result, failed }
}

/// Whether failures can be asked for here; notes it if not.
pub(super) fn can_fail(s: &mut Session<'_>) -> bool {
    let can = s.iommufd().fail_nth(0);
    if !can {
        s.not_here(NOT_HERE);
    }
    can
}

/// A step of a nested set-up, with each thing in it failing once on a fresh one. Notes which ends that had, whether a
/// failed step left something, and how it ended when done again.
pub(super) fn each_failure(s: &mut Session<'_>, step: &str) -> Result<(), Failed> {
    if !can_fail(s) {
        return Ok(());
    }
    let (mut ends, mut again, mut left) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for nth in 1..MANY {
        let mut machine = Machine::before(s, step)?;
        let before = machine.next_id(s)?;
        let ended = with_failure(s, nth, || machine.step(s, step));
        if !ended.failed {
            again.insert(word(&ended.result));
            left.extend(machine.take_down(s));
            break;
        }
        ends.push(ended.result);
        if ended.result.is_err() {
            if machine.next_id(s)? != before {
                left.insert("an ID".to_owned());
            }
            again.insert(word(&machine.step(s, step)));
        }
        left.extend(machine.take_down(s));
        s.reopen()?;
    }
    s.note(in_a_word(&ends));
    s.note(said(again, "never done"));
    s.note(said(left, "nothing left"));
    Ok(())
}

/// How failures ended: each is refused, or does not matter (the kernel can do without some memory).
pub(super) fn in_a_word(ends: &[Result<(), Failed>]) -> String {
    let errnos = ends.iter().filter_map(|end| end.err().map(|failed| failed.errno));
    let others: BTreeSet<_> = errnos.filter(|errno| !REFUSALS.contains(errno)).map(errno_name).collect();
    match (others.is_empty(), ends.iter().any(Result::is_err)) {
        (false, _) => said(others, ""),
        (_, true) => "refused".into(),
        _ if ends.is_empty() => "nothing can fail".into(),
        _ => "done all the same".into(),
    }
}

/// A set in words.
pub(super) fn said(set: BTreeSet<String>, empty: &str) -> String {
    if set.is_empty() { empty.into() } else { set.into_iter().collect::<Vec<_>>().join(" or ") }
}
