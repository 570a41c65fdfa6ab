//! Every command once, in order: what a guest wrote, what the data path took, what the hardware queue got.

use std::collections::VecDeque;

/// What the oracle must know of a vendor's commands.
#[derive(Clone, Copy)]
pub(crate) struct Language {
    /// What is the same of a translation cache invalidation in the guest's words and in the host's; `None` for
    /// everything else.
    pub(crate) invalidation: fn([u64; 2]) -> Option<[u64; 2]>,
    /// Whether the command tells of changed table entries: taken again when the host could not carry it out.
    pub(crate) configures: fn([u64; 2]) -> bool,
    /// The host's words of an invalidation with a tag that is nobody's.
    pub(crate) with_other_tag: fn([u64; 2]) -> [u64; 2],
}

/// One guest's queue.
pub(crate) struct Order {
    language: Language,
    /// Written and not taken.
    written: VecDeque<[u64; 2]>,
    /// Commands taken.
    taken: u64,
    last: Option<[u64; 2]>,
    /// On the hardware queue, and not yet shown as taken.
    placed: VecDeque<[u64; 2]>,
}

impl Order {
    pub(crate) fn new(language: Language) -> Self {
        Self { language, written: VecDeque::new(), taken: 0, last: None, placed: VecDeque::new() }
    }

    /// The guest wrote a command.
    pub(crate) fn wrote(&mut self, command: [u64; 2]) {
        self.written.push_back(command);
    }

    /// The guest wrote another command to a place that was not taken.
    pub(crate) fn rewrote(&mut self, at: u64, command: [u64; 2]) {
        let place = at.checked_sub(self.taken).and_then(|place| self.written.get_mut(place as usize));
        if let Some(place) = place {
            *place = command;
        }
    }

    /// The queue starts anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.language);
    }

    /// The data path took a command. What is wrong with that.
    pub(crate) fn took(&mut self, command: [u64; 2]) -> Option<String> {
        let again = self.last == Some(command) && (self.language.configures)(command);
        if self.written.front() != Some(&command) {
            if again {
                return None;
            }
            let next = self.written.front();
            return Some(format!("took {command:x?}, but the guest's command {} is {next:x?}", self.taken));
        }
        self.written.pop_front();
        self.taken += 1;
        self.last = Some(command);
        let wanted = (self.language.invalidation)(command)?;
        let placed = self.placed.pop_front();
        (placed != Some(wanted))
            .then(|| format!("took {wanted:x?}, but the hardware queue got {placed:x?} in its place"))
    }

    /// The hardware queue got a command of this guest.
    pub(crate) fn placed(&mut self, command: [u64; 2]) {
        self.placed.extend((self.language.invalidation)(command));
    }

    /// The guest has seen the SYNC at place `at`. What is wrong with that.
    pub(crate) fn synced(&self, at: u64) -> Option<String> {
        if self.taken <= at {
            return Some(format!("SYNC {at} is complete, but only {} commands were taken", self.taken));
        }
        None
    }
}
