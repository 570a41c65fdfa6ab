//! The register frame a guest of the mock sees.

use crate::behaviour::Behaviour;
use crate::spec::{self, Frame};
use std::fmt::Write;
use viommu_plugin::{
    Actions, Effects, Frontend, GuestFault, GuestMemory, GuestQueue, Lookup, Message, Mode, QueueState, Refusal,
    StateReader, StateWriter,
};

/// The mock's frontend.
#[derive(Debug)]
pub struct MockFrontend {
    frame: Frame,
    features: u64,
    behaviour: Behaviour,
}

impl MockFrontend {
    pub(crate) fn new(features: u64, behaviour: Behaviour) -> Self {
        Self { frame: Frame::default(), features, behaviour }
    }

    /// The value of the register at `offset`.
    fn get(&self, offset: u64) -> u64 {
        if offset == spec::FEATURES { self.features } else { self.frame.get(offset) }
    }

    /// What a slot answers; if told to lie, with more messages than there are.
    fn effects(&self, slot: &'static str, mut effects: Effects) -> Effects {
        if self.behaviour.lies(slot) {
            effects.msi_count = 99;
        }
        effects
    }
}

impl Frontend for MockFrontend {
    fn read(&self, offset: u64, size: u32) -> u64 {
        self.behaviour.enter("frontend_read");
        match size {
            4 => self.get(offset) & 0xffff_ffff,
            8 => self.get(offset),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, size: u32, value: u64) -> Effects {
        self.behaviour.enter("frontend_write");
        let mut effects = Effects::default();
        if self.frame.write(offset, size, value) {
            effects.actions.0 = match offset {
                spec::CONTROL => Actions::KICK | Actions::RECONFIGURE,
                spec::TABLE_BASE => Actions::RECONFIGURE,
                spec::QUEUE_PROD | spec::QUEUE_ACK => Actions::KICK,
                _ => 0,
            };
        }
        self.effects("frontend_write", effects)
    }

    fn queue(&self) -> GuestQueue {
        self.behaviour.enter("frontend_queue");
        let (base, log2) = spec::base(self.frame.get(spec::QUEUE_BASE));
        let (capacity, pending) = (1 << log2, self.frame.pending() as u32);
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_QUEUE != 0;
        let fault = if pending > capacity { GuestFault::QUEUE_CONFIG } else { GuestFault::NONE };
        GuestQueue {
            base,
            capacity,
            head: self.frame.cons() as u32 & (capacity - 1),
            pending: if self.behaviour.lies("frontend_queue") { capacity + 1 } else { pending.min(capacity) },
            command_words: spec::COMMAND_WORDS as u32,
            state: match self.frame.error() {
                0 if on => QueueState::RUNNING,
                0 => QueueState::DISABLED,
                _ => QueueState::STOPPED,
            },
            fault,
        }
    }

    fn advance(&mut self, commands: u32) {
        self.behaviour.enter("frontend_advance");
        self.frame.advance(u64::from(commands).min(self.frame.pending()));
    }

    fn fault(&mut self, fault: GuestFault) -> Effects {
        self.behaviour.enter("frontend_fault");
        if fault != GuestFault::EVENT_ABORT {
            self.frame.stop(fault.0.clamp(1, 0xff));
        }
        self.effects("frontend_fault", Effects { lines: 1 << 3, ..Effects::default() })
    }

    fn sync_done(&mut self, command: &[u64]) -> Effects {
        self.behaviour.enter("frontend_sync_done");
        let mut effects = Effects::default();
        if command[1] != 0 {
            effects.msi(command[1], 0);
        }
        self.frame.advance(1.min(self.frame.pending()));
        self.effects("frontend_sync_done", effects)
    }

    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        self.behaviour.enter("frontend_event");
        let mut effects = Effects::default();
        if let Some(gpa) = self.frame.event_place() {
            let words = [record[0] & !0xffff_ffff | u64::from(virt_id), record[1]];
            effects.store(gpa, words.map(u64::to_le_bytes).as_flattened());
            effects.lines = 1;
        }
        self.effects("frontend_event", effects)
    }

    fn event_lost(&mut self) -> Effects {
        self.behaviour.enter("frontend_event_lost");
        self.frame.set(spec::EVENT_PROD, self.frame.get(spec::EVENT_PROD) | 1 << 31);
        self.effects("frontend_event_lost", Effects::default())
    }

    fn mode(&self) -> Mode {
        self.behaviour.enter("frontend_mode");
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_TRANSLATE != 0;
        if on { Mode::TRANSLATE } else { Mode::BYPASS }
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        self.behaviour.enter("frontend_entry");
        let (table, log2) = spec::base(self.frame.get(spec::TABLE_BASE));
        if virt_id >= 1 << log2 {
            return Lookup::NO_ENTRY;
        }
        let first = table.wrapping_add(u64::from(virt_id) * 8 * spec::ENTRY_WORDS as u64);
        for (index, word) in entry.iter_mut().enumerate() {
            match memory.read_u64(first.wrapping_add(8 * index as u64)) {
                Ok(value) => *word = value,
                Err(_) => return Lookup::UNREADABLE,
            }
        }
        Lookup::FOUND
    }

    fn reset(&mut self) {
        self.behaviour.enter("frontend_reset");
        if !self.behaviour.lies("reset-forgets") {
            self.frame = Frame::default();
        }
    }

    fn register_name(&self, offset: u64) -> Option<&'static str> {
        self.behaviour.enter("frontend_register_name");
        spec::NAMES.iter().find(|(register, _)| *register == offset).map(|(_, name)| *name)
    }

    fn save(&self) -> Vec<u8> {
        self.behaviour.enter("frontend_save");
        let mut state = StateWriter::new(1);
        state.u64(self.features);
        for (register, _) in spec::HELD {
            let forgotten = register == spec::CONTROL && self.behaviour.lies("save-forgets");
            state.u64(if forgotten { 0 } else { self.frame.get(register) });
        }
        // A frame that never ends: the host asks again with more room, and is told of more.
        if self.behaviour.lies("frontend_save") {
            state.raw(&vec![0; 2 << 20]);
        }
        state.into_bytes()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.behaviour.enter("frontend_restore");
        let (mut state, _) = StateReader::versioned("saved mock registers", bytes, 1)?;
        let shown = state.u64("FEATURES")?;
        spec::covers(self.features, shown)?;
        if shown != self.features {
            return Err(Refusal::new(Refusal::EINVAL, format!("FEATURES: the guest was shown {shown:#x}")));
        }
        let mut frame = Frame::default();
        for (register, name) in spec::HELD {
            match state.u64(name) {
                Ok(value) => frame.set(register, value),
                Err(_) if self.behaviour.lies("restores-anything") => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !self.behaviour.lies("restores-anything") {
            state.end()?;
        }
        self.frame = frame;
        Ok(())
    }

    fn trouble(&self, text: &mut Message) {
        self.behaviour.enter("frontend_trouble");
        if self.frame.get(spec::QUEUE_BASE) & 0x1f > u64::from(spec::QUEUE_LOG2_MAX) {
            // Writing into a Message cuts and does not fail.
            let _ = write!(text, "the queue is larger than 2^{}", spec::QUEUE_LOG2_MAX);
        }
    }
}

impl Drop for MockFrontend {
    fn drop(&mut self) {
        self.behaviour.enter("frontend_destroy");
    }
}
