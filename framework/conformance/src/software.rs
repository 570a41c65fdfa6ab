//! The software iommufd of this process, with the mock driver.

use crate::iommufd::{Iommufd, Lent, Mapped, Open, Ready};
use std::cell::RefCell;
use viommu::uapi::dispatcher::{Dispatcher, Mapping, Options};
use viommu::uapi::{Errno, ProcessMemory, UserMemory};

/// [`Dispatcher`], made anew for each row and sequence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Software;

impl Open for Software {
    fn open(&self) -> Result<Box<dyn Iommufd>, Errno> {
        Ok(Box::new(Opened(Dispatcher::new(Options::selftest()))))
    }
}

struct Opened(Dispatcher);

/// A software iommufd with other drivers than the mock.
pub(crate) fn opened(iommufd: Dispatcher) -> Box<dyn Iommufd> {
    Box::new(Opened(iommufd))
}

impl Iommufd for Opened {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Errno> {
        for (number, (offset, _)) in lent.iter().enumerate() {
            if let Some(field) = argument.get_mut(*offset..*offset + 8) {
                field.copy_from_slice(&address(number).to_ne_bytes());
            }
        }
        let size = argument.get(..4).and_then(|size| size.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
        let length = argument.len();
        self.0.ioctl(code, &mut argument[..size.clamp(4, length.max(4)).min(length)], &LentMemory(RefCell::new(lent)))
    }

    fn ioctl_null(&self, code: u32) -> Result<(), Errno> {
        self.0.null_ioctl(code)
    }

    fn read(&self, file: u32, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.0.read(number(file)?, bytes)
    }

    fn write(&self, file: u32, bytes: &[u8]) -> Result<usize, Errno> {
        self.0.write(number(file)?, bytes)
    }

    fn poll(&self, file: u32) -> Result<Ready, Errno> {
        let polled = self.0.poll(number(file)?)?;
        Ok(Ready { readable: polled.readable, writable: polled.writable })
    }

    fn close(&self, file: u32) -> Result<(), Errno> {
        self.0.close(number(file)?)
    }

    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        Ok(Box::new(Registers(self.0.mmap(offset, length)?)))
    }

    fn fail_nth(&self, nth: u32) -> bool {
        self.0.fail_nth(nth.into());
        true
    }

    fn failed(&self) -> bool {
        self.0.failed()
    }
}

struct Registers(Mapping);

impl Mapped for Registers {
    fn load(&self, offset: usize) -> Option<u32> {
        self.0.read(offset)
    }
}

/// Where what is lent for a call seems to be: no process has memory there.
const LENT: u64 = 1 << 60;
const APART: u64 = 1 << 40;

fn address(number: usize) -> u64 {
    LENT + number as u64 * APART
}

/// What is lent for one call, and behind it this process.
struct LentMemory<'a, 'b>(RefCell<&'a mut [Lent<'b>]>);

impl LentMemory<'_, '_> {
    /// Does something with the lent bytes there; `None` if the address is none of theirs.
    fn with(&self, address: u64, length: usize, act: impl FnOnce(&mut [u8])) -> Option<Result<(), Errno>> {
        let there = address.checked_sub(LENT)?;
        let mut lent = self.0.borrow_mut();
        let memory = lent.get_mut(usize::try_from(there / APART).ok()?)?;
        let at = usize::try_from(there % APART).ok()?;
        let bytes = at.checked_add(length).and_then(|end| memory.1.get_mut(at..end));
        Some(bytes.map(act).ok_or(Errno::FAULT))
    }
}

impl UserMemory for LentMemory<'_, '_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let length = bytes.len();
        let copied = self.with(address, length, |lent| bytes.copy_from_slice(lent));
        copied.unwrap_or_else(|| ProcessMemory.read(address, bytes))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let copied = self.with(address, bytes.len(), |lent| lent.copy_from_slice(bytes));
        copied.unwrap_or_else(|| ProcessMemory.write(address, bytes))
    }
}

fn number(file: u32) -> Result<i32, Errno> {
    i32::try_from(file).map_err(|_| Errno::BADF)
}
