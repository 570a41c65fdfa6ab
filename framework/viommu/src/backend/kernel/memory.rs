//! Memory beyond the framework's own words: files, copies of other IOASs, dirty pages.

use super::KernelBackend;
use super::graph::Graph;
use super::iommufd::MapRequest;
use crate::backend::shadow::Mappings;
use crate::backend::{Backing, Mapping, ObjectKind};
use crate::seams::lock;
use crate::{Cause, Error};
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
        let map = |graph: &mut Graph| {
            let mapping = Mapping { iova, length, backing: Backing::Physical(start), writable };
            let mut adopted = std::mem::take(&mut graph.adopted_mappings);
            let there = graph.ioas(ioas).is_ok_and(|ioas| ioas.is_adopted(&mut adopted, &mapping));
            graph.adopted_mappings = adopted;
            if there {
                graph.ioas_mut(ioas)?.mappings.insert(iova, mapping);
                return Ok(());
            }
            let kernel = graph.ioas(ioas)?.kernel.id();
            let request = MapRequest { ioas: kernel, iova: Some(iova), length, readable: true, writable };
            self.iommufd.ioas_map_file(request, file.as_raw_fd(), start)?;
            self.is_mapped(graph, ioas, mapping)
        };
        map(&mut graph).map_err(|cause: Cause| cause.of(ObjectKind::Ioas, ioas, "map"))
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
        let copy = |graph: &mut Graph| {
            let from = graph.ioas(source)?.kernel.id();
            let to = graph.ioas(ioas)?;
            let request = MapRequest { ioas: to.kernel.id(), iova: Some(iova), length, readable: true, writable };
            self.iommufd.ioas_copy(request, from, source_iova)?;
            let backing = Backing::Physical(source_iova);
            self.is_mapped(graph, ioas, Mapping { iova, length, backing, writable })
        };
        copy(&mut graph).map_err(|cause: Cause| cause.of(ObjectKind::Ioas, ioas, "copy"))
    }

    /// The kernel's IOAS has this mapping: the guests' shadows get it too. If they cannot, it goes again.
    pub(super) fn is_mapped(&self, graph: &mut Graph, ioas: u32, mapping: Mapping) -> Result<(), Cause> {
        if let Err(cause) = self.map_into_shadows(graph, ioas, &mapping) {
            self.iommufd.ioas_unmap(graph.ioas(ioas)?.kernel.id(), mapping.iova, mapping.length)?;
            return Err(cause);
        }
        graph.ioas_mut(ioas)?.mappings.insert(mapping.iova, mapping);
        Ok(())
    }

    /// IOAS_UNMAP, of the guests' shadows first; bytes unmapped.
    pub(super) fn unmap(&self, graph: &mut Graph, id: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        let ioas = graph.ioas(id)?;
        let last = iova.saturating_add(length.saturating_sub(1));
        let gone: Mappings = ioas.mappings.range(iova..=last).map(|(start, mapping)| (*start, *mapping)).collect();
        self.unmap_from_shadows(graph, id, &gone)?;
        let done = self.iommufd.ioas_unmap(ioas.kernel.id(), iova, length);
        let unmapped = done.inspect_err(|_| self.map_again(graph, id, &gone))?;
        graph.ioas_mut(id)?.mappings.retain(|start, _| !gone.contains_key(start));
        Ok(unmapped)
    }

    /// HWPT_SET_DIRTY_TRACKING of a nesting parent that was made with [`super::KernelOptions::dirty_tracking`]. Turning it on
    /// forgets what was dirty.
    ///
    /// # Errors
    /// EOPNOTSUPP if it was not, or the guest has shadow tables: what devices write through those would not be seen.
    pub fn track_dirty(&self, parent: u32, on: bool) -> Result<(), Error> {
        let track = || {
            let graph = lock(&self.graph);
            let kernel = graph.parent(parent)?.kernel.id();
            if on && graph.has_shadows(parent) {
                return Err(no_shadows(&self.vendor));
            }
            self.iommufd.set_dirty_tracking(kernel, on)
        };
        track().map_err(|cause| cause.of(ObjectKind::NestParent, parent, "track dirty"))
    }

    /// HWPT_GET_DIRTY_BITMAP of a nesting parent: a bit for each page of `page_size` from `iova` that a device wrote since
    /// it was last asked; with `keep` they stay dirty. What is not mapped is not dirty: the kernel stops at the first hole and
    /// says nothing of it, so it is asked for each stretch without one.
    ///
    /// # Errors
    /// EINVAL for a range that is not whole pages, or a page that is no power of two. Without `keep`, all of the range has to
    /// be taken as dirty after any other error.
    pub fn dirty_pages(
        &self,
        parent: u32,
        (iova, length): (u64, u64),
        page_size: u64,
        keep: bool,
    ) -> Result<Vec<u64>, Error> {
        let ask = || {
            let (hwpt, stretches) = {
                let graph = lock(&self.graph);
                let of = graph.parent(parent)?;
                if graph.has_shadows(parent) {
                    return Err(no_shadows(&self.vendor));
                }
                (of.kernel.id(), stretches(&graph.ioas(of.ioas)?.mappings, iova, length))
            };
            let ends = iova.checked_add(length).is_some();
            let whole = ends && page_size.is_power_of_two() && (iova | length).is_multiple_of(page_size);
            let pages = if whole { length / page_size } else { 0 };
            let bitmap = usize::try_from(pages.div_ceil(64)).ok().filter(|_| pages > 0);
            let wrong = || Cause::Invalid(format!("{length:#x} bytes at {iova:#x} are no pages of {page_size:#x}"));
            let mut bitmap = vec![0; bitmap.ok_or_else(wrong)?];
            for (first, length) in stretches {
                // The largest page that the stretch is whole pages of.
                let unit = page_size.min(1 << (first | length).trailing_zeros().min(63));
                let mut found = vec![0; (length / unit).div_ceil(64) as usize];
                self.iommufd.dirty_bitmap(hwpt, first, length, unit, keep, &mut found)?;
                for bit in (0..length / unit).filter(|bit| found[(bit / 64) as usize] >> (bit % 64) & 1 != 0) {
                    let page = (first + bit * unit - iova) / page_size;
                    bitmap[(page / 64) as usize] |= 1 << (page % 64);
                }
            }
            Ok(bitmap)
        };
        ask().map_err(|cause: Cause| cause.of(ObjectKind::NestParent, parent, "read dirty pages"))
    }
}

/// What of a range is mapped, neighbours as one.
fn stretches(mappings: &Mappings, iova: u64, length: u64) -> Vec<(u64, u64)> {
    let Some(last) = iova.checked_add(length.wrapping_sub(1)).filter(|_| length > 0) else { return Vec::new() };
    let mut stretches = Vec::<(u64, u64)>::new();
    for mapping in mappings.range(..=last).map(|(_, mapping)| mapping) {
        let end = mapping.iova + (mapping.length - 1);
        if end < iova {
            continue;
        }
        let (first, end) = (mapping.iova.max(iova), end.min(last));
        match stretches.last_mut() {
            Some(before) if before.0 + before.1 == first => before.1 += end - first + 1,
            _ => stretches.push((first, end - first + 1)),
        }
    }
    stretches
}

fn no_shadows(vendor: &str) -> Cause {
    Cause::Unsupported(format!("{vendor}: pages that devices write through shadow tables are not tracked"))
}
