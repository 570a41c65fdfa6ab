//! What is not an ioctl: the numbers that commands gave, mmap, and the hardware's side of events.

use super::{
    Dispatcher,
    mmap::{self, MapFlags, Page},
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{Errno, payload::HwptPgfault};
use std::sync::{Arc, Mutex};

/// What poll answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// POLLIN: something can be read.
    pub readable: bool,
    /// POLLOUT: it takes writes, which only page requests' queues do.
    pub writable: bool,
}

/// What a device's DMA reaches at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Address in the memory of whoever mapped it; of a file, the place in it.
    pub address: u64,
    /// Whether it may read there.
    pub read: bool,
    /// Whether it may write there.
    pub write: bool,
}

impl State {
    fn behind(&self, fd: i32) -> Result<u32, Errno> {
        self.fds.get(&fd).copied().ok_or(Errno::BADF)
    }

    /// Closes a number that a command gave.
    pub(super) fn close_fd(&mut self, fd: i32) -> Result<(), Errno> {
        if self.files.remove(&fd).is_some() {
            return Ok(());
        }
        let id = self.fds.remove(&fd).ok_or(Errno::BADF)?;
        self.table.release(id);
        if self.table.kind(id) == Some(Kind::Access) {
            self.drop_access(id);
        }
        Ok(())
    }

    fn drop_access(&mut self, access: u32) {
        let pins: Vec<u32> =
            self.table.access(access).map(|access| access.pins.keys().copied().collect()).unwrap_or_default();
        for pin in pins {
            // It is there: it was just listed.
            let _ = self.unpin(access, pin);
        }
        self.destroy_object(access, false);
    }
}

