//! Memory beyond the framework's own words: files, copies of other IOASs, dirty pages.

use super::KernelBackend;
use super::iommufd::MapRequest;
use crate::Error;
use crate::backend::{Backing, Mapping, ObjectKind};
use crate::seams::lock;
use std::os::fd::{AsRawFd, BorrowedFd};

impl KernelBackend {
    /// IOAS_MAP_FILE: maps `length` bytes of a memfd, from `start` of it. Another process can take such a mapping over
    /// ([`KernelBackend::adopt`]) with the memory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map_file(
        &self,
        ioas: u32,
        file: BorrowedFd<'_>,
        start: u64,
        (iova, length): (u64, u64),
        writable: bool,
    ) -> Result<(), Error> {
        let mut graph = lock(&self.graph);
        let map = |graph: &mut super::graph::Graph| {
            let mapping = Mapping { iova, length, backing: Backing::Physical(start), writable };
            let mut adopted = std::mem::take(&mut graph.adopted_mappings);
            let there = graph.ioas(ioas).is_ok_and(|ioas| ioas.is_adopted(&mut adopted, &mapping));
            graph.adopted_mappings = adopted;
            let ioas = graph.ioas_mut(ioas)?;
            if !there {
                let request = MapRequest { ioas: ioas.kernel.id(), iova: Some(iova), length, writable };
                self.iommufd.ioas_map_file(request, file.as_raw_fd(), start)?;
            }
            ioas.mappings.insert(iova, mapping);
            Ok(())
        };
        map(&mut graph).map_err(|cause: crate::Cause| cause.of(ObjectKind::Ioas, ioas, "map"))
    }

    /// IOAS_COPY: maps at `iova` what `source` maps at `source_iova`; the memory is pinned once.
    ///
    /// # Errors
    /// ENOENT if not all of the source is mapped.
    pub fn copy_mapping(
        &self,
        ioas: u32,
        (iova, length): (u64, u64),
        writable: bool,
        source: u32,
        source_iova: u64,
    ) -> Result<(), Error> {
        let mut graph = lock(&self.graph);
        let copy = |graph: &mut super::graph::Graph| {
            let from = graph.ioas(source)?.kernel.id();
            let to = graph.ioas_mut(ioas)?;
            let request = MapRequest { ioas: to.kernel.id(), iova: Some(iova), length, writable };
            self.iommufd.ioas_copy(request, from, source_iova)?;
            let backing = Backing::Physical(source_iova);
            to.mappings.insert(iova, Mapping { iova, length, backing, writable });
            Ok(())
        };
        copy(&mut graph).map_err(|cause: crate::Cause| cause.of(ObjectKind::Ioas, ioas, "copy"))
    }

    /// HWPT_SET_DIRTY_TRACKING of a nesting parent that was made with [`super::KernelOptions::dirty_tracking`]. Turning it on
    /// forgets what was dirty.
    ///
    /// # Errors
    /// EOPNOTSUPP if it was not.
    pub fn track_dirty(&self, parent: u32, on: bool) -> Result<(), Error> {
        let track = || self.iommufd.set_dirty_tracking(lock(&self.graph).parent(parent)?.kernel.id(), on);
        track().map_err(|cause| cause.of(ObjectKind::NestParent, parent, "track dirty"))
    }

    /// HWPT_GET_DIRTY_BITMAP of a nesting parent: a bit for each page of `page_size` from `iova` that a device wrote since
    /// it was last asked; with `keep` they stay dirty.
    ///
    /// # Errors
    /// EINVAL for a range that is not whole pages.
    pub fn dirty_pages(
        &self,
        parent: u32,
        (iova, length): (u64, u64),
        page_size: u64,
        keep: bool,
    ) -> Result<Vec<u64>, Error> {
        let ask = || {
            let hwpt = lock(&self.graph).parent(parent)?.kernel.id();
            let pages = length.checked_div(page_size).unwrap_or(0);
            let mut bitmap = vec![0; usize::try_from(pages.div_ceil(64)).unwrap_or(0)];
            self.iommufd.dirty_bitmap(hwpt, iova, length, page_size, keep, &mut bitmap)?;
            Ok(bitmap)
        };
        ask().map_err(|cause: crate::Cause| cause.of(ObjectKind::NestParent, parent, "read dirty pages"))
    }
}
