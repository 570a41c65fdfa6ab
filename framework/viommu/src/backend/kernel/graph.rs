//! The framework's numbers for the kernel's objects. The kernel gives a freed number again at once; the framework never.

use super::handle::Owned;
use super::page::Page;
use super::shadow::Shadow;
use super::sink::KernelSink;
use super::targets::Targets;
use super::vfio::VfioDevice;
use crate::Cause;
use crate::backend::ObjectKind;
use crate::backend::shadow::Mappings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use viommu_plugin::{EntryKey, VirtualInterface};

/// Host streams of a vIOMMU's devices by the guest's numbers.
pub(super) type Names = Arc<Mutex<BTreeMap<u32, u32>>>;

/// One object.
pub(super) enum Object {
    Ioas(Ioas),
    NestParent(NestParent),
    Viommu(Viommu),
    Hwpt(Hwpt),
    Device(Device),
    Vdevice(Vdevice),
    HwQueue(HwQueue),
    EventQueue(EventQueue),
    FaultQueue(Owned),
}

/// An IOAS, and what is mapped in it, by IOVA.
pub(super) struct Ioas {
    pub(super) kernel: Owned,
    pub(super) mappings: Mappings,
}

pub(super) struct NestParent {
    pub(super) ioas: u32,
    pub(super) kernel: Owned,
}

pub(super) struct Viommu {
    pub(super) parent: u32,
    /// None where the kernel nests on the parent itself.
    pub(super) kernel: Option<Owned>,
    pub(super) abort: u32,
    pub(super) bypass: u32,
    pub(super) names: Names,
    pub(super) targets: Arc<Targets>,
    pub(super) sink: Arc<KernelSink>,
    /// What the driver answered: registers that the guest may touch.
    pub(super) interface: Option<VirtualInterface>,
    pub(super) page: Option<Arc<Page>>,
}

/// Where a device's DMA goes with this HWPT.
pub(super) enum Place {
    /// An HWPT of the kernel's.
    Object(Owned),
    /// A copy of the guest's page table.
    Shadow(Shadow),
    /// The vIOMMU's nesting parent.
    Parent,
    /// Nowhere: the device is detached.
    Nowhere,
}

pub(super) struct Hwpt {
    pub(super) viommu: u32,
    pub(super) key: EntryKey,
    pub(super) place: Place,
}

pub(super) struct Device {
    pub(super) stream: u32,
    pub(super) vfio: Arc<VfioDevice>,
    pub(super) attached: Option<u32>,
}

pub(super) struct Vdevice {
    pub(super) viommu: u32,
    pub(super) device: u32,
    pub(super) virt_id: u32,
    pub(super) kernel: Option<Owned>,
}

pub(super) struct HwQueue {
    pub(super) viommu: u32,
    pub(super) index: u32,
    pub(super) kernel: Owned,
}

/// A vIOMMU's queues of events: one for each type that its vendor has.
pub(super) struct EventQueue {
    pub(super) viommu: u32,
    /// With their types.
    pub(super) kernel: Vec<(u32, Owned)>,
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
            Self::HwQueue(_) => ObjectKind::HwQueue,
            Self::EventQueue(_) => ObjectKind::EventQueue,
            Self::FaultQueue(_) => ObjectKind::FaultQueue,
        }
    }
}

impl Object {
    /// The kernel's ID, of what is one object of the kernel's.
    pub(super) fn kernel_id(&self) -> Option<u32> {
        match self {
            Self::Ioas(Ioas { kernel, .. }) | Self::NestParent(NestParent { kernel, .. }) => Some(kernel.id()),
            Self::HwQueue(HwQueue { kernel, .. }) | Self::FaultQueue(kernel) => Some(kernel.id()),
            Self::Viommu(Viommu { kernel, .. }) | Self::Vdevice(Vdevice { kernel, .. }) => {
                kernel.as_ref().map(Owned::id)
            }
            Self::Hwpt(Hwpt { place: Place::Object(kernel), .. }) => Some(kernel.id()),
            Self::Hwpt(Hwpt { place: Place::Shadow(shadow), .. }) => Some(shadow.hwpt.id()),
            Self::Device(device) => Some(device.vfio.id()),
            Self::Hwpt(_) | Self::EventQueue(_) => None,
        }
    }
}

/// All objects of one backend.
#[derive(Default)]
pub(super) struct Graph {
    pub(super) last_id: u32,
    pub(super) objects: BTreeMap<u32, Object>,
    /// Bound devices that no device object has, by stream.
    pub(super) idle: BTreeMap<u32, Arc<VfioDevice>>,
    /// Taken over from an earlier process, and not asked for by this one yet.
    pub(super) unclaimed: BTreeSet<u32>,
    /// Everything is another process's.
    pub(super) handed_over: bool,
    /// Mappings taken over, and not asked for yet.
    pub(super) adopted_mappings: super::adopt::AdoptedMappings,
}

macro_rules! typed {
    ($($name:ident $name_mut:ident $kind:ident $what:ty;)*) => {
        $(
            pub(super) fn $name(&self, id: u32) -> Result<&$what, Cause> {
                match self.objects.get(&id) {
                    Some(Object::$kind(found)) => Ok(found),
                    _ => Err(Cause::NotFound(ObjectKind::$kind)),
                }
            }
            #[allow(dead_code)] // not every kind changes
            pub(super) fn $name_mut(&mut self, id: u32) -> Result<&mut $what, Cause> {
                match self.objects.get_mut(&id) {
                    Some(Object::$kind(found)) => Ok(found),
                    _ => Err(Cause::NotFound(ObjectKind::$kind)),
                }
            }
        )*
    };
}

