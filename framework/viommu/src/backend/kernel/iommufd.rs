//! The commands of an iommufd, typed. Each names itself and its object when it fails.

mod hwpt;
mod memory;
mod viommu;

pub use hwpt::{HardwareInfo, HwptRequest, InvalidateReply};
pub use memory::MapRequest;

use super::calls::{Calls, Lent};
use super::errors::cause;
use crate::Cause;
use crate::uapi::layout::Destroy;
use crate::uapi::{Command, Errno};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An open iommufd with typed commands. IDs are the kernel's own.
#[derive(Clone)]
pub struct Iommufd {
    calls: Arc<dyn Calls>,
    /// Objects are another process's: none is destroyed.
    retired: Arc<AtomicBool>,
}

impl std::fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iommufd").field("fd", &self.calls.number()).finish()
    }
}

impl Iommufd {
    /// The commands over these calls.
    pub fn new(calls: Arc<dyn Calls>) -> Self {
        Self { calls, retired: Arc::default() }
    }

    /// Nothing owned through this is destroyed from here on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the objects are another's.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The calls under it.
    pub fn calls(&self) -> &Arc<dyn Calls> {
        &self.calls
    }

    fn ioctl<T: IntoBytes + FromBytes + Immutable>(
        &self,
        command: Command,
        argument: &mut T,
        lent: &mut [Lent<'_>],
    ) -> Result<(), Errno> {
        self.calls.ioctl(command.code(), argument.as_mut_bytes(), lent).map(drop)
    }

    fn run<T: IntoBytes + FromBytes + Immutable>(
        &self,
        command: Command,
        argument: &mut T,
        lent: &mut [Lent<'_>],
        object: impl FnOnce() -> String,
    ) -> Result<(), Cause> {
        self.ioctl(command, argument, lent).map_err(|errno| cause(command.name(), &object(), errno))
    }

    /// DESTROY. Closes nothing: an event queue's fd goes first.
    ///
    /// # Errors
    /// EBUSY while something uses it, ENOENT if it is gone.
    pub fn destroy(&self, id: u32) -> Result<(), Cause> {
        let mut argument = Destroy { size: size(Command::Destroy), id };
        self.run(Command::Destroy, &mut argument, &mut [], || format!("object {id}"))
    }
}

fn size(command: Command) -> u32 {
    count(command.size())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
