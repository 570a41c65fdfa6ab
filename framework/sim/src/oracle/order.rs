//! Every command once, in order: what a guest wrote, what the data path took, what the hardware queue got.

use std::collections::VecDeque;

/// Words of a command; those that it does not have are zero.
pub(crate) type Command = [u64; 4];

/// Commands of `size` words each, in four.
pub(crate) fn commands(words: &[u64], size: usize) -> impl Iterator<Item = Command> {
    words.chunks_exact(size).map(|words| {
        let mut command = [0; 4];
        command.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        command
    })
}

/// What the oracle must know of a vendor's commands.
#[derive(Clone, Copy)]
pub(crate) struct Language {
    /// Words of a command for the host.
    pub(crate) words: usize,
    /// What is the same of a translation cache invalidation in the guest's words and in the host's; `None` for
    /// everything else.
    pub(crate) invalidation: fn(Command) -> Option<Command>,
    /// The guest's domain that the guest's invalidation names, where commands name domains: if the host has no tag for
    /// it, the host's queue gets nothing.
    pub(crate) domain: fn(Command) -> Option<u16>,
    /// Whether the command tells of changed table entries: taken again when the host could not carry it out.
    pub(crate) configures: fn(Command) -> bool,
    /// The host's words of an invalidation with a tag that is nobody's.
    pub(crate) with_other_tag: fn(Command) -> Command,
}

/// One guest's queue.
pub(crate) struct Order {
    language: Language,
    /// The guest's tables are shadowed: the host's queue gets no invalidations of its translations.
    shadowed: bool,
    /// Written and not taken.
    written: VecDeque<Command>,
    /// Commands taken.
    taken: u64,
    last: Option<Command>,
    /// On the hardware queue, and not yet shown as taken; with the guest's domain that the tag is of, where it has one.
    placed: VecDeque<(Option<u16>, Command)>,
}

impl Order {
    pub(crate) fn new(language: Language, shadowed: bool) -> Self {
        Self { language, shadowed, written: VecDeque::new(), taken: 0, last: None, placed: VecDeque::new() }
    }

    /// The guest wrote a command.
    pub(crate) fn wrote(&mut self, command: Command) {
        self.written.push_back(command);
    }

    /// The guest wrote another command to a place that was not taken.
    pub(crate) fn rewrote(&mut self, at: u64, command: Command) {
        let place = at.checked_sub(self.taken).and_then(|place| self.written.get_mut(place as usize));
        if let Some(place) = place {
            *place = command;
        }
    }

    /// The queue starts anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.language, self.shadowed);
    }

    /// The data path took a command; `resides` says for which domains the host has a tag for certain. What is wrong with
    /// that.
    pub(crate) fn took(&mut self, command: Command, resides: impl FnOnce(u16) -> bool) -> Option<String> {
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
        let wanted = (self.language.invalidation)(command).filter(|_| !self.shadowed)?;
        let domain = (self.language.domain)(command);
        let wanted = (domain, wanted);
        let may_be_local = domain.is_some_and(|domain| !resides(domain));
        if may_be_local && self.placed.front() != Some(&wanted) {
            return None;
        }
        let placed = self.placed.pop_front();
        (placed != Some(wanted))
            .then(|| format!("took {wanted:x?}, but the hardware queue got {placed:x?} in its place"))
    }

    /// The hardware queue got a command of this guest; `domain_of` says of which domain of the guest's a tag is.
    pub(crate) fn placed(&mut self, command: Command, domain_of: impl Fn(u32) -> Option<u32>) {
        let domain = (self.language.domain)(command).and_then(|tag| domain_of(tag.into()));
        self.placed
            .extend((self.language.invalidation)(command).map(|command| (domain.map(|domain| domain as u16), command)));
    }

    /// The guest has seen the SYNC at place `at`. What is wrong with that.
    pub(crate) fn synced(&self, at: u64) -> Option<String> {
        if self.taken <= at {
            return Some(format!("SYNC {at} is complete, but only {} commands were taken", self.taken));
        }
        None
    }
}
