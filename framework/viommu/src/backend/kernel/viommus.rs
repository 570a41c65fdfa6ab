//! vIOMMUs: made with the two HWPTs that every guest needs, reloaded, flushed, and taken apart in the kernel's order.

use super::KernelBackend;
use super::events::Source;
use super::graph::{Device, EventQueue, Graph, Hwpt, Object, Place, Viommu};
use super::handle::Owned;
use super::page::Page;
use super::sink::KernelSink;
use super::targets::Targets;
use crate::Cause;
use crate::backend::{PagePlace, SinkError, ViommuAlloc};
use crate::seams::lock;
use crate::uapi::flags::{PAGE_RESP_INVALID, PAGE_RESP_SUCCESS};
use crate::uapi::payload::HwptPageResponse;
use std::collections::BTreeSet;
use std::sync::Arc;
use viommu_plugin::{Classes, EntryKey, HostInvalidation, KeyKind, NO_DOMAIN, NO_STREAM, Nesting, Scope};
use zerocopy::IntoBytes;

/// Words for the commands of one invalidation of the host's.
const WORDS: usize = 64;

impl KernelBackend {
    /// VIOMMU_ALLOC, and the guest's abort and bypass HWPTs.
    pub(super) fn make_viommu(&self, graph: &mut Graph, parent: u32) -> Result<ViommuAlloc, Cause> {
        let adopted = graph.claim(|object| matches!(object, Object::Viommu(viommu) if viommu.parent == parent));
        if let Some(id) = adopted {
            let &Viommu { abort, bypass, .. } = graph.viommu(id)?;
            graph.unclaimed.remove(&abort);
            graph.unclaimed.remove(&bypass);
            return Ok(ViommuAlloc { id, tag: 0, abort, bypass });
        }
        let (kernel, interface) = self.kernel_viommu(graph, parent)?;
        let targets = Arc::new(Targets::default());
        targets.write().viommu = kernel.as_ref().map(Owned::id);
        let sink = KernelSink::new(self.sinks.clone(), targets.clone());
        let (id, abort, bypass) = (graph.reserve()?, graph.reserve()?, graph.reserve()?);
        let names = Default::default();
        let viommu = Viommu { parent, kernel, abort, bypass, names, targets, sink, interface, page: None };
        graph.objects.insert(id, Object::Viommu(viommu));
        for (hwpt, kind) in [(abort, KeyKind::ABORT), (bypass, KeyKind::BYPASS)] {
            let key = EntryKey { kind, ..EntryKey::default() };
            let place = match self.kernel_hwpt(graph, id, &key) {
                Ok(Some(kernel)) => Place::Object(kernel),
                Ok(None) if kind == KeyKind::BYPASS => Place::Parent,
                Ok(None) => Place::Nowhere,
                Err(cause) => {
                    // Children first: the vIOMMU has the lowest number.
                    [bypass, abort, id].iter().for_each(|made| drop(graph.objects.remove(made)));
                    return Err(cause);
                }
            };
            graph.objects.insert(hwpt, Object::Hwpt(Hwpt { viommu: id, key, place }));
        }
        Ok(ViommuAlloc { id, tag: 0, abort, bypass })
    }

    /// The kernel's vIOMMU, where it has such, and the registers that it gives the guest.
    fn kernel_viommu(
        &self,
        graph: &Graph,
        parent: u32,
    ) -> Result<(Option<Owned>, Option<viommu_plugin::VirtualInterface>), Cause> {
        let on = graph.parent(parent)?.kernel.id();
        match self.facts.nesting {
            Nesting::VIOMMU => {}
            // Nested on the parent, or not at all: there is no vIOMMU in the kernel.
            _ => return Ok((None, None)),
        }
        let mut data = vec![0; self.facts.viommu_data_bytes as usize];
        let made = self.iommufd.viommu_alloc(self.facts.viommu_type, graph.any_device()?, on, &mut data)?;
        let kernel = Owned::new(&self.iommufd, made);
        Ok((Some(kernel), self.abi.interface(&data)?))
    }

