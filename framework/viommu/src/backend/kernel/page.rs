//! Registers that a guest may touch directly, mapped into this process.

use super::calls::Mapped;
use crate::backend::{GuestPage, PagePlace};
use std::sync::{PoisonError, RwLock};

/// Mapped registers. The kernel counts the mapping as a user of the vIOMMU: it can be taken back, whoever has the page.
pub(super) struct Page {
    place: PagePlace,
    mapped: RwLock<Option<Box<dyn Mapped>>>,
}

impl Page {
    pub(super) fn new(place: PagePlace, mapped: Box<dyn Mapped>) -> Self {
        Self { place, mapped: RwLock::new(Some(mapped)) }
    }

    /// From here on reads are zero and writes are ignored.
    pub(super) fn unmap(&self) {
        *self.mapped.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl GuestPage for Page {
    fn place(&self) -> PagePlace {
        self.place
    }

    fn read(&self, offset: u64, size: u32) -> u64 {
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        mapped.as_ref().map_or(0, |mapped| mapped.read(offset, size))
    }

    fn write(&self, offset: u64, size: u32, value: u64) {
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = mapped.as_ref() {
            mapped.write(offset, size, value);
        }
    }

    fn relax(&self) {}
}
