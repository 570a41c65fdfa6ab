//! Shadow HWPTs: a guest's page table that the kernel cannot nest, as mappings of an IOAS of its own.
//!
//! ```text
//!   guest's leaf, iova ─► gpa        the guest's IOAS, gpa ─► memory        IOAS_COPY: the shadow's IOAS, iova ─► memory
//! ```
//! The kernel pins memory once however often it is copied, and IOAS_UNMAP returns when the IOTLB and the devices' caches
//! have forgotten. A guest's leaf is one mapping, or one for each mapping of its IOAS that backs a part of it: the kernel
//! cuts none.

use super::KernelBackend;
use super::graph::{Graph, Hwpt, Object, Place};
use super::handle::Owned;
use super::iommufd::{HwptRequest, MapRequest};
use crate::Cause;
use crate::backend::shadow::{Leaves, Mappings, Piece, READ, WRITE, joined, pieces_of};
use crate::backend::{Mapping, ObjectKind};
use crate::uapi::Errno;
use viommu_plugin::{EntryKey, GuestMapping};

/// What a shadow HWPT is in the kernel.
pub(super) struct Shadow {
    /// Goes before its IOAS.
    pub(super) hwpt: Owned,
    pub(super) ioas: Owned,
    pub(super) leaves: Leaves,
}

impl Graph {
    pub(super) fn shadow(&self, hwpt: u32) -> Result<&Shadow, Cause> {
        match &self.hwpt(hwpt)?.place {
            Place::Shadow(shadow) => Ok(shadow),
            _ => Err(Cause::NotFound(ObjectKind::NestedHwpt)),
        }
    }

    fn shadow_mut(&mut self, hwpt: u32) -> Result<&mut Shadow, Cause> {
        match self.objects.get_mut(&hwpt) {
            Some(Object::Hwpt(Hwpt { place: Place::Shadow(shadow), .. })) => Ok(shadow),
            _ => Err(Cause::NotFound(ObjectKind::NestedHwpt)),
        }
    }

    /// The shadows of guests that this IOAS is the memory of.
    fn shadows_on(&self, ioas: u32) -> impl Iterator<Item = &Shadow> {
        self.objects.values().filter_map(move |object| match object {
            Object::Hwpt(Hwpt { viommu, place: Place::Shadow(shadow), .. }) => {
                let on = self.parent_of(*viommu).is_ok_and(|parent| parent.ioas == ioas);
                on.then_some(shadow)
            }
            _ => None,
        })
    }

    /// Whether a guest of this nesting parent has shadows.
    pub(super) fn has_shadows(&self, parent: u32) -> bool {
        self.parent(parent).is_ok_and(|of| self.shadows_on(of.ioas).next().is_some())
    }
}

impl Shadow {
    pub(super) fn destroy(&mut self) -> Result<(), Cause> {
        self.hwpt.destroy()?;
        self.ioas.destroy()
    }
}

impl KernelBackend {
    /// See [`crate::backend::Objects::shadow_hwpt_alloc`].
    pub(super) fn alloc_shadow(&self, graph: &mut Graph, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        let equal = |object: &Object| {
            matches!(object, Object::Hwpt(Hwpt { viommu: of, key: same, place: Place::Shadow(_) })
                if (*of, same) == (viommu, key))
        };
        if let Some(id) = graph.claim(equal) {
            return Ok(id);
        }
        graph.viommu(viommu)?;
        let ioas = Owned::new(&self.iommufd, self.iommufd.ioas_alloc()?);
        let (flags, device) = (self.with_pasids(), graph.any_device()?);
        let request = HwptRequest { flags, device, on: ioas.id(), ..HwptRequest::default() };
        let hwpt = Owned::new(&self.iommufd, self.iommufd.hwpt_alloc(request)?);
        let place = Place::Shadow(Shadow { hwpt, ioas, leaves: Leaves::default() });
        graph.add(Object::Hwpt(Hwpt { viommu, key: *key, place }))
    }