impl Dispatcher {
    /// The number that VFIO devices know this iommufd by.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// Reads from an event queue; never blocks, and 0 is "nothing there", not the end.
    ///
    /// # Errors
    /// EBADF; for a VEVENTQ EINVAL if not even the first record fits; for a FAULT queue ESPIPE if the length is not one of
    /// whole records, EINVAL if the first group does not fit.
    pub fn read(&self, fd: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut state = self.lock();
        let id = state.behind(fd)?;
        match state.table.kind(id) {
            Some(Kind::Veventq) => state.table.veventq_mut(id)?.read(buffer),
            Some(Kind::Fault) => {
                state.inject.allocation()?;
                state.table.fault_mut(id)?.read(buffer)
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Answers page requests; the bytes taken.
    ///
    /// # Errors
    /// EBADF; ESPIPE if the length is not one of whole answers; EINVAL for an unknown cookie or code, and on a VEVENTQ.
    pub fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        let mut state = self.lock();
        let id = state.behind(fd)?;
        match state.table.kind(id) {
            Some(Kind::Fault) => state.fault_write(id, bytes),
            _ => Err(Errno::INVAL),
        }
    }

    /// What is ready.
    ///
    /// # Errors
    /// EBADF.
    pub fn poll(&self, fd: i32) -> Result<Poll, Errno> {
        let state = self.lock();
        let id = state.behind(fd)?;
        Ok(match state.table.object(id) {
            Some(Object::Veventq(queue)) => Poll { readable: queue.is_readable(), writable: false },
            Some(Object::Fault(queue)) => Poll { readable: queue.is_readable(), writable: true },
            // Files without a poll operation of their own are always ready.
            _ => Poll { readable: true, writable: true },
        })
    }

    /// Closes a number that a command gave; the object stays until DESTROY, which now finds it unused.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        self.lock().close_fd(fd)
    }

    /// A memory file of so many bytes, for IOAS_MAP_FILE; its number.
    ///
    /// # Errors
    /// EMFILE; EFBIG for more than may be pinned at once.
    pub fn memory_file(&self, bytes: u64) -> Result<i32, Errno> {
        let mut state = self.lock();
        if bytes > state.limits.pinned_bytes {
            return Err(Errno::FBIG);
        }
        let fd = state.new_fd()?;
        state.files.insert(fd, bytes);
        Ok(fd)
    }

    /// Maps registers of a vIOMMU, shared. [`Dispatcher::mmap_with`] has the flags.
    ///
    /// # Errors
    /// ENXIO unless offset and length are exactly what a command gave.
    pub fn mmap(&self, offset: u64, length: u64) -> Result<Mapping, Errno> {
        self.mmap_with(offset, length, MapFlags::default())
    }

    /// Maps registers of a vIOMMU.
    ///
    /// # Errors
    /// EINVAL for a private mapping or an offset inside a page, EPERM for an executable one, ENXIO unless offset and length
    /// are exactly what a command gave.
    pub fn mmap_with(&self, offset: u64, length: u64, flags: MapFlags) -> Result<Mapping, Errno> {
        let mut state = self.lock();
        let (owner, page) = state.mmaps.find(offset, length, flags)?;
        state.table.hold(owner);
        Ok(Mapping { owner, page, state: self.state.clone() })
    }

    /// Unmaps; as dropping the mapping does.
    pub fn munmap(&self, mapping: Mapping) {
        drop(mapping);
    }

    /// The hardware's side: a vIOMMU has an event of this type for its guest.
    ///
    /// # Errors
    /// ENOENT without the vIOMMU; EOPNOTSUPP without a queue of the type. A full queue loses the event, which is no error.
    pub fn report_event(&self, viommu: u32, event_type: u32, payload: &[u8]) -> Result<(), Errno> {
        let mut state = self.lock();
        if payload.len() as u64 > super::driver::PAGE_SIZE {
            return Err(Errno::INVAL);
        }
        state.report(viommu, event_type, payload)
    }

    /// The hardware's side: where events of a device go now, as vIOMMU and the guest's name for the device.
    pub fn event_target(&self, device: u32) -> Option<(u32, u64)> {
        self.lock().table.device(device).ok()?.events
    }

    /// The hardware's side: a device asks for a page. Nobody may be listening.
    ///
    /// # Errors
    /// ENOENT without the device.
    pub fn page_request(&self, request: HwptPgfault) -> Result<(), Errno> {
        self.lock().page_request(request)
    }

    /// The hardware's side: what devices were told about their page requests since the last call, oldest first.
    pub fn page_answers(&self) -> Vec<super::PageAnswer> {
        self.lock().answers.drain(..).collect()
    }

    /// The hardware's side: what DMA of a device, or of one of its PASIDs, reaches at an address, through the paging HWPT that
    /// it is attached to. `None`: nothing.
    ///
    /// # Errors
    /// ENOENT without the device; EOPNOTSUPP through a nested HWPT, whose tables are its driver's.
    pub fn translate(&self, device: u32, pasid: u32, iova: u64) -> Result<Option<Reached>, Errno> {
        let state = self.lock();
        state.table.device(device)?;
        let Some(attachment) = state.attachment(device, pasid) else { return Ok(None) };
        let Some(Object::Paging(paging)) = state.table.object(attachment.hwpt) else { return Err(Errno::OPNOTSUPP) };
        let there = state.table.ioas(paging.ioas)?.space.first_area(iova, iova);
        Ok(there.map(|(start, area)| Reached {
            address: area.pages.source.start().wrapping_add(iova.wrapping_sub(start)),
            read: area.read,
            write: area.write,
        }))
    }

    /// The hardware's side: a device wrote here through a paging HWPT that tracks dirty pages, within one mapping.
    ///
    /// # Errors
    /// ENOENT without the HWPT; EINVAL if it does not track or nothing was written.
    pub fn dma_wrote(&self, hwpt: u32, iova: u64, length: u64) -> Result<(), Errno> {
        self.lock().mark_dirty(hwpt, iova, length)
    }
}

/// A mapping of a vIOMMU's registers: the vIOMMU cannot be destroyed while it is there. A clone is another mapping, as
/// fork or a split makes one.
#[derive(Debug)]
pub struct Mapping {
    owner: u32,
    page: Page,
    state: Arc<Mutex<State>>,
}

impl Mapping {
    /// The word at a byte offset; `None` outside.
    pub fn read(&self, offset: usize) -> Option<u32> {
        mmap::read(&self.page, offset)
    }

    /// Writes the word at a byte offset; `None` outside.
    pub fn write(&self, offset: usize, word: u32) -> Option<()> {
        mmap::write(&self.page, offset, word)
    }
}

impl Clone for Mapping {
    fn clone(&self) -> Self {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.table.hold(self.owner);
        Self { owner: self.owner, page: self.page.clone(), state: self.state.clone() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.table.release(self.owner);
    }
}
