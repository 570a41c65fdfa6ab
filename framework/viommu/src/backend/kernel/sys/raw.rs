//! All the unsafe code of the framework: ioctls, and mapped registers.
//!
//! What makes them safe to call:
//! - an ioctl sees the argument's own bytes, no more: its `size` field is checked against them;
//! - a pointer field leads to a slice lent for the call and as long as the other fields say, or to memory lent for good,
//!   or nowhere (the first page, the kernel's half), which answers EFAULT;
//! - a file descriptor that the kernel gave is owned from that moment on;
//! - mapped registers are read and written by volatile accesses within their bounds.

#![allow(unsafe_code)]

use crate::backend::kernel::calls::{Lent, Mapped};
use crate::backend::kernel::pointers::{self, Pointer};
use crate::uapi::{Command, Errno, layout, selftest};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// Below this address, and from the kernel's half on, there is no memory of this process.
const NOWHERE_BELOW: u64 = 0x1000;
const NOWHERE_FROM: u64 = 1 << 63;

/// An ioctl whose argument is this many bytes at `argument`.
struct Call {
    code: u32,
    argument: *mut u8,
}

// SAFETY: the opcode and the argument are handed on as they are; whoever makes one answers for them.
unsafe impl Ioctl for Call {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(self.code)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument.cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// Fills the pointer fields and makes the call. `stays` tells what is lent for good. What the ioctl returned, and the file
/// descriptor that the command gave, if it gives one.
pub(super) fn ioctl(
    fd: BorrowedFd<'_>,
    code: u32,
    argument: &mut [u8],
    lent: &mut [Lent<'_>],
    stays: &dyn Fn(u64, u64) -> bool,
) -> Result<(i32, Option<OwnedFd>), Errno> {
    if !argument.is_empty() {
        let size = argument.get(..4).and_then(|size| size.try_into().ok()).map(u32::from_ne_bytes);
        if size.is_none_or(|size| size as usize > argument.len()) {
            return Err(Errno::FAULT);
        }
        for pointer in pointers::of(code, argument) {
            place(pointer, argument, lent, stays)?;
        }
    }
    let pointer = if argument.is_empty() { ptr::null_mut() } else { argument.as_mut_ptr() };
    // SAFETY: the kernel reads and writes `size` bytes at `pointer`, which are there, and what its pointer fields lead to,
    // which `place` has checked.
    let returned = unsafe { rustix::ioctl::ioctl(fd, Call { code, argument: pointer }) }?;
    let new = new_number(code, argument, returned).map(|number| {
        // SAFETY: the kernel has just put this number into the table of file descriptors, for this call: nobody else knows
        // it.
        unsafe { OwnedFd::from_raw_fd(number) }
    });
    Ok((returned, new))
}

/// The number of the file descriptor that a command which succeeded gives.
fn new_number(code: u32, argument: &[u8], returned: i32) -> Option<i32> {
    let number = |at: usize| {
        let bytes = argument.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_ne_bytes)
    };
    let op = number(offset_of!(selftest::TestCommand, op)).map(|op| op as u32);
    let number = match Command::from_code(code)? {
        Command::FaultQueueAlloc => number(offset_of!(layout::FaultAlloc, out_fault_fd)),
        Command::VeventqAlloc => number(offset_of!(layout::VeventqAlloc, out_veventq_fd)),
        Command::Test if op == Some(selftest::op::CREATE_ACCESS) => number(16),
        Command::Test if op == Some(selftest::op::DMABUF_GET) => Some(returned),
        _ => None,
    };
    number.filter(|number| *number > 2)
}

/// One pointer field.
fn place(
    pointer: Pointer,
    argument: &mut [u8],
    lent: &mut [Lent<'_>],
    stays: &dyn Fn(u64, u64) -> bool,
) -> Result<(), Errno> {
    let Pointer { offset, extent, stays: must_stay } = pointer;
    let Some(field) = argument.get_mut(offset..offset + 8) else {
        // Behind the end of a short argument: zero to the kernel. A field that is cut in two cannot be judged.
        return if argument.len() <= offset { Ok(()) } else { Err(Errno::FAULT) };
    };
    if let Some(lent) = lent.iter_mut().find(|lent| lent.offset == offset) {
        if must_stay || (lent.memory.len() as u64) < extent {
            return Err(Errno::FAULT);
        }
        field.copy_from_slice(&(lent.memory.as_mut_ptr() as u64).to_ne_bytes());
        return Ok(());
    }
    let address = field.try_into().map(u64::from_ne_bytes).map_err(|_| Errno::FAULT)?;
    let nowhere = address >= NOWHERE_FROM || address.saturating_add(extent) < NOWHERE_BELOW;
    if nowhere || stays(address, extent) { Ok(()) } else { Err(Errno::FAULT) }
}

/// Mapped registers.
pub(super) struct Registers {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is this value's own, and is only accessed by volatile reads and writes, from any thread.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

impl Registers {
    /// mmap of an iommufd, shared, at an offset that a command gave.
    pub(super) fn map(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Self, Errno> {
        let bytes = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing of this process lies there.
        let base =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, offset) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::FAULT)?;
        Ok(Self { base, bytes })
    }

    fn at(&self, offset: u64, size: u32) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let fits = offset.checked_add(size as usize).is_some_and(|end| end <= self.bytes);
        if !fits || !offset.is_multiple_of(size as usize) {
            return None;
        }
        // SAFETY: within the mapping, as just checked.
        Some(unsafe { self.base.add(offset) })
    }
}

impl Mapped for Registers {
    fn length(&self) -> u64 {
        self.bytes as u64
    }

    fn read(&self, offset: u64, size: u32) -> u64 {
        match (size, self.at(offset, size.max(1))) {
            // SAFETY: in the mapping, aligned.
            (4, Some(at)) => u64::from(unsafe { at.cast::<u32>().read_volatile() }),
            // SAFETY: in the mapping, aligned.
            (8, Some(at)) => unsafe { at.cast::<u64>().read_volatile() },
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u32, value: u64) {
        match (size, self.at(offset, size.max(1))) {
            // SAFETY: in the mapping, aligned.
            (4, Some(at)) => unsafe { at.cast::<u32>().write_volatile(value as u32) },
            // SAFETY: in the mapping, aligned.
            (8, Some(at)) => unsafe { at.cast::<u64>().write_volatile(value) },
            _ => {}
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and goes with it.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) } {
            tracing::error!(%error, "registers cannot be unmapped");
        }
    }
}
