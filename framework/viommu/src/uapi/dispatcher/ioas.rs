//! IOAS: allocation, mapping, copying, unmapping.

use super::{
    Call,
    driver::PAGE_SIZE,
    objects::{Kind, Object},
    space::{Owner, Pages, Source, Space},
    state::State,
};
use crate::uapi::{
    Errno, UserMemory,
    flags::{IOAS_MAP_FIXED_IOVA, IOAS_MAP_READABLE, IOAS_MAP_WRITEABLE},
    layout,
};

/// An IOAS.
#[derive(Debug)]
pub(super) struct Ioas {
    pub space: Space,
    /// Its paging HWPTs, oldest first.
    pub hwpts: Vec<u32>,
}

/// Where and how something is to be mapped.
#[derive(Clone, Copy)]
struct Request {
    flags: u32,
    length: u64,
    iova: u64,
}

impl Request {
    fn check(flags: u32, numbers: &[u64]) -> Result<(), Errno> {
        if flags & !(IOAS_MAP_FIXED_IOVA | IOAS_MAP_WRITEABLE | IOAS_MAP_READABLE) != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if numbers.contains(&u64::MAX) {
            return Err(Errno::OVERFLOW);
        }
        if flags & (IOAS_MAP_WRITEABLE | IOAS_MAP_READABLE) == 0 {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

impl State {
    pub(super) fn ioas_alloc(&mut self, command: &mut layout::IoasAlloc) -> Result<(), Errno> {
        if command.flags != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let id = self.reserve()?;
        self.table.publish(id, Object::Ioas(Ioas { space: Space::new(self.limits.areas), hwpts: Vec::new() }), &[]);
        command.out_ioas_id = id;
        Ok(())
    }

    pub(super) fn ioas_map(&mut self, command: &mut layout::IoasMap, call: Call<'_>) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        Request::check(command.flags, &[command.iova, command.length])?;
        self.seek(command.ioas_id, Kind::Ioas)?;
        command.user_va.checked_add(command.length).ok_or(Errno::OVERFLOW)?;
        let request = Request { flags: command.flags, length: command.length, iova: command.iova };
        command.iova = self.map(command.ioas_id, request, Source::User(command.user_va), call.memory)?;
        Ok(())
    }

    pub(super) fn ioas_map_file(&mut self, command: &mut layout::IoasMapFile, call: Call<'_>) -> Result<(), Errno> {
        Request::check(command.flags, &[command.iova, command.length])?;
        self.seek(command.ioas_id, Kind::Ioas)?;
        let end = last(command.start, command.length)?;
        let bytes = *self.files.get(&command.fd).ok_or(Errno::BADF)?;
        if end >= bytes {
            return Err(Errno::INVAL);
        }
        let request = Request { flags: command.flags, length: command.length, iova: command.iova };
        let source = Source::File(command.fd, command.start);
        command.iova = self.map(command.ioas_id, request, source, call.memory)?;
        Ok(())
    }

    /// Maps new pages.
    fn map(&mut self, ioas: u32, request: Request, source: Source, memory: &dyn UserMemory) -> Result<u64, Errno> {
        if request.length == 0 || request.length > u64::MAX - PAGE_SIZE {
            return Err(Errno::INVAL);
        }
        self.inject.allocation()?;
        self.identity += 1;
        let pages = Pages { identity: self.identity, source, writable: request.flags & IOAS_MAP_WRITEABLE != 0 };
        self.map_pages(ioas, request, &[(pages, request.length)], memory)
    }

    pub(super) fn ioas_copy(&mut self, command: &mut layout::IoasCopy, call: Call<'_>) -> Result<(), Errno> {
        Request::check(command.flags, &[command.length, command.src_iova, command.dst_iova])?;
        self.seek(command.src_ioas_id, Kind::Ioas)?;
        let last = last(command.src_iova, command.length)?;
        let mut list = Vec::new();
        for piece in self.table.ioas(command.src_ioas_id)?.space.pieces(command.src_iova, last) {
            let piece = piece.ok_or(Errno::NOENT)?;
            self.inject.allocation()?;
            list.push((piece.pages, piece.last - piece.iova + 1));
        }
        self.seek(command.dst_ioas_id, Kind::Ioas)?;
        let request = Request { flags: command.flags, length: command.length, iova: command.dst_iova };
        command.dst_iova = self.map_pages(command.dst_ioas_id, request, &list, call.memory)?;
        Ok(())
    }

    fn map_pages(
        &mut self,
        ioas: u32,
        request: Request,
        list: &[(Pages, u64)],
        memory: &dyn UserMemory,
    ) -> Result<u64, Errno> {
        self.inject.allocation()?;
        let Request { flags, length, iova } = request;
        let space = &mut self.table.ioas_mut(ioas)?.space;
        if !length.is_multiple_of(space.alignment) {
            return Err(Errno::INVAL);
        }
        let iova = if flags & IOAS_MAP_FIXED_IOVA == 0 {
            let source = list.first().map_or(0, |(pages, _)| pages.source.start());
            let iova = space.automatic(source, length)?;
            space.check(iova, length).map_err(|_| Errno::INVAL)?;
            iova
        } else {
            space.check(iova, length)?;
            iova
        };
        let (read, write) = (flags & IOAS_MAP_READABLE != 0, flags & IOAS_MAP_WRITEABLE != 0);
        let mut inserted = Vec::new();
        let mut outcome = Ok(());
        let mut at = iova;
        for (pages, bytes) in list {
            outcome = space.insert(at, *bytes, *pages, read, write);
            if outcome.is_err() {
                break;
            }
            inserted.push(at);
            at = at.wrapping_add(*bytes);
        }
        let outcome = outcome.and_then(|()| self.fill(ioas, list, write, memory));
        if let Err(errno) = outcome {
            let space = &mut self.table.ioas_mut(ioas)?.space;
            for at in inserted {
                space.remove_area(at);
            }
            return Err(errno);
        }
        Ok(iova)
    }

    /// Puts pages into every HWPT of the IOAS, which pins them.
    fn fill(&self, ioas: u32, list: &[(Pages, u64)], write: bool, memory: &dyn UserMemory) -> Result<(), Errno> {
        let ioas = self.table.ioas(ioas)?;
        if ioas.hwpts.is_empty() {
            return Ok(());
        }
        for hwpt in &ioas.hwpts {
            if !write && self.table.paging(*hwpt)?.domain.refuses_read_only {
                return Err(Errno::INVAL);
            }
            self.inject.allocation()?;
        }
        list.iter().try_for_each(|(pages, bytes)| self.pin(pages.source, *bytes, memory))
    }

    /// Whether these pages can be pinned: they are there, and not more than may be pinned at once.
    pub(super) fn pin(&self, source: Source, bytes: u64, memory: &dyn UserMemory) -> Result<(), Errno> {
        let Source::User(address) = source else { return Ok(()) };
        if bytes > self.limits.pinned_bytes {
            return Err(Errno::NOMEM);
        }
        let first = address & !(PAGE_SIZE - 1);
        let end = address.saturating_add(bytes);
        let mut page = first;
        while page < end {
            memory.read(page, &mut [0])?;
            page = page.checked_add(PAGE_SIZE).ok_or(Errno::FAULT)?;
        }
        Ok(())
    }

    pub(super) fn ioas_unmap(&mut self, command: &mut layout::IoasUnmap) -> Result<(), Errno> {
        self.seek(command.ioas_id, Kind::Ioas)?;
        command.length = if (command.iova, command.length) == (0, u64::MAX) {
            match self.unmap_range(command.ioas_id, 0, u64::MAX) {
                Err(Errno::NOENT) => 0,
                other => other?,
            }
        } else {
            if command.iova == u64::MAX || command.length == u64::MAX {
                return Err(Errno::OVERFLOW);
            }
            let last = last(command.iova, command.length)?;
            self.unmap_range(command.ioas_id, command.iova, last)?
        };
        Ok(())
    }

    /// Unmaps whole mappings, lowest first, up to one that cannot go.
    pub(super) fn unmap_range(&mut self, id: u32, start: u64, last: u64) -> Result<u64, Errno> {
        let mut unmapped = 0u64;
        loop {
            let space = &self.table.ioas(id)?.space;
            let Some((first, area)) = space.first_area(start, last) else { break };
            if area.locks > 0 {
                return Err(Errno::BUSY);
            }
            if first < start || area.last > last {
                return Err(Errno::NOENT);
            }
            let end = area.last;
            if area.pins > 0 {
                self.unpin_accesses(id, first, end);
            }
            self.table.ioas_mut(id)?.space.remove_area(first);
            self.clear_dirty(id, first, end);
            unmapped = unmapped.wrapping_add((end - first).wrapping_add(1));
        }
        if unmapped == 0 { Err(Errno::NOENT) } else { Ok(unmapped) }
    }

    /// Adds a paging HWPT to its IOAS: from now on it has every mapping.
    pub(super) fn add_hwpt(&mut self, id: u32, hwpt: u32, memory: &dyn UserMemory) -> Result<(), Errno> {
        let domain = self.table.paging(hwpt)?.domain.clone();
        let space = &mut self.table.ioas_mut(id)?.space;
        let alignment = space.alignment.max(domain.page_size);
        if alignment > PAGE_SIZE {
            return Err(Errno::INVAL);
        }
        if alignment != space.alignment {
            space.conforms(alignment)?;
        }
        let outside = [
            domain.aperture.start().checked_sub(1).map(|last| (0, last)),
            domain.aperture.end().checked_add(1).map(|first| (first, u64::MAX)),
        ];
        let mut outcome = Ok(());
        for (first, last) in outside.into_iter().flatten() {
            outcome = outcome
                .and_then(|()| self.inject.allocation())
                .and_then(|()| self.table.ioas_mut(id)?.space.reserve(first, last, Owner::Hwpt(hwpt)));
        }
        let outcome = outcome.and_then(|()| {
            for (_, area) in self.table.ioas(id)?.space.areas() {
                if !area.write && domain.refuses_read_only {
                    return Err(Errno::INVAL);
                }
            }
            let areas: Vec<_> = self.table.ioas(id)?.space.areas().map(|(start, area)| (start, area.clone())).collect();
            for (start, area) in areas {
                self.inject.allocation()?;
                self.pin(area.pages.source, (area.last - start).wrapping_add(1), memory)?;
            }
            Ok(())
        });
        let ioas = self.table.ioas_mut(id)?;
        if outcome.is_err() {
            ioas.space.unreserve(Owner::Hwpt(hwpt));
            return outcome;
        }
        ioas.space.alignment = alignment;
        ioas.space.domains.insert(hwpt, domain.page_size);
        ioas.hwpts.push(hwpt);
        Ok(())
    }

    /// Takes a paging HWPT out of its IOAS.
    pub(super) fn remove_hwpt(&mut self, id: u32, hwpt: u32) {
        if let Ok(ioas) = self.table.ioas_mut(id) {
            ioas.hwpts.retain(|other| *other != hwpt);
            ioas.space.unreserve(Owner::Hwpt(hwpt));
            ioas.space.domains.remove(&hwpt);
            // With one HWPT less the alignment can only become smaller.
            let _ = ioas.space.realign();
        }
    }
}

/// The last address of a range; EINVAL for none, EOVERFLOW if it wraps.
pub(super) fn last(first: u64, length: u64) -> Result<u64, Errno> {
    let more = length.checked_sub(1).ok_or(Errno::INVAL)?;
    first.checked_add(more).ok_or(Errno::OVERFLOW)
}
