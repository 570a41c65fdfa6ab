//! The objects, who uses whom, and the rules that follow from that. No hardware in here.

use super::shadow::Shadow;
use super::tags::Tags;
use crate::Cause;
use crate::backend::{Mapping, ObjectKind};
use std::collections::{BTreeMap, BTreeSet};
use viommu_plugin::{EntryKey, HwQueueKind, HwQueueRequest, VirtualInterface};

/// All objects of one backend. IDs are given once.
pub(super) struct Graph {
    last_id: u32,
    nodes: BTreeMap<u32, Node>,
    /// Bound devices by stream.
    pub(super) streams: BTreeMap<u32, u32>,
    pub(super) tags: Tags,
    /// By stream: HWPTs that its DMA may go through although it is not attached to them, as the hardware did not answer
    /// when that was to be undone. They are in use.
    strays: BTreeMap<u32, BTreeSet<u32>>,
}

struct Node {
    object: Object,
    uses: Vec<u32>,
    users: BTreeMap<ObjectKind, u32>,
}

pub(super) enum Object {
    Ioas(Ioas),
    NestParent(NestParent),
    Viommu(Viommu),
    Hwpt(Hwpt),
    Device(Device),
    Vdevice(Vdevice),
    EventQueue { viommu: u32 },
    FaultQueue,
    HwQueue(HwQueue),
}

/// Mappings by IOVA; they do not overlap.
#[derive(Default)]
pub(super) struct Ioas {
    pub(super) mappings: BTreeMap<u64, Mapping>,
}

pub(super) struct NestParent {
    pub(super) ioas: u32,
    pub(super) tag: u32,
    /// The driver's handle.
    pub(super) stage2: u32,
    pub(super) viommu: Option<u32>,
}

pub(super) struct Viommu {
    pub(super) parent: u32,
    pub(super) abort: u32,
    pub(super) bypass: u32,
    /// Vdevices by the guest's ID.
    pub(super) names: BTreeMap<u32, u32>,
    pub(super) event_queue: Option<u32>,
    /// The part of the hardware that the guest drives itself.
    pub(super) interface: Option<VirtualInterface>,
    /// Queues in it by kind and index.
    pub(super) queues: BTreeMap<(HwQueueKind, u32), u32>,
    /// By the guest's own number (vDomain-ID to pDomain-ID).
    pub(super) domains: BTreeMap<u32, Domain>,
}

/// A domain that a guest numbered: its host tag, and how many nested HWPTs have it.
pub(super) struct Domain {
    pub(super) tag: u32,
    pub(super) users: u32,
}

pub(super) struct Hwpt {
    pub(super) viommu: u32,
    pub(super) key: EntryKey,
    /// If it is no nested HWPT but a paging one with a copy of the guest's page table.
    pub(super) shadow: Option<Shadow>,
}

#[derive(Clone, Copy)]
pub(super) struct Device {
    pub(super) stream: u32,
    pub(super) attached: Option<u32>,
    pub(super) vdevice: Option<u32>,
}

#[derive(Clone, Copy)]
pub(super) struct Vdevice {
    pub(super) viommu: u32,
    pub(super) device: u32,
    pub(super) virt_id: u32,
}

#[derive(Clone, Copy)]
pub(super) struct HwQueue {
    pub(super) viommu: u32,
    /// The driver's handle.
    pub(super) handle: u32,
    pub(super) request: HwQueueRequest,
}

impl Object {
    pub(super) fn kind(&self) -> ObjectKind {
        match self {
            Self::Ioas(_) => ObjectKind::Ioas,
            Self::NestParent(_) => ObjectKind::NestParent,
            Self::Viommu(_) => ObjectKind::Viommu,
            Self::Hwpt(_) => ObjectKind::NestedHwpt,
            Self::Device(_) => ObjectKind::Device,
            Self::Vdevice(_) => ObjectKind::Vdevice,
            Self::EventQueue { .. } => ObjectKind::EventQueue,
            Self::FaultQueue => ObjectKind::FaultQueue,
            Self::HwQueue(_) => ObjectKind::HwQueue,
        }
    }
}

macro_rules! typed {
    ($($name:ident $variant:ident $kind:ident),*) => {
        $(pub(super) fn $name(&self, id: u32) -> Result<&$variant, Cause> {
            match self.nodes.get(&id).map(|node| &node.object) {
                Some(Object::$variant(found)) => Ok(found),
                _ => Err(Cause::NotFound(ObjectKind::$kind)),
            }
        })*
    };
}

macro_rules! typed_mut {
    ($($name:ident $variant:ident $kind:ident),*) => {
        $(pub(super) fn $name(&mut self, id: u32) -> Result<&mut $variant, Cause> {
            match self.nodes.get_mut(&id).map(|node| &mut node.object) {
                Some(Object::$variant(found)) => Ok(found),
                _ => Err(Cause::NotFound(ObjectKind::$kind)),
            }
        })*
    };
}

impl Graph {
    pub(super) fn new(tags: Tags) -> Self {
        Self { last_id: 0, nodes: BTreeMap::new(), streams: BTreeMap::new(), tags, strays: BTreeMap::new() }
    }

