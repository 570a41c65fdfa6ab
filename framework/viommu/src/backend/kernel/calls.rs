//! The calls that an iommufd and a VFIO device answer: the seam under the typed commands.
//!
//! The real ones are [`super::sys`]; a test puts a software iommufd here.

use crate::uapi::Errno;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::GuestMemoryMmap;

/// A pointer field of an argument: where it is, and the memory it is to lead to for the length of the call.
#[derive(Debug)]
pub struct Lent<'a> {
    /// Offset of the field in the argument.
    pub offset: usize,
    /// What it leads to.
    pub memory: &'a mut [u8],
}

impl<'a> Lent<'a> {
    /// The field at `offset` leads to `memory`.
    pub fn new(offset: usize, memory: &'a mut [u8]) -> Self {
        Self { offset, memory }
    }
}

/// One open iommufd.
pub trait Calls: Send + Sync + 'static {
    /// The file descriptor's number, which VFIO devices are bound to.
    fn number(&self) -> i32;

    /// One ioctl. `argument` is what the pointer leads to; the kernel's reply is written back into it.
    ///
    /// # Errors
    /// The kernel's errno. EFAULT, without a call, for pointers that were not lent.
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno>;

    /// Memory that IOAS_MAP may map from: it stays as long as this is open.
    fn lend(&self, memory: Arc<GuestMemoryMmap>);

    /// Reads an event fd that a command gave. 0 means that there is nothing now.
    ///
    /// # Errors
    /// The kernel's errno; EBADF if no command gave it.
    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno>;

    /// Writes an event fd that a command gave.
    ///
    /// # Errors
    /// As [`Calls::read`].
    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno>;

    /// Waits until one of these event fds can be read, or [`Calls::wake`] is called, or `limit` is over. Which can be
    /// read.
    ///
    /// # Errors
    /// As [`Calls::read`].
    fn poll(&self, fds: &[i32], limit: Duration) -> Result<Vec<i32>, Errno>;

    /// Ends a [`Calls::poll`], the current one or the next.
    fn wake(&self);

    /// Closes an event fd that a command gave.
    ///
    /// # Errors
    /// EBADF if no command gave it, or it is closed.
    fn close(&self, fd: i32) -> Result<(), Errno>;

    /// Maps registers of a vIOMMU, shared and uncached; dropping what it gives unmaps them.
    ///
    /// # Errors
    /// The kernel's errno.
    fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno>;
}

/// One open VFIO device.
pub trait DeviceCalls: Send + Sync + 'static {
    /// One ioctl, as [`Calls::ioctl`].
    ///
    /// # Errors
    /// As [`Calls::ioctl`].
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno>;
}

/// Registers in this process's memory.
pub trait Mapped: Send + Sync + 'static {
    /// Bytes.
    fn length(&self) -> u64;
    /// Reads `size` (4 or 8) bytes at an aligned offset; anything else reads as zero.
    fn read(&self, offset: u64, size: u32) -> u64;
    /// Writes `size` (4 or 8) bytes at an aligned offset; anything else is ignored.
    fn write(&self, offset: u64, size: u32, value: u64);
}
