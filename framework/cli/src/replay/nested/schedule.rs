//! Whose turn it is: machines take one doorbell each in turn, the i-th joining when the first has passed i x 97 records.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Records of the first machine between the start of one machine and the next. No doorbell pattern has this period, so
/// the machines are always at different things.
const STAGGER: u64 = 97;

/// How far the first machine is, for those that wait to join.
#[derive(Debug, Default)]
pub(super) struct Gate {
    passed: AtomicU64,
    waiting: Mutex<()>,
    moved: Condvar,
}

impl Gate {
    /// The first machine has passed `records` records; `u64::MAX` when it is through, or will not get further.
    pub(super) fn pass(&self, records: u64) {
        let before = self.passed.fetch_max(records, Ordering::SeqCst);
        if before / STAGGER != records / STAGGER {
            drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            self.moved.notify_all();
        }
    }

    /// Whether machine `index` may have a turn.
    pub(super) fn is_open(&self, index: u32) -> bool {
        index == 0 || self.passed.load(Ordering::SeqCst) >= u64::from(index) * STAGGER
    }

    /// Waits until machine `index` may have a turn.
    fn wait(&self, index: u32) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(waiting, |()| !self.is_open(index)).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Opens the gate for good when the thread that holds the first machine ends, however it ends.
pub(super) struct OpenAtEnd<'a>(pub(super) &'a Gate);

impl Drop for OpenAtEnd<'_> {
    fn drop(&mut self) {
        self.0.pass(u64::MAX);
    }
}

/// Something that takes turns.
pub(super) trait Turns {
    /// Why a turn failed.
    type Error;
    /// Its number; 0 is the first machine.
    fn index(&self) -> u32;
    /// Goes on to the end of the next doorbell. Whether there is more, and how many records are behind it.
    ///
    /// # Errors
    /// Whatever stops the replay.
    fn turn(&mut self) -> Result<(bool, u64), Self::Error>;
}

/// Gives the machines of one thread their turns until all are through, and does `after` after each; how often the turn
/// went from one to another.
///
/// # Errors
/// The first error of a turn, or of `after`.
pub(super) fn drive<T: Turns>(
    machines: &mut [T],
    gate: &Gate,
    mut after: impl FnMut(&mut [T]) -> Result<(), T::Error>,
) -> Result<u64, T::Error> {
    let _open = machines.iter().any(|machine| machine.index() == 0).then(|| OpenAtEnd(gate));
    let mut open: Vec<bool> = vec![true; machines.len()];
    let mut last = None;
    let mut switches = 0;
    while open.contains(&true) {
        let mut ran = false;
        for place in 0..machines.len() {
            let machine = &mut machines[place];
            if !open[place] || !gate.is_open(machine.index()) {
                continue;
            }
            ran = true;
            switches += u64::from(last.is_some_and(|last| last != machine.index()));
            last = Some(machine.index());
            let (goes_on, records) = machine.turn()?;
            open[place] = goes_on;
            if machine.index() == 0 {
                gate.pass(if goes_on { records } else { u64::MAX });
            }
            after(machines)?;
        }
        if !ran && let Some((machine, _)) = machines.iter().zip(&open).find(|(_, more)| **more) {
            gate.wait(machine.index());
        }
    }
    Ok(switches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    struct Machine {
        index: u32,
        turns: u64,
        log: Rc<RefCell<Vec<u32>>>,
    }

    impl Turns for Machine {
        type Error = ();
        fn index(&self) -> u32 {
            self.index
        }
        fn turn(&mut self) -> Result<(bool, u64), ()> {
            self.log.borrow_mut().push(self.index);
            self.turns += 1;
            // Sixty records a turn: machine 1 joins after two turns of machine 0, machine 2 after four.
            Ok((self.turns < 5, self.turns * 60))
        }
    }

    #[test]
    fn machines_join_by_records_and_then_take_turns() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut machines: Vec<_> = (0..3).map(|index| Machine { index, turns: 0, log: log.clone() }).collect();
        let mut turns = 0;
        let after = |_: &mut [Machine]| {
            turns += 1;
            Ok(())
        };
        let switches = drive(&mut machines, &Gate::default(), after).unwrap();
        assert_eq!(turns, 15);
        assert_eq!(*log.borrow(), [0, 0, 1, 0, 1, 0, 1, 2, 0, 1, 2, 1, 2, 2, 2]);
        assert_eq!(switches, 11);
    }

    #[test]
    fn a_first_machine_that_ends_early_keeps_nobody_waiting() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut machines: Vec<_> = [0, 9].map(|index| Machine { index, turns: 0, log: log.clone() }).into();
        drive(&mut machines, &Gate::default(), |_| Ok(())).unwrap();
        assert_eq!(log.borrow().iter().filter(|&&index| index == 9).count(), 5);
    }
}
