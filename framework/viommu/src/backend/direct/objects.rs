//! The uAPI's objects on an IOMMU that we own: check, act, record.

use super::Direct;
use super::graph::{Device, Domain, Hwpt, Ioas, NestParent, Object, Vdevice, Viommu};
use super::stage2::mappings_in;
use crate::Cause;
use crate::backend::ViommuAlloc;
use crate::backend::{BackendEvent, BackendInfo, GuestPage, Mapping, NestedAlloc, ObjectKind, Objects, SinkOf};
use crate::seams::lock;
use async_trait::async_trait;
use std::sync::Arc;
use viommu_plugin::{EntryKey, GuestMapping, HwQueueRequest, KeyKind, NO_DOMAIN, TranslationMode};

#[async_trait]
impl Objects for Direct {
    fn describe(&self) -> BackendInfo {
        let tags = u32::try_from(lock(&self.graph).tags.size()).unwrap_or(u32::MAX);
        BackendInfo {
            name: "direct",
            vendor: self.vendor.clone(),
            modes: self.info.modes,
            streams: self.info.streams,
            tags,
        }
    }

    async fn ioas_alloc(&self) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let id = graph.reserve()?;
        graph.publish(id, Object::Ioas(Ioas::default()), &[]);
        Ok(id)
    }

    async fn ioas_map(&self, ioas: u32, mapping: Mapping) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        self.check_mapping(&graph.ioas(ioas)?.mappings, &mapping)?;
        let parents = graph.parents_on(ioas);
        for (done, parent) in parents.iter().enumerate() {
            if let Err(cause) = self.map(&graph, *parent, &mapping) {
                for parent in &parents[..done] {
                    let undone = self.unmap(&graph, *parent, &[mapping]);
                    undone.unwrap_or_else(|cause| tracing::error!(%cause, "a mapping that failed cannot be undone"));
                }
                return Err(cause);
            }
        }
        for (done, parent) in parents.iter().enumerate() {
            if let Err(cause) = self.map_into_shadows(&graph, *parent, &mapping) {
                for parent in &parents[..=done] {
                    let undone = self.unmap_from_shadows(&graph, *parent, &[mapping]);
                    undone.unwrap_or_else(|cause| tracing::error!(%cause, "a mapping that failed cannot be undone"));
                }
                for parent in &parents {
                    let undone = self.unmap(&graph, *parent, &[mapping]);
                    undone.unwrap_or_else(|cause| tracing::error!(%cause, "a mapping that failed cannot be undone"));
                }
                return Err(cause);
            }
        }
        graph.ioas_mut(ioas)?.mappings.insert(mapping.iova, mapping);
        Ok(())
    }

    async fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        let mut graph = lock(&self.graph);
        let gone = mappings_in(graph.ioas(ioas)?, iova, length)?;
        graph.no_queue_in(ioas, &gone)?;
        let parents = graph.parents_on(ioas);
        for (done, parent) in parents.iter().enumerate() {
            let shadows = self.unmap_from_shadows(&graph, *parent, &gone);
            if let Err(cause) = shadows.and_then(|()| self.unmap(&graph, *parent, &gone)) {
                // Who may still have it cached keeps the memory: all of it is mapped again.
                parents[..done].iter().for_each(|parent| self.map_again(&graph, *parent, &gone));
                return Err(cause);
            }
        }
        let mappings = &mut graph.ioas_mut(ioas)?.mappings;
        for mapping in &gone {
            mappings.remove(&mapping.iova);
        }
        Ok(gone.iter().map(|mapping| mapping.length).sum())
    }

    async fn nest_parent_alloc(&self, ioas: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let mappings: Vec<_> = graph.ioas(ioas)?.mappings.values().copied().collect();
        let id = graph.reserve()?;
        let tag = graph.tags.take()?;
        let built = self.build_stage2(tag, &mappings);
        // A tag whose tables were never attached is in no cache.
        let stage2 = built.inspect_err(|_| graph.tags.give(tag))?;
        graph.publish(id, Object::NestParent(NestParent { ioas, tag, stage2, viommu: None }), &[ioas]);
        Ok(id)
    }

    async fn viommu_alloc(&self, parent: u32) -> Result<ViommuAlloc, Cause> {
        let mut graph = lock(&self.graph);
        let &NestParent { tag, viommu, .. } = graph.parent(parent)?;
        if let Some(other) = viommu {
            let why = format!(
                "nesting parent {parent} carries vIOMMU {other}: two would share translation tag {tag}, and what one \
                 guest calls address space 1 would be the other's"
            );
            return Err(Cause::Invalid(why));
        }
        let (id, abort, bypass) = (graph.reserve()?, graph.reserve()?, graph.reserve()?);
        let (names, domains, queues) = Default::default();
        let viommu = Viommu { parent, abort, bypass, names, event_queue: None, interface: None, queues, domains };
        graph.publish(id, Object::Viommu(viommu), &[parent]);
        for (hwpt, kind) in [(abort, KeyKind::ABORT), (bypass, KeyKind::BYPASS)] {
            let key = EntryKey { kind, ..Default::default() };
            graph.publish(hwpt, Object::Hwpt(Hwpt { viommu: id, key, shadow: None }), &[]);
        }
        graph.parent_mut(parent)?.viommu = Some(id);
        Ok(ViommuAlloc { id, tag, abort, bypass })
    }

    async fn interface_give(&self, viommu: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        let &Viommu { parent, interface: None, .. } = graph.viommu(viommu)? else { return Ok(()) };
        let interface = self.give_interface(&graph, parent, viommu)?;
        graph.viommu_mut(viommu)?.interface = interface;
        Ok(())
    }

    async fn device_bind(&self, stream: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if stream >= self.info.streams {
            return Err(Cause::Invalid(format!("stream {stream:#x} is not one of the {:#x}", self.info.streams)));
        }
        if let Some(device) = graph.streams.get(&stream) {
            return Err(Cause::Exists(format!("stream {stream:#x} is bound as device {device}")));
        }
        let id = graph.reserve()?;
        graph.publish(id, Object::Device(Device { stream, attached: None, vdevice: None }), &[]);
        graph.streams.insert(stream, id);
        Ok(id)
    }

    async fn vdevice_alloc(&self, viommu: u32, device: u32, virt_id: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(vdevice) = graph.viommu(viommu)?.names.get(&virt_id) {
            return Err(Cause::Exists(format!("the guest's ID {virt_id:#x} is vdevice {vdevice}")));
        }
        if let Some(vdevice) = graph.device(device)?.vdevice {
            return Err(Cause::Exists(format!("device {device} is vdevice {vdevice} already")));
        }
        let id = graph.reserve()?;
        self.give_stream(&graph, viommu, virt_id, graph.device(device)?.stream)?;
        graph.publish(id, Object::Vdevice(Vdevice { viommu, device, virt_id }), &[viommu, device]);
        graph.viommu_mut(viommu)?.names.insert(virt_id, id);
        graph.device_mut(device)?.vdevice = Some(id);
        Ok(id)
    }

    async fn nested_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<NestedAlloc, Cause> {
        let mut graph = lock(&self.graph);
        let known = graph.viommu(viommu)?.domains.get(&key.domain).map(|domain| domain.tag);
        let id = graph.reserve()?;
        let tag = match known {
            _ if key.domain == NO_DOMAIN => None,
            Some(tag) => Some(tag),
            // What carried it before was forgotten when it was given back.
            None => {
                let tag = graph.tags.take()?;
                // Before the first entry with it goes live.
                let told = self.give_domain(&graph, viommu, key.domain, tag);
                told.inspect_err(|_| graph.tags.give(tag))?;
                Some(tag)
            }
        };
        graph.publish(id, Object::Hwpt(Hwpt { viommu, key: *key, shadow: None }), &[viommu]);
        if let Some(tag) = tag {
            let domains = &mut graph.viommu_mut(viommu)?.domains;
            domains.entry(key.domain).or_insert(Domain { tag, users: 0 }).users += 1;
        }
        Ok(NestedAlloc { id, tag })
    }

    async fn shadow_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        self.alloc_shadow(&mut lock(&self.graph), viommu, key)
    }

    fn shadow_leaves(&self, hwpt: u32, first: u64, last: u64) -> Result<Vec<GuestMapping>, Cause> {
        lock(&self.graph).shadow(hwpt).map(|shadow| shadow.leaves(first, last))
    }

    fn shadow_change(&self, hwpt: u32, gone: &[GuestMapping], new: &[GuestMapping]) -> Result<(), Cause> {
        self.change_shadow(&mut lock(&self.graph), hwpt, gone, new)
    }

    async fn attach(&self, device: u32, hwpt: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        let Device { stream, attached, vdevice } = *graph.device(device)?;
        let &Hwpt { viommu, key, .. } = graph.hwpt(hwpt)?;
        if attached == Some(hwpt) && !graph.is_astray(stream) {
            return Ok(());
        }
        if key.kind == KeyKind::TRANSLATE {
            let named = vdevice.is_some_and(|id| graph.vdevice(id).is_ok_and(|vdevice| vdevice.viommu == viommu));
            if !named {
                return Err(Cause::NotFound(ObjectKind::Vdevice));
            }
        }
        // Between two translations of one guest, what devices cached is the guest's to invalidate.
        let translated_here = |old: &Hwpt| old.viommu == viommu && old.key.kind == KeyKind::TRANSLATE;
        let guests_affair = attached.is_some_and(|old| graph.hwpt(old).is_ok_and(translated_here));
        let flush = !guests_affair || key.kind != KeyKind::TRANSLATE;
        self.point(&mut graph, stream, attached, Some(hwpt), flush)?;
        if let Some(old) = attached {
            graph.unlink(old, ObjectKind::Device);
        }
        graph.link(hwpt, ObjectKind::Device);
        graph.device_mut(device)?.attached = Some(hwpt);
        Ok(())
    }

    async fn reload(&self, device: u32) -> Result<(), Cause> {
        let graph = lock(&self.graph);
        self.forget_configuration(graph.device(device)?.stream)
    }

    async fn detach(&self, device: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        let Device { stream, attached, .. } = *graph.device(device)?;
        let Some(hwpt) = attached else { return self.bring_back(&mut graph, stream) };
        self.point(&mut graph, stream, attached, None, true)?;
        graph.unlink(hwpt, ObjectKind::Device);
        graph.device_mut(device)?.attached = None;
        Ok(())
    }

    async fn event_queue_alloc(&self, viommu: u32) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        if let Some(queue) = graph.viommu(viommu)?.event_queue {
            return Err(Cause::Exists(format!("vIOMMU {viommu} has event queue {queue}")));
        }
        let id = graph.reserve()?;
        graph.publish(id, Object::EventQueue { viommu }, &[viommu]);
        graph.viommu_mut(viommu)?.event_queue = Some(id);
        Ok(id)
    }

    async fn fault_queue_alloc(&self) -> Result<u32, Cause> {
        let mut graph = lock(&self.graph);
        let id = graph.reserve()?;
        graph.publish(id, Object::FaultQueue, &[]);
        Ok(id)
    }

    async fn hw_queue_alloc(&self, viommu: u32, queue: &HwQueueRequest) -> Result<u32, Cause> {
        self.give_queue(&mut lock(&self.graph), viommu, queue)
    }

    fn guest_page(&self, viommu: u32) -> Result<Option<Arc<dyn GuestPage>>, Cause> {
        Ok(self.page_of(lock(&self.graph).viommu(viommu)?))
    }

    async fn flush(&self, viommu: u32) -> Result<(), Cause> {
        let graph = lock(&self.graph);
        let shadows =
            graph.shadows_of(viommu).into_iter().filter_map(|id| graph.shadow(id).ok().map(|shadow| shadow.tag));
        let tags = graph.tags_of(graph.viommu(viommu)?.parent)?.into_iter().chain(shadows);
        self.forget_tags(tags)?;
        graph.streams_of(viommu).into_iter().try_for_each(|stream| self.forget_moved_device(stream))
    }

    async fn destroy(&self, id: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        for stream in graph.astray_in(id) {
            self.bring_back(&mut graph, stream)?;
        }
        graph.unused(id)?;
        match graph.kind(id).ok_or(Cause::NoObject(id))? {
            ObjectKind::NestParent => self.destroy_parent(&mut graph, id)?,
            ObjectKind::Viommu => {
                let &Viommu { parent, abort, bypass, interface, .. } = graph.viommu(id)?;
                // Allocated with it, freed with it, unless freed before.
                for stream in [abort, bypass].into_iter().flat_map(|hwpt| graph.astray_in(hwpt)).collect::<Vec<_>>() {
                    self.bring_back(&mut graph, stream)?;
                }
                [abort, bypass].into_iter().try_for_each(|hwpt| graph.unused(hwpt))?;
                self.take_interface(interface)?;
                graph.remove(abort);
                graph.remove(bypass);
                graph.parent_mut(parent)?.viommu = None;
            }
            ObjectKind::Device => {
                let &Device { stream, attached, .. } = graph.device(id)?;
                if let Some(hwpt) = attached {
                    return Err(Cause::Busy { users: format!("its attachment to nested HWPT {hwpt}") });
                }
                self.bring_back(&mut graph, stream)?;
                graph.streams.remove(&stream);
            }
            ObjectKind::Vdevice => {
                let Vdevice { viommu, device, virt_id } = *graph.vdevice(id)?;
                self.take_stream(&graph, viommu, virt_id)?;
                graph.viommu_mut(viommu)?.names.remove(&virt_id);
                graph.device_mut(device)?.vdevice = None;
            }
            ObjectKind::NestedHwpt => self.free_hwpt(&mut graph, id)?,
            ObjectKind::HwQueue => self.take_queue(&mut graph, id)?,
            _ => {}
        }
        if let Some(Object::EventQueue { viommu }) = graph.remove(id) {
            graph.viommu_mut(viommu)?.event_queue = None;
        }
        Ok(())
    }

    fn live(&self) -> Vec<(u32, ObjectKind)> {
        lock(&self.graph).live()
    }

    fn guest_registers(&self, mode: TranslationMode) -> Option<Vec<viommu_plugin::Register>> {
        Some(self.registers_in(mode).to_vec())
    }

    fn sink(&self, viommu: u32) -> Result<SinkOf, Cause> {
        lock(&self.graph).viommu(viommu)?;
        Ok(SinkOf::Host(self.ring.clone()))
    }

    fn events(&self) -> flume::Receiver<BackendEvent> {
        self.events.receiver.clone()
    }
}
