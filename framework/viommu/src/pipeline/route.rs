//! Steps 3 to 5: check and rewrite a run of commands, put it on the hardware queue, and act on what stopped it.

use super::guest_queue::{BATCH, Fetch};
use super::{ConfigRequest, GuestCounters, Invalidated, Pipeline, unchecked};
use crate::Cause;
use crate::backend::{Batch, Guest, Numbers, Position, SinkError, Words};
use viommu_plugin::{Classes, GuestFault, HostIds, QueueState, Rewritten, Stop};
use viommu_plugin_host::CallError;

/// What a run does after one fetch was dealt with.
enum Next {
    Continue,
    Leave,
}

impl Pipeline {
    /// Takes the guest's queue as far as it goes, at most about `budget` commands. Whether it stopped for the budget.
    /// `doorbell` if the guest asked for it.
    pub(super) fn run(&self, fetch: &mut Fetch, budget: u32, doorbell: bool) -> bool {
        let mut left = budget;
        let mut first = doorbell;
        while !self.settle.is_held() {
            if !std::mem::take(&mut fetch.seen) && !self.look(fetch) {
                return false;
            }
            let queue = &fetch.queue;
            if queue.state != QueueState::RUNNING || (queue.pending == 0 && queue.fault == GuestFault::NONE) {
                return false;
            }
            if std::mem::take(&mut first) {
                GuestCounters::add_alone(&self.counters.doorbells, 1, fetch);
                self.metrics.doorbells.increment(1);
            }
            if left == 0 {
                return true;
            }
            let fetched = match fetch.fill(&self.memory) {
                Ok(commands) => commands,
                Err(fault) => {
                    self.guest_fault(fault);
                    return false;
                }
            };
            left = left.saturating_sub(fetched as u32);
            let all = fetched == fetch.queue.pending as usize;
            if let Next::Leave = self.run_fetched(fetch, fetched) {
                return false;
            }
            // What the guest adds from now on comes with a doorbell of its own, and that finds this thread here: it is
            // looked for when the turn ends.
            if all {
                return false;
            }
        }
        false
    }

    /// Sees where the guest's queue is; `false` if there is no telling.
    fn look(&self, fetch: &mut Fetch) -> bool {
        let Ok(registers) = self.registers() else { return false };
        let seen = registers.queue_into(&mut fetch.queue);
        drop(registers);
        if let Err(error) = &seen {
            tracing::error!(owner = self.owner.0, %error, "frontend failed: guest out of service");
            self.give_up(GuestFault::HOST_ERROR);
        }
        seen.is_ok()
    }

    /// The commands of one fetch.
    fn run_fetched(&self, fetch: &mut Fetch, fetched: usize) -> Next {
        let mut done = 0;
        while done < fetched {
            let rewritten = match self.rewrite(fetch, done, fetched) {
                Ok(rewritten) => rewritten,
                Err(error) => {
                    tracing::error!(owner = self.owner.0, %error, "rewrite failed: guest out of service");
                    self.give_up(GuestFault::HOST_ERROR);
                    return Next::Leave;
                }
            };
            let position = match self.place(fetch, &rewritten) {
                Ok(position) => position,
                Err(error) => return self.sink_failed(&error),
            };
            self.show_tap(fetch.guest_words(done, done + rewritten.taken as usize));
            done += rewritten.taken as usize;
            self.count(&rewritten, fetch);
            // A SYNC that is complete already moves CONS in one step with what is before it.
            let at_once = rewritten.stop == Stop::SYNC && position.is_none_or(|position| self.shard.is_done(position));
            if !at_once {
                self.advance(rewritten.taken);
            }
            fetch.seen = false;
            match rewritten.stop {
                Stop::END | Stop::ROOM => {}
                Stop::ORDER => fetch.before = Classes::NONE,
                Stop::SYNC => {
                    let waited = position.map_or(Ok(()), |position| self.shard.wait(self.owner, position));
                    let unmoved = if at_once { rewritten.taken } else { 0 };
                    if let Err(error) = waited {
                        self.advance(unmoved);
                        return self.sink_failed(&error);
                    }
                    fetch.before = Classes::NONE;
                    self.show_tap(fetch.guest_words(done, done + 1));
                    self.sync_done(unmoved, done, fetch);
                    done += 1;
                }
                Stop::SHADOW => {
                    let command = fetch.guest_words(done, done + 1);
                    let range = self.codec.shadow_range(command.as_slice()).map_err(Cause::from);
                    if let Err(error) = range.and_then(|range| self.shadow_range(range)) {
                        tracing::error!(owner = self.owner.0, %error, "shadow tables: guest out of service");
                        self.give_up(GuestFault::HOST_ERROR);
                        return Next::Leave;
                    }
                    self.show_tap(command);
                    self.advance(1);
                    GuestCounters::add_alone(&self.counters.commands, 1, fetch);
                    self.metrics.tlb.increment(1);
                    done += 1;
                }
                Stop::CONFIGURATION => {
                    let configuration = fetch.guest_words(done, done + 1);
                    self.show_tap(configuration);
                    self.ask_configuration(configuration.as_slice());
                    return Next::Leave;
                }
                _ => {
                    self.guest_fault(rewritten.fault);
                    return Next::Leave;
                }
            }
        }
        Next::Continue
    }

