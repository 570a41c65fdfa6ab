//! Dirty tracking: which pages devices wrote.

use super::{Call, driver::PAGE_SIZE, ioas::last, objects::Kind, state::State};
use crate::uapi::{
    Errno,
    flags::{HWPT_DIRTY_TRACKING_ENABLE, HWPT_GET_DIRTY_BITMAP_NO_CLEAR},
    layout,
};

impl State {
    pub(super) fn set_dirty_tracking(&mut self, command: &mut layout::HwptSetDirtyTracking) -> Result<(), Errno> {
        if command.flags & !HWPT_DIRTY_TRACKING_ENABLE != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        self.seek(command.hwpt_id, Kind::Paging)?;
        let paging = self.table.paging_mut(command.hwpt_id)?;
        if !paging.tracks_dirty {
            return Err(Errno::OPNOTSUPP);
        }
        paging.tracking = command.flags & HWPT_DIRTY_TRACKING_ENABLE != 0;
        if paging.tracking {
            paging.dirty.clear();
        }
        Ok(())
    }

    pub(super) fn get_dirty_bitmap(
        &mut self,
        command: &mut layout::HwptGetDirtyBitmap,
        call: Call<'_>,
    ) -> Result<(), Errno> {
        if command.flags & !HWPT_GET_DIRTY_BITMAP_NO_CLEAR != 0 || command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        self.seek(command.hwpt_id, Kind::Paging)?;
        let ioas = self.table.paging(command.hwpt_id)?.ioas;
        let alignment = self.table.ioas(ioas)?.space.alignment;
        let (iova, page_size) = (command.iova, command.page_size);
        let last = last(iova, command.length)?;
        let unaligned = |to: u64| (iova & (to - 1)) | (last.wrapping_add(1) & (to - 1)) != 0;
        if unaligned(alignment) || page_size == 0 || unaligned(page_size) {
            return Err(Errno::INVAL);
        }
        self.inject.allocation()?;
        // Of a size that is no power of two, the lowest bit counts.
        let page_size = 1 << page_size.trailing_zeros();
        // The walk ends at the first hole, and nobody looks at how it ended.
        let space = &self.table.ioas(ioas)?.space;
        let mapped = space.pieces(iova, last).map_while(|piece| piece.map(|piece| piece.last)).last();
        let paging = self.table.paging_mut(command.hwpt_id)?;
        if !paging.tracks_dirty {
            return Err(Errno::OPNOTSUPP);
        }
        let Some(last) = mapped else { return Ok(()) };
        // What the walk finds is all that is looked at: without tracking there is nothing to find.
        if !paging.tracking {
            return Ok(());
        }
        let unit = paging.domain.page_size;
        let pages: Vec<u64> = paging.dirty.range(iova / unit..=last / unit).copied().collect();
        let mut byte: Option<(u64, u8)> = None;
        let write = |byte: Option<(u64, u8)>| -> Result<(), Errno> {
            let Some((index, bits)) = byte else { return Ok(()) };
            let address = command.data.wrapping_add(index);
            let mut there = [0];
            call.memory.read(address, &mut there)?;
            call.memory.write(address, &[there[0] | bits])
        };
        let mut outcome = Ok(());
        for page in &pages {
            // A page of the table may be larger than a bit's: then it is several bits.
            let (from, to) = ((page * unit).max(iova), (page * unit).saturating_add(unit - 1).min(last));
            for bit in (from - iova) / page_size..=(to - iova) / page_size {
                match &mut byte {
                    Some((index, bits)) if *index == bit / 8 => *bits |= 1 << (bit % 8),
                    _ => {
                        outcome = outcome.and_then(|()| write(byte));
                        byte = Some((bit / 8, 1 << (bit % 8)));
                    }
                }
            }
        }
        // Nor at what became of the bitmap.
        let _ = outcome.and_then(|()| write(byte));
        if command.flags & HWPT_GET_DIRTY_BITMAP_NO_CLEAR == 0 {
            for page in pages {
                paging.dirty.remove(&page);
            }
        }
        Ok(())
    }

    /// A device wrote these bytes through an HWPT: what is mapped of them becomes dirty. EINVAL without tracking.
    pub(super) fn mark_dirty(&mut self, hwpt: u32, iova: u64, length: u64) -> Result<(), Errno> {
        let paging = self.table.paging(hwpt)?;
        if !paging.tracking {
            return Err(Errno::INVAL);
        }
        let (unit, last) = (paging.domain.page_size, last(iova, length)?);
        let space = &self.table.ioas(paging.ioas)?.space;
        let Some((start, area)) = space.first_area(iova, last) else { return Ok(()) };
        // A page of the process is mapped at once where it is whole, and has one dirty bit then.
        let source = area.pages.source.start();
        let is_whole = |page: u64| {
            let aligned = source.wrapping_add(page.wrapping_sub(start)).is_multiple_of(PAGE_SIZE);
            aligned && page >= start && page.saturating_add(PAGE_SIZE - 1) <= area.last
        };
        let (mut from, mut to) = (iova.max(start), last.min(area.last));
        if is_whole(from & !(PAGE_SIZE - 1)) {
            from &= !(PAGE_SIZE - 1);
        }
        if is_whole(to & !(PAGE_SIZE - 1)) {
            to |= PAGE_SIZE - 1;
        }
        self.table.paging_mut(hwpt)?.dirty.extend(from / unit..=to / unit);
        Ok(())
    }

    /// A mapping is gone: nothing is known of its pages any more.
    pub(super) fn clear_dirty(&mut self, ioas: u32, first: u64, last: u64) {
        let Ok(hwpts) = self.table.ioas(ioas).map(|ioas| ioas.hwpts.clone()) else { return };
        for hwpt in hwpts {
            if let Ok(paging) = self.table.paging_mut(hwpt) {
                let unit = paging.domain.page_size;
                let gone: Vec<u64> = paging.dirty.range(first / unit..=last / unit).copied().collect();
                for page in gone {
                    paging.dirty.remove(&page);
                }
            }
        }
    }
}
