//! The uAPI's objects on the kernel's own: check, act, record.

use super::KernelBackend;
use super::graph::{Device, EventQueue, HwQueue, Hwpt, Ioas, NestParent, Object, Place, Vdevice};
use super::handle::Owned;
use super::iommufd::{HwptRequest, MapRequest};
use crate::Cause;
use crate::backend::{
    BackendEvent, BackendInfo, Backing, GuestPage, Mapping, NestedAlloc, ObjectKind, Objects, SinkOf, ViommuAlloc,
};
use crate::seams::lock;
use crate::uapi::flags::{HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use viommu_plugin::{EntryKey, GuestMapping, HwQueueRequest, NO_DOMAIN, Register, TranslationMode};

#[async_trait]
impl Objects for KernelBackend {
    fn describe(&self) -> BackendInfo {
        let graph = lock(&self.graph);
        let taken = graph.objects.values().filter_map(|object| match object {
            Object::Device(device) => Some(device.stream),
            _ => None,
        });
        let last = taken.chain(graph.idle.keys().copied()).max();
        BackendInfo {
            name: "kernel",
            vendor: self.vendor.clone(),
            modes: self.modes(),
            streams: last.map_or(0, |last| last.saturating_add(1)),
            // The kernel's own affair.
            tags: u32::MAX,
        }
    }

    async fn ioas_alloc(&self) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(id) = graph.claim(|object| matches!(object, Object::Ioas(_))) {
            return Ok(id);
        }
        let kernel = Owned::new(&self.iommufd, self.iommufd.ioas_alloc()?);
        graph.add(Object::Ioas(Ioas { kernel, mappings: BTreeMap::new() }))
    }

    async fn ioas_map(&self, ioas: u32, mapping: Mapping) -> Result<(), Cause> {
        let Backing::UserVa(address) = mapping.backing else {
            return Err(Cause::Invalid("the kernel maps memory of this process, not physical addresses".into()));
        };
        let mut graph = lock(&self.graph);
        let mut adopted = std::mem::take(&mut graph.adopted_mappings);
        let there = graph.ioas(ioas).is_ok_and(|ioas| ioas.is_adopted(&mut adopted, &mapping));
        graph.adopted_mappings = adopted;
        let kernel = graph.ioas(ioas)?.kernel.id();
        let Mapping { iova, length, writable, .. } = mapping;
        if there {
            graph.ioas_mut(ioas)?.mappings.insert(iova, mapping);
            return Ok(());
        }
        let request = MapRequest { ioas: kernel, iova: Some(iova), length, readable: true, writable };
        self.iommufd.ioas_map(request, address)?;
        self.is_mapped(&mut graph, ioas, mapping)
    }

    async fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        self.unmap(&mut lock(&self.graph), ioas, iova, length)
    }

    async fn nest_parent_alloc(&self, ioas: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(id) = graph.claim(|object| matches!(object, Object::NestParent(parent) if parent.ioas == ioas)) {
            return Ok(id);
        }
        let dirty = if self.settings.dirty_tracking { HWPT_ALLOC_DIRTY_TRACKING } else { 0 };
        // Where nothing can be nested it is what a device goes through that its guest does not translate.
        let nests = if self.nests() { HWPT_ALLOC_NEST_PARENT } else { 0 };
        let request = HwptRequest {
            flags: nests | dirty | self.with_pasids(),
            device: graph.any_device()?,
            on: graph.ioas(ioas)?.kernel.id(),
            ..HwptRequest::default()
        };
        let kernel = Owned::new(&self.iommufd, self.iommufd.hwpt_alloc(request)?);
        graph.add(Object::NestParent(NestParent { ioas, kernel }))
    }

    async fn viommu_alloc(&self, parent: u32) -> Result<ViommuAlloc, Cause> {
        self.make_viommu(&mut lock(&self.graph), parent)
    }

    async fn interface_give(&self, viommu: u32) -> Result<(), Cause> {
        self.map_interface(lock(&self.graph).viommu_mut(viommu)?)
    }

    async fn device_bind(&self, stream: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(id) = graph.claim(|object| matches!(object, Object::Device(device) if device.stream == stream)) {
            return Ok(id);
        }
        if let Some(device) = graph.device_of(stream) {
            return Err(Cause::Exists(format!("stream {stream:#x} is bound as device {device}")));
        }
        let none = || Cause::Invalid(format!("stream {stream:#x} is none of the devices that were given"));
        let vfio = graph.idle.remove(&stream).ok_or_else(none)?;
        graph.add(Object::Device(Device { stream, vfio, attached: None }))
    }

    async fn vdevice_alloc(&self, viommu: u32, device: u32, virt_id: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let asked = |object: &Object| {
            matches!(object, Object::Vdevice(found)
                if (found.viommu, found.device, found.virt_id) == (viommu, device, virt_id))
        };
        if let Some(id) = graph.claim(asked) {
            return Ok(id);
        }
        let &Device { stream, ref vfio, .. } = graph.device(device)?;
        let of = graph.viommu(viommu)?;
        // Where there is no vIOMMU the kernel knows no vdevices.
        let made = of.kernel.as_ref().map(|of| self.iommufd.vdevice_alloc(of.id(), vfio.id(), virt_id.into()));
        let kernel = made.transpose()?.map(|id| Owned::new(&self.iommufd, id));
        lock(&of.names).insert(virt_id, stream);
        graph.add(Object::Vdevice(Vdevice { viommu, device, virt_id, kernel }))
    }

    async fn nested_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<NestedAlloc, Cause> {
        let mut graph = lock(&self.graph);
        let tag = (key.domain != NO_DOMAIN).then_some(key.domain);
        let equal = |object: &Object| matches!(object, Object::Hwpt(of) if of.viommu == viommu && of.key == *key);
        if let Some(id) = graph.claim(equal) {
            return Ok(NestedAlloc { id, tag });
        }
        let Some(kernel) = self.kernel_hwpt(&graph, viommu, key)? else {
            return Err(Cause::Unsupported(format!("{}: no nested HWPT is made of {key:x?}", self.vendor)));
        };
        graph.viommu(viommu)?.targets.write().nested.insert(kernel.id(), key.domain);
        let id = graph.add(Object::Hwpt(Hwpt { viommu, key: *key, place: Place::Object(kernel) }))?;
        Ok(NestedAlloc { id, tag })
    }

    async fn shadow_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        self.alloc_shadow(&mut lock(&self.graph), viommu, key)
    }

    fn shadow_leaves(&self, hwpt: u32, first: u64, last: u64) -> Result<Vec<GuestMapping>, Cause> {
        Ok(lock(&self.graph).shadow(hwpt)?.leaves.touching(first, last))
    }

    fn shadow_change(&self, hwpt: u32, gone: &[GuestMapping], new: &[GuestMapping]) -> Result<(), Cause> {
        self.change_shadow(&mut lock(&self.graph), hwpt, gone, new)
    }

    async fn attach(&self, device: u32, hwpt: u32) -> Result<(), Cause> {
        self.patiently(|| self.attach_device(&mut lock(&self.graph), device, hwpt))
    }

    async fn reload(&self, device: u32) -> Result<(), Cause> {
        self.reload_device(device)
    }

    async fn detach(&self, device: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        if graph.handed_over {
            return Ok(());
        }
        let device = graph.device_mut(device)?;
        if device.attached.is_some() {
            device.vfio.detach(None)?;
            device.attached = None;
        }
        Ok(())
    }

    async fn event_queue_alloc(&self, viommu: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let mine = |object: &Object| matches!(object, Object::EventQueue(queue) if queue.viommu == viommu);
        if let Some(id) = graph.claim(mine) {
            return Ok(id);
        }
        if let Some((id, _)) = graph.objects.iter().find(|(_, object)| mine(object)) {
            return Err(Cause::Exists(format!("vIOMMU {viommu} has event queue {id}")));
        }
        let kernel = self.event_queues(graph.viommu(viommu)?)?;
        let id = graph.add(Object::EventQueue(EventQueue { viommu, kernel }))?;
        self.read_events(&graph, id)?;
        Ok(id)
    }

    async fn fault_queue_alloc(&self) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(id) = graph.claim(|object| matches!(object, Object::FaultQueue(_))) {
            return Ok(id);
        }
        let kernel = Owned::with_fd(&self.iommufd, self.iommufd.fault_queue_alloc()?);
        let id = graph.add(Object::FaultQueue(kernel))?;
        self.read_events(&graph, id)?;
        Ok(id)
    }

    fn page_response(&self, queue: u32, cookie: u32, success: bool) -> Result<(), Cause> {
        self.respond(queue, cookie, success)
    }

    async fn hw_queue_alloc(&self, viommu: u32, queue: &HwQueueRequest) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let &HwQueueRequest { index, iova, length, .. } = queue;
        let asked = |object: &Object| matches!(object, Object::HwQueue(of) if (of.viommu, of.index) == (viommu, index));
        if let Some(id) = graph.claim(asked) {
            return Ok(id);
        }
        if self.facts.hw_queue_type == 0 {
            return Err(Cause::Unsupported(format!("{}: the kernel has no queues for its guests", self.vendor)));
        }
        let before =
            |object: &Object| matches!(object, Object::HwQueue(of) if of.viommu == viommu && of.index + 1 == index);
        if index > 0 && !graph.objects.values().any(before) {
            return Err(Cause::Queue(format!("queue {} comes first", index - 1)));
        }
        let none = || Cause::Unsupported(format!("{}: it has no vIOMMU in the kernel", self.vendor));
        let of = graph.viommu(viommu)?.kernel.as_ref().ok_or_else(none)?.id();
        let made = self.iommufd.hw_queue_alloc(of, self.facts.hw_queue_type, index, iova, length)?;
        let kernel = Owned::new(&self.iommufd, made);
        graph.add(Object::HwQueue(HwQueue { viommu, index, kernel }))
    }

    fn guest_page(&self, viommu: u32) -> Result<Option<Arc<dyn GuestPage>>, Cause> {
        let page = lock(&self.graph).viommu(viommu)?.page.clone();
        Ok(page.map(|page| page as Arc<dyn GuestPage>))
    }

    async fn flush(&self, viommu: u32) -> Result<(), Cause> {
        self.forget_guest(viommu)
    }

    async fn destroy(&self, id: u32) -> Result<(), Cause> {
        self.destroy_object(&mut lock(&self.graph), id)
    }

    fn live(&self) -> Vec<(u32, ObjectKind)> {
        lock(&self.graph).objects.iter().map(|(id, object)| (*id, object.kind())).collect()
    }

    fn guest_registers(&self, mode: TranslationMode) -> Option<Vec<Register>> {
        self.registers_in(mode).map(<[Register]>::to_vec)
    }

    fn sink(&self, viommu: u32) -> Result<SinkOf, Cause> {
        let sink = lock(&self.graph).viommu(viommu)?.sink.clone();
        Ok(SinkOf::Checked { sink, precheck: self.sinks.precheck })
    }

    fn events(&self) -> flume::Receiver<BackendEvent> {
        self.events.receiver.clone()
    }
}