    /// Guest words become host words: every bit checked, every ID this guest's.
    fn rewrite(&self, fetch: &mut Fetch, from: usize, to: usize) -> Result<Rewritten, Cause> {
        let before = fetch.before;
        let (guest, host, ids) = fetch.parts(from, to);
        let rewritten = self.rewrite_run(guest.as_slice(), before, self.ids.host_ids(ids), host)?;
        let progress = rewritten.taken > 0 || !matches!(rewritten.stop, Stop::END | Stop::ROOM);
        if progress { Ok(rewritten) } else { Err(Cause::Invalid("rewrite made no progress".into())) }
    }

    fn rewrite_run(
        &self,
        guest: &[u64],
        before: Classes,
        ids: HostIds<'_>,
        out: &mut [u64],
    ) -> Result<Rewritten, CallError> {
        match self.shard.numbers() {
            Numbers::GuestUnchecked => {
                unchecked::rewrite(&self.codec, self.plugin.command_words, guest, before, ids, out)
            }
            Numbers::Host | Numbers::Guest => self.codec.rewrite(guest, before, ids, out),
        }
    }

    /// Puts the host words on the hardware queue, with a SYNC if what stopped the run needs one. `None` if there was
    /// nothing to put: a SYNC with nothing unfinished before it is complete already.
    fn place(&self, fetch: &mut Fetch, rewritten: &Rewritten) -> Result<Option<Position>, SinkError> {
        let before = fetch.before.with(rewritten.classes);
        let sync = matches!(rewritten.stop, Stop::SYNC | Stop::ORDER) && before != Classes::NONE;
        if rewritten.written == 0 && !sync {
            return Ok(None);
        }
        let words = rewritten.written as usize * self.plugin.command_words;
        let batch =
            Batch { owner: self.owner, words: Words::of(&fetch.host[..words]), classes: rewritten.classes, sync };
        let position = self.shard.submit(&self.lane, batch)?;
        fetch.before = before;
        if sync {
            GuestCounters::add_alone(&self.counters.hardware_syncs, 1, fetch);
        }
        Ok(Some(position))
    }

    /// The tap sees each command once, when it is consumed: a SYNC when it is complete.
    fn show_tap(&self, words: Words<'_, Guest>) {
        if let Some(tap) = self.tap.as_ref().filter(|_| !words.as_slice().is_empty()) {
            tap.consumed(words.as_slice());
        }
    }

    /// Puts a SYNC behind whatever has none, and waits for it.
    pub(super) fn sync_outstanding(&self, fetch: &mut Fetch) -> Result<(), SinkError> {
        if fetch.before == Classes::NONE {
            return Ok(());
        }
        let batch = Batch { owner: self.owner, words: Words::of(&[]), classes: Classes::NONE, sync: true };
        let position = self.shard.submit(&self.lane, batch)?;
        GuestCounters::add_alone(&self.counters.hardware_syncs, 1, fetch);
        self.shard.wait(self.owner, position)?;
        fetch.before = Classes::NONE;
        Ok(())
    }

