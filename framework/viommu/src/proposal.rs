//! The words of the founding proposal (December 2023), each a few lines onto today's API.
//!
//! | proposal | today |
//! |---|---|
//! | [`VirtualFunction`] ("virtual function", Tegra's "virtual interface") | [`Viommu`] |
//! | [`DevAssignVirtualId`] / [`DevResignVirtualId`] | VDEVICE_ALLOC / DESTROY |
//! | [`SetIdevData`] / [`UnsetIdevData`] | the same |
//! | [`DevInvalidate`] | [`Device::invalidate`](crate::objects::Device::invalidate) |
//! | [`HwptInvalidate`] on any HWPT | HWPT_INVALIDATE on its vIOMMU |
//! | [`HwptCacheConfigTegra241Vcmdq`] | HW_QUEUE_ALLOC |
//!
//! The structs name objects by ID, as an ioctl would; there are no ioctl numbers, because none were ever assigned.

use crate::backend::ObjectKind;
use crate::objects::{HwQueue, NestParent, Vdevice, Viommu};
use crate::pipeline::Invalidated;
use crate::{Cause, Error, Host};

/// The proposal's name for a vIOMMU. In this field VF alone means SR-IOV, so nothing else here uses it.
#[doc(alias = "virtual function")]
#[doc(alias = "virtual interface")]
pub type VirtualFunction = Viommu;

/// What a virtual ID is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum IdType {
    /// Arm StreamID.
    StreamId = 0,
    /// AMD DeviceID.
    DeviceId = 1,
    /// PCI requester ID.
    Rid = 2,
}

/// To whom a virtual ID is given: AMD passes the virtual function, Arm its nesting parent, to which one is welded.
#[derive(Debug, Clone)]
pub enum AssignTo {
    /// A virtual function.
    VirtualFunction(VirtualFunction),
    /// A nesting parent: the vIOMMU welded to it.
    NestParent(NestParent),
}

impl From<&VirtualFunction> for AssignTo {
    fn from(virtual_function: &VirtualFunction) -> Self {
        Self::VirtualFunction(virtual_function.clone())
    }
}

impl From<&NestParent> for AssignTo {
    fn from(parent: &NestParent) -> Self {
        Self::NestParent(parent.clone())
    }
}

impl AssignTo {
    fn viommu(self) -> Result<Viommu, Error> {
        match self {
            Self::VirtualFunction(viommu) => Ok(viommu),
            Self::NestParent(parent) => welded(&parent),
        }
    }
}

fn welded(parent: &NestParent) -> Result<Viommu, Error> {
    let none = || Cause::NotFound(ObjectKind::Viommu).of(ObjectKind::NestParent, parent.id(), "find");
    parent.welded().ok_or_else(none)
}

/// `struct iommu_dev_assign_virtual_id`: gives a device its name in a guest.
#[doc(alias = "IOMMUFD_DEV_ASSIGN_VIRTUAL_ID")]
#[doc(alias = "iommu_dev_assign_virtual_id")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DevAssignVirtualId {
    /// Bytes of this struct: the field's own versioning rule.
    pub size: u32,
    /// The device.
    pub dev_id: u32,
    /// What `id` is.
    pub id_type: IdType,
    /// The guest's ID.
    pub id: u32,
}

impl DevAssignVirtualId {
    /// With `size` filled in.
    pub fn new(dev_id: u32, id_type: IdType, id: u32) -> Self {
        Self { size: size_of::<Self>() as u32, dev_id, id_type, id }
    }

    /// Assigns: today's VDEVICE_ALLOC.
    ///
    /// # Errors
    /// If `size` is another version's, `id_type` is not what this vendor calls its IDs (EINVAL), there is no such device
    /// (ENOENT), or as [`Viommu::vdevice`].
    pub async fn assign(&self, host: &Host, to: impl Into<AssignTo>) -> Result<Vdevice, Error> {
        let refused = |what: String| Cause::Invalid(what).of(ObjectKind::Vdevice, None, "assign");
        if self.size as usize != size_of::<Self>() {
            return Err(refused(format!("size is {}, not {}", self.size, size_of::<Self>())));
        }
        if let Some(ours) = IdType::of_vendor(&host.plugin().info().stream_name)
            && ours != self.id_type
        {
            return Err(refused(format!("this vendor's IDs are {ours:?}s, not {:?}s", self.id_type)));
        }
        to.into().viommu()?.vdevice(&host.find_device(self.dev_id)?, self.id).await
    }
}

impl IdType {
    /// What a vendor's IDs are, if the proposal knew that vendor.
    fn of_vendor(stream_name: &str) -> Option<Self> {
        let names = [("StreamID", Self::StreamId), ("DeviceID", Self::DeviceId), ("RID", Self::Rid)];
        let known = names.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(stream_name));
        known.map(|(_, id_type)| id_type)
    }
}

