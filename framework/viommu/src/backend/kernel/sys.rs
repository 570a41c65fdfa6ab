//! The system calls: the one module of the framework with unsafe code.
//!
//! What makes them safe to call:
//! - an ioctl sees the argument's own bytes, no more: its `size` field is checked against them;
//! - a pointer field leads to a slice lent for the call and as long as the other fields say, or to memory lent for good,
//!   or nowhere (the first page, the kernel's half), which answers EFAULT;
//! - a file descriptor that the kernel gave is owned from that moment on;
//! - mapped registers are read and written by volatile accesses within their bounds.

#![allow(unsafe_code)]

use super::calls::{Calls, DeviceCalls, Lent, Mapped};
use super::pointers::{self, Pointer};
use crate::seams::lock;
use crate::uapi::{Command, Errno, layout, selftest};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Below this address, and from the kernel's half on, there is no memory of this process.
const NOWHERE_BELOW: u64 = 0x1000;
const NOWHERE_FROM: u64 = 1 << 63;

/// An open `/dev/iommu`.
#[derive(Debug)]
pub struct RawIommufd {
    fd: OwnedFd,
    waker: OwnedFd,
    /// Event fds that commands gave, by number.
    events: Mutex<BTreeMap<i32, Arc<OwnedFd>>>,
    lent: Mutex<Vec<Arc<GuestMemoryMmap>>>,
}

impl RawIommufd {
    /// Opens the device node.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Self::from_fd(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Takes a file descriptor that somebody else opened.
    ///
    /// # Errors
    /// If the system has no file descriptor left.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Errno> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, waker, events: Mutex::default(), lent: Mutex::default() })
    }

    /// The file descriptor, to be passed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// One ioctl: `argument` is what the pointer leads to, a NULL pointer if it is empty. Each field in `pointers` (offset,
    /// memory) leads to its memory for the length of the call. What the ioctl returned.
    ///
    /// # Errors
    /// The kernel's errno; EFAULT, without a call, for an argument shorter than it says or a pointer that was not lent.
    pub fn ioctl_raw(&self, code: u32, argument: &mut [u8], pointers: &mut [(usize, &mut [u8])]) -> Result<i32, Errno> {
        let mut lent: Vec<_> = pointers.iter_mut().map(|(offset, memory)| Lent::new(*offset, memory)).collect();
        self.ioctl(code, argument, &mut lent)
    }

    /// Takes an event fd that a command of an earlier process gave.
    pub fn adopt_event_fd(&self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        lock(&self.events).insert(number, Arc::new(fd));
        number
    }

    /// The event fd with this number, to be passed on.
    pub fn event_fd(&self, number: i32) -> Result<Arc<OwnedFd>, Errno> {
        lock(&self.events).get(&number).cloned().ok_or(Errno::BADF)
    }

    /// What a command that succeeded put into the table of file descriptors is owned by this.
    fn own_new_fd(&self, code: u32, argument: &[u8], returned: i32) {
        let number = |at: usize| {
            let bytes = argument.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(i32::from_ne_bytes)
        };
        let op = number(offset_of!(selftest::TestCommand, op)).map(|op| op as u32);
        let number = match Command::from_code(code) {
            Some(Command::FaultQueueAlloc) => number(offset_of!(layout::FaultAlloc, out_fault_fd)),
            Some(Command::VeventqAlloc) => number(offset_of!(layout::VeventqAlloc, out_veventq_fd)),
            Some(Command::Test) if op == Some(selftest::op::CREATE_ACCESS) => number(16),
            Some(Command::Test) if op == Some(selftest::op::DMABUF_GET) => Some(returned),
            _ => None,
        };
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: the kernel has just put this number into the table for the caller of the command, which is this
            // function's caller: nobody else knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            lock(&self.events).insert(number, Arc::new(fd));
        }
    }

    /// Whether `extent` bytes from `address` are in memory that was lent for good.
    fn is_lent_for_good(&self, address: u64, extent: u64) -> bool {
        let Some(end) = address.checked_add(extent) else { return false };
        lock(&self.lent).iter().flat_map(|memory| memory.iter()).any(|region| {
            let start = region.as_ptr() as u64;
            start <= address && end <= start + region.len()
        })
    }
}