    fn ask_configuration(&self, command: &[u64]) {
        match self.codec.configuration(command) {
            Ok(configuration) => {
                self.settle.pause();
                (self.on_configuration)(ConfigRequest::Entries(configuration));
            }
            Err(error) => {
                tracing::error!(owner = self.owner.0, %error, "configuration command: guest out of service");
                self.give_up(GuestFault::HOST_ERROR);
            }
        }
    }

    fn sink_failed(&self, error: &SinkError) -> Next {
        tracing::warn!(owner = self.owner.0, %error, "guest commands not carried out");
        match error {
            SinkError::Fault(fault) => self.guest_fault(*fault),
            SinkError::TimedOut(_) => self.guest_fault(GuestFault::HOST_ERROR),
            SinkError::Quarantined | SinkError::Gone(_) => self.give_up(GuestFault::HOST_ERROR),
        }
        Next::Leave
    }

    fn count(&self, rewritten: &Rewritten, fetch: &Fetch) {
        GuestCounters::add_alone(&self.counters.commands, u64::from(rewritten.taken), fetch);
        for (counter, n) in [
            (&self.metrics.tlb, rewritten.tlb),
            (&self.metrics.config, rewritten.config),
            (&self.metrics.atc, rewritten.atc),
        ] {
            if n > 0 {
                counter.increment(u64::from(n));
            }
        }
        if rewritten.local_stream > 0 {
            GuestCounters::add_alone(&self.counters.local_stream, u64::from(rewritten.local_stream), fetch);
            self.metrics.local_stream.increment(u64::from(rewritten.local_stream));
        }
        if rewritten.local_domain > 0 {
            GuestCounters::add_alone(&self.counters.local_domain, u64::from(rewritten.local_domain), fetch);
            self.metrics.local_domain.increment(u64::from(rewritten.local_domain));
        }
        if rewritten.hints > 0 {
            GuestCounters::add_alone(&self.counters.hints, u64::from(rewritten.hints), fetch);
        }
    }

    /// [`Pipeline::invalidate`]: the same steps without a guest queue or registers.
    pub(super) fn invalidate_words(&self, words: &[u64]) -> Result<Invalidated, Cause> {
        let command_words = self.plugin.command_words;
        if !words.len().is_multiple_of(command_words) {
            return Err(Cause::Invalid(format!("{} words are not whole commands of {command_words}", words.len())));
        }
        if self.settle.is_quarantined() {
            return Err(Cause::Quarantined("the data path gave up on this guest".into()));
        }
        let mut fetch = self.queue();
        let total = words.len() / command_words;
        let mut done = 0;
        let mut fault = GuestFault::NONE;
        while done < total && fault == GuestFault::NONE {
            let run = &words[done * command_words..total.min(done + BATCH) * command_words];
            let before = fetch.before;
            let Fetch { host, ids, .. } = &mut *fetch;
            let rewritten = self.rewrite_run(run, before, self.ids.host_ids(ids), host)?;
            match self.place(&mut fetch, &rewritten) {
                Err(SinkError::Fault(fault)) => return Ok(Invalidated { handled: 0, fault }),
                placed => placed.map_err(sink_cause)?,
            };
            done += rewritten.taken as usize;
            self.count(&rewritten, &fetch);
            match rewritten.stop {
                Stop::END | Stop::ROOM if rewritten.taken > 0 => {}
                Stop::ORDER => fetch.before = Classes::NONE,
                Stop::SHADOW => {
                    let command = &words[done * command_words..][..command_words];
                    self.shadow_range(self.codec.shadow_range(command)?)?;
                    GuestCounters::add_alone(&self.counters.commands, 1, &fetch);
                    done += 1;
                }
                Stop::FAULT => fault = rewritten.fault,
                _ => fault = GuestFault::ILLEGAL_OPCODE,
            }
        }
        match self.sync_outstanding(&mut fetch) {
            Ok(()) => Ok(Invalidated { handled: done, fault }),
            // It is the batch that failed: no command of it is known to be complete.
            Err(SinkError::Fault(fault)) => Ok(Invalidated { handled: 0, fault }),
            Err(error) => Err(sink_cause(error)),
        }
    }
}

fn sink_cause(error: SinkError) -> Cause {
    match error {
        SinkError::TimedOut(limit) => Cause::TimedOut(limit),
        SinkError::Quarantined => Cause::Quarantined("by the hardware queue".into()),
        error => Cause::Queue(error.to_string()),
    }
}
