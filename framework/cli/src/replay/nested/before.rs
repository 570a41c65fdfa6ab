//! `--inject drop-invalidation` for a guest in shadow mode. Its TLB invalidations never reach the physical queue, so they are
//! lost before the framework sees them: in the guest's own queue.

use super::machine::World;
use crate::replay::commands::GuestCommands;
use crate::replay::drop::Dropper;
use crate::replay::{Job, ReplayError};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_plugin::TranslationMode;
use viommu_trace::Vendor;

/// Hides commands of one guest while the framework consumes its queue.
pub(super) struct Before {
    guest: GuestCommands,
    dropper: Dropper,
    /// Commands hidden, or left, that the frontend beside ours has not passed.
    pending: u32,
}

impl Before {
    /// `None` unless this guest's commands are to be dropped here.
    ///
    /// # Errors
    /// If it is not known which.
    pub(super) fn new(world: &World, job: &Job<'_>, vendor: Vendor) -> Result<Option<Self>, ReplayError> {
        let injection = world.inject.filter(|injection| injection.drops() && world.mode == TranslationMode::SHADOW);
        let Some(injection) = injection else { return Ok(None) };
        let dropper = Dropper::new(vendor, injection).ok_or(ReplayError::Injection(vendor))?;
        let guest = GuestCommands::new(&job.plugin, &world.shown)?;
        Ok(Some(Self { guest, dropper, pending: 0 }))
    }

    /// Sees a register write before the framework, and hides commands that it announces.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(super) fn hide(
        &mut self,
        offset: u64,
        size: u32,
        value: u64,
        memory: &GuestMemoryMmap,
    ) -> Result<(), ReplayError> {
        let queue = self.guest.write(offset, size, value)?;
        self.pending = queue.pending;
        let read = |gpa, bytes: &mut [u8]| memory.read_slice(bytes, GuestAddress(gpa)).is_ok();
        Ok(self.dropper.hide(&queue, &self.guest.codec, read, put(memory))?)
    }

    /// The framework has consumed the queue: the guest's words are in it again.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(super) fn restore(&mut self, memory: &GuestMemoryMmap) -> Result<(), ReplayError> {
        self.dropper.restore(put(memory));
        Ok(self.guest.frontend.advance(std::mem::take(&mut self.pending))?)
    }

    /// The machine was reset.
    ///
    /// # Errors
    /// If the plugin failed.
    pub(super) fn reset(&mut self) -> Result<(), ReplayError> {
        Ok(self.guest.frontend.reset()?)
    }
}

/// Writes that cannot fail: only what was read from a queue is put there.
fn put(memory: &GuestMemoryMmap) -> impl FnMut(u64, &[u8]) + '_ {
    |gpa, bytes| {
        if let Err(error) = memory.write_slice(bytes, GuestAddress(gpa)) {
            tracing::error!(gpa, %error, "a command that was read cannot be written");
        }
    }
}
