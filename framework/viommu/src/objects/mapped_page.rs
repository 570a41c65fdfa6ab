//! Registers of the hardware, mapped into a guest.

use super::{Node, Viommu};
use crate::backend::{GuestPage, ObjectKind, PagePlace};
use crate::{Cause, Error};
use std::fmt;
use std::sync::Arc;

/// The hardware's registers that are a guest's own, as long as the VMM has them mapped. What is read and written here goes
/// to the hardware and past everything else. Keeps its vIOMMU: that is destroyed only after this is dropped (munmap).
pub struct MappedPage {
    viommu: Viommu,
    page: Arc<dyn GuestPage>,
}

impl MappedPage {
    /// Where they are, and where the guest expects them.
    pub fn place(&self) -> PagePlace {
        self.page.place()
    }

    /// The guest's read of `size` bytes (4 or 8), `offset` bytes into them; 0 where there is nothing.
    pub fn read(&self, offset: u64, size: u32) -> u64 {
        self.page.read(offset, size)
    }

    /// The guest's write of `size` bytes (4 or 8).
    pub fn write(&self, offset: u64, size: u32, value: u64) {
        self.page.write(offset, size, value);
    }

    /// The guest polls and is not there yet: a software model makes progress here.
    pub fn relax(&self) {
        self.page.relax();
    }
}

impl fmt::Debug for MappedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page of {:?}: {:?}", self.viommu, self.place())
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        self.viommu.0.node.release(ObjectKind::GuestPage);
    }
}

impl Viommu {
    /// Where the registers are that the guest may touch directly; `None` if there are none.
    pub fn page(&self) -> Option<PagePlace> {
        self.0.facts.page.as_ref().map(|page| page.place())
    }

    /// Maps them (mmap): exactly [`Viommu::page`], whole.
    ///
    /// # Errors
    /// ENXIO for any other range. ENOENT if the vIOMMU is gone.
    pub fn map_page(&self, offset: u64, length: u64) -> Result<MappedPage, Error> {
        let fail = |cause| self.0.error("map", cause);
        let page = self.0.facts.page.as_ref().filter(|page| {
            let place = page.place();
            (place.offset, place.length) == (offset, length)
        });
        let no = || Cause::NoRange(format!("{length:#x} bytes at {offset:#x} cannot be mapped"));
        let page = page.ok_or_else(|| fail(no()))?.clone();
        let node: &Arc<Node> = &self.0.node;
        node.acquire(ObjectKind::GuestPage).map_err(fail)?;
        Ok(MappedPage { viommu: self.clone(), page })
    }
}
