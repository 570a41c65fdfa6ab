//! The object graph as bytes: what a process that takes over reads.

mod bytes;

use super::graph::{Graph, Object, Place};
use super::handle::Owned;
use crate::Cause;
use crate::backend::{Mapping, ObjectKind};
use std::collections::BTreeMap;
use viommu_plugin::{EntryKey, GuestMapping, StateError, StateReader, StateWriter, VirtualInterface};

const WHAT: &str = "saved kernel objects";
const VERSION: u32 = 2;

/// Objects by the framework's IDs, oldest first.
pub(super) struct SavedGraph {
    pub(super) last_id: u32,
    pub(super) objects: Vec<(u32, SavedObject)>,
    /// Bound devices without an object: stream and the kernel's ID.
    idle: Vec<(u32, u32)>,
}

/// One object, with the kernel's IDs.
pub(super) enum SavedObject {
    Ioas {
        kernel: u32,
        mappings: Vec<Mapping>,
    },
    NestParent {
        ioas: u32,
        kernel: u32,
    },
    Viommu {
        parent: u32,
        kernel: Option<u32>,
        abort: u32,
        bypass: u32,
        interface: Option<VirtualInterface>,
    },
    Hwpt {
        viommu: u32,
        key: EntryKey,
        place: SavedPlace,
    },
    Device {
        stream: u32,
        kernel: u32,
        attached: Option<u32>,
    },
    Vdevice {
        viommu: u32,
        device: u32,
        virt_id: u32,
        kernel: Option<u32>,
    },
    HwQueue {
        viommu: u32,
        index: u32,
        kernel: u32,
    },
    /// Type, ID and the number of the fd, of each.
    EventQueue {
        viommu: u32,
        kernel: Vec<(u32, u32, i32)>,
    },
    FaultQueue {
        kernel: u32,
        fd: i32,
    },
}

pub(super) enum SavedPlace {
    Object(u32),
    /// HWPT, its IOAS, and what is in it.
    Shadow(u32, u32, Vec<GuestMapping>),
    Parent,
    Nowhere,
}

impl SavedObject {
    pub(super) fn kind(&self) -> ObjectKind {
        match self {
            Self::Ioas { .. } => ObjectKind::Ioas,
            Self::NestParent { .. } => ObjectKind::NestParent,
            Self::Viommu { .. } => ObjectKind::Viommu,
            Self::Hwpt { .. } => ObjectKind::NestedHwpt,
            Self::Device { .. } => ObjectKind::Device,
            Self::Vdevice { .. } => ObjectKind::Vdevice,
            Self::HwQueue { .. } => ObjectKind::HwQueue,
            Self::EventQueue { .. } => ObjectKind::EventQueue,
            Self::FaultQueue { .. } => ObjectKind::FaultQueue,
        }
    }

    fn of(object: &Object) -> Self {
        let (id, fd) = (Owned::id, |owned: &Owned| owned.fd().unwrap_or(-1));
        match object {
            Object::Ioas(of) => {
                Self::Ioas { kernel: id(&of.kernel), mappings: of.mappings.values().copied().collect() }
            }
            Object::NestParent(of) => Self::NestParent { ioas: of.ioas, kernel: id(&of.kernel) },
            Object::Viommu(of) => Self::Viommu {
                parent: of.parent,
                kernel: of.kernel.as_ref().map(id),
                abort: of.abort,
                bypass: of.bypass,
                interface: of.interface,
            },
            Object::Hwpt(of) => {
                let place = match &of.place {
                    Place::Object(kernel) => SavedPlace::Object(id(kernel)),
                    Place::Shadow(of) => {
                        SavedPlace::Shadow(id(&of.hwpt), id(&of.ioas), of.leaves.touching(0, u64::MAX))
                    }
                    Place::Parent => SavedPlace::Parent,
                    Place::Nowhere => SavedPlace::Nowhere,
                };
                Self::Hwpt { viommu: of.viommu, key: of.key, place }
            }
            Object::Device(of) => Self::Device { stream: of.stream, kernel: of.vfio.id(), attached: of.attached },
            Object::Vdevice(of) => Self::Vdevice {
                viommu: of.viommu,
                device: of.device,
                virt_id: of.virt_id,
                kernel: of.kernel.as_ref().map(id),
            },
            Object::HwQueue(of) => Self::HwQueue { viommu: of.viommu, index: of.index, kernel: id(&of.kernel) },
            Object::EventQueue(of) => {
                let kernel = of.kernel.iter().map(|(kind, owned)| (*kind, id(owned), fd(owned))).collect();
                Self::EventQueue { viommu: of.viommu, kernel }
            }
            Object::FaultQueue(of) => Self::FaultQueue { kernel: id(of), fd: fd(of) },
        }
    }
}

impl SavedGraph {
    pub(super) fn of(graph: &Graph) -> Self {
        let objects = graph.objects.iter().map(|(id, object)| (*id, SavedObject::of(object))).collect();
        let idle = graph.idle.iter().map(|(stream, vfio)| (*stream, vfio.id())).collect();
        Self { last_id: graph.last_id, objects, idle }
    }

    /// All bound devices: stream and the kernel's ID.
    pub(super) fn devices(&self) -> Vec<(u32, u32)> {
        let taken = self.objects.iter().filter_map(|(_, object)| match object {
            SavedObject::Device { stream, kernel, .. } => Some((*stream, *kernel)),
            _ => None,
        });
        self.idle.iter().copied().chain(taken).collect()
    }

    /// The numbers that the event fds had.
    pub(super) fn event_fds(&self) -> BTreeMap<u32, Vec<i32>> {
        let fds = |object: &SavedObject| match object {
            SavedObject::EventQueue { kernel, .. } => kernel.iter().map(|(_, _, fd)| *fd).collect(),
            SavedObject::FaultQueue { fd, .. } => vec![*fd],
            _ => Vec::new(),
        };
        self.objects.iter().map(|(id, object)| (*id, fds(object))).filter(|(_, fds)| !fds.is_empty()).collect()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = StateWriter::new(VERSION);
        out.u32(self.last_id).u32(self.idle.len() as u32);
        self.idle.iter().for_each(|(stream, kernel)| _ = out.u32(*stream).u32(*kernel));
        out.u32(self.objects.len() as u32);
        for (id, object) in &self.objects {
            out.u32(*id);
            object.write(&mut out);
        }
        out.into_bytes()
    }

    /// The graph that was saved. No count in the bytes is believed: each object is read before the next is made room for.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Cause> {
        let read = || -> Result<Self, StateError> {
            let (mut from, _) = StateReader::versioned(WHAT, bytes, VERSION)?;
            let last_id = from.u32("last ID")?;
            let (mut idle, mut objects) = (Vec::new(), Vec::new());
            for _ in 0..from.u32("idle devices")? {
                idle.push((from.u32("stream")?, from.u32("device")?));
            }
            for _ in 0..from.u32("objects")? {
                objects.push((from.u32("ID")?, SavedObject::read(&mut from)?));
            }
            from.end()?;
            Ok(Self { last_id, objects, idle })
        };
        read().map_err(|error| Cause::Invalid(error.to_string()))
    }
}
