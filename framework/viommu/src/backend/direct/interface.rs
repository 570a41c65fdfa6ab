//! Parts of the hardware that guests drive themselves: whose they are, and the queues in them.

use super::graph::{Graph, HwQueue, Object, Viommu};
use super::{Direct, Hardware};
use crate::Cause;
use crate::backend::{Backing, GuestPage, Mapping, ObjectKind, PagePlace};
use crate::seams::lock;
use std::sync::Arc;
use viommu_plugin::{HwQueueRequest, VirtualInterface};

/// A guest's registers in the hardware's frame.
struct Page {
    hardware: Arc<dyn Hardware>,
    interface: VirtualInterface,
}

impl Page {
    /// Whether an access is the guest's to make.
    fn allows(&self, offset: u64, size: u32) -> bool {
        let size = u64::from(size);
        matches!(size, 4 | 8) && offset.is_multiple_of(size) && offset < self.interface.page_length
    }
}

impl GuestPage for Page {
    fn place(&self) -> PagePlace {
        let VirtualInterface { page, page_length, guest_page, .. } = self.interface;
        PagePlace { offset: page, length: page_length, guest_offset: guest_page }
    }

    fn read(&self, offset: u64, size: u32) -> u64 {
        if self.allows(offset, size) { self.hardware.mmio_read(self.interface.page + offset, size) } else { 0 }
    }

    fn write(&self, offset: u64, size: u32, value: u64) {
        if self.allows(offset, size) {
            self.hardware.mmio_write(self.interface.page + offset, size, value);
        }
    }

    fn relax(&self) {
        self.hardware.relax();
    }
}

impl Direct {
    /// An interface for a new vIOMMU, if this hardware has such.
    pub(super) fn give_interface(
        &self,
        graph: &Graph,
        parent: u32,
        viommu: u32,
    ) -> Result<Option<VirtualInterface>, Cause> {
        let stage2 = graph.parent(parent)?.stage2;
        let interface = self.exclusively(|driver| driver.interface_create(stage2))?;
        if let Some(interface) = interface {
            lock(&self.events.drain.interfaces).insert(interface.handle, viommu);
        }
        Ok(interface)
    }

    pub(super) fn take_interface(&self, interface: Option<VirtualInterface>) -> Result<(), Cause> {
        let Some(interface) = interface else { return Ok(()) };
        self.exclusively(|driver| driver.interface_destroy(interface.handle))?;
        lock(&self.events.drain.interfaces).remove(&interface.handle);
        Ok(())
    }

    pub(super) fn give_stream(&self, graph: &Graph, viommu: u32, virt_id: u32, stream: u32) -> Result<(), Cause> {
        let Some(interface) = graph.viommu(viommu)?.interface else { return Ok(()) };
        self.exclusively(|driver| driver.interface_stream_set(interface.handle, virt_id, stream))
    }

    pub(super) fn take_stream(&self, graph: &Graph, viommu: u32, virt_id: u32) -> Result<(), Cause> {
        let Some(interface) = graph.viommu(viommu)?.interface else { return Ok(()) };
        self.exclusively(|driver| driver.interface_stream_clear(interface.handle, virt_id))
    }

    pub(super) fn give_domain(&self, graph: &Graph, viommu: u32, domain: u32, tag: u32) -> Result<(), Cause> {
        let Some(interface) = graph.viommu(viommu)?.interface else { return Ok(()) };
        self.exclusively(|driver| driver.interface_domain_set(interface.handle, domain, tag))
    }

    pub(super) fn take_domain(&self, graph: &Graph, viommu: u32, domain: u32) -> Result<(), Cause> {
        let Some(interface) = graph.viommu(viommu)?.interface else { return Ok(()) };
        self.exclusively(|driver| driver.interface_domain_clear(interface.handle, domain))
    }

