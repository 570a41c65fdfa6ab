//! A software iommufd under the typed commands: for tests, without hardware, root, or a special kernel.

use super::calls::{Calls, DeviceCalls, Lent, Mapped};
use super::pointers;
use crate::seams::lock;
use crate::uapi::dispatcher::{Cdev, Dispatcher, Mapping};
use crate::uapi::{Errno, ProcessMemory, UserMemory};
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Where lent slices are, as far as the software iommufd is concerned: no address of a process.
const LENT: u64 = 1 << 62;
/// Addresses between two of them.
const APART: u64 = 1 << 40;
/// How often event queues are looked at: nobody tells when something is there.
const LOOK: Duration = Duration::from_millis(1);

/// A [`Dispatcher`] as an open iommufd.
pub struct SoftwareIommufd {
    dispatcher: Dispatcher,
    lent: Mutex<Vec<Arc<GuestMemoryMmap>>>,
    woken: Mutex<bool>,
    wake: Condvar,
}

impl SoftwareIommufd {
    /// These commands.
    pub fn new(dispatcher: Dispatcher) -> Self {
        Self { dispatcher, lent: Mutex::default(), woken: Mutex::default(), wake: Condvar::new() }
    }

    /// The software under it.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }
}

/// What pointers of one call lead to: slices lent for it, and memory lent for good.
struct Reach<'a, 'b> {
    lent: RefCell<&'a mut [Lent<'b>]>,
    for_good: &'a [Arc<GuestMemoryMmap>],
}

impl Reach<'_, '_> {
    fn slice<R>(&self, address: u64, length: usize, with: impl FnOnce(&mut [u8]) -> R) -> Option<Result<R, Errno>> {
        let place = address.checked_sub(LENT)?;
        let mut lent = self.lent.borrow_mut();
        let slice = lent.get_mut((place / APART) as usize).and_then(|lent| {
            let start = (place % APART) as usize;
            lent.memory.get_mut(start..start.checked_add(length)?)
        });
        Some(slice.map(with).ok_or(Errno::FAULT))
    }

    fn is_for_good(&self, address: u64, length: usize) -> bool {
        let Some(end) = address.checked_add(length as u64) else { return false };
        self.for_good.iter().flat_map(|memory| memory.iter()).any(|region| {
            let start = region.as_ptr() as u64;
            start <= address && end <= start + region.len()
        })
    }
}

impl UserMemory for Reach<'_, '_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        match self.slice(address, bytes.len(), |slice| bytes.copy_from_slice(slice)) {
            Some(done) => done,
            None if self.is_for_good(address, bytes.len()) => ProcessMemory.read(address, bytes),
            None => Err(Errno::FAULT),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        match self.slice(address, bytes.len(), |slice| slice.copy_from_slice(bytes)) {
            Some(done) => done,
            None if self.is_for_good(address, bytes.len()) => ProcessMemory.write(address, bytes),
            None => Err(Errno::FAULT),
        }
    }
}

/// Fills the pointer fields, and calls with what they lead to.
fn with_pointers(
    argument: &mut [u8],
    lent: &mut [Lent<'_>],
    for_good: &[Arc<GuestMemoryMmap>],
    call: impl FnOnce(&mut [u8], &dyn UserMemory) -> Result<(), Errno>,
) -> Result<i32, Errno> {
    for (address, lent) in (LENT..).step_by(APART as usize).zip(lent.iter()) {
        let field = argument.get_mut(lent.offset..lent.offset + 8).ok_or(Errno::FAULT)?;
        field.copy_from_slice(&address.to_ne_bytes());
    }
    call(argument, &Reach { lent: RefCell::new(lent), for_good }).map(|()| 0)
}

impl Calls for SoftwareIommufd {
    fn number(&self) -> i32 {
        self.dispatcher.fd()
    }

    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        let for_good = lock(&self.lent).clone();
        let reach = Reach { lent: RefCell::new(&mut []), for_good: &for_good };
        for pointer in pointers::of(code, argument).into_iter().filter(|pointer| pointer.stays) {
            let field = argument.get(pointer.offset..pointer.offset + 8).and_then(|field| field.try_into().ok());
            let address = field.map(u64::from_ne_bytes).ok_or(Errno::FAULT)?;
            // As with the real calls: the kernel would pin whatever is there.
            if !usize::try_from(pointer.extent).is_ok_and(|extent| reach.is_for_good(address, extent)) {
                return Err(Errno::FAULT);
            }
        }
        with_pointers(argument, lent, &for_good, |argument, memory| self.dispatcher.ioctl(code, argument, memory))
    }

    fn lend(&self, memory: Arc<GuestMemoryMmap>) {
        lock(&self.lent).push(memory);
    }

    fn read(&self, fd: i32, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.dispatcher.read(fd, bytes)
    }

    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.dispatcher.write(fd, bytes)
    }

    fn poll(&self, fds: &[i32], limit: Duration) -> Result<Vec<i32>, Errno> {
        let end = Instant::now() + limit;
        let mut woken = lock(&self.woken);
        loop {
            let readable = |fd: &i32| self.dispatcher.poll(*fd).is_ok_and(|poll| poll.readable);
            let ready: Vec<i32> = fds.iter().copied().filter(readable).collect();
            if std::mem::take(&mut *woken) || !ready.is_empty() || Instant::now() >= end {
                return Ok(ready);
            }
            woken = self.wake.wait_timeout(woken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wake(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_all();
    }

    fn close(&self, fd: i32) -> Result<(), Errno> {
        self.dispatcher.close(fd)
    }

    fn map(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        Ok(Box::new(SoftwareRegisters { mapping: Mutex::new(self.dispatcher.mmap(offset, length)?), length }))
    }
}

/// Mapped registers: words of 4 bytes.
struct SoftwareRegisters {
    mapping: Mutex<Mapping>,
    length: u64,
}

impl Mapped for SoftwareRegisters {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, size: u32) -> u64 {
        let mapping = lock(&self.mapping);
        let word = |at: u64| u64::from(mapping.read(at as usize).unwrap_or(0));
        match size {
            4 => word(offset),
            8 => word(offset) | word(offset.saturating_add(4)) << 32,
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u32, value: u64) {
        let mapping = lock(&self.mapping);
        if matches!(size, 4 | 8) {
            let _ = mapping.write(offset as usize, value as u32);
        }
        if size == 8 {
            let _ = mapping.write(offset.saturating_add(4) as usize, (value >> 32) as u32);
        }
    }
}

/// A [`Cdev`] as an open VFIO device.
pub struct SoftwareDevice(pub Cdev);

impl DeviceCalls for SoftwareDevice {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        with_pointers(argument, lent, &[], |argument, memory| self.0.ioctl(code, argument, &Pinned(memory)))
    }
}

/// Memory that an IOAS maps was lent when it was mapped: attaching to an IOAS pins it by reading it.
struct Pinned<'a>(&'a dyn UserMemory);

impl UserMemory for Pinned<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.0.read(address, bytes).or_else(|_| ProcessMemory.read(address, bytes))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write(address, bytes)
    }
}
