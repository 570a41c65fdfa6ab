//! The IOVAs of one IOAS: what is mapped, what is reserved, what automatic IOVAs may come from.

use super::driver::PAGE_SIZE;
use crate::uapi::Errno;
use std::collections::BTreeMap;

/// Bytes that automatic IOVAs are aligned to at most: a huge page.
const HUGE_PAGE_SIZE: u64 = 2 << 20;

/// Where a mapping's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The caller's memory at this address.
    User(u64),
    /// A file, from this offset.
    File(i32, u64),
}

impl Source {
    /// The address or offset.
    pub(super) fn start(self) -> u64 {
        match self {
            Self::User(start) | Self::File(_, start) => start,
        }
    }

    fn behind(self, bytes: u64) -> Self {
        match self {
            Self::User(start) => Self::User(start.wrapping_add(bytes)),
            Self::File(file, start) => Self::File(file, start.wrapping_add(bytes)),
        }
    }
}

/// What a mapping maps: shared by its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    /// Which IOAS_MAP made them: copies pin them once.
    pub identity: u64,
    pub source: Source,
    /// Whether they may be mapped for writing.
    pub writable: bool,
}

/// A mapping.
#[derive(Debug, Clone)]
pub(super) struct Area {
    pub last: u64,
    pub pages: Pages,
    pub read: bool,
    pub write: bool,
    /// Hardware queues that read it: it cannot be unmapped.
    pub locks: u32,
    /// Accesses that pinned some of it.
    pub pins: u32,
}

/// Why IOVAs are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Test,
    /// Outside of what this HWPT can translate.
    Hwpt(u32),
    Device(u32),
}

/// One piece of a range that whole mappings cover.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub iova: u64,
    pub last: u64,
    pub pages: Pages,
    pub read: bool,
    pub write: bool,
    /// Whether the range goes on behind this piece.
    pub more: bool,
}

#[derive(Debug)]
pub(super) struct Space {
    areas: BTreeMap<u64, Area>,
    reserved: Vec<(u64, u64, Owner)>,
    allowed: BTreeMap<u64, u64>,
    pub alignment: u64,
    /// Smallest page of each HWPT.
    pub domains: BTreeMap<u32, u64>,
    /// Alignment that each access needs.
    pub accesses: BTreeMap<u32, u64>,
    pub small_pages: bool,
    /// Mappings and reservations there may be.
    limit: usize,
}

