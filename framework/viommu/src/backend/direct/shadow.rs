//! Shadow HWPTs: copies of guest page tables that the hardware cannot nest, in stage-2 tables of their own.

use super::Direct;
use super::graph::{Graph, Hwpt, Object};
use crate::Cause;
use crate::backend::shadow::{Leaves, Mappings, Piece, joined, pieces_of};
use crate::backend::{Backing, Mapping, ObjectKind};
use viommu_plugin::{EntryKey, GuestMapping, Refusal};
use viommu_plugin_host::CallError;

/// What a shadow HWPT holds.
pub(super) struct Shadow {
    /// Tag of its translations.
    pub(super) tag: u32,
    /// The driver's handle.
    pub(super) stage2: u32,
    leaves: Leaves,
}

impl Shadow {
    /// The leaves that map any of `first..=last`.
    pub(super) fn leaves(&self, first: u64, last: u64) -> Vec<GuestMapping> {
        self.leaves.touching(first, last)
    }
}

impl Graph {
    pub(super) fn shadow(&self, hwpt: u32) -> Result<&Shadow, Cause> {
        self.hwpt(hwpt)?.shadow.as_ref().ok_or(Cause::NotFound(ObjectKind::NestedHwpt))
    }

    fn shadow_mut(&mut self, hwpt: u32) -> Result<&mut Shadow, Cause> {
        self.hwpt_mut(hwpt)?.shadow.as_mut().ok_or(Cause::NotFound(ObjectKind::NestedHwpt))
    }

    fn mappings_under(&self, hwpt: u32) -> Result<&Mappings, Cause> {
        Ok(&self.ioas(self.parent_of(hwpt)?.ioas)?.mappings)
    }
}

impl Direct {
    pub(super) fn alloc_shadow(&self, graph: &mut Graph, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        graph.viommu(viommu)?;
        let id = graph.reserve()?;
        let tag = graph.tags.take()?;
        let made = self.driver.lock().stage2_create(tag);
        let stage2 = made.inspect_err(|_| graph.tags.give(tag))?;
        let (key, shadow) = (*key, Some(Shadow { tag, stage2, leaves: Leaves::default() }));
        graph.publish(id, Object::Hwpt(Hwpt { viommu, key, shadow }), &[viommu]);
        Ok(id)
    }

    /// Frees the tables; the tag comes back when nothing that carries it is cached.
    pub(super) fn free_shadow(&self, graph: &mut Graph, id: u32) -> Result<(), Cause> {
        let &Shadow { tag, stage2, .. } = graph.shadow(id)?;
        self.forget_tag(tag)?;
        self.driver.lock().stage2_destroy(stage2)?;
        graph.tags.give(tag);
        Ok(())
    }

    /// See [`crate::backend::Objects::shadow_change`].
    pub(super) fn change_shadow(
        &self,
        graph: &mut Graph,
        id: u32,
        gone: &[GuestMapping],
        new: &[GuestMapping],
    ) -> Result<(), Cause> {
        let &Shadow { tag, stage2, .. } = graph.shadow(id)?;
        // 1. Out of the tables, then out of the caches.
        let pieces = pieces_of(graph.mappings_under(id)?, gone);
        self.take_out(stage2, tag, &pieces)?;
        let leaves = &mut graph.shadow_mut(id)?.leaves;
        for leaf in gone {
            leaves.remove(leaf);
        }
        // 2. Not present before: nothing to forget.
        for leaf in new {
            let pieces = pieces_of(graph.mappings_under(id)?, [leaf]);
            if self.put_in(stage2, &pieces)? {
                graph.shadow_mut(id)?.leaves.insert(*leaf);
            }
        }
        Ok(())
    }

    /// The host takes `gone` away from the guests of `parent`: their shadows map nothing to it when this returns.
    pub(super) fn unmap_from_shadows(&self, graph: &Graph, parent: u32, gone: &[Mapping]) -> Result<(), Cause> {
        self.each_shadow(graph, parent, |shadow| {
            let gone: Mappings = gone.iter().map(|mapping| (mapping.iova, *mapping)).collect();
            let pieces = shadow.leaves.pieces(&gone);
            self.take_out(shadow.stage2, shadow.tag, &pieces)
        })
    }

    /// The host gave `new` to the guests of `parent`: what their page tables say of it counts from now on.
    pub(super) fn map_into_shadows(&self, graph: &Graph, parent: u32, new: &Mapping) -> Result<(), Cause> {
        self.each_shadow(graph, parent, |shadow| {
            let new: Mappings = [(new.iova, *new)].into();
            let pieces = shadow.leaves.pieces(&new);
            self.put_in(shadow.stage2, &pieces).map(drop)
        })
    }

    fn each_shadow(&self, graph: &Graph, parent: u32, act: impl Fn(&Shadow) -> Result<(), Cause>) -> Result<(), Cause> {
        let shadows = graph.parent(parent)?.viommu.map(|viommu| graph.shadows_of(viommu)).unwrap_or_default();
        shadows.into_iter().try_for_each(|id| act(graph.shadow(id)?))
    }

    fn take_out(&self, stage2: u32, tag: u32, pieces: &[Piece]) -> Result<(), Cause> {
        if pieces.is_empty() {
            return Ok(());
        }
        let mut driver = self.driver.lock();
        let removed = pieces.iter().try_for_each(|piece| driver.stage2_unmap(stage2, piece.iova, piece.length));
        drop(driver);
        removed?;
        self.forget_ranges(tag, &joined(pieces))
    }

    /// Whether the hardware can translate these addresses at all. If not, nothing of them is in the table.
    fn put_in(&self, stage2: u32, pieces: &[Piece]) -> Result<bool, Cause> {
        let mut driver = self.driver.lock();
        for (done, piece) in pieces.iter().enumerate() {
            let Backing::Physical(pa) = piece.backing else { continue };
            let Err(error) = driver.stage2_map(stage2, piece.iova, pa, piece.length, piece.access) else {
                continue;
            };
            for piece in &pieces[..done] {
                driver.stage2_unmap(stage2, piece.iova, piece.length)?;
            }
            return match error {
                CallError::Refused(ref refusal) if refusal.errno == Refusal::EINVAL => Ok(false),
                error => Err(error.into()),
            };
        }
        Ok(true)
    }
}
