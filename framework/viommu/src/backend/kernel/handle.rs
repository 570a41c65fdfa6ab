//! Objects of the kernel that are owned: what was made in part is taken back.

use super::iommufd::Iommufd;
use crate::Cause;
use crate::uapi::Errno;

/// An object of the kernel, destroyed with this value; its event fd, if it has one, is closed first.
#[derive(Debug)]
pub struct Owned {
    iommufd: Iommufd,
    id: u32,
    fd: Option<i32>,
    alive: bool,
}

impl Owned {
    /// Owns object `id`.
    pub fn new(iommufd: &Iommufd, id: u32) -> Self {
        Self { iommufd: iommufd.clone(), id, fd: None, alive: true }
    }

    /// Owns an event queue and its fd.
    pub fn with_fd(iommufd: &Iommufd, (id, fd): (u32, i32)) -> Self {
        Self { iommufd: iommufd.clone(), id, fd: Some(fd), alive: true }
    }

    /// It has this event fd.
    #[must_use]
    pub fn and_fd(mut self, fd: i32) -> Self {
        self.fd = Some(fd);
        self
    }

    /// The kernel's ID.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The event fd, as long as it is open.
    pub fn fd(&self) -> Option<i32> {
        self.fd
    }

    /// Destroys it, and says how that went. What is gone already counts as destroyed. If it fails, the object is still
    /// owned, but an event fd is closed.
    ///
    /// # Errors
    /// EBUSY while something uses it.
    pub fn destroy(&mut self) -> Result<(), Cause> {
        if !self.alive || self.iommufd.is_retired() {
            return Ok(());
        }
        if let Some(fd) = self.fd.take() {
            let _ = self.iommufd.calls().close(fd);
        }
        match self.iommufd.destroy(self.id) {
            Err(cause) if cause.errno() != Errno::NOENT.raw_os_error() => Err(cause),
            _ => {
                self.alive = false;
                Ok(())
            }
        }
    }

    /// Gives the object up without destroying it: it is another's from now on. Its ID and event fd.
    pub fn release(mut self) -> (u32, Option<i32>) {
        self.alive = false;
        (self.id, self.fd)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = self.destroy() {
            tracing::error!(id = self.id, %error, "an object of the kernel stays behind");
        }
    }
}
