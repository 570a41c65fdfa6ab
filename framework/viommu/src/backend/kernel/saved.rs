//! The object graph as bytes: what a process that takes over reads.

use super::graph::{Graph, Object, Place};
use super::handle::Owned;
use crate::Cause;
use crate::backend::{Backing, Mapping, ObjectKind};
use std::collections::BTreeMap;
use viommu_plugin::{EntryKey, GuestMapping, KeyKind, StateError, StateReader, StateWriter, VirtualInterface};

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

    fn write(&self, out: &mut StateWriter) {
        match self {
            Self::Ioas { kernel, mappings } => {
                out.u8(0).u32(*kernel).u32(mappings.len() as u32);
                for Mapping { iova, length, backing, writable } in mappings {
                    let (kind, address) = match backing {
                        Backing::Physical(address) => (0, *address),
                        Backing::UserVa(address) => (1, *address),
                    };
                    out.u64(*iova).u64(*length).u8(kind).u64(address).u8((*writable).into());
                }
            }
            Self::NestParent { ioas, kernel } => _ = out.u8(1).u32(*ioas).u32(*kernel),
            Self::Viommu { parent, kernel, abort, bypass, interface } => {
                out.u8(2).u32(*parent).u32(kernel.unwrap_or(0)).u32(*abort).u32(*bypass);
                out.u8(interface.is_some().into());
                if let Some(of) = interface {
                    out.u32(of.handle).u32(of.flags).u64(of.page).u64(of.page_length).u64(of.guest_page);
                }
            }
            Self::Hwpt { viommu, key, place } => {
                let (number, kernel) = match place {
                    SavedPlace::Object(kernel) => (0, *kernel),
                    SavedPlace::Parent => (1, 0),
                    SavedPlace::Nowhere => (2, 0),
                    SavedPlace::Shadow(kernel, ..) => (3, *kernel),
                };
                out.u8(3).u32(*viommu).u8(number).u32(kernel).u32(key.kind.0).u32(key.event).u32(key.domain);
                key.words.iter().for_each(|word| _ = out.u64(*word));
                if let SavedPlace::Shadow(_, ioas, leaves) = place {
                    out.u32(*ioas).u32(leaves.len() as u32);
                    for leaf in leaves {
                        out.u64(leaf.iova).u64(leaf.length).u64(leaf.gpa).u32(leaf.permissions);
                    }
                }
            }
            Self::Device { stream, kernel, attached } => {
                out.u8(4).u32(*stream).u32(*kernel).u32(attached.unwrap_or(0));
            }
            Self::Vdevice { viommu, device, virt_id, kernel } => {
                out.u8(5).u32(*viommu).u32(*device).u32(*virt_id).u32(kernel.unwrap_or(0));
            }
            Self::HwQueue { viommu, index, kernel } => _ = out.u8(6).u32(*viommu).u32(*index).u32(*kernel),
            Self::EventQueue { viommu, kernel } => {
                out.u8(7).u32(*viommu).u32(kernel.len() as u32);
                kernel.iter().for_each(|(kind, id, fd)| _ = out.u32(*kind).u32(*id).u32(*fd as u32));
            }
            Self::FaultQueue { kernel, fd } => _ = out.u8(8).u32(*kernel).u32(*fd as u32),
        }
    }

    fn read(from: &mut StateReader<'_>) -> Result<Self, StateError> {
        let some = |id: u32| (id != 0).then_some(id);
        Ok(match from.u8("kind")? {
            0 => {
                let (kernel, count) = (from.u32("IOAS")?, from.u32("mappings")?);
                let mut mappings = Vec::new();
                for _ in 0..count {
                    let (iova, length) = (from.u64("iova")?, from.u64("length")?);
                    let (kind, address) = (from.u8("backing")?, from.u64("address")?);
                    let backing = if kind == 1 { Backing::UserVa(address) } else { Backing::Physical(address) };
                    mappings.push(Mapping { iova, length, backing, writable: from.u8("writable")? != 0 });
                }
                Self::Ioas { kernel, mappings }
            }
            1 => Self::NestParent { ioas: from.u32("ioas")?, kernel: from.u32("HWPT")? },
            2 => {
                let (parent, kernel) = (from.u32("parent")?, some(from.u32("vIOMMU")?));
                let (abort, bypass) = (from.u32("abort")?, from.u32("bypass")?);
                let interface = match from.u8("interface")? {
                    0 => None,
                    _ => Some(VirtualInterface {
                        handle: from.u32("handle")?,
                        flags: from.u32("flags")?,
                        page: from.u64("page")?,
                        page_length: from.u64("page length")?,
                        guest_page: from.u64("guest page")?,
                    }),
                };
                Self::Viommu { parent, kernel, abort, bypass, interface }
            }
            3 => {
                let (viommu, place, kernel) = (from.u32("viommu")?, from.u8("place")?, from.u32("HWPT")?);
                let (kind, event) = (KeyKind(from.u32("key")?), from.u32("event")?);
                let mut key = EntryKey { kind, event, domain: from.u32("domain")?, ..EntryKey::default() };
                for word in &mut key.words {
                    *word = from.u64("key words")?;
                }
                let place = match place {
                    0 => SavedPlace::Object(kernel),
                    1 => SavedPlace::Parent,
                    2 => SavedPlace::Nowhere,
                    _ => {
                        let (ioas, count) = (from.u32("IOAS")?, from.u32("leaves")?);
                        let mut leaves = Vec::new();
                        for _ in 0..count {
                            let (iova, length) = (from.u64("iova")?, from.u64("length")?);
                            let (gpa, permissions) = (from.u64("gpa")?, from.u32("permissions")?);
                            let ends = |start: u64| length > 0 && start.checked_add(length - 1).is_some();
                            if !ends(iova) || !ends(gpa) {
                                let why = format!("{length:#x} bytes at {iova:#x} are no leaf");
                                return Err(StateError::Field { what: WHAT, field: "leaves", why });
                            }
                            leaves.push(GuestMapping { iova, length, gpa, permissions, reserved: 0 });
                        }
                        SavedPlace::Shadow(kernel, ioas, leaves)
                    }
                };
                Self::Hwpt { viommu, key, place }
            }
            4 => Self::Device {
                stream: from.u32("stream")?,
                kernel: from.u32("device")?,
                attached: some(from.u32("attached")?),
            },
            5 => Self::Vdevice {
                viommu: from.u32("viommu")?,
                device: from.u32("device")?,
                virt_id: from.u32("virt_id")?,
                kernel: some(from.u32("vdevice")?),
            },
            6 => {
                Self::HwQueue { viommu: from.u32("viommu")?, index: from.u32("index")?, kernel: from.u32("HW queue")? }
            }
            7 => {
                let (viommu, count) = (from.u32("viommu")?, from.u32("queues")?);
                let mut kernel = Vec::new();
                for _ in 0..count {
                    kernel.push((from.u32("type")?, from.u32("event queue")?, from.u32("fd")? as i32));
                }
                Self::EventQueue { viommu, kernel }
            }
            8 => Self::FaultQueue { kernel: from.u32("fault queue")?, fd: from.u32("fd")? as i32 },
            other => {
                let why = format!("{other} is none");
                return Err(StateError::Field { what: WHAT, field: "kind", why });
            }
        })
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
