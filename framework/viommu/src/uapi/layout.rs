//! Arguments of the commands: what is behind an ioctl's pointer.

#[cfg(doc)]
use super::flags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// DESTROY: destroys an object by its ID; EBUSY while something uses it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Destroy {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The object.
    pub id: u32,
}

/// IOAS_ALLOC: allocates an IOAS.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// The IOAS.
    pub out_ioas_id: u32,
}

/// IOAS_ALLOW_IOVAS: narrows where automatic IOVAs come from.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasAllowIovas {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// Ranges at `allowed_iovas`.
    pub num_iovas: u32,
    /// Zero.
    pub __reserved: u32,
    /// Pointer to [`IovaRange`]s.
    pub allowed_iovas: u64,
}

/// IOAS_COPY: maps what another IOAS maps.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasCopy {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::IOAS_MAP_FIXED_IOVA`] and its kind.
    pub flags: u32,
    /// Where to.
    pub dst_ioas_id: u32,
    /// Where from.
    pub src_ioas_id: u32,
    /// Bytes.
    pub length: u64,
    /// In, or out without a fixed IOVA.
    pub dst_iova: u64,
    /// The first IOVA there.
    pub src_iova: u64,
}

/// IOAS_IOVA_RANGES: which IOVAs can be used.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasIovaRanges {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// In: room; out: ranges there are.
    pub num_iovas: u32,
    /// Zero.
    pub __reserved: u32,
    /// Pointer to room for [`IovaRange`]s.
    pub allowed_iovas: u64,
    /// What mappings are aligned to.
    pub out_iova_alignment: u64,
}

/// IOAS_MAP: maps memory of this process.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasMap {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::IOAS_MAP_FIXED_IOVA`] and its kind.
    pub flags: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// Zero.
    pub __reserved: u32,
    /// The memory.
    pub user_va: u64,
    /// Bytes.
    pub length: u64,
    /// In, or out without a fixed IOVA.
    pub iova: u64,
}

/// IOAS_UNMAP: unmaps whole mappings.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasUnmap {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// The first IOVA.
    pub iova: u64,
    /// In: bytes; out: bytes unmapped.
    pub length: u64,
}

/// OPTION: reads or sets an option.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OptionArgument {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::OPTION_RLIMIT_MODE`] or [`flags::OPTION_HUGE_PAGES`].
    pub option_id: u32,
    /// [`flags::OPTION_OP_SET`] or [`flags::OPTION_OP_GET`].
    pub op: u16,
    /// Zero.
    pub __reserved: u16,
    /// Which object's, or zero.
    pub object_id: u32,
    /// The value.
    pub val64: u64,
}

/// VFIO_IOAS: which IOAS the VFIO container calls mean.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioIoas {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// [`flags::VFIO_IOAS_GET`] and its kind.
    pub op: u16,
    /// Zero.
    pub __reserved: u16,
}

/// HWPT_ALLOC: allocates a paging or nested HWPT.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::HWPT_ALLOC_NEST_PARENT`] and its kind.
    pub flags: u32,
    /// A device behind the IOMMU it is for.
    pub dev_id: u32,
    /// An IOAS, a nesting parent, or a vIOMMU.
    pub pt_id: u32,
    /// The HWPT.
    pub out_hwpt_id: u32,
    /// Zero.
    pub __reserved: u32,
    /// [`flags::HWPT_DATA_NONE`] and its kind.
    pub data_type: u32,
    /// Bytes at `data_uptr`.
    pub data_len: u32,
    /// Pointer to the vendor's payload.
    pub data_uptr: u64,
    /// With [`flags::HWPT_FAULT_ID_VALID`].
    pub fault_id: u32,
    /// Zero.
    pub __reserved2: u32,
}