    /// Maps the registers that belong to the guest, if there are such.
    pub(super) fn map_interface(&self, viommu: &mut Viommu) -> Result<(), Cause> {
        let Some(interface) = viommu.interface.filter(|_| viommu.page.is_none()) else { return Ok(()) };
        let mapped = self.iommufd.map(interface.page, interface.page_length)?;
        let place =
            PagePlace { offset: interface.page, length: interface.page_length, guest_offset: interface.guest_page };
        viommu.page = Some(Arc::new(Page::new(place, mapped)));
        Ok(())
    }

    /// Makes the hardware forget all it cached for this guest, its devices' caches included.
    pub(super) fn forget_guest(&self, viommu: u32) -> Result<(), Cause> {
        let (sink, virt_ids, domains) = {
            let graph = lock(&self.graph);
            let viommu = graph.viommu(viommu)?;
            let virt_ids: Vec<u32> = lock(&viommu.names).keys().copied().collect();
            let mut domains: BTreeSet<u32> = viommu.targets.read().nested.values().copied().collect();
            domains.insert(NO_DOMAIN);
            (viommu.sink.clone(), virt_ids, domains)
        };
        let (mut tables, mut devices) = (Vec::new(), Vec::new());
        for domain in domains {
            tables.extend(self.forgets(Scope::STAGE1_ALL, NO_STREAM, domain)?);
        }
        for virt_id in virt_ids {
            tables.extend(self.forgets(Scope::CONFIGURATION, virt_id, NO_DOMAIN)?);
            devices.extend(self.forgets(Scope::DEVICE_CACHE, virt_id, NO_DOMAIN)?);
        }
        sink.run(&tables, Classes::TLB.with(Classes::CONFIG)).map_err(cause_of)?;
        if !self.has_ats() {
            return Ok(());
        }
        match sink.run(&devices, Classes::ATC) {
            // A device that does not answer is the guest's affair when it asks for its cache; here nobody did.
            Err(SinkError::TimedOut(limit)) => {
                tracing::warn!(viommu, ?limit, "a device did not answer the invalidation of its cache");
                Ok(())
            }
            done => done.map_err(cause_of),
        }
    }

    /// Commands that make the hardware forget, in the guest's own numbers; none if there is nothing to say.
    pub(super) fn forgets(&self, scope: Scope, virt_id: u32, domain: u32) -> Result<Vec<u64>, Cause> {
        let mut words = vec![0; WORDS];
        let what = HostInvalidation { scope, stream: virt_id, tag: domain, ..HostInvalidation::default() };
        let written = self.abi.forget(&what, &mut words)?;
        words.truncate(written);
        Ok(words)
    }

    /// The kernel's event queues of a vIOMMU, one for each type there is.
    pub(super) fn event_queues(&self, viommu: &Viommu) -> Result<Vec<(u32, Owned)>, Cause> {
        let none = || Cause::Unsupported(format!("{}: the kernel has no event queue for its guests", self.vendor));
        let of = viommu.kernel.as_ref().ok_or_else(none)?.id();
        let kinds = [self.facts.veventq_type, self.facts.interface_veventq_type].into_iter().filter(|kind| *kind != 0);
        let make = |kind| {
            let made = self.iommufd.veventq_alloc(of, kind, self.settings.event_depth)?;
            Ok((kind, Owned::with_fd(&self.iommufd, made)))
        };
        kinds.map(make).collect()
    }