    /// See [`crate::backend::Objects::shadow_change`].
    pub(super) fn change_shadow(
        &self,
        graph: &mut Graph,
        id: u32,
        gone: &[GuestMapping],
        new: &[GuestMapping],
    ) -> Result<(), Cause> {
        if graph.handed_over {
            return Err(Cause::Unsupported("the guest is another process's".into()));
        }
        let ioas = graph.parent_of(graph.hwpt(id)?.viommu)?.ioas;
        self.take_out(graph.shadow(id)?, &pieces_of(&graph.ioas(ioas)?.mappings, gone))?;
        let leaves = &mut graph.shadow_mut(id)?.leaves;
        gone.iter().for_each(|leaf| leaves.remove(leaf));
        for leaf in new {
            let (from, pieces) = (graph.ioas(ioas)?, pieces_of(&graph.ioas(ioas)?.mappings, [leaf]));
            if self.put_in(graph.shadow(id)?, from.kernel.id(), &pieces)? {
                graph.shadow_mut(id)?.leaves.insert(*leaf);
            }
        }
        Ok(())
    }

    /// The host maps `new`, which is in the kernel's IOAS already: what guests' page tables say of it counts from now on.
    pub(super) fn map_into_shadows(&self, graph: &Graph, ioas: u32, new: &Mapping) -> Result<(), Cause> {
        let (from, mappings) = (graph.ioas(ioas)?.kernel.id(), Mappings::from([(new.iova, *new)]));
        let shadows: Vec<_> = graph.shadows_on(ioas).collect();
        for (done, shadow) in shadows.iter().enumerate() {
            let Err(cause) = self.put_in(shadow, from, &shadow.leaves.pieces(&mappings)) else { continue };
            for shadow in &shadows[..done] {
                self.take_out(shadow, &shadow.leaves.pieces(&mappings))?;
            }
            return Err(cause);
        }
        Ok(())
    }

    /// The host is about to take `gone` away: no shadow maps it when this returns. If it fails, those that were done have it
    /// again.
    pub(super) fn unmap_from_shadows(&self, graph: &Graph, ioas: u32, gone: &Mappings) -> Result<(), Cause> {
        let shadows: Vec<_> = graph.shadows_on(ioas).collect();
        for (done, shadow) in shadows.iter().enumerate() {
            let Err(cause) = self.take_out(shadow, &shadow.leaves.pieces(gone)) else { continue };
            self.put_back(graph, ioas, &shadows[..done], gone);
            return Err(cause);
        }
        Ok(())
    }

    /// The kernel did not unmap it after all.
    pub(super) fn map_again(&self, graph: &Graph, ioas: u32, kept: &Mappings) {
        self.put_back(graph, ioas, &graph.shadows_on(ioas).collect::<Vec<_>>(), kept);
    }

    fn put_back(&self, graph: &Graph, ioas: u32, shadows: &[&Shadow], kept: &Mappings) {
        for shadow in shadows {
            let from = graph.ioas(ioas).map(|ioas| ioas.kernel.id());
            if let Err(cause) = from.and_then(|from| self.put_in(shadow, from, &shadow.leaves.pieces(kept))) {
                tracing::error!(%cause, "memory that was not unmapped is gone from a shadow");
            }
        }
    }

    fn take_out(&self, shadow: &Shadow, pieces: &[Piece]) -> Result<(), Cause> {
        let unmap = |(iova, length)| self.iommufd.ioas_unmap(shadow.ioas.id(), iova, length).map(drop);
        joined(pieces).into_iter().try_for_each(unmap)
    }

    /// Whether the hardware can translate these addresses at all, and no device keeps them for itself. If not, nothing of
    /// them is mapped.
    fn put_in(&self, shadow: &Shadow, from: u32, pieces: &[Piece]) -> Result<bool, Cause> {
        for (done, piece) in pieces.iter().enumerate() {
            let request = MapRequest {
                ioas: shadow.ioas.id(),
                iova: Some(piece.iova),
                length: piece.length,
                readable: piece.access & READ != 0,
                writable: piece.access & WRITE != 0,
            };
            let Err(cause) = self.iommufd.ioas_copy(request, from, piece.gpa) else { continue };
            self.take_out(shadow, &pieces[..done])?;
            return if cause.errno() == Errno::INVAL.raw_os_error() { Ok(false) } else { Err(cause) };
        }
        Ok(true)
    }
}
