//! What every backend keeps of a shadow: the leaves of a guest's page table, composed with what backs the guest's
//! addresses.
//!
//! A shadow remembers the guest's leaves. What of a leaf a device can reach is what the IOAS maps of it: one piece a
//! mapping, so that the host may change the IOAS under a guest that knows nothing of it.

use super::{Backing, Mapping};
use std::collections::BTreeMap;
use viommu_plugin::GuestMapping;

/// What an IOAS maps, by first IOVA.
pub(crate) type Mappings = BTreeMap<u64, Mapping>;

/// Permission bits of a leaf.
pub(crate) const READ: u32 = 1;
/// As [`READ`].
pub(crate) const WRITE: u32 = 2;

/// The leaves of one shadow, by first input address; they do not overlap.
#[derive(Default)]
pub(crate) struct Leaves(BTreeMap<u64, GuestMapping>);

impl Leaves {
    /// Those that map any of `first..=last`, ascending.
    pub(crate) fn touching(&self, first: u64, last: u64) -> Vec<GuestMapping> {
        let below = self.0.range(..=last).rev();
        let mut found: Vec<_> = below.map(|(_, leaf)| *leaf).take_while(|leaf| end(leaf) >= first).collect();
        found.reverse();
        found
    }

    pub(crate) fn insert(&mut self, leaf: GuestMapping) {
        self.0.insert(leaf.iova, leaf);
    }

    pub(crate) fn remove(&mut self, leaf: &GuestMapping) {
        self.0.remove(&leaf.iova);
    }

    /// The pieces of all leaves that these mappings back.
    pub(crate) fn pieces(&self, mappings: &Mappings) -> Vec<Piece> {
        pieces_of(mappings, self.0.values())
    }
}

/// A part of a leaf that one mapping of the IOAS backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First input address.
    pub(crate) iova: u64,
    /// The guest physical address that it leads to.
    pub(crate) gpa: u64,
    /// What is there.
    pub(crate) backing: Backing,
    pub(crate) length: u64,
    /// [`READ`], [`WRITE`]: what the leaf and the mapping both allow.
    pub(crate) access: u32,
}

fn end(leaf: &GuestMapping) -> u64 {
    leaf.iova + (leaf.length - 1)
}

/// What of these leaves the mappings back.
pub(crate) fn pieces_of<'a>(mappings: &Mappings, leaves: impl IntoIterator<Item = &'a GuestMapping>) -> Vec<Piece> {
    leaves.into_iter().flat_map(|leaf| pieces(mappings, leaf)).collect()
}

fn pieces(mappings: &Mappings, leaf: &GuestMapping) -> impl Iterator<Item = Piece> {
    let (first, last) = (leaf.gpa, leaf.gpa + (leaf.length - 1));
    let below = mappings.range(..=last).rev();
    let touched = below.take_while(move |(_, mapping)| mapping.iova + (mapping.length - 1) >= first);
    touched.filter_map(move |(_, mapping)| {
        let (from, to) = (first.max(mapping.iova), last.min(mapping.iova + (mapping.length - 1)));
        let backing = match mapping.backing {
            Backing::Physical(address) => Backing::Physical(address + (from - mapping.iova)),
            Backing::UserVa(address) => Backing::UserVa(address + (from - mapping.iova)),
        };
        let access = leaf.permissions & if mapping.writable { READ | WRITE } else { READ };
        let piece = Piece { iova: leaf.iova + (from - first), gpa: from, backing, length: to - from + 1, access };
        (access != 0).then_some(piece)
    })
}

/// The ranges of these pieces, neighbours as one.
pub(crate) fn joined(pieces: &[Piece]) -> Vec<(u64, u64)> {
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
        let found: Vec<_> =
            found.iter().map(|piece| (piece.iova, piece.gpa, piece.backing, piece.length, piece.access)).collect();
        let at = Backing::Physical;
        assert_eq!(found, [(0x8_1000, 0x1000, at(0x10_0000), 0x2000, 3), (0x8_4000, 0x4000, at(0x20_0000), 0x4000, 1)]);
        assert_eq!(pieces(&ioas, &leaf(0x8_0000, 0x4000, 0x1000, 2)).count(), 0, "a write where none is allowed");
        let second = pieces(&ioas, &leaf(0x9000, 0x2000, 0x1000, 2)).next().map(|piece| (piece.iova, piece.backing));
        assert_eq!(second, Some((0x9000, at(0x10_1000))));
    }

    #[test]
    fn neighbours_are_forgotten_together() {
        let piece = |iova| Piece { iova, gpa: 0, backing: Backing::Physical(0), length: 0x1000, access: 1 };
        assert_eq!(joined(&[piece(0x2000), piece(0x1000), piece(0x5000)]), [(0x1000, 0x2000), (0x5000, 0x1000)]);
    }

    #[test]
    fn leaves_are_found_by_any_part_of_them() {
        let mut leaves = Leaves::default();
        [leaf(0x1000, 0, 0x1000, 3), leaf(0x4000, 0, 0x4000, 3)].into_iter().for_each(|leaf| leaves.insert(leaf));
        let first = |from, to| leaves.touching(from, to).iter().map(|leaf| leaf.iova).collect::<Vec<_>>();
        assert_eq!(first(0, u64::MAX), [0x1000, 0x4000]);
        assert_eq!((first(0x2000, 0x3fff), first(0x7fff, 0x7fff)), (vec![], vec![0x4000]));
    }
}