    /// Reads the fds of this queue from now on.
    pub(super) fn read_events(&self, graph: &Graph, id: u32) -> Result<(), Cause> {
        match graph.objects.get(&id) {
            Some(Object::EventQueue(EventQueue { viommu, kernel })) => {
                let names = &graph.viommu(*viommu)?.names;
                for (kind, owned) in kernel {
                    let stream = *kind == self.facts.veventq_type;
                    let payload =
                        if stream { self.facts.vevent_bytes } else { self.facts.interface_vevent_bytes } as usize;
                    let source = Source::Events { viommu: *viommu, kind: *kind, payload, names: names.clone() };
                    owned.fd().into_iter().for_each(|fd| self.events.add(fd, source.clone()));
                }
            }
            Some(Object::FaultQueue(owned)) => {
                let source = Source::Faults { queue: id, devices: self.device_names.clone() };
                owned.fd().into_iter().for_each(|fd| self.events.add(fd, source.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Answers a group of page requests. A cookie that the kernel knows no more was answered when its device left.
    pub(super) fn respond(&self, queue: u32, cookie: u32, success: bool) -> Result<(), Cause> {
        let fd = match lock(&self.graph).objects.get(&queue) {
            Some(Object::FaultQueue(owned)) => owned.fd(),
            _ => None,
        };
        let fd = fd.ok_or(Cause::NotFound(crate::backend::ObjectKind::FaultQueue))?;
        let code = if success { PAGE_RESP_SUCCESS } else { PAGE_RESP_INVALID };
        let written = self.iommufd.calls().write(fd, HwptPageResponse { cookie, code }.as_bytes());
        let object = format!("page request {cookie} of fault queue {queue}");
        written.map(drop).map_err(|errno| super::errors::cause("write", &object, errno))
    }

    /// DESTROY: nothing that is used, and users before what they use.
    pub(super) fn destroy_object(&self, graph: &mut Graph, id: u32) -> Result<(), Cause> {
        graph.unused(id)?;
        if let Some(Object::Viommu(viommu)) = graph.objects.get(&id) {
            let own = [viommu.abort, viommu.bypass];
            own.into_iter().try_for_each(|hwpt| graph.unused(hwpt))?;
            if let Some(page) = &viommu.page {
                page.unmap();
            }
            // Some may have gone when it was tried before.
            for hwpt in own.into_iter().filter(|hwpt| graph.objects.contains_key(hwpt)).collect::<Vec<_>>() {
                self.destroy_object(graph, hwpt)?;
            }
        }
        let mut object = graph.objects.remove(&id).ok_or(Cause::NoObject(id))?;
        if let Err(cause) = self.destroy_in_kernel(graph, &mut object) {
            graph.objects.insert(id, object);
            return Err(cause);
        }
        graph.unclaimed.remove(&id);
        Ok(())
    }

    fn destroy_in_kernel(&self, graph: &mut Graph, object: &mut Object) -> Result<(), Cause> {
        match object {
            Object::Ioas(ioas) => ioas.kernel.destroy(),
            Object::NestParent(parent) => parent.kernel.destroy(),
            Object::Viommu(viommu) => viommu.kernel.as_mut().map_or(Ok(()), Owned::destroy),
            Object::Hwpt(Hwpt { viommu, place: Place::Object(kernel), .. }) => {
                let targets = graph.viommu(*viommu)?.targets.clone();
                let mut known = targets.write();
                kernel.destroy()?;
                known.nested.remove(&kernel.id());
                Ok(())
            }
            Object::Hwpt(Hwpt { place: Place::Shadow(shadow), .. }) => shadow.destroy(),
            Object::Hwpt(_) => Ok(()),
            Object::Device(Device { stream, vfio, attached }) => {
                if attached.is_some() && !graph.handed_over {
                    vfio.detach(None)?;
                }
                graph.idle.insert(*stream, vfio.clone());
                Ok(())
            }
            Object::Vdevice(vdevice) => {
                vdevice.kernel.as_mut().map_or(Ok(()), Owned::destroy)?;
                lock(&graph.viommu(vdevice.viommu)?.names).remove(&vdevice.virt_id);
                Ok(())
            }
            Object::HwQueue(queue) => queue.kernel.destroy(),
            Object::EventQueue(EventQueue { kernel, .. }) => {
                for (_, owned) in kernel {
                    owned.fd().into_iter().for_each(|fd| self.events.remove(fd));
                    owned.destroy()?;
                }
                Ok(())
            }
            Object::FaultQueue(owned) => {
                owned.fd().into_iter().for_each(|fd| self.events.remove(fd));
                owned.destroy()
            }
        }
    }
}

pub(super) fn cause_of(error: SinkError) -> Cause {
    match error {
        SinkError::TimedOut(limit) => Cause::TimedOut(limit),
        error => Cause::Queue(error.to_string()),
    }
}
