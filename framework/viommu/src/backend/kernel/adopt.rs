//! Taking over the kernel's objects from an earlier process, with the file descriptors kept, while DMA goes on.
//!
//! ```text
//!   old process: save_graph ─► bytes, and passes on: iommufd, device fds, event fds      (hand_over: leaves all as it is)
//!   new process: adopt ─► every object is asked for, none is touched ─► the same calls as the first time find them again
//! ```
//! The new process builds its host as the first one did. An allocation that asks for what was taken over is given that;
//! an attachment to what is attached already does nothing; a mapping that is there is not made again. What nobody asked
//! for afterwards is [`KernelBackend::unclaimed`].

use super::KernelBackend;
use super::graph::{Device, EventQueue, Graph, HwQueue, Hwpt, Ioas, NestParent, Object, Place, Vdevice, Viommu};
use super::handle::Owned;
use super::options::{DeviceSource, IommuSource, KernelOptions};
use super::saved::{SavedGraph, SavedObject, SavedPlace};
use super::shadow::Shadow;
use super::sink::KernelSink;
use super::sys::RawIommufd;
use super::targets::Targets;
use super::vfio::VfioDevice;
use crate::backend::shadow::Leaves;
use crate::backend::{Mapping, ObjectKind, Objects};
use crate::seams::{lock, wait};
use crate::uapi::Errno;
use crate::{Cause, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use viommu_plugin_host::Plugin;

/// What could not be taken over, by the framework's ID, and why.
pub type NotAdopted = Vec<(u32, ObjectKind, String)>;

impl KernelBackend {
    /// The objects there are, with the kernel's IDs: what a process needs, beside the file descriptors, to take over.
    pub fn save_graph(&self) -> Vec<u8> {
        SavedGraph::of(&lock(&self.graph)).to_bytes()
    }

    /// From here on this process attaches, detaches and destroys nothing, not even at its end, and reads no events: the
    /// objects are another's.
    pub fn hand_over(&self) {
        self.event_fds().into_values().flatten().for_each(|fd| self.events.remove(fd));
        lock(&self.graph).handed_over = true;
        self.iommufd.retire();
    }

    /// The number of the event fds of each event or fault queue, in the order in which [`KernelBackend::adopt`] takes
    /// them.
    pub fn event_fds(&self) -> BTreeMap<u32, Vec<i32>> {
        let graph = lock(&self.graph);
        let fds = |object: &Object| match object {
            Object::EventQueue(queue) => queue.kernel.iter().filter_map(|(_, owned)| owned.fd()).collect(),
            Object::FaultQueue(owned) => owned.fd().into_iter().collect(),
            _ => Vec::new(),
        };
        graph.objects.iter().map(|(id, object)| (*id, fds(object))).filter(|(_, fds)| !fds.is_empty()).collect()
    }

    /// Takes over what `graph` says, on an iommufd that `options` hands in as [`IommuSource::Fd`] and devices that are
    /// [`DeviceSource::Bound`]. `event_fds` are those of [`KernelBackend::event_fds`], received. With
    /// [`IommuSource::Calls`], which are this process's own, they are known by their numbers.
    ///
    /// What is missing is not taken over, and neither is what stands on it. An event queue whose fd is missing is
    /// destroyed: nobody could read it, and a new one can then be made.
    ///
    /// # Errors
    /// If the bytes are no graph, or as [`KernelBackend::open`].
    pub fn adopt(
        plugin: &Plugin,
        mut options: KernelOptions,
        graph: &[u8],
        event_fds: BTreeMap<u32, Vec<OwnedFd>>,
    ) -> Result<(Self, NotAdopted), Error> {
        let adopt = || {
            let saved = SavedGraph::from_bytes(graph)?;
            let mut fds = saved.event_fds();
            let raw = match options.iommu {
                IommuSource::Fd(fd) => RawIommufd::from_fd(fd).map_err(|errno| Cause::Os(errno.into()))?,
                IommuSource::Calls(_) => return Self::adopt_calls(plugin, options, saved, fds),
                IommuSource::Path(_) => {
                    return Err(Cause::Invalid("what is taken over is on an iommufd that is received".into()));
                }
            };
            fds.clear();
            for (id, received) in event_fds {
                fds.insert(id, received.into_iter().map(|fd| raw.adopt_event_fd(fd)).collect::<Vec<_>>());
            }
            options.iommu = IommuSource::Calls(Arc::new(raw));
            Self::adopt_calls(plugin, options, saved, fds)
        };
        adopt().map_err(|cause| cause.of(ObjectKind::Host, None, "adopt"))
    }

    /// As [`KernelBackend::adopt`], of calls that know the event fds by their numbers.
    fn adopt_calls(
        plugin: &Plugin,
        options: KernelOptions,
        saved: SavedGraph,
        event_fds: BTreeMap<u32, Vec<i32>>,
    ) -> Result<(Self, NotAdopted), Cause> {
        let KernelOptions { iommu, mut devices, .. } = options;
        let calls = iommu.open()?;
        let mut bound = BTreeMap::new();
        for (stream, id) in saved.devices() {
            if let Some(source) = devices.remove(&stream) {
                bound.insert(stream, Arc::new(VfioDevice::adopt(source.open()?, &calls, id)));
            }
        }
        let options = KernelOptions { iommu: IommuSource::Calls(calls), devices, ..options };
        let backend = Self::take_over_with(plugin, options, bound)?;
        let mut refused = NotAdopted::new();
        {
            let mut graph = lock(&backend.graph);
            graph.last_id = saved.last_id;
            for (id, object) in saved.objects {
                let kind = object.kind();
                let taken = backend.take_one(&mut graph, object, event_fds.get(&id));
                match taken {
                    Ok(object) => {
                        graph.objects.insert(id, object);
                        graph.unclaimed.insert(id);
                        backend.read_events(&graph, id)?;
                    }
                    Err(cause) => refused.push((id, kind, cause.to_string())),
                }
            }
        }
        Ok((backend, refused))
    }

    /// One object, if the kernel has it and all that it stands on was taken over.
    fn take_one(&self, graph: &mut Graph, object: SavedObject, fds: Option<&Vec<i32>>) -> Result<Object, Cause> {
        let owned = |id| self.still_there(id);
        Ok(match object {
            SavedObject::Ioas { kernel, mappings } => {
                let mappings: BTreeMap<_, _> = mappings.into_iter().map(|mapping| (mapping.iova, mapping)).collect();
                graph.adopted_mappings.extend(mappings.keys().map(|iova| (kernel, *iova)));
                Object::Ioas(Ioas { kernel: owned(kernel)?, mappings })
            }
            SavedObject::NestParent { ioas, kernel } => {
                graph.ioas(ioas)?;
                Object::NestParent(NestParent { ioas, kernel: owned(kernel)? })
            }
            SavedObject::Viommu { parent, kernel, abort, bypass, interface } => {
                graph.parent(parent)?;
                let kernel = kernel.map(owned).transpose()?;
                let targets = Arc::new(Targets::default());
                targets.write().viommu = kernel.as_ref().map(Owned::id);
                let sink = KernelSink::new(self.sinks.clone(), targets.clone());
                let names = Default::default();
                Object::Viommu(Viommu { parent, kernel, abort, bypass, names, targets, sink, interface, page: None })
            }
            SavedObject::Hwpt { viommu, key, place } => {
                let of = graph.viommu(viommu)?;
                let place = match place {
                    SavedPlace::Object(kernel) => {
                        if key.kind == viommu_plugin::KeyKind::TRANSLATE {
                            of.targets.write().nested.insert(kernel, key.domain);
                        }
                        Place::Object(owned(kernel)?)
                    }
                    SavedPlace::Shadow(hwpt, ioas, saved) => {
                        let mut leaves = Leaves::default();
                        saved.into_iter().for_each(|leaf| leaves.insert(leaf));
                        Place::Shadow(Shadow { hwpt: owned(hwpt)?, ioas: owned(ioas)?, leaves })
                    }
                    SavedPlace::Parent => Place::Parent,
                    SavedPlace::Nowhere => Place::Nowhere,
                };
                Object::Hwpt(Hwpt { viommu, key, place })
            }
            SavedObject::Device { stream, attached, .. } => {
                let none = || Cause::Absent(format!("the file of the device with stream {stream:#x} was not received"));
                let vfio = graph.idle.remove(&stream).ok_or_else(none)?;
                Object::Device(Device { stream, vfio, attached })
            }
            SavedObject::Vdevice { viommu, device, virt_id, kernel } => {
                let stream = graph.device(device)?.stream;
                lock(&graph.viommu(viommu)?.names).insert(virt_id, stream);
                Object::Vdevice(Vdevice { viommu, device, virt_id, kernel: kernel.map(owned).transpose()? })
            }
            SavedObject::HwQueue { viommu, index, kernel } => {
                graph.viommu(viommu)?;
                Object::HwQueue(HwQueue { viommu, index, kernel: owned(kernel)? })
            }
            SavedObject::EventQueue { viommu, kernel } => {
                graph.viommu(viommu)?;
                let ids = || kernel.iter().map(|(_, id, _)| *id);
                let fds = fds.filter(|fds| fds.len() == kernel.len()).ok_or_else(|| self.unreadable(ids()))?;
                let with_fd =
                    |((kind, id, _), fd): ((u32, u32, i32), &i32)| Ok((kind, self.still_there(id)?.and_fd(*fd)));
                let kernel = kernel.into_iter().zip(fds).map(with_fd).collect::<Result<_, Cause>>()?;
                Object::EventQueue(EventQueue { viommu, kernel })
            }
            SavedObject::FaultQueue { kernel, .. } => {
                let fd = fds.and_then(|fds| fds.first()).ok_or_else(|| self.unreadable([kernel]))?;
                Object::FaultQueue(self.still_there(kernel)?.and_fd(*fd))
            }
        })
    }

    /// Owns an object that an earlier process made, if it is there. An invalidation of nothing tells: ENOENT is for objects
    /// that are gone, anything else for those that are there.
    fn still_there(&self, id: u32) -> Result<Owned, Cause> {
        match self.iommufd.invalidate(id, self.facts.invalidate_data_type, 16, &mut []).result {
            Err(Errno::NOENT) => Err(Cause::NoObject(id)),
            _ => Ok(Owned::new(&self.iommufd, id)),
        }
    }

    /// Queues without an fd: nobody will ever read them, and as long as they are there no new ones can be made, and their
    /// vIOMMU cannot go. One that something still uses stays.
    fn unreadable(&self, ids: impl IntoIterator<Item = u32>) -> Cause {
        ids.into_iter().for_each(|id| drop(Owned::new(&self.iommufd, id)));
        Cause::Absent("its event fd was not received".into())
    }

    /// What was taken over and that nobody has asked for yet.
    pub fn unclaimed(&self) -> Vec<(u32, ObjectKind)> {
        let graph = lock(&self.graph);
        let kind = |id: &u32| graph.objects.get(id).map(|object| (*id, object.kind()));
        graph.unclaimed.iter().filter_map(kind).collect()
    }

    /// Destroys what was taken over and nobody asked for, youngest first. What could not be destroyed.
    pub fn discard_unclaimed(&self) -> Vec<(u32, ObjectKind)> {
        let unclaimed = self.unclaimed();
        for (id, kind) in unclaimed.iter().rev() {
            if *kind == ObjectKind::Device {
                let _ = wait(self.detach(*id));
            }
        }
        unclaimed.into_iter().rev().filter(|(id, _)| wait(self.destroy(*id)).is_err()).collect()
    }
}

/// Mappings that were taken over, by the kernel's ID of their IOAS and their first IOVA.
pub(super) type AdoptedMappings = BTreeSet<(u32, u64)>;

impl Ioas {
    /// Whether `mapping` is there since before this process: then it is not made again.
    pub(super) fn is_adopted(&self, adopted: &mut AdoptedMappings, mapping: &Mapping) -> bool {
        let same = |there: &Mapping| (there.length, there.writable) == (mapping.length, mapping.writable);
        self.mappings.get(&mapping.iova).is_some_and(same) && adopted.remove(&(self.kernel.id(), mapping.iova))
    }
}

impl DeviceSource {
    /// Whether an earlier process bound it.
    pub(super) fn is_bound(&self) -> bool {
        matches!(self, Self::Bound(_))
    }
}
