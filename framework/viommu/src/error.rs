//! What went wrong on our side: object, operation, cause. A guest's mistakes are [`viommu_plugin::GuestFault`] values.

use crate::backend::ObjectKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// An operation on an object failed.
#[derive(Debug, thiserror::Error)]
#[error("{kind}{}: {operation} failed: {cause}", id.map(|id| format!(" {id}")).unwrap_or_default())]
pub struct Error {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Its ID, if it has one yet.
    pub id: Option<u32>,
    /// The verb, in uAPI words: alloc, attach, replace, detach, map, unmap, invalidate, destroy.
    pub operation: &'static str,
    /// Why.
    #[source]
    pub cause: Cause,
}

/// Why an operation failed. [`Cause::errno`] gives the uAPI's number.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Other objects still use it (EBUSY).
    #[error("busy: used by {users}")]
    Busy {
        /// Who, in words: "2 vdevices, 1 nested HWPT".
        users: String,
    },
    /// No object of that kind with that ID (ENOENT).
    #[error("no {0} with this ID")]
    NotFound(ObjectKind),
    /// No object of any kind with this ID (ENOENT).
    #[error("no object has ID {0}")]
    NoObject(u32),
    /// What the operation is about is not there (ENOENT).
    #[error("{0}")]
    Absent(String),
    /// The same thing exists already (EEXIST).
    #[error("{0}")]
    Exists(String),
    /// A pool has nothing left (ENOSPC).
    #[error("{pool} exhausted: all {size} in use")]
    Exhausted {
        /// The pool: "VMIDs".
        pool: &'static str,
        /// How many it has.
        size: u64,
    },
    /// Memory that is not mapped, or not as hardware needs it (EFAULT).
    #[error("{0}")]
    Fault(String),
    /// Not the range that can be mapped (ENXIO).
    #[error("{0}")]
    NoRange(String),
    /// Understood but wrong (EINVAL).
    #[error("{0}")]
    Invalid(String),
    /// This backend or vendor cannot do it (EOPNOTSUPP).
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The hardware did not answer in time (ETIMEDOUT).
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The vendor plugin failed.
    #[error("plugin: {0}")]
    Plugin(#[from] viommu_plugin_host::CallError),
    /// The physical queue refused a command of this object.
    #[error("hardware queue: {0}")]
    Queue(String),
    /// The actor panicked in this operation; the change was rolled back.
    #[error("the actor panicked: {0}")]
    Panicked(String),
    /// The object is out of service after repeated failures; the abort HWPT is attached.
    #[error("quarantined: {0}")]
    Quarantined(String),
    /// The actor or the host is gone.
    #[error("the host is shut down")]
    Closed,
    /// `blocking` was called on a thread that runs actors.
    #[error("called on an actor thread, which would deadlock")]
    WouldDeadlock,
    /// A command of the kernel failed in a way that has no words of its own here.
    #[error("{what}")]
    Kernel {
        /// Command, object and errno, in words.
        what: String,
        /// The errno.
        errno: i32,
    },
    /// An OS call failed.
    #[error("{0}")]
    Os(#[from] std::io::Error),
}

impl Cause {
    /// The errno that the uAPI gives for this.
    pub fn errno(&self) -> i32 {
        use viommu_plugin::Refusal as R;
        match self {
            Self::Busy { .. } => 16,
            Self::NotFound(_) | Self::NoObject(_) | Self::Absent(_) => R::ENOENT,
            Self::Exists(_) => R::EEXIST,
            Self::Exhausted { .. } => R::ENOSPC,
            Self::Fault(_) => R::EFAULT,
            Self::NoRange(_) => R::ENXIO,
            Self::Invalid(_) => R::EINVAL,
            Self::Unsupported(_) => R::EOPNOTSUPP,
            Self::TimedOut(_) => R::ETIMEDOUT,
            Self::Plugin(viommu_plugin_host::CallError::Refused(refusal)) => refusal.errno,
            Self::Plugin(_) | Self::Queue(_) | Self::Panicked(_) | Self::Quarantined(_) => R::EIO,
            Self::Closed => 108,
            Self::WouldDeadlock => 35,
            Self::Kernel { errno, .. } => *errno,
            Self::Os(e) => e.raw_os_error().unwrap_or(R::EIO),
        }
    }

    /// [`Cause::Busy`] with so many users of each kind, if there are any.
    pub(crate) fn unless_unused(users: &BTreeMap<ObjectKind, u32>) -> Result<(), Self> {
        if users.is_empty() {
            return Ok(());
        }
        let words =
            |(kind, count): (&ObjectKind, &u32)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" });
        Err(Self::Busy { users: users.iter().map(words).collect::<Vec<_>>().join(", ") })
    }

    /// The full error: this cause, of `operation` on an object.
    pub fn of(self, kind: ObjectKind, id: impl Into<Option<u32>>, operation: &'static str) -> Error {
        Error { kind, id: id.into(), operation, cause: self }
    }
}

impl Error {
    /// The errno that the uAPI gives for this.
    pub fn errno(&self) -> i32 {
        self.cause.errno()
    }
}
