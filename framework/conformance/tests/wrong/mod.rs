//! The software iommufd with a rule that somebody got wrong.

use viommu::uapi::Errno;
use viommu_conformance::{Iommufd, Lent, Mapped, Open, Ready, Software};

/// What is wrong.
pub(crate) trait Wrong: Copy + 'static {
    /// What an ioctl answers instead; `below` is the one that is right.
    fn ioctl(self, below: &dyn Iommufd, code: u32, argument: &mut [u8], answer: Result<(), Errno>)
    -> Result<(), Errno>;

    /// How much a read of an event queue gives instead.
    fn read(self, bytes: usize) -> usize {
        bytes
    }

    /// What a poll says instead.
    fn poll(self, ready: Ready) -> Ready {
        ready
    }
}

/// A software iommufd with that.
pub(crate) struct With<W>(pub(crate) W);
struct Opened<W>(Box<dyn Iommufd>, W);

impl<W: Wrong> Open for With<W> {
    fn open(&self) -> Result<Box<dyn Iommufd>, Errno> {
        Ok(Box::new(Opened(Software.open()?, self.0)))
    }
}

impl<W: Wrong> Iommufd for Opened<W> {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Errno> {
        let answer = self.0.ioctl(code, argument, lent);
        self.1.ioctl(&*self.0, code, argument, answer)
    }
    fn ioctl_null(&self, code: u32) -> Result<(), Errno> {
        self.0.ioctl_null(code)
    }
    fn read(&self, file: u32, bytes: &mut [u8]) -> Result<usize, Errno> {
        Ok(self.1.read(self.0.read(file, bytes)?))
    }
    fn write(&self, file: u32, bytes: &[u8]) -> Result<usize, Errno> {
        self.0.write(file, bytes)
    }
    fn poll(&self, file: u32) -> Result<Ready, Errno> {
        Ok(self.1.poll(self.0.poll(file)?))
    }
    fn close(&self, file: u32) -> Result<(), Errno> {
        self.0.close(file)
    }
    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        self.0.mmap(offset, length)
    }
    fn fail_nth(&self, nth: u32) -> bool {
        self.0.fail_nth(nth)
    }
    fn failed(&self) -> bool {
        self.0.failed()
    }
}
