//! HW_QUEUE_ALLOC: a queue in the guest's memory that hardware reads by its physical address.

use super::{
    Call,
    access::Access,
    driver::PAGE_SIZE,
    ioas::last,
    objects::{Kind, Object},
    space::Source,
    state::State,
};
use crate::uapi::{Errno, UserMemory, flags::HW_QUEUE_TYPE_DEFAULT, layout};

/// A longer list of pages cannot be allocated.
const LONGEST: u64 = 1 << 40;

/// A hardware queue.
#[derive(Debug)]
pub(super) struct HwQueue {
    pub viommu: u32,
    pub index: u32,
    /// What pins its pages.
    pub access: u32,
    /// Mappings that it locks, by first IOVA.
    pub locked: Vec<u64>,
    pub ioas: u32,
}

impl State {
    pub(super) fn hw_queue_alloc(&mut self, command: &mut layout::HwQueueAlloc, call: Call<'_>) -> Result<(), Errno> {
        if command.flags != 0 || command.r#type == HW_QUEUE_TYPE_DEFAULT {
            return Err(Errno::OPNOTSUPP);
        }
        last(command.nesting_parent_iova, command.length)?;
        let (viommu, index, iova, length) =
            (command.viommu_id, command.index, command.nesting_parent_iova, command.length);
        self.seek(viommu, Kind::Viommu)?;
        let owner = self.table.viommu_mut(viommu)?;
        let parent = owner.parent;
        if !owner.driver()?.has_hw_queue(command.r#type) {
            return Err(Errno::OPNOTSUPP);
        }
        let ioas = self.table.paging(parent)?.ioas;
        command.out_hw_queue_id = self.with_reserved(|state, id| {
            let (first, bytes) = whole_pages(iova, length)?;
            state.inject.allocation()?;
            // The pages are pinned by an access, which is an object as well.
            state.with_reserved(|state, access| {
                let alignments = &mut state.table.ioas_mut(ioas)?.space;
                alignments.accesses.insert(access, PAGE_SIZE);
                let built = alignments.realign().and_then(|()| {
                    let (physical, locked) = state.pin_queue(ioas, first, bytes, call.memory)?;
                    state.inject.allocation()?;
                    let physical = physical + (iova - first);
                    let previous = state.table.viommu_mut(viommu)?.driver()?.hw_queue(index, physical, length)?;
                    Ok((previous, locked))
                });
                let (previous, locked) = built.inspect_err(|_| state.forget_alignment(ioas, access))?;
                for at in &locked {
                    if let Some(area) = state.table.ioas_mut(ioas)?.space.area_mut(*at) {
                        area.locks += 1;
                    }
                }
                state.table.publish(access, Object::Access(Access::internal(ioas)), &[ioas]);
                state.table.hold(access);
                let viommu_object = state.table.viommu_mut(viommu)?;
                viommu_object.hw_queues.insert(index, id);
                let previous = previous.and_then(|previous| viommu_object.hw_queues.get(&previous).copied());
                let holds: Vec<u32> = std::iter::once(viommu).chain(previous).collect();
                state.table.publish(id, Object::HwQueue(HwQueue { viommu, index, access, locked, ioas }), &holds);
                Ok(id)
            })
        })?;
        Ok(())
    }

    /// The physical address of pages that are mapped without a hole, readable, and contiguous; and the mappings.
    fn pin_queue(&self, ioas: u32, first: u64, bytes: u64, memory: &dyn UserMemory) -> Result<(u64, Vec<u64>), Errno> {
        let space = &self.table.ioas(ioas)?.space;
        let (mut locked, mut extent): (_, Option<(Source, u64)>) = (Vec::new(), None);
        let mut contiguous = true;
        for piece in space.pieces(first, last(first, bytes)?) {
            let piece = piece.ok_or(Errno::NOENT)?;
            let (source, length) = (piece.pages.source, piece.last - piece.iova + 1);
            let start = source.start();
            if !start.is_multiple_of(PAGE_SIZE)
                || (piece.more && !(start.wrapping_add(length)).is_multiple_of(PAGE_SIZE))
            {
                return Err(Errno::INVAL);
            }
            if !piece.read {
                return Err(Errno::PERM);
            }
            self.pin(source, length, memory)?;
            locked.extend(space.first_area(piece.iova, piece.iova).map(|(at, _)| at));
            extent = match extent {
                None => Some((source, length)),
                Some((at, so_far)) => {
                    contiguous &= at.start().wrapping_add(so_far) == start;
                    Some((at, so_far + length))
                }
            };
        }
        let (source, length) = extent.ok_or(Errno::NOENT)?;
        // What is contiguous for the caller is so in physical memory as far as a block of it goes.
        let block = self.limits.contiguous_bytes;
        let (start, end) = (source.start(), source.start().wrapping_add(length - 1));
        if !contiguous || start / block != end / block {
            return Err(Errno::FAULT);
        }
        Ok((start, locked))
    }

    fn forget_alignment(&mut self, ioas: u32, access: u32) {
        if let Ok(ioas) = self.table.ioas_mut(ioas) {
            ioas.space.accesses.remove(&access);
            let _ = ioas.space.realign();
        }
    }

    pub(super) fn hw_queue_gone(&mut self, queue: &HwQueue) {
        if let Ok(viommu) = self.table.viommu_mut(queue.viommu) {
            viommu.hw_queues.remove(&queue.index);
            if let Ok(driver) = viommu.driver() {
                driver.hw_queue_destroy(queue.index);
            }
        }
        if let Ok(ioas) = self.table.ioas_mut(queue.ioas) {
            for at in &queue.locked {
                if let Some(area) = ioas.space.area_mut(*at) {
                    area.locks -= 1;
                }
            }
        }
        self.table.release(queue.access);
        self.destroy_object(queue.access, false);
    }
}

/// The pages around a range; ERANGE if there are none so large, ENOMEM if their list cannot be allocated.
fn whole_pages(iova: u64, length: u64) -> Result<(u64, u64), Errno> {
    let first = iova & !(PAGE_SIZE - 1);
    let bytes = (iova - first).checked_add(length).and_then(|bytes| bytes.checked_add(PAGE_SIZE - 1));
    let bytes = bytes.ok_or(Errno::RANGE)? & !(PAGE_SIZE - 1);
    if bytes >= LONGEST {
        return Err(Errno::NOMEM);
    }
    Ok((first, bytes))
}