impl Space {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            areas: BTreeMap::new(),
            reserved: Vec::new(),
            allowed: BTreeMap::new(),
            alignment: 1,
            domains: BTreeMap::new(),
            accesses: BTreeMap::new(),
            small_pages: false,
            limit,
        }
    }

    pub(super) fn areas(&self) -> impl Iterator<Item = (u64, &Area)> {
        self.areas.iter().map(|(start, area)| (*start, area))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// The first mapping that touches the range.
    pub(super) fn first_area(&self, start: u64, last: u64) -> Option<(u64, &Area)> {
        if let Some((at, area)) = self.areas.range(..=start).next_back()
            && area.last >= start
        {
            return Some((*at, area));
        }
        self.areas.range(start..=last.max(start)).next().filter(|(at, _)| **at <= last).map(|(at, area)| (*at, area))
    }

    pub(super) fn area_mut(&mut self, start: u64) -> Option<&mut Area> {
        self.areas.get_mut(&start)
    }

    pub(super) fn remove_area(&mut self, start: u64) -> Option<Area> {
        self.areas.remove(&start)
    }

    /// The mappings that cover the range without a hole: one at a time, so that whoever walks stops at the first that it
    /// does not like. `None` is the hole.
    pub(super) fn pieces(&self, iova: u64, last: u64) -> impl Iterator<Item = Option<Piece>> {
        let mut next = Some(iova);
        std::iter::from_fn(move || {
            let at = next.take()?;
            let Some((start, area)) = self.first_area(at, at) else { return Some(None) };
            let end = area.last.min(last);
            let more = end < last;
            next = more.then(|| end + 1);
            let source = area.pages.source.behind(at - start);
            let pages = Pages { source, ..area.pages };
            Some(Some(Piece { iova: at, last: end, pages, read: area.read, write: area.write, more }))
        })
    }

    fn first_reserved(&self, start: u64, last: u64) -> Option<(u64, u64)> {
        self.reserved
            .iter()
            .filter(|(first, end, _)| *first <= last && *end >= start)
            .map(|(first, end, _)| (*first, *end))
            .min()
    }

    /// Keeps IOVAs free from now on; EADDRINUSE if they are not.
    pub(super) fn reserve(&mut self, start: u64, last: u64, owner: Owner) -> Result<(), Errno> {
        let allowed = self.allowed.range(..=last).next_back().is_some_and(|(_, end)| *end >= start);
        if self.first_area(start, last).is_some() || allowed {
            return Err(Errno::ADDRINUSE);
        }
        if self.reserved.len() >= self.limit {
            return Err(Errno::NOMEM);
        }
        self.reserved.push((start, last, owner));
        Ok(())
    }

    pub(super) fn unreserve(&mut self, owner: Owner) {
        self.reserved.retain(|(_, _, whose)| *whose != owner);
    }

    /// What is not reserved, ascending.
    pub(super) fn usable(&self) -> Vec<(u64, u64)> {
        let mut taken: Vec<(u64, u64)> = self.reserved.iter().map(|(first, last, _)| (*first, *last)).collect();
        taken.sort_unstable();
        let (mut holes, mut next) = (Vec::new(), Some(0));
        for (first, last) in taken {
            let Some(start) = next else { break };
            if first > start {
                holes.push((start, first - 1));
            }
            next = next.max(last.checked_add(1)).filter(|_| last != u64::MAX);
        }
        holes.extend(next.map(|start| (start, u64::MAX)));
        holes
    }

    /// Replaces where automatic IOVAs may come from; EADDRINUSE if some of it is reserved.
    pub(super) fn allow(&mut self, allowed: BTreeMap<u64, u64>) -> Result<(), Errno> {
        if allowed.iter().any(|(first, last)| self.first_reserved(*first, *last).is_some()) {
            return Err(Errno::ADDRINUSE);
        }
        self.allowed = allowed;
        Ok(())
    }

    /// Whether a mapping may be made here.
    pub(super) fn check(&self, iova: u64, length: u64) -> Result<(), Errno> {
        if !iova.is_multiple_of(self.alignment) {
            return Err(Errno::INVAL);
        }
        let last = iova.checked_add(length - 1).ok_or(Errno::OVERFLOW)?;
        if self.first_reserved(iova, last).is_some() {
            return Err(Errno::INVAL);
        }
        if self.first_area(iova, last).is_some() {
            return Err(Errno::EXIST);
        }
        Ok(())
    }

    /// A free IOVA, aligned as `address` and `length` are; ENOSPC without.
    pub(super) fn automatic(&self, address: u64, length: u64) -> Result<u64, Errno> {
        if length == 0 || length >= u64::MAX / 2 {
            return Err(Errno::OVERFLOW);
        }
        let natural = length.next_power_of_two();
        let alignment =
            if address == 0 { natural } else { natural.min(1 << address.trailing_zeros()) }.min(HUGE_PAGE_SIZE);
        if alignment < self.alignment {
            return Err(Errno::INVAL);
        }
        let fit = |start: u64, last: u64| -> Option<u64> {
            let aligned = start.checked_add(alignment - 1)? & !(alignment - 1) | (address % PAGE_SIZE);
            (aligned < last && last - aligned >= length - 1).then_some(aligned)
        };
        for (first, last) in self.allowed_spans() {
            let Some(mut at) = fit(first, last) else { continue };
            // Holes between what is mapped and what is reserved, from the first aligned IOVA on.
            loop {
                let used =
                    [self.first_area(at, last).map(|(start, area)| (start, area.last)), self.first_reserved(at, last)]
                        .into_iter()
                        .flatten()
                        .min();
                let hole_last = match used {
                    Some((start, _)) if start <= at => None,
                    Some((start, _)) => Some(start - 1),
                    None => Some(last),
                };
                if let Some(found) = hole_last.and_then(|hole_last| fit(at, hole_last)) {
                    return Ok(found);
                }
                match used {
                    Some((_, end)) if end < last => at = end + 1,
                    _ => break,
                }
            }
        }
        Err(Errno::NOSPC)
    }

    /// The allowed list, adjacent ranges joined; everything if there is none. The first and the last page are never used.
    fn allowed_spans(&self) -> Vec<(u64, u64)> {
        let (lowest, highest) = (PAGE_SIZE, u64::MAX - PAGE_SIZE);
        if self.allowed.is_empty() {
            return vec![(lowest, highest)];
        }
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for (first, last) in &self.allowed {
            match spans.last_mut() {
                Some(span) if span.1.saturating_add(1) >= *first => span.1 = span.1.max(*last),
                _ => spans.push((*first, *last)),
            }
        }
        spans.retain(|(first, last)| *first <= highest && *last >= lowest);
        spans.iter().map(|(first, last)| ((*first).max(lowest), (*last).min(highest))).collect()
    }

    pub(super) fn insert(
        &mut self,
        iova: u64,
        length: u64,
        pages: Pages,
        read: bool,
        write: bool,
    ) -> Result<(), Errno> {
        if write && !pages.writable {
            return Err(Errno::PERM);
        }
        if !(pages.source.start() % PAGE_SIZE).is_multiple_of(self.alignment) {
            return Err(Errno::INVAL);
        }
        let last = iova.checked_add(length - 1).ok_or(Errno::OVERFLOW)?;
        if self.areas.len() >= self.limit {
            return Err(Errno::NOMEM);
        }
        self.areas.insert(iova, Area { last, pages, read, write, locks: 0, pins: 0 });
        Ok(())
    }

    /// EADDRINUSE if a mapping is not aligned to so much.
    pub(super) fn conforms(&self, alignment: u64) -> Result<(), Errno> {
        let fine = self.areas.iter().all(|(start, area)| {
            start.is_multiple_of(alignment)
                && (area.last - start).wrapping_add(1).is_multiple_of(alignment)
                && (area.pages.source.start() % PAGE_SIZE).is_multiple_of(alignment)
        });
        if fine { Ok(()) } else { Err(Errno::ADDRINUSE) }
    }

    /// Finds the alignment that HWPTs, accesses and options need now.
    pub(super) fn realign(&mut self) -> Result<(), Errno> {
        let least = if self.small_pages { PAGE_SIZE } else { 1 };
        let alignment = self.domains.values().chain(self.accesses.values()).copied().fold(least, u64::max);
        if alignment > self.alignment {
            self.conforms(alignment)?;
        }
        self.alignment = alignment;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(address: u64) -> Pages {
        Pages { identity: 0, source: Source::User(address), writable: true }
    }

    fn space(areas: &[(u64, u64)]) -> Space {
        let mut space = Space::new(100);
        for (iova, length) in areas {
            space.insert(*iova, *length, pages(*iova), true, true).unwrap();
        }
        space
    }

    #[test]
    fn automatic_iovas_are_the_first_that_fit_and_aligned_like_the_memory() {
        let mut space = space(&[(0x1000, 0x1000), (0x4000, 0x1000)]);
        assert_eq!(space.automatic(0x7000, 0x1000), Ok(0x2000));
        assert_eq!(space.automatic(0x7000, 0x3000), Ok(0x5000), "two pages are free before, three are not");
        assert_eq!(space.automatic(0x20_0000, 0x20_0000), Ok(0x20_0000));
        assert_eq!(space.automatic(0x7800, 0x800), Ok(0x2800), "the offset in the page stays");
        space.allow([(0x4000, 0x8fff)].into()).unwrap();
        assert_eq!(space.automatic(0x7000, 0x4000), Ok(0x5000));
        assert_eq!(space.automatic(0x7000, 0x5000), Err(Errno::NOSPC));
        assert_eq!(space.automatic(0, u64::MAX), Err(Errno::OVERFLOW));
    }

    #[test]
    fn reserved_iovas_are_no_holes_and_conflict_with_what_is_there() {
        let mut space = space(&[(0x4000, 0x1000)]);
        assert_eq!(space.reserve(0x4fff, 0x5000, Owner::Test), Err(Errno::ADDRINUSE));
        space.reserve(0, 0xfff, Owner::Test).unwrap();
        space.reserve(0x8000, u64::MAX, Owner::Hwpt(3)).unwrap();
        assert_eq!(space.usable(), [(0x1000, 0x7fff)]);
        assert_eq!(space.check(0x7000, 0x2000), Err(Errno::INVAL));
        assert_eq!(space.allow([(0, 1)].into()), Err(Errno::ADDRINUSE));
        space.unreserve(Owner::Hwpt(3));
        assert_eq!(space.usable(), [(0x1000, u64::MAX)]);
        assert_eq!(space.check(u64::MAX - 1, 3), Err(Errno::OVERFLOW));
        assert_eq!(space.check(0x4800, 8), Err(Errno::EXIST));
    }

    #[test]
    fn pieces_stop_at_a_hole() {
        let space = space(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x4000, 0x1000)]);
        let pieces: Vec<_> = space.pieces(0x1800, 0x4000).collect();
        assert!(matches!(pieces[0], Some(Piece { iova: 0x1800, last: 0x1fff, more: true, .. })));
        assert!(matches!(pieces[1], Some(Piece { iova: 0x2000, last: 0x2fff, more: true, .. })));
        assert!(pieces[2].is_none() && pieces.len() == 3);
        assert_eq!(space.pieces(0, u64::MAX).count(), 1);
    }
}
