//! The frontend part, called through the table.
//!
//! UNSAFETY: `call!`.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers;
use crate::callbacks::with_memory;
use crate::instance::{Instance, call};
use crate::table::text;
use viommu_plugin::abi::Text;
use viommu_plugin::{Effects, GuestFault, GuestMemory, GuestQueue, HwQueueRequest, Lookup, Message, Mode};

/// Bytes of a frontend's saved state, at most.
const STATE_MAX: usize = 1 << 20;
/// Queues of one guest's own, at most.
const HW_QUEUES_MAX: usize = 256;

/// The register frame a guest sees: [`viommu_plugin::Frontend`] in a plugin. Every method fails with a [`CallError`]
/// if the plugin panics, panicked before, or answers what cannot be.
#[derive(Debug)]
pub struct Frontend {
    instance: Instance,
    /// Where the plugin writes what it asks for: lent for each call, so that a register write copies nothing.
    effects: Box<Effects>,
}

impl Frontend {
    pub(crate) fn new(instance: Instance) -> Self {
        Self { instance, effects: Box::default() }
    }

    /// See [`viommu_plugin::Frontend::read`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn read(&self, offset: u64, size: u32) -> Result<u64, CallError> {
        let mut value = 0;
        call!(self.instance.frontend_read(offset, size, &mut value))?;
        Ok(value)
    }

    /// See [`viommu_plugin::Frontend::write`].
    ///
    /// # Errors
    /// See [`Frontend`].
    #[inline]
    pub fn write(&mut self, offset: u64, size: u32, value: u64) -> Result<&Effects, CallError> {
        call!(self.instance.frontend_write(offset, size, value, &raw mut *self.effects))?;
        self.asked("frontend_write")
    }

    /// See [`viommu_plugin::Frontend::queue`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn queue(&self) -> Result<GuestQueue, CallError> {
        let mut queue = GuestQueue::default();
        self.queue_into(&mut queue)?;
        Ok(queue)
    }

    /// As [`Frontend::queue`], in place: a doorbell asks twice, and copies of something just written are slow.
    ///
    /// # Errors
    /// See [`Frontend`]. What is in `queue` then means nothing.
    #[inline]
    pub fn queue_into(&self, queue: &mut GuestQueue) -> Result<(), CallError> {
        call!(self.instance.frontend_queue(&raw mut *queue))?;
        let command_words = self.instance.table().info.command_words;
        answers::queue(queue, command_words).map_err(|what| OutOfRange { slot: "frontend_queue", what })
    }

    /// See [`viommu_plugin::Frontend::advance`].
    ///
    /// # Errors
    /// See [`Frontend`].
    #[inline]
    pub fn advance(&mut self, commands: u32) -> Result<(), CallError> {
        call!(self.instance.frontend_advance(commands))?;
        Ok(())
    }

    /// See [`viommu_plugin::Frontend::fault`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn fault(&mut self, fault: GuestFault) -> Result<&Effects, CallError> {
        call!(self.instance.frontend_fault(fault, &raw mut *self.effects))?;
        self.asked("frontend_fault")
    }

    /// See [`viommu_plugin::Frontend::sync_done`].
    ///
    /// # Errors
    /// See [`Frontend`].
    #[inline]
    pub fn sync_done(&mut self, command: &[u64]) -> Result<&Effects, CallError> {
        call!(self.instance.frontend_sync_done(command.as_ptr(), command.len(), &raw mut *self.effects))?;
        self.asked("frontend_sync_done")
    }

    /// See [`viommu_plugin::Frontend::event`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn event(&mut self, virt_id: u32, record: &[u64]) -> Result<&Effects, CallError> {
        call!(self.instance.frontend_event(virt_id, record.as_ptr(), record.len(), &raw mut *self.effects))?;
        self.asked("frontend_event")
    }

    /// See [`viommu_plugin::Frontend::event_lost`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn event_lost(&mut self) -> Result<&Effects, CallError> {
        call!(self.instance.frontend_event_lost(&raw mut *self.effects))?;
        self.asked("frontend_event_lost")
    }

    /// What the last call asked for, if that can be.
    fn asked(&self, slot: &'static str) -> Result<&Effects, CallError> {
        answers::effects(&self.effects).map_err(|what| OutOfRange { slot, what })?;
        Ok(&self.effects)
    }

    /// See [`viommu_plugin::Frontend::mode`]. A mode this host does not know is [`Mode::ABORT`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn mode(&self) -> Result<Mode, CallError> {
        let mut mode = Mode::ABORT;
        call!(self.instance.frontend_mode(&mut mode))?;
        Ok(answers::mode(mode))
    }

    /// See [`viommu_plugin::Frontend::entry`]. A result this host does not know is [`Lookup::UNREADABLE`].
    ///
    /// # Errors
    /// See [`Frontend`]; also if `memory` panicked.
    pub fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Result<Lookup, CallError> {
        let mut lookup = Lookup::UNREADABLE;
        with_memory(memory, "frontend_entry", |memory| {
            call!(self.instance.frontend_entry(memory, virt_id, entry.as_mut_ptr(), entry.len(), &mut lookup))?;
            Ok(answers::lookup(lookup))
        })
    }

    /// All that [`viommu_plugin::Frontend::watched`] names, `from` after `from`: no more pages than `most`.
    ///
    /// # Errors
    /// See [`Frontend`]; also if `memory` panicked.
    pub fn watched(&self, memory: &dyn GuestMemory, streams: &[u32], most: usize) -> Result<Vec<u64>, CallError> {
        let mut pages = Vec::new();
        if self.instance.entry().frontend_watched.is_none() {
            return Ok(pages);
        }
        let slot = "frontend_watched";
        while pages.len() < most {
            let mut some = [0; 256];
            let room = some.len().min(most - pages.len());
            let written = with_memory(memory, slot, |memory| {
                let (ids, count, from) = (streams.as_ptr(), streams.len(), pages.len() as u32);
                call!(self.instance.frontend_watched(memory, ids, count, from, some.as_mut_ptr(), room))
            })?;
            let written = some[..room].get(..usize::try_from(written).unwrap_or(usize::MAX));
            let written = written.ok_or(OutOfRange { slot, what: "more pages than there is room" })?;
            if written.iter().any(|page| page % 0x1000 != 0) {
                return Err(OutOfRange { slot, what: "a page that begins within a page" });
            }
            pages.extend_from_slice(written);
            if written.len() < room {
                break;
            }
        }
        Ok(pages)
    }

    /// See [`viommu_plugin::Frontend::reset`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn reset(&mut self) -> Result<(), CallError> {
        call!(self.instance.frontend_reset())?;
        Ok(())
    }

    /// See [`viommu_plugin::Frontend::register_name`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn register_name(&self, offset: u64) -> Result<Option<&'static str>, CallError> {
        let mut name = Text::NONE;
        call!(self.instance.frontend_register_name(offset, &mut name))?;
        text(name).map_err(|what| OutOfRange { slot: "frontend_register_name", what })
    }

    /// See [`viommu_plugin::Frontend::save`].
    ///
    /// # Errors
    /// See [`Frontend`]; [`CallError::Missing`] if the plugin is older than this slot.
    pub fn save(&self) -> Result<Vec<u8>, CallError> {
        let mut bytes = vec![0; 1024];
        loop {
            let room = bytes.len();
            let length = call!(self.instance.frontend_save(bytes.as_mut_ptr(), room))?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length <= room {
                bytes.truncate(length);
                return Ok(bytes);
            }
            if length > STATE_MAX || room > 1024 {
                let what = "more bytes than it said, or than a register frame needs";
                return Err(OutOfRange { slot: "frontend_save", what });
            }
            bytes.resize(length, 0);
        }
    }

    /// See [`viommu_plugin::Frontend::restore`].
    ///
    /// # Errors
    /// See [`Frontend`]; [`CallError::Refused`] with the plugin's reason; [`CallError::Missing`] if the plugin is older
    /// than this slot.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), CallError> {
        call!(self.instance.frontend_restore(state.as_ptr(), state.len()); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Frontend::trouble`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn trouble(&self, text: &mut Message) -> Result<(), CallError> {
        call!(self.instance.frontend_trouble(text))?;
        Ok(())
    }

    /// See [`viommu_plugin::Frontend::hw_queues`].
    ///
    /// # Errors
    /// See [`Frontend`].
    pub fn hw_queues(&self) -> Result<Vec<HwQueueRequest>, CallError> {
        if self.instance.entry().frontend_hw_queues.is_none() {
            return Ok(Vec::new());
        }
        let mut queues = vec![HwQueueRequest::default(); HW_QUEUES_MAX];
        let count = call!(self.instance.frontend_hw_queues(queues.as_mut_ptr(), queues.len()))?;
        let count = usize::try_from(count).ok().filter(|count| *count <= HW_QUEUES_MAX);
        let what = "more queues than an interface has";
        queues.truncate(count.ok_or(OutOfRange { slot: "frontend_hw_queues", what })?);
        Ok(queues)
    }
}
