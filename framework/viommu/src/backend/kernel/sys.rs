//! The system calls: an open `/dev/iommu` and an open VFIO device. What is unsafe about them is in `raw`.

mod raw;

use super::calls::{Calls, DeviceCalls, Lent, Mapped};
use crate::seams::lock;
use crate::uapi::Errno;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, open};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

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
        let (returned, new) = raw::ioctl(self.fd.as_fd(), code, argument, lent, &stays)?;
        if let Some(fd) = new {
            self.adopt_event_fd(fd);
        }
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
        Ok(Box::new(raw::Registers::map(self.fd.as_fd(), offset, length)?))
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
        raw::ioctl(self.0.as_fd(), code, argument, lent, &|_, _| false).map(|(returned, _)| returned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::Command;
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
