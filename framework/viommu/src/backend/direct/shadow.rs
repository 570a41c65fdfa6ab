//! Shadow HWPTs: copies of guest page tables that the hardware cannot nest, composed with what backs the guest's
//! addresses.
//!
//! A shadow remembers the guest's leaves. What of a leaf is in its stage-2 table is what the IOAS maps of it: one piece a
//! mapping, so that the host may change the IOAS under a guest that knows nothing of it.

use super::Direct;
use super::graph::{Graph, Hwpt, Object};
use super::stage2::{Mappings, access};
use crate::Cause;
use crate::backend::{Backing, Mapping, ObjectKind};
use std::collections::BTreeMap;
use viommu_plugin::{EntryKey, GuestMapping, Refusal};
use viommu_plugin_host::CallError;

/// What a shadow HWPT holds.
pub(super) struct Shadow {
    /// Tag of its translations.
    pub(super) tag: u32,
    /// The driver's handle.
    pub(super) stage2: u32,
    /// By first input address; they do not overlap.
    leaves: BTreeMap<u64, GuestMapping>,
}

/// A part of a leaf that one mapping of the IOAS backs.
#[derive(Clone, Copy)]
struct Piece {
    iova: u64,
    pa: u64,
    length: u64,
    access: u32,
}

impl Shadow {
    /// The leaves that map any of `first..=last`.
    pub(super) fn leaves(&self, first: u64, last: u64) -> Vec<GuestMapping> {
        let below = self.leaves.range(..=last).rev();
        let mut found: Vec<_> = below.map(|(_, leaf)| *leaf).take_while(|leaf| end(leaf) >= first).collect();
        found.reverse();
        found
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
        let (key, shadow) = (*key, Some(Shadow { tag, stage2, leaves: BTreeMap::new() }));
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
            leaves.remove(&leaf.iova);
        }
        // 2. Not present before: nothing to forget.
        for leaf in new {
            let pieces = pieces_of(graph.mappings_under(id)?, std::slice::from_ref(leaf));
            if self.put_in(stage2, &pieces)? {
                graph.shadow_mut(id)?.leaves.insert(leaf.iova, *leaf);
            }
        }
        Ok(())
    }

    /// The host takes `gone` away from the guests of `parent`: their shadows map nothing to it when this returns.
    pub(super) fn unmap_from_shadows(&self, graph: &Graph, parent: u32, gone: &[Mapping]) -> Result<(), Cause> {
        self.each_shadow(graph, parent, |shadow| {
            let gone: Mappings = gone.iter().map(|mapping| (mapping.iova, *mapping)).collect();
            let pieces: Vec<_> = shadow.leaves.values().flat_map(|leaf| pieces(&gone, leaf)).collect();
            self.take_out(shadow.stage2, shadow.tag, &pieces)
        })
    }

    /// The host gave `new` to the guests of `parent`: what their page tables say of it counts from now on.
    pub(super) fn map_into_shadows(&self, graph: &Graph, parent: u32, new: &Mapping) -> Result<(), Cause> {
        self.each_shadow(graph, parent, |shadow| {
            let new: Mappings = [(new.iova, *new)].into();
            let pieces: Vec<_> = shadow.leaves.values().flat_map(|leaf| pieces(&new, leaf)).collect();
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
            let Err(error) = driver.stage2_map(stage2, piece.iova, piece.pa, piece.length, piece.access) else {
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

fn end(leaf: &GuestMapping) -> u64 {
    leaf.iova + (leaf.length - 1)
}

fn pieces_of(mappings: &Mappings, leaves: &[GuestMapping]) -> Vec<Piece> {
    leaves.iter().flat_map(|leaf| pieces(mappings, leaf)).collect()
}

/// What of a leaf these mappings back.
fn pieces(mappings: &Mappings, leaf: &GuestMapping) -> impl Iterator<Item = Piece> {
    let (first, last) = (leaf.gpa, leaf.gpa + (leaf.length - 1));
    let below = mappings.range(..=last).rev();
    let touched = below.take_while(move |(_, mapping)| mapping.iova + (mapping.length - 1) >= first);
    touched.filter_map(move |(_, mapping)| {
        let Backing::Physical(pa) = mapping.backing else { return None };
        let (from, to) = (first.max(mapping.iova), last.min(mapping.iova + (mapping.length - 1)));
        let access = leaf.permissions & access(mapping);
        let piece =
            Piece { iova: leaf.iova + (from - first), pa: pa + (from - mapping.iova), length: to - from + 1, access };
        (access != 0).then_some(piece)
    })
}

/// The ranges of these pieces, neighbours as one.
fn joined(pieces: &[Piece]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<_> = pieces.iter().map(|piece| (piece.iova, piece.length)).collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let adjacent = range.0 + (range.1 - 1) == next.0.wrapping_sub(1);
        if adjacent {
            range.1 += next.1;
        }
        adjacent
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(iova: u64, gpa: u64, length: u64, permissions: u32) -> GuestMapping {
        GuestMapping { iova, gpa, length, permissions, reserved: 0 }
    }

    fn mapping(iova: u64, length: u64, pa: u64, writable: bool) -> (u64, Mapping) {
        (iova, Mapping { iova, length, backing: Backing::Physical(pa), writable })
    }

    #[test]
    fn a_leaf_is_there_as_far_as_it_is_backed_and_may_what_both_allow() {
        let ioas: Mappings =
            [mapping(0x1000, 0x2000, 0x10_0000, true), mapping(0x4000, 0x4000, 0x20_0000, false)].into();
        let mut found: Vec<_> = pieces(&ioas, &leaf(0x8_0000, 0, 0x8000, 3)).collect();
        found.reverse();
        let found: Vec<_> = found.iter().map(|piece| (piece.iova, piece.pa, piece.length, piece.access)).collect();
        assert_eq!(found, [(0x8_1000, 0x10_0000, 0x2000, 3), (0x8_4000, 0x20_0000, 0x4000, 1)]);
        assert_eq!(pieces(&ioas, &leaf(0x8_0000, 0x4000, 0x1000, 2)).count(), 0, "a write where none is allowed");
        let second = pieces(&ioas, &leaf(0x9000, 0x2000, 0x1000, 2)).next().map(|piece| (piece.iova, piece.pa));
        assert_eq!(second, Some((0x9000, 0x10_1000)));
    }

    #[test]
    fn neighbours_are_forgotten_together() {
        let piece = |iova| Piece { iova, pa: 0, length: 0x1000, access: 1 };
        assert_eq!(joined(&[piece(0x2000), piece(0x1000), piece(0x5000)]), [(0x1000, 0x2000), (0x5000, 0x1000)]);
    }
}
