//! Failure of internal allocations and lookups, one at a time.
//!
//! The kernel's tests do the same with `fail-nth`: run a sequence, let the n-th thing that can fail do so, expect that
//! closing the file leaves nothing, and go on with n + 1 until a run passes untouched.

use crate::uapi::Errno;
use std::cell::Cell;

/// Counts down to the failure.
#[derive(Debug, Default)]
pub(super) struct Inject {
    /// Things that can fail before the one that does; `None` when off.
    left: Cell<Option<u64>>,
    /// Whether it failed.
    fired: Cell<bool>,
}

impl Inject {
    /// Lets the `nth` (from 1) thing from now on fail; 0 lets none.
    pub(super) fn arm(&self, nth: u64) {
        self.left.set(nth.checked_sub(1));
        self.fired.set(false);
    }

    /// Whether the armed failure happened.
    pub(super) fn fired(&self) -> bool {
        self.fired.get()
    }

    /// Memory is needed here: ENOMEM when it is this one's turn.
    pub(super) fn allocation(&self) -> Result<(), Errno> {
        if self.is_now() { Err(Errno::NOMEM) } else { Ok(()) }
    }

    /// An object is looked up here: ENOENT when it is this one's turn.
    pub(super) fn lookup(&self) -> Result<(), Errno> {
        if self.is_now() { Err(Errno::NOENT) } else { Ok(()) }
    }

    fn is_now(&self) -> bool {
        match self.left.get() {
            Some(0) => {
                self.left.set(None);
                self.fired.set(true);
                true
            }
            left => {
                self.left.set(left.map(|left| left - 1));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_fails_and_no_other() {
        let inject = Inject::default();
        assert_eq!(inject.allocation(), Ok(()), "off");
        inject.arm(2);
        assert_eq!((inject.allocation(), inject.fired()), (Ok(()), false));
        assert_eq!((inject.lookup(), inject.fired()), (Err(Errno::NOENT), true));
        assert_eq!(inject.allocation(), Ok(()));
        inject.arm(0);
        assert_eq!((inject.allocation(), inject.fired()), (Ok(()), false));
    }
}
