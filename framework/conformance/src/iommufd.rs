//! What the rows run on: anything that takes an iommufd's calls.

use std::fmt;
use viommu::uapi::Errno;

/// A piece of the caller's memory that an argument points to: the byte offset of the pointer in the argument, and what
/// is lent there for the call.
pub type Lent<'a> = (usize, &'a mut [u8]);

/// One open iommufd, with the event queues that it gave out. Dropping it closes them all.
///
/// Arguments are raw bytes, as the kernel sees them: wrong sizes, flags and pointers go through unchanged.
pub trait Iommufd {
    /// One ioctl. `argument` is what the pointer leads to, at least as long as its own `size` says; the pointers that
    /// it holds are its caller's (valid, NULL or nonsense), but for those in `lent`, which the callee fills in.
    ///
    /// # Errors
    /// The errno of the call.
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Errno>;

    /// One ioctl with a NULL pointer for its argument.
    ///
    /// # Errors
    /// The errno of the call.
    fn ioctl_null(&self, code: u32) -> Result<(), Errno>;

    /// `read` of an event queue's file, by the number that its allocation gave.
    ///
    /// # Errors
    /// The errno of the call.
    fn read(&self, file: u32, bytes: &mut [u8]) -> Result<usize, Errno>;

    /// `write` to an event queue's file.
    ///
    /// # Errors
    /// The errno of the call.
    fn write(&self, file: u32, bytes: &[u8]) -> Result<usize, Errno>;

    /// `poll` of an event queue's file, without waiting.
    ///
    /// # Errors
    /// The errno of the call.
    fn poll(&self, file: u32) -> Result<Ready, Errno>;

    /// Closes an event queue's file.
    ///
    /// # Errors
    /// EBADF for a number that is not open.
    fn close(&self, file: u32) -> Result<(), Errno>;

    /// `mmap` of the iommufd itself, shared, readable and writable. Dropping the answer unmaps.
    ///
    /// # Errors
    /// The errno of the call.
    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno>;

    /// Lets the `nth` (from 1) internal allocation from now on fail; 0 lets none. Whether it can do that.
    fn fail_nth(&self, nth: u32) -> bool;

    /// Whether the failure that was asked for happened.
    fn failed(&self) -> bool;
}

/// Mapped memory of an iommufd, until it is dropped.
pub trait Mapped {
    /// The word at a byte offset.
    fn load(&self, offset: usize) -> Option<u32>;
}

/// What an event queue's file is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// POLLIN.
    pub readable: bool,
    /// POLLOUT.
    pub writable: bool,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.readable, self.writable) {
            (true, true) => "POLLIN|POLLOUT",
            (true, false) => "POLLIN",
            (false, true) => "POLLOUT",
            (false, false) => "none",
        })
    }
}

/// Opens fresh iommufds: one for each row, one for each sequence.
pub trait Open {
    /// A fresh one.
    ///
    /// # Errors
    /// The errno of the open.
    fn open(&self) -> Result<Box<dyn Iommufd>, Errno>;
}

/// An errno by its name.
pub fn errno_name(errno: Errno) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()))
}
