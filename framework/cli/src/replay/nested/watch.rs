//! Writes to watched pages. A guest that is not asked to announce a table entry that becomes valid (VT-d without Caching
//! Mode) just writes it; a VMM traps the write, because the vIOMMU told it to watch the page. A recording has the memory
//! and not the write, so what was recorded of tables since the last record that was none is such a write.

use viommu::blocking::Viommu;

/// Bytes of a watched page.
const PAGE: u64 = 0x1000;

/// Pieces of tables that are in memory and were not told to the vIOMMU.
#[derive(Debug, Default)]
pub(super) struct Written {
    pieces: Vec<(u64, u64)>,
}

impl Written {
    /// `length` bytes at guest physical `gpa` are in memory.
    pub(super) fn note(&mut self, gpa: u64, length: u64) {
        self.pieces.push((gpa, length));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Tells the vIOMMU of the pieces in watched pages. A write may link a new page, which is watched from then on, so
    /// those that are left are looked at again. How many streams were attached.
    ///
    /// # Errors
    /// If the framework failed.
    pub(super) fn deliver(self, viommu: &Viommu) -> Result<u64, viommu::Error> {
        let mut attached = 0;
        let mut left = self.pieces;
        loop {
            let watched = viommu.watched_pages()?;
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|piece| is_watched(&watched, *piece));
            if now.is_empty() {
                return Ok(attached);
            }
            for (gpa, length) in now {
                attached += u64::from(viommu.memory_written(gpa, length)?);
            }
            left = later;
        }
    }
}

/// Whether any byte of the piece lies in one of the pages, which are in ascending order.
fn is_watched(pages: &[u64], (gpa, length): (u64, u64)) -> bool {
    let after = pages.partition_point(|&page| page.saturating_add(PAGE) <= gpa);
    pages.get(after).is_some_and(|&page| page < gpa.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_watched_if_a_byte_of_it_is() {
        let pages = [0x1000, 0x5000];
        for (piece, watched) in [
            ((0, 0x1000), false),
            ((0, 0x1008), true),
            ((0x1ff8, 8), true),
            ((0x2000, 0x3000), false),
            ((0x2000, 0x3008), true),
            ((0x6000, 8), false),
        ] {
            assert_eq!(is_watched(&pages, piece), watched, "{piece:x?}");
        }
        assert!(!is_watched(&[], (0, u64::MAX)));
    }
}
