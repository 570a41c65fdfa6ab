//! A kernel's `/dev/iommu`.

use crate::iommufd::{Iommufd, Lent, Mapped, Open, Ready};
use crate::memory::Memory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use viommu::backend::kernel::sys::RawIommufd;
use viommu::backend::kernel::{self, Calls};
use viommu::uapi::Errno;

/// Where a thread's planned failures are told and asked.
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
/// What keeps allocations that may wait from failing, and each failure from filling the kernel's log.
const KNOBS: [(&str, &str); 3] = [
    ("/sys/kernel/debug/failslab/ignore-gfp-wait", "N"),
    ("/sys/kernel/debug/failslab/verbose", "0"),
    ("/sys/kernel/debug/fail_iommufd/verbose", "0"),
];

/// The device node, opened anew for each row and sequence. The kernel needs CONFIG_IOMMUFD_TEST.
pub struct Kernel<'a> {
    path: PathBuf,
    memory: &'a Memory,
}

impl<'a> Kernel<'a> {
    /// The node, and the memory that rows map.
    pub fn new(path: &Path, memory: &'a Memory) -> Self {
        Self { path: path.into(), memory }
    }
}

impl Open for Kernel<'_> {
    fn open(&self) -> Result<Box<dyn Iommufd>, Errno> {
        let raw = RawIommufd::open(&self.path)?;
        raw.lend(self.memory.shared());
        Ok(Box::new(Opened { raw, fail_nth: OnceCell::new(), planned: Cell::new(0) }))
    }
}

struct Opened {
    raw: RawIommufd,
    /// Open all the time, as opening it allocates, which could be what fails.
    fail_nth: OnceCell<Option<File>>,
    /// What [`Iommufd::fail_nth`] asked for last.
    planned: Cell<u32>,
}

impl Iommufd for Opened {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Errno> {
        let mut lent: Vec<_> = lent.iter_mut().map(|(offset, memory)| kernel::Lent::new(*offset, memory)).collect();
        self.raw.ioctl(code, argument, &mut lent).map(drop)
    }

    fn ioctl_null(&self, code: u32) -> Result<(), Errno> {
        self.raw.ioctl(code, &mut [], &mut []).map(drop)
    }

    fn read(&self, file: u32, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.raw.read(number(file)?, bytes)
    }

    fn write(&self, file: u32, bytes: &[u8]) -> Result<usize, Errno> {
        self.raw.write(number(file)?, bytes)
    }

    fn poll(&self, file: u32) -> Result<Ready, Errno> {
        let fd = self.raw.event_fd(number(file)?)?;
        let mut polled = [PollFd::new(&*fd, PollFlags::IN | PollFlags::OUT)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let ready = polled[0].revents();
        Ok(Ready { readable: ready.contains(PollFlags::IN), writable: ready.contains(PollFlags::OUT) })
    }

    fn close(&self, file: u32) -> Result<(), Errno> {
        self.raw.close(number(file)?)
    }

    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        Ok(Box::new(Registers(self.raw.map(offset, length)?)))
    }

    fn fail_nth(&self, nth: u32) -> bool {
        self.planned.set(nth);
        let Some(file) = self.fail_nth.get_or_init(injection) else { return false };
        file.write_all_at(nth.to_string().as_bytes(), 0).is_ok()
    }

    fn failed(&self) -> bool {
        // The kernel counts down to 0; what it has not reached is left over.
        let Some(Some(file)) = self.fail_nth.get() else { return false };
        let mut left = [0; 16];
        let read = file.read_at(&mut left, 0).unwrap_or(0);
        self.planned.get() != 0 && left[..read].trim_ascii() == b"0"
    }
}

/// The file of this thread's failures, if the kernel can let allocations fail.
fn injection() -> Option<File> {
    for (knob, value) in KNOBS {
        fs::write(knob, value).ok()?;
    }
    File::options().read(true).write(true).open(FAIL_NTH).ok()
}

struct Registers(Box<dyn kernel::Mapped>);

impl Mapped for Registers {
    fn load(&self, offset: usize) -> Option<u32> {
        let offset = offset as u64;
        (offset + 4 <= self.0.length()).then(|| self.0.read(offset, 4) as u32)
    }
}

fn number(file: u32) -> Result<i32, Errno> {
    i32::try_from(file).map_err(|_| Errno::BADF)
}