impl Calls for RawIommufd {
    fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        let stays = |address, extent| self.is_lent_for_good(address, extent);
        let returned = checked_ioctl(self.fd.as_fd(), code, argument, lent, &stays)?;
        self.own_new_fd(code, argument, returned);
        Ok(returned)
    }

    fn lend(&self, memory: Arc<GuestMemoryMmap>) {
        lock(&self.lent).push(memory);
    }

    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&*self.event_fd(fd)?, bytes)
    }

    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(&*self.event_fd(fd)?, bytes)
    }

    fn poll(&self, fds: &[i32], limit: Duration) -> Result<Vec<i32>, Errno> {
        let owned: Vec<_> = fds.iter().map(|fd| self.event_fd(*fd)).collect::<Result<_, _>>()?;
        let mut polled: Vec<_> = owned.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        polled.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut polled, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if polled.last().is_some_and(|waker| waker.revents().contains(PollFlags::IN)) {
            let _ = rustix::io::read(&self.waker, &mut [0; 8]);
        }
        let ready = polled.iter().zip(fds).filter(|(polled, _)| !polled.revents().is_empty());
        Ok(ready.map(|(_, fd)| *fd).collect())
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
    }

    fn close(&self, fd: i32) -> Result<(), Errno> {
        lock(&self.events).remove(&fd).map(drop).ok_or(Errno::BADF)
    }

    fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        let bytes = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing of this process lies there.
        let base = unsafe {
            mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &self.fd, offset)
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::FAULT)?;
        Ok(Box::new(Registers { base, bytes }))
    }
}

/// An open VFIO device.
#[derive(Debug)]
pub struct RawDevice(OwnedFd);

impl RawDevice {
    /// Opens the device node (`/dev/vfio/devices/vfioN`).
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Takes a file descriptor that somebody else opened.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The file descriptor, for what is not IOMMU's: regions, interrupts.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl DeviceCalls for RawDevice {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        use crate::uapi::flags as f;
        // Those whose arguments this crate knows; others lead to memory in ways of their own.
        let known = [
            f::VFIO_DEVICE_BIND_IOMMUFD,
            f::VFIO_DEVICE_ATTACH_IOMMUFD_PT,
            f::VFIO_DEVICE_DETACH_IOMMUFD_PT,
            f::VFIO_DEVICE_GET_REGION_INFO,
            f::VFIO_DEVICE_SET_IRQS,
        ];
        if !known.contains(&code) {
            return Err(Errno::NOTTY);
        }
        checked_ioctl(self.0.as_fd(), code, argument, lent, &|_, _| false)
    }
}

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