    typed!(
        ioas Ioas Ioas,
        parent NestParent NestParent,
        viommu Viommu Viommu,
        hwpt Hwpt NestedHwpt,
        device Device Device,
        vdevice Vdevice Vdevice,
        hw_queue HwQueue HwQueue
    );
    typed_mut!(
        ioas_mut Ioas Ioas,
        parent_mut NestParent NestParent,
        hwpt_mut Hwpt NestedHwpt,
        viommu_mut Viommu Viommu,
        device_mut Device Device
    );

    /// Reserves an ID that was never given.
    pub(super) fn reserve(&mut self) -> Result<u32, Cause> {
        let id = self.last_id.checked_add(1);
        self.last_id = id.ok_or(Cause::Exhausted { pool: "object IDs", size: u64::from(u32::MAX) })?;
        Ok(self.last_id)
    }

    /// Publishes an object under its reserved ID.
    pub(super) fn publish(&mut self, id: u32, object: Object, uses: &[u32]) {
        for used in uses {
            self.link(*used, object.kind());
        }
        self.nodes.insert(id, Node { object, uses: uses.to_vec(), users: BTreeMap::new() });
    }

    /// Takes an object out; its users are not looked at.
    pub(super) fn remove(&mut self, id: u32) -> Option<Object> {
        let node = self.nodes.remove(&id)?;
        for used in node.uses {
            self.unlink(used, node.object.kind());
        }
        Some(node.object)
    }

    /// `used` has one more user of this kind.
    pub(super) fn link(&mut self, used: u32, kind: ObjectKind) {
        if let Some(node) = self.nodes.get_mut(&used) {
            *node.users.entry(kind).or_default() += 1;
        }
    }

    /// `used` has one user of this kind less.
    pub(super) fn unlink(&mut self, used: u32, kind: ObjectKind) {
        if let Some(node) = self.nodes.get_mut(&used) {
            let count = node.users.entry(kind).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                node.users.remove(&kind);
            }
        }
    }

    /// DMA of `stream` may go through `hwpt`, whatever it is attached to.
    pub(super) fn stray(&mut self, stream: u32, hwpt: u32) {
        if self.strays.entry(stream).or_default().insert(hwpt) {
            self.link(hwpt, ObjectKind::Device);
        }
    }

    /// DMA of `stream` goes through what it is attached to, for certain.
    pub(super) fn settled(&mut self, stream: u32) {
        for hwpt in self.strays.remove(&stream).unwrap_or_default() {
            self.unlink(hwpt, ObjectKind::Device);
        }
    }

    pub(super) fn is_astray(&self, stream: u32) -> bool {
        self.strays.contains_key(&stream)
    }

    /// Streams that may go through `hwpt` without being attached to it.
    pub(super) fn astray_in(&self, hwpt: u32) -> Vec<u32> {
        self.strays.iter().filter(|(_, hwpts)| hwpts.contains(&hwpt)).map(|(&stream, _)| stream).collect()
    }

    pub(super) fn kind(&self, id: u32) -> Option<ObjectKind> {
        self.nodes.get(&id).map(|node| node.object.kind())
    }

    /// EBUSY, naming the users, if something uses `id`.
    pub(super) fn unused(&self, id: u32) -> Result<(), Cause> {
        self.nodes.get(&id).map_or(Ok(()), |node| Cause::unless_unused(&node.users))
    }

    /// All objects, oldest first.
    pub(super) fn live(&self) -> Vec<(u32, ObjectKind)> {
        self.nodes.iter().map(|(&id, node)| (id, node.object.kind())).collect()
    }

    /// The nesting parents on an IOAS, oldest first.
    pub(super) fn parents_on(&self, ioas: u32) -> Vec<u32> {
        let on = |node: &Node| matches!(&node.object, Object::NestParent(parent) if parent.ioas == ioas);
        self.nodes.iter().filter(|(_, node)| on(node)).map(|(&id, _)| id).collect()
    }

    /// The nesting parent that a HWPT is nested in.
    pub(super) fn parent_of(&self, hwpt: u32) -> Result<&NestParent, Cause> {
        self.parent(self.viommu(self.hwpt(hwpt)?.viommu)?.parent)
    }

    /// The nesting parent, and every tag under which something of its guest may be cached.
    pub(super) fn tags_of(&self, parent: u32) -> Result<Vec<u32>, Cause> {
        let parent = self.parent(parent)?;
        let viommu = parent.viommu.and_then(|viommu| self.viommu(viommu).ok());
        let domains = viommu.into_iter().flat_map(|viommu| viommu.domains.values().map(|domain| domain.tag));
        Ok([parent.tag].into_iter().chain(domains).collect())
    }

    /// The shadow HWPTs of a vIOMMU.
    pub(super) fn shadows_of(&self, viommu: u32) -> Vec<u32> {
        let of =
            |node: &Node| matches!(&node.object, Object::Hwpt(hwpt) if hwpt.viommu == viommu && hwpt.shadow.is_some());
        self.nodes.iter().filter(|(_, node)| of(node)).map(|(&id, _)| id).collect()
    }

    /// Streams of the devices whose DMA goes through this vIOMMU.
    pub(super) fn streams_of(&self, viommu: u32) -> Vec<u32> {
        let through = |hwpt: u32| self.hwpt(hwpt).is_ok_and(|hwpt| hwpt.viommu == viommu);
        let devices = self
            .streams
            .iter()
            .filter(|&(_, &device)| self.device(device).is_ok_and(|device| device.attached.is_some_and(through)));
        devices.map(|(&stream, _)| stream).collect()
    }
}