impl Graph {
    typed! {
        ioas ioas_mut Ioas Ioas;
        parent parent_mut NestParent NestParent;
        viommu viommu_mut Viommu Viommu;
        device device_mut Device Device;
    }

    pub(super) fn hwpt(&self, id: u32) -> Result<&Hwpt, Cause> {
        match self.objects.get(&id) {
            Some(Object::Hwpt(hwpt)) => Ok(hwpt),
            _ => Err(Cause::NotFound(ObjectKind::NestedHwpt)),
        }
    }

    /// A number that nothing had.
    pub(super) fn reserve(&mut self) -> Result<u32, Cause> {
        let exhausted = Cause::Exhausted { pool: "object IDs", size: u64::from(u32::MAX) };
        self.last_id = self.last_id.checked_add(1).ok_or(exhausted)?;
        Ok(self.last_id)
    }

    pub(super) fn add(&mut self, object: Object) -> Result<u32, Cause> {
        let id = self.reserve()?;
        self.objects.insert(id, object);
        Ok(id)
    }

    /// An object that was taken over and is what is asked for: it is this process's from now on.
    pub(super) fn claim(&mut self, is: impl Fn(&Object) -> bool) -> Option<u32> {
        let found = self.unclaimed.iter().copied().find(|id| self.objects.get(id).is_some_and(&is))?;
        self.unclaimed.remove(&found);
        Some(found)
    }

    /// The kernel's nesting parent of a vIOMMU.
    pub(super) fn parent_of(&self, viommu: u32) -> Result<&NestParent, Cause> {
        self.parent(self.viommu(viommu)?.parent)
    }

    /// Devices that go through this HWPT.
    pub(super) fn attached_to(&self, hwpt: u32) -> Vec<u32> {
        let through = |object: &Object| matches!(object, Object::Device(device) if device.attached == Some(hwpt));
        self.objects.iter().filter(|(_, object)| through(object)).map(|(id, _)| *id).collect()
    }

    /// The device object of this stream.
    pub(super) fn device_of(&self, stream: u32) -> Option<u32> {
        let is = |object: &Object| matches!(object, Object::Device(device) if device.stream == stream);
        self.objects.iter().find(|(_, object)| is(object)).map(|(id, _)| *id)
    }

    /// The guest's number of a device, if it has one.
    pub(super) fn name_of(&self, device: u32) -> Option<u32> {
        self.objects.values().find_map(|object| match object {
            Object::Vdevice(vdevice) if vdevice.device == device => Some(vdevice.virt_id),
            _ => None,
        })
    }

    /// The kernel's queue that page requests of nested HWPTs made from now on go to: the latest there is.
    pub(super) fn fault_queue(&self) -> Option<u32> {
        self.objects.values().rev().find_map(|object| match object {
            Object::FaultQueue(queue) => Some(queue.id()),
            _ => None,
        })
    }

    /// A bound device, to ask the kernel about the IOMMU that it and all others are behind.
    pub(super) fn any_device(&self) -> Result<u32, Cause> {
        let taken = self.objects.values().find_map(|object| match object {
            Object::Device(device) => Some(device.vfio.id()),
            _ => None,
        });
        let idle = self.idle.values().next().map(|vfio| vfio.id());
        let none = || Cause::Absent("no device is bound: the kernel knows an IOMMU by its devices".into());
        taken.or(idle).ok_or_else(none)
    }

    /// EBUSY, naming the users, if something uses `id`.
    pub(super) fn unused(&self, id: u32) -> Result<(), Cause> {
        let uses = |object: &Object| match object {
            Object::NestParent(parent) => parent.ioas == id,
            Object::Viommu(viommu) => viommu.parent == id,
            // Abort and bypass go with their vIOMMU.
            Object::Hwpt(hwpt) => hwpt.viommu == id && hwpt.key.kind == viommu_plugin::KeyKind::TRANSLATE,
            Object::Vdevice(vdevice) => vdevice.viommu == id || vdevice.device == id,
            Object::HwQueue(queue) => queue.viommu == id,
            Object::EventQueue(queue) => queue.viommu == id,
            Object::Device(device) => device.attached == Some(id),
            Object::Ioas(_) | Object::FaultQueue(_) => false,
        };
        let mut users = BTreeMap::<ObjectKind, u32>::new();
        for object in self.objects.values().filter(|object| uses(object)) {
            *users.entry(object.kind()).or_default() += 1;
        }
        Cause::unless_unused(&users)
    }
}

impl Drop for Graph {
    /// Everything the kernel has of it goes, users before what they use.
    fn drop(&mut self) {
        if self.handed_over {
            // Each knows that it is no more this process's.
            return;
        }
        for object in self.objects.values() {
            if let Object::Device(device) = object
                && let Err(error) = device.vfio.detach(None)
            {
                tracing::warn!(%error, "a device stays attached until its file is closed");
            }
            if let Object::Viommu(Viommu { page: Some(page), .. }) = object {
                page.unmap();
            }
        }
        // Later objects use earlier ones, but for a vIOMMU's own HWPTs, which have later numbers than it has.
        while let Some((_, object)) = self.objects.pop_last() {
            drop(object);
        }
    }
}
