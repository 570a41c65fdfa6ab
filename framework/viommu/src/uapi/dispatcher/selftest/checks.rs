//! Looks into what the mock driver keeps: mappings, pins, caches, dirty pages.

use crate::uapi::{
    Errno,
    dispatcher::{
        Call,
        driver::PAGE_SIZE,
        drivers::{MockDevice, MockNested},
        objects::{Kind, Object},
        space::Source,
        state::State,
    },
    selftest::TestCommand,
};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

impl State {
    /// EINVAL unless every page of the range leads to the caller's memory at an address.
    pub(super) fn check_map(&mut self, command: &TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let (iova, length, uptr) = (command.u64_at(16), command.u64_at(24), command.u64_at(32));
        self.seek(command.id, Kind::Paging)?;
        let hwpt = self.table.paging(command.id)?;
        let unaligned = [iova, length, uptr].iter().any(|number| !number.is_multiple_of(hwpt.domain.page_size));
        if unaligned || uptr.checked_add(length).is_none() {
            return Err(Errno::INVAL);
        }
        let space = &self.table.ioas(hwpt.ioas)?.space;
        let mut done = 0;
        while done < length {
            call.memory.read(uptr + done, &mut [0])?;
            let at = iova.wrapping_add(done);
            let piece = space.pieces(at, at.saturating_add(length - done - 1)).next().flatten().ok_or(Errno::INVAL)?;
            if piece.pages.source != Source::User(uptr + done) {
                return Err(Errno::INVAL);
            }
            done += piece.last - at + 1;
        }
        Ok(())
    }

    /// EIO unless every page of the caller's memory is pinned so often.
    pub(super) fn check_refs(&mut self, command: &TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let (length, uptr, refs) = (command.u64_at(16), command.u64_at(24), command.u32_at(32));
        if !length.is_multiple_of(PAGE_SIZE) || !uptr.is_multiple_of(PAGE_SIZE) || uptr.checked_add(length).is_none() {
            return Err(Errno::INVAL);
        }
        let mut page = uptr;
        while page < uptr + length {
            call.memory.read(page, &mut [0])?;
            if self.pins_of(page) != refs as usize {
                return Err(Errno::IO);
            }
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// How often a page of the caller's memory is pinned: once for what IOAS_MAP made, however often it is mapped.
    fn pins_of(&self, page: u64) -> usize {
        let mut pinned = BTreeSet::new();
        for (_, _, object) in self.table.iter() {
            let Object::Ioas(ioas) = object else { continue };
            for (start, area) in ioas.space.areas() {
                let Source::User(address) = area.pages.source else { continue };
                let end = address.saturating_add(area.last - start);
                let there = address & !(PAGE_SIZE - 1) <= page && page <= end;
                if there && (!ioas.hwpts.is_empty() || area.locks > 0 || area.pins > 0) {
                    pinned.insert(area.pages.identity);
                }
            }
        }
        pinned.len()
    }

    pub(super) fn check_iotlb(&mut self, command: &TestCommand) -> Result<(), Errno> {
        self.seek(command.id, Kind::Nested)?;
        let nested = self.table.nested(command.id)?.driver.as_any().downcast_ref::<MockNested>().ok_or(Errno::INVAL)?;
        holds(nested.iotlb.get(command.u32_at(16) as usize).copied(), command.u32_at(20))
    }

    pub(super) fn check_cache(&mut self, command: &TestCommand) -> Result<(), Errno> {
        self.seek(command.id, Kind::Device)?;
        let device = &self.table.device(command.id)?.bound;
        let own = device.private.downcast_ref::<MockDevice>().ok_or(Errno::INVAL)?;
        let slot = own.cache.get(command.u32_at(16) as usize).map(|slot| slot.load(Ordering::Relaxed));
        holds(slot, command.u32_at(20))
    }

    /// Marks pages dirty, a bit each.
    pub(super) fn test_dirty(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let (iova, length, page_size, uptr) =
            (command.u64_at(24), command.u64_at(32), command.u64_at(40), command.u64_at(48));
        if page_size == 0
            || length == 0
            || !iova.is_multiple_of(page_size)
            || !length.is_multiple_of(page_size)
            || uptr == 0
        {
            return Err(Errno::INVAL);
        }
        let pages = length / page_size;
        if pages > 1 << 27 {
            return Err(Errno::OVERFLOW);
        }
        self.seek(command.id, Kind::Paging)?;
        if !self.table.paging(command.id)?.tracking {
            return Err(Errno::INVAL);
        }
        let mut bits = vec![0; pages.div_ceil(8) as usize];
        call.memory.read(uptr, &mut bits)?;
        let mut dirty = 0;
        for page in (0..pages).filter(|page| bits[(page / 8) as usize] >> (page % 8) & 1 != 0) {
            self.mark_dirty(command.id, iova.wrapping_add(page * page_size), 1)?;
            dirty += 1;
        }
        command.set_u64_at(56, dirty);
        Ok(())
    }
}

fn holds(slot: Option<u32>, wanted: u32) -> Result<(), Errno> {
    if slot == Some(wanted) { Ok(()) } else { Err(Errno::INVAL) }
}