/// GET_HW_INFO: what a device's IOMMU can do.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfo {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::HW_INFO_FLAG_INPUT_TYPE`].
    pub flags: u32,
    /// The device.
    pub dev_id: u32,
    /// In: room; out: bytes the kernel has.
    pub data_len: u32,
    /// Pointer to room for the vendor's payload.
    pub data_uptr: u64,
    /// In with the flag, and out: [`flags::HW_INFO_TYPE_NONE`] and its kind.
    pub data_type: u32,
    /// Width of PASIDs; zero without.
    pub out_max_pasid_log2: u8,
    /// Zero.
    pub __reserved: [u8; 3],
    /// [`flags::HW_CAP_DIRTY_TRACKING`] and its kind.
    pub out_capabilities: u64,
}

/// HWPT_SET_DIRTY_TRACKING: turns dirty tracking on or off.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptSetDirtyTracking {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::HWPT_DIRTY_TRACKING_ENABLE`] or zero.
    pub flags: u32,
    /// The HWPT.
    pub hwpt_id: u32,
    /// Zero.
    pub __reserved: u32,
}

/// HWPT_GET_DIRTY_BITMAP: reads, and clears, which pages were written.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptGetDirtyBitmap {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The HWPT.
    pub hwpt_id: u32,
    /// [`flags::HWPT_GET_DIRTY_BITMAP_NO_CLEAR`] or zero.
    pub flags: u32,
    /// Zero.
    pub __reserved: u32,
    /// The first IOVA.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// Bytes a bit.
    pub page_size: u64,
    /// Pointer to 64-bit words; bits are only ever set.
    pub data: u64,
}

/// HWPT_INVALIDATE: invalidates what hardware cached of a guest's tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptInvalidate {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// A nested HWPT or a vIOMMU.
    pub hwpt_id: u32,
    /// Pointer to the entries.
    pub data_uptr: u64,
    /// [`flags::HWPT_INVALIDATE_DATA_VTD_S1`] and its kind.
    pub data_type: u32,
    /// Bytes an entry.
    pub entry_len: u32,
    /// In: entries; out: how many the driver says it handled, an upper bound.
    pub entry_num: u32,
    /// Zero.
    pub __reserved: u32,
}

/// FAULT_QUEUE_ALLOC: allocates a queue of page requests.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FaultAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// The queue.
    pub out_fault_id: u32,
    /// Its file descriptor.
    pub out_fault_fd: u32,
}

/// IOAS_MAP_FILE: maps a memfd.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasMapFile {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`flags::IOAS_MAP_FIXED_IOVA`] and its kind.
    pub flags: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// The memfd.
    pub fd: i32,
    /// Bytes into it.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// In, or out without a fixed IOVA.
    pub iova: u64,
}

/// VIOMMU_ALLOC: allocates a vIOMMU on a nesting parent.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ViommuAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// [`flags::VIOMMU_TYPE_ARM_SMMUV3`] and its kind.
    pub r#type: u32,
    /// A device behind the IOMMU it is a part of.
    pub dev_id: u32,
    /// The nesting parent.
    pub hwpt_id: u32,
    /// The vIOMMU.
    pub out_viommu_id: u32,
    /// Bytes at `data_uptr`.
    pub data_len: u32,
    /// Zero.
    pub __reserved: u32,
    /// Pointer to the vendor's payload, in and out.
    pub data_uptr: u64,
}

/// VDEVICE_ALLOC: gives a device the guest's name for it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VdeviceAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// The vIOMMU.
    pub viommu_id: u32,
    /// The device.
    pub dev_id: u32,
    /// The vdevice.
    pub out_vdevice_id: u32,
    /// The guest's name: vSID, vDeviceID, vRID.
    pub virt_id: u64,
}

/// IOAS_CHANGE_PROCESS: accounts pinned memory to the calling process from now on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasChangeProcess {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub __reserved: u32,
}

