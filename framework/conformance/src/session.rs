//! One row's conversation with a fresh iommufd, and what was seen of it.

mod commands;
mod events;
mod mock;

pub(crate) use commands::Paging;
pub(crate) use mock::Device;

use crate::iommufd::{Iommufd, Lent, Open, errno_name};
use crate::memory::Memory;
use crate::software::Software;
use std::cell::RefCell;
use std::fmt;
use viommu::uapi::{Command, Errno};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A command that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// The command's name.
    pub command: &'static str,
    /// Its errno.
    pub errno: Errno,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.command, errno_name(self.errno))
    }
}

/// What a row's stimulus gives back: `Err` if something that the row only needs, and does not judge, was refused.
pub type Said = Result<(), Failed>;

/// What is seen begins with this if the row cannot be run there.
pub(crate) const NOT_HERE: &str = "not here: ";

/// A fresh iommufd and what was seen of it.
pub struct Session<'a> {
    iommufd: Box<dyn Iommufd>,
    open: &'a dyn Open,
    memory: &'a Memory,
    seen: Vec<String>,
    /// PASIDs that may be attached. The mock does not detach them from a device that goes, and breaks.
    pasids: RefCell<Vec<(Device, u32)>>,
}

impl<'a> Session<'a> {
    /// # Errors
    /// What the open answers.
    pub(crate) fn open(open: &'a dyn Open, memory: &'a Memory) -> Result<Self, Errno> {
        Ok(Self { iommufd: open.open()?, open, memory, seen: Vec::new(), pasids: RefCell::default() })
    }

    /// One that is open already; a fresh one would be a software iommufd with the mock driver.
    pub(crate) fn over(iommufd: Box<dyn Iommufd>, memory: &'a Memory) -> Self {
        Self { iommufd, open: &Software, memory, seen: Vec::new(), pasids: RefCell::default() }
    }

    /// All that was seen, in order.
    pub(crate) fn seen(&self) -> String {
        self.seen.join("; ")
    }

    pub(crate) fn memory(&self) -> &'a Memory {
        self.memory
    }

    pub(crate) fn iommufd(&self) -> &dyn Iommufd {
        &*self.iommufd
    }

    /// Notes how a command ended: `ok`, or its errno.
    pub(crate) fn see<T>(&mut self, result: Result<T, Failed>) {
        self.note(word(&result));
    }

    /// Notes something else.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// Notes that this iommufd has not got what the row needs, and nothing else.
    pub(crate) fn not_here(&mut self, why: &str) {
        self.seen = vec![format!("{NOT_HERE}{why}")];
    }

    /// Notes whether two things are as the row says.
    pub(crate) fn note_if(&mut self, holds: bool, yes: &str, no: &str) {
        self.note(if holds { yes } else { no });
    }

    /// One command, with its argument's own size in front.
    pub(crate) fn call<T: IntoBytes + FromBytes + Immutable>(
        &self,
        command: Command,
        argument: &mut T,
        lent: &mut [Lent<'_>],
    ) -> Result<(), Failed> {
        let bytes = argument.as_mut_bytes();
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&size.to_ne_bytes());
        self.raw(command, bytes, lent)
    }

    /// One command, its argument as it stands.
    pub(crate) fn raw(&self, command: Command, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Failed> {
        let result = self.iommufd.ioctl(command.code(), argument, lent);
        result.map_err(|errno| Failed { command: command.name(), errno })
    }

    /// Closes the iommufd and all of its event queues, and goes on with a fresh one.
    pub(crate) fn reopen(&mut self) -> Said {
        // The fresh one is there before the other goes: the row sees what that leaves.
        let fresh = self.open.open().map_err(|errno| Failed { command: "open", errno })?;
        self.detach_pasids();
        self.iommufd = fresh;
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.detach_pasids();
    }
}

/// `ok`, or the errno.
pub(crate) fn word<T>(result: &Result<T, Failed>) -> String {
    result.as_ref().map_or_else(|failed| errno_name(failed.errno), |_| "ok".into())
}