    /// As the kernel's: the memory first, then what the hardware says. Queue n of a kind uses queue n-1.
    pub(super) fn give_queue(&self, graph: &mut Graph, viommu: u32, queue: &HwQueueRequest) -> Result<u32, Cause> {
        let found = graph.viommu(viommu)?;
        let Some(interface) = found.interface else {
            return Err(Cause::Unsupported(format!("{} lends guests no command queue of its own", self.vendor)));
        };
        let physical = interface.flags & VirtualInterface::PHYSICAL_QUEUES != 0;
        let ioas = graph.parent(found.parent)?.ioas;
        let pa = backing(&graph.ioas(ioas)?.mappings, queue, physical)?;
        let previous = queue.index.checked_sub(1).and_then(|index| found.queues.get(&(queue.kind, index)).copied());
        let id = graph.reserve()?;
        let handle = self.exclusively(|driver| driver.hw_queue_create(interface.handle, queue, pa))?;
        let uses: Vec<_> = [viommu].into_iter().chain(previous).collect();
        graph.publish(id, Object::HwQueue(HwQueue { viommu, handle, request: *queue }), &uses);
        graph.viommu_mut(viommu)?.queues.insert((queue.kind, queue.index), id);
        Ok(id)
    }

    pub(super) fn take_queue(&self, graph: &mut Graph, id: u32) -> Result<(), Cause> {
        let HwQueue { viommu, handle, request } = *graph.hw_queue(id)?;
        self.exclusively(|driver| driver.hw_queue_destroy(handle))?;
        graph.viommu_mut(viommu)?.queues.remove(&(request.kind, request.index));
        Ok(())
    }

    pub(super) fn page_of(&self, viommu: &Viommu) -> Option<Arc<dyn GuestPage>> {
        let interface = viommu.interface.filter(|interface| interface.page_length > 0)?;
        Some(Arc::new(Page { hardware: self.hardware.clone(), interface }))
    }
}

impl Graph {
    /// EBUSY if one of these mappings holds a queue that hardware reads.
    pub(super) fn no_queue_in(&self, ioas: u32, mappings: &[Mapping]) -> Result<(), Cause> {
        for (id, kind) in self.live() {
            if kind != ObjectKind::HwQueue {
                continue;
            }
            let HwQueue { viommu, request, .. } = *self.hw_queue(id)?;
            let last = request.iova.saturating_add(request.length.saturating_sub(1));
            let overlaps = |map: &Mapping| map.iova <= last && request.iova <= map.iova + (map.length - 1);
            if self.parent(self.viommu(viommu)?.parent)?.ioas == ioas && mappings.iter().any(overlaps) {
                return Err(Cause::Busy { users: format!("HW queue {id}, which hardware reads") });
            }
        }
        Ok(())
    }
}

/// Where a queue is in physical memory; 0 if hardware does not ask. EFAULT if part of it is not mapped, or, where
/// hardware asks, not in one piece.
fn backing(mappings: &crate::backend::shadow::Mappings, queue: &HwQueueRequest, physical: bool) -> Result<u64, Cause> {
    let HwQueueRequest { iova, length, .. } = *queue;
    let hole = || Cause::Fault(format!("a queue of {length:#x} bytes at {iova:#x}: not all of it is mapped"));
    let last = iova.checked_add(length.wrapping_sub(1)).filter(|_| length > 0);
    let last = last.ok_or_else(|| Cause::Invalid(format!("{length:#x} bytes at {iova:#x} are no queue")))?;
    let (mut at, mut start) = (iova, None);
    loop {
        let (_, mapping) = mappings.range(..=at).next_back().ok_or_else(hole)?;
        let end = mapping.iova + (mapping.length - 1);
        let Backing::Physical(base) = mapping.backing else { return Err(hole()) };
        if end < at {
            return Err(hole());
        }
        let pa = base + (at - mapping.iova);
        let expected = *start.get_or_insert(pa) + (at - iova);
        if physical && pa != expected {
            let what = format!("a queue of {length:#x} bytes at {iova:#x}: its pages are not side by side");
            return Err(Cause::Fault(what));
        }
        if end >= last {
            return Ok(if physical { start.unwrap_or_default() } else { 0 });
        }
        at = end + 1;
    }
}