/// VEVENTQ_ALLOC: allocates a queue of a vIOMMU's events.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VeventqAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// The vIOMMU.
    pub viommu_id: u32,
    /// [`flags::VEVENTQ_TYPE_ARM_SMMUV3`] and its kind.
    pub r#type: u32,
    /// Records it holds.
    pub veventq_depth: u32,
    /// The queue.
    pub out_veventq_id: u32,
    /// Its file descriptor.
    pub out_veventq_fd: u32,
    /// Zero.
    pub __reserved: u32,
}

/// HW_QUEUE_ALLOC: lets hardware read a queue in the guest's memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwQueueAlloc {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// The vIOMMU.
    pub viommu_id: u32,
    /// [`flags::HW_QUEUE_TYPE_TEGRA241_CMDQV`] and its kind.
    pub r#type: u32,
    /// Which of the vIOMMU's.
    pub index: u32,
    /// The queue.
    pub out_hw_queue_id: u32,
    /// Where it is in the nesting parent.
    pub nesting_parent_iova: u64,
    /// Bytes.
    pub length: u64,
}

/// IOAS_NOIOMMU_GET_PA: physical address behind an IOVA of a device without an IOMMU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoasNoiommuGetPa {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// The IOAS.
    pub ioas_id: u32,
    /// Zero.
    pub __reserved: u32,
    /// The IOVA.
    pub iova: u64,
    /// In: bytes; out: bytes in one piece.
    pub length: u64,
    /// The physical address.
    pub out_phys: u64,
}

/// A range of IOVAs (IOAS_ALLOW_IOVAS, IOAS_IOVA_RANGES).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IovaRange {
    /// The first.
    pub start: u64,
    /// The last.
    pub last: u64,
}

/// VFIO_DEVICE_BIND_IOMMUFD (0x3b76): opens a VFIO device through an iommufd.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioDeviceBind {
    /// Bytes of this struct; at least 16.
    pub argsz: u32,
    /// [`flags::VFIO_DEVICE_BIND_FLAG_TOKEN`] or zero.
    pub flags: u32,
    /// The iommufd.
    pub iommufd: i32,
    /// The device's ID there.
    pub out_devid: u32,
    /// Pointer to the token's 16 bytes.
    pub token_uuid_ptr: u64,
}

/// VFIO_DEVICE_ATTACH_IOMMUFD_PT (0x3b77): attaches a bound device, or one of its PASIDs, to an IOAS or HWPT.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioDeviceAttach {
    /// Bytes of this struct; at least 12.
    pub argsz: u32,
    /// [`flags::VFIO_DEVICE_ATTACH_PASID`] or zero.
    pub flags: u32,
    /// In: an IOAS or HWPT; out: the HWPT.
    pub pt_id: u32,
    /// With the flag.
    pub pasid: u32,
}

/// VFIO_DEVICE_DETACH_IOMMUFD_PT (0x3b78): detaches; DMA is blocked from then on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioDeviceDetach {
    /// Bytes of this struct; at least 8.
    pub argsz: u32,
    /// [`flags::VFIO_DEVICE_DETACH_PASID`] or zero.
    pub flags: u32,
    /// With the flag.
    pub pasid: u32,
}

/// VFIO_DEVICE_GET_REGION_INFO (0x3b6c): where a region of a device is in its file.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioRegionInfo {
    /// Bytes of this struct.
    pub argsz: u32,
    /// What can be done with it.
    pub flags: u32,
    /// The region.
    pub index: u32,
    /// Where its capabilities begin, if they fit.
    pub cap_offset: u32,
    /// Bytes of the region.
    pub size: u64,
    /// Where in the file it begins.
    pub offset: u64,
}

/// VFIO_DEVICE_SET_IRQS (0x3b6e): who is told of interrupts. `count` eventfds (`i32`) may follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VfioIrqSet {
    /// Bytes of this struct and of what follows it.
    pub argsz: u32,
    /// [`flags::VFIO_IRQ_SET_DATA_EVENTFD`] and its kind.
    pub flags: u32,
    /// Kind of interrupt.
    pub index: u32,
    /// The first of that kind.
    pub start: u32,
    /// How many.
    pub count: u32,
}
