//! The registers that a guest sees.

use crate::spec::{self, Frame};
use viommu_plugin::{
    Actions, Effects, Frontend, GuestFault, GuestMemory, GuestQueue, Lookup, Mode, QueueState, Refusal, StateReader,
    StateWriter,
};

/// A guest's registers.
#[derive(Debug)]
pub struct ToyFrontend {
    frame: Frame,
}

/// Version of a saved state: every register, 8 bytes each.
const STATE_VERSION: u32 = 1;

fn refuse(text: &str) -> Refusal {
    Refusal::new(Refusal::EINVAL, text)
}

impl ToyFrontend {
    pub(crate) fn new(features: u64) -> Self {
        Self { frame: Frame::new(features) }
    }
}

impl Frontend for ToyFrontend {
    fn read(&self, offset: u64, size: u32) -> u64 {
        self.frame.read(offset, size)
    }

    fn write(&mut self, offset: u64, size: u32, value: u64) -> Effects {
        let mut effects = Effects::default();
        if self.frame.write(offset, size, value) {
            effects.actions.0 = match offset {
                spec::CONTROL => Actions::KICK | Actions::RECONFIGURE,
                spec::TABLE => Actions::RECONFIGURE,
                spec::TAIL | spec::RESUME => Actions::KICK,
                _ => 0,
            };
        }
        effects
    }

    fn queue(&self) -> GuestQueue {
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_QUEUE != 0;
        GuestQueue {
            base: self.frame.get(spec::QUEUE),
            capacity: spec::INDEX as u32 + 1,
            head: (self.frame.get(spec::HEAD) & spec::INDEX) as u32,
            pending: self.frame.pending(),
            command_words: spec::COMMAND_WORDS as u32,
            state: match self.frame.error() {
                0 if on => QueueState::RUNNING,
                0 => QueueState::DISABLED,
                _ => QueueState::STOPPED,
            },
            fault: GuestFault::NONE,
        }
    }

    fn advance(&mut self, commands: u32) {
        self.frame.advance(commands.min(self.frame.pending()));
    }

    fn fault(&mut self, fault: GuestFault) -> Effects {
        let error = match fault {
            GuestFault::EVENT_ABORT => {
                self.frame.lose();
                return Effects::default();
            }
            GuestFault::FETCH_ABORT => spec::ERROR_FETCH,
            GuestFault::ATC_TIMEOUT => spec::ERROR_TIMEOUT,
            GuestFault::HOST_ERROR => spec::ERROR_HOST,
            _ => spec::ERROR_ILLEGAL,
        };
        self.frame.stop(error);
        Effects { lines: 1 << spec::LINE_ERROR, ..Effects::default() }
    }

    fn sync_done(&mut self, command: &[u64]) -> Effects {
        let mut effects = Effects::default();
        if command[0] & spec::STORE != 0 {
            effects.store(command[1], &1_u64.to_le_bytes());
        }
        self.advance(1);
        effects
    }

    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        let mut effects = Effects::default();
        if let Some(place) = self.frame.event_place() {
            let words = [record[0] & !0xffff_ffff | u64::from(virt_id), record[1]];
            effects.store(place, words.map(u64::to_le_bytes).as_flattened());
            effects.lines = 1 << spec::LINE_EVENT;
        }
        effects
    }

    fn event_lost(&mut self) -> Effects {
        self.frame.lose();
        Effects::default()
    }

    fn mode(&self) -> Mode {
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_TRANSLATE != 0;
        if on { Mode::TRANSLATE } else { Mode::BYPASS }
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        if virt_id >= spec::STREAMS {
            return Lookup::NO_ENTRY;
        }
        let place = self.frame.get(spec::TABLE) + u64::from(virt_id) * spec::ENTRY_BYTES;
        let mut bytes = [[0; 8]; spec::ENTRY_WORDS];
        if memory.read(place, bytes.as_flattened_mut()).is_err() {
            return Lookup::UNREADABLE;
        }
        entry.copy_from_slice(&spec::words(&bytes));
        Lookup::FOUND
    }

    fn reset(&mut self) {
        self.frame = Frame::new(self.frame.get(spec::FEATURES));
    }

    fn register_name(&self, offset: u64) -> Option<&'static str> {
        spec::NAMES.get((offset / 8) as usize).copied().filter(|_| offset.is_multiple_of(8))
    }

    fn save(&self) -> Vec<u8> {
        let mut state = StateWriter::new(STATE_VERSION);
        self.frame.values.iter().for_each(|value| _ = state.u64(*value));
        state.into_bytes()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (mut state, _) = StateReader::versioned("saved toy registers", bytes, STATE_VERSION)?;
        let features = self.frame.get(spec::FEATURES);
        let (mut saved, mut written) = (Frame::new(features), Frame::new(features));
        for (value, name) in saved.values.iter_mut().zip(spec::NAMES) {
            *value = state.u64(name)?;
        }
        state.end()?;
        if saved.values[..2] != written.values[..2] {
            return Err(refuse("ID, FEATURES: the guest was shown others"));
        }
        // A register can hold what a write leaves in it; the read-only ones, indices and why a queue stopped.
        for (value, offset) in saved.values.into_iter().zip((0..).step_by(8)) {
            match offset {
                spec::HEAD | spec::EVENT_TAIL => {}
                _ => _ = written.write(offset, 8, value),
            }
        }
        for (offset, mask) in [(spec::HEAD, spec::INDEX | 0xff << spec::ERROR_SHIFT), (spec::EVENT_TAIL, 0x1ff)] {
            let at = (offset / 8) as usize;
            written.values[at] = saved.values[at] & mask;
        }
        if written != saved {
            return Err(refuse("saved toy registers: a value that no register can hold"));
        }
        self.frame = saved;
        Ok(())
    }
}