/// Fills the pointer fields and makes the call. `stays` tells what is lent for good.
fn checked_ioctl(
    fd: BorrowedFd<'_>,
    code: u32,
    argument: &mut [u8],
    lent: &mut [Lent<'_>],
    stays: &dyn Fn(u64, u64) -> bool,
) -> Result<i32, Errno> {
    if !argument.is_empty() {
        let size = argument.get(..4).and_then(|size| size.try_into().ok()).map(u32::from_ne_bytes);
        if size.is_none_or(|size| size as usize > argument.len()) {
            return Err(Errno::FAULT);
        }
        for pointer in pointers::of(code, argument) {
            place(pointer, argument, lent, stays)?;
        }
    }
    let argument = if argument.is_empty() { ptr::null_mut() } else { argument.as_mut_ptr() };
    // SAFETY: the kernel reads and writes `size` bytes at `argument`, which are there, and what its pointer fields lead to,
    // which `place` has checked.
    unsafe { ioctl(fd, Call { code, argument }) }
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
struct Registers {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is this value's own, and is only accessed by volatile reads and writes, from any thread.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

impl Registers {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::layout::{HwInfo, IoasMap};
    use std::fs::File;
    use vm_memory::GuestAddress;
    use zerocopy::IntoBytes;

    /// A file that knows none of these ioctls: what reaches the kernel answers ENOTTY, what does not EFAULT.
    fn raw() -> RawIommufd {
        RawIommufd::from_fd(File::open("/dev/null").unwrap().into()).unwrap()
    }

    #[test]
    fn only_lent_memory_reaches_the_kernel() {
        let raw = raw();
        let code = Command::GetHwInfo.code();
        let mut memory = [0u8; 64];
        let info = |data_len, data_uptr| HwInfo { size: 40, dev_id: 1, data_len, data_uptr, ..HwInfo::default() };
        let ask = |mut info: HwInfo, lent: &mut [(usize, &mut [u8])]| raw.ioctl_raw(code, info.as_mut_bytes(), lent);
        assert_eq!(ask(info(64, 0), &mut [(16, &mut memory)]), Err(Errno::NOTTY));
        assert_eq!(ask(info(65, 0), &mut [(16, &mut memory)]), Err(Errno::FAULT), "longer than what is lent");
        let stray = memory.as_ptr() as u64;
        assert_eq!(ask(info(4, stray), &mut []), Err(Errno::FAULT), "not lent");
        assert_eq!(ask(info(4, 8), &mut []), Err(Errno::NOTTY), "nowhere");
        assert_eq!(ask(info(0x1000, 8), &mut []), Err(Errno::FAULT), "nowhere, but reaches somewhere");
        assert_eq!(ask(info(4, u64::MAX), &mut []), Err(Errno::NOTTY));
    }

    #[test]
    fn an_argument_is_as_long_as_it_says() {
        let raw = raw();
        let code = Command::IoasAlloc.code();
        assert_eq!(raw.ioctl_raw(code, &mut 12u32.to_ne_bytes(), &mut []), Err(Errno::FAULT));
        assert_eq!(raw.ioctl_raw(code, &mut [0; 3], &mut []), Err(Errno::FAULT));
        assert_eq!(raw.ioctl_raw(code, &mut 4u32.to_ne_bytes(), &mut []), Err(Errno::NOTTY));
        assert_eq!(raw.ioctl_raw(code, &mut [], &mut []), Err(Errno::NOTTY));
    }

    #[test]
    fn only_memory_that_stays_can_be_mapped() {
        let raw = raw();
        let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap());
        let start = memory.iter().next().unwrap().as_ptr() as u64;
        let map = |user_va, length, lent: &mut [(usize, &mut [u8])]| {
            let mut map = IoasMap { size: 40, ioas_id: 1, user_va, length, ..IoasMap::default() };
            raw.ioctl_raw(Command::IoasMap.code(), map.as_mut_bytes(), lent)
        };
        assert_eq!(map(start, 0x1000, &mut []), Err(Errno::FAULT), "not lent");
        raw.lend(memory);
        assert_eq!(map(start + 0x1000, 0x3000, &mut []), Err(Errno::NOTTY));
        assert_eq!(map(start + 0x1000, 0x4000, &mut []), Err(Errno::FAULT), "beyond its end");
        assert_eq!(map(0, 16, &mut [(16, &mut [0u8; 16])]), Err(Errno::FAULT), "a slice goes back after the call");
    }

    #[test]
    fn event_fds_are_readable_when_there_is_something_and_gone_when_closed() {
        let raw = raw();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = raw.adopt_event_fd(near.into());
        assert_eq!(raw.poll(&[fd], Duration::ZERO), Ok(vec![]));
        std::io::Write::write_all(&mut &far, b"x").unwrap();
        assert_eq!(raw.poll(&[fd], Duration::from_secs(10)), Ok(vec![fd]));
        assert_eq!(raw.read(fd, &mut [0; 8]), Ok(1));
        raw.wake();
        assert_eq!(raw.poll(&[fd], Duration::from_secs(600)), Ok(vec![]), "woken");
        assert_eq!(raw.close(fd), Ok(()));
        assert_eq!([raw.close(fd), raw.read(fd, &mut []).map(drop)], [Err(Errno::BADF); 2]);
    }

    #[test]
    fn registers_are_read_and_written_within_their_bounds() {
        let file = rustix::fs::memfd_create("registers", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 0x2000).unwrap();
        let raw = RawIommufd::from_fd(file).unwrap();
        let page = raw.map(0x1000, 0x1000).unwrap();
        page.write(8, 8, 0x0123_4567_89ab_cdef);
        page.write(0x1000, 4, 1);
        page.write(2, 4, u64::MAX);
        assert_eq!((page.read(8, 4), page.read(8, 8)), (0x89ab_cdef, 0x0123_4567_89ab_cdef));
        assert_eq!((page.read(0, 8), page.read(0xffc, 8), page.read(u64::MAX, 4), page.read(0, 0)), (0, 0, 0, 0));
    }
}