/// Takes the name away again.
#[doc(alias = "IOMMUFD_DEV_RESIGN_VIRTUAL_ID")]
#[derive(Debug)]
pub struct DevResignVirtualId {
    /// What [`DevAssignVirtualId::assign`] gave.
    pub vdevice: Vdevice,
}

impl DevResignVirtualId {
    /// Resigns: today's DESTROY of the vdevice.
    ///
    /// # Errors
    /// As [`Vdevice::destroy`].
    pub async fn resign(self) -> Result<(), Error> {
        self.vdevice.destroy().await
    }
}

/// The call before the proposal, which carried the virtual ID among a device's data.
#[doc(alias = "IOMMUFD_SET_IDEV_DATA")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetIdevData {
    /// The device.
    pub dev_id: u32,
    /// Its data: the ID.
    pub data: IdevData,
}

/// A device's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdevData {
    /// What `id` is.
    pub id_type: IdType,
    /// The guest's ID.
    pub id: u32,
}

impl SetIdevData {
    /// Sets: the same as to assign.
    ///
    /// # Errors
    /// As [`DevAssignVirtualId::assign`].
    pub async fn set(&self, host: &Host, to: impl Into<AssignTo>) -> Result<Vdevice, Error> {
        DevAssignVirtualId::new(self.dev_id, self.data.id_type, self.data.id).assign(host, to).await
    }
}

/// The reverse of [`SetIdevData`].
#[doc(alias = "IOMMUFD_UNSET_IDEV_DATA")]
#[derive(Debug)]
pub struct UnsetIdevData {
    /// What [`SetIdevData::set`] gave.
    pub vdevice: Vdevice,
}

impl UnsetIdevData {
    /// Unsets: the same as to resign.
    ///
    /// # Errors
    /// As [`Vdevice::destroy`].
    pub async fn unset(self) -> Result<(), Error> {
        self.vdevice.destroy().await
    }
}

/// ATC and CD invalidations of one device; the stream ID is forced, whatever the commands say.
#[doc(alias = "IOMMUFD_DEV_INVALIDATE")]
#[derive(Debug, Clone, Copy)]
pub struct DevInvalidate<'a> {
    /// The device.
    pub dev_id: u32,
    /// Guest command words.
    pub commands: &'a [u64],
}

impl DevInvalidate<'_> {
    /// Invalidates.
    ///
    /// # Errors
    /// If there is no such device (ENOENT), or as [`crate::objects::Device::invalidate`].
    pub async fn invalidate(&self, host: &Host) -> Result<Invalidated, Error> {
        host.find_device(self.dev_id)?.invalidate(self.commands).await
    }
}

/// IOTLB invalidation with any HWPT as target. A nesting parent or an Arm nested HWPT leads to its vIOMMU.
#[doc(alias = "IOMMU_HWPT_INVALIDATE")]
#[derive(Debug, Clone, Copy)]
pub struct HwptInvalidate<'a> {
    /// A nested HWPT, a nesting parent, or a vIOMMU.
    pub hwpt_id: u32,
    /// Guest command words.
    pub commands: &'a [u64],
}

impl HwptInvalidate<'_> {
    /// Invalidates.
    ///
    /// # Errors
    /// If there is no such object (ENOENT), or as [`Viommu::invalidate`].
    pub async fn invalidate(&self, host: &Host) -> Result<Invalidated, Error> {
        let viommu = if let Ok(nested) = host.find_nested_hwpt(self.hwpt_id) {
            nested.viommu().clone()
        } else if let Ok(parent) = host.find_nest_parent(self.hwpt_id) {
            welded(&parent)?
        } else {
            host.find_viommu(self.hwpt_id)?
        };
        viommu.invalidate(self.commands).await
    }
}

/// `struct iommu_hwpt_cache_config_tegra241_vcmdq`: a queue the guest drives itself.
#[doc(alias = "iommu_hwpt_cache_config_tegra241_vcmdq")]
#[doc(alias = "mmapable queue")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct HwptCacheConfigTegra241Vcmdq {
    /// Queue ID.
    pub vcmdq_id: u32,
    /// log2 of the size in commands of 16 bytes.
    pub vcmdq_log2size: u32,
    /// Guest physical address.
    pub vcmdq_base: u64,
}

impl HwptCacheConfigTegra241Vcmdq {
    /// Configures: today's HW_QUEUE_ALLOC.
    ///
    /// # Errors
    /// If the size is beyond 2^19 commands (EINVAL), or as [`Viommu::hw_queue`].
    pub async fn configure(&self, virtual_function: &VirtualFunction) -> Result<HwQueue, Error> {
        if self.vcmdq_log2size > 19 {
            let what = format!("2^{} commands are more than 2^19", self.vcmdq_log2size);
            return Err(Cause::Invalid(what).of(ObjectKind::HwQueue, None, "alloc"));
        }
        virtual_function.hw_queue(self.vcmdq_id, self.vcmdq_base, 16 << self.vcmdq_log2size).await
    }
}
