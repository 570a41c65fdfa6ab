//! An iommufd whose event queues nobody reads for a while: what a busy host is to its guests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use viommu::backend::kernel::sys::RawIommufd;
use viommu::backend::kernel::{Calls, Lent, Mapped};
use viommu::uapi::Errno;
use viommu::vm_memory::GuestMemoryMmap;

/// `/dev/iommu`, read only while it is on time.
pub(crate) struct Late {
    iommufd: RawIommufd,
    late: AtomicBool,
}

impl Late {
    /// Opened, and on time.
    pub(crate) fn open() -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self { iommufd: RawIommufd::open(Path::new("/dev/iommu"))?, late: AtomicBool::new(false) }))
    }

    /// From now on nobody reads event queues, or somebody does again.
    pub(crate) fn set(&self, late: bool) {
        self.late.store(late, Ordering::SeqCst);
        // Whoever waits begins to wait anew.
        self.iommufd.wake();
    }
}

impl Calls for Late {
    fn number(&self) -> i32 {
        self.iommufd.number()
    }

    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        self.iommufd.ioctl(code, argument, lent)
    }

    fn lend(&self, memory: Arc<GuestMemoryMmap>) {
        self.iommufd.lend(memory);
    }

    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno> {
        if self.late.load(Ordering::SeqCst) { Ok(0) } else { self.iommufd.read(fd, bytes) }
    }

    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.iommufd.write(fd, bytes)
    }

    fn poll(&self, fds: &[i32], limit: Duration) -> Result<Vec<i32>, Errno> {
        let fds = if self.late.load(Ordering::SeqCst) { &[] } else { fds };
        self.iommufd.poll(fds, limit)
    }

    fn wake(&self) {
        self.iommufd.wake();
    }

    fn close(&self, fd: i32) -> Result<(), Errno> {
        self.iommufd.close(fd)
    }

    fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        self.iommufd.map(offset, length)
    }
}
