//! Constants, by the command they belong to.

// IOAS_MAP, IOAS_MAP_FILE, IOAS_COPY

/// The caller says the IOVA.
pub const IOAS_MAP_FIXED_IOVA: u32 = 1;
/// Devices may write.
pub const IOAS_MAP_WRITEABLE: u32 = 2;
/// Devices may read.
pub const IOAS_MAP_READABLE: u32 = 4;

// OPTION

/// How pinned memory is accounted: 0 by user, 1 by process.
pub const OPTION_RLIMIT_MODE: u32 = 0;
/// Whether mappings of an IOAS may become huge.
pub const OPTION_HUGE_PAGES: u32 = 1;
/// Sets.
pub const OPTION_OP_SET: u16 = 0;
/// Reads.
pub const OPTION_OP_GET: u16 = 1;

// VFIO_IOAS

/// Reads.
pub const VFIO_IOAS_GET: u16 = 0;
/// Sets.
pub const VFIO_IOAS_SET: u16 = 1;
/// Forgets.
pub const VFIO_IOAS_CLEAR: u16 = 2;

// HWPT_ALLOC

/// A parent for nesting.
pub const HWPT_ALLOC_NEST_PARENT: u32 = 1;
/// Can track dirty pages.
pub const HWPT_ALLOC_DIRTY_TRACKING: u32 = 2;
/// `fault_id` says where page requests go.
pub const HWPT_FAULT_ID_VALID: u32 = 4;
/// Devices that use PASIDs may be attached.
pub const HWPT_ALLOC_PASID: u32 = 8;
/// No payload.
pub const HWPT_DATA_NONE: u32 = 0;
/// [`super::payload::HwptVtdS1`].
pub const HWPT_DATA_VTD_S1: u32 = 1;
/// [`super::payload::HwptArmSmmuv3`].
pub const HWPT_DATA_ARM_SMMUV3: u32 = 2;
/// [`super::payload::HwptAmdGuest`].
pub const HWPT_DATA_AMD_GUEST: u32 = 3;
/// Supervisor requests.
pub const VTD_S1_SRE: u64 = 1;
/// Extended accessed flag.
pub const VTD_S1_EAFE: u64 = 2;
/// Write protection.
pub const VTD_S1_WPE: u64 = 4;

// GET_HW_INFO

/// `data_type` says which payload.
pub const HW_INFO_FLAG_INPUT_TYPE: u32 = 1;
/// No payload; as input, the default one.
pub const HW_INFO_TYPE_NONE: u32 = 0;
/// [`super::payload::HwInfoVtd`].
pub const HW_INFO_TYPE_INTEL_VTD: u32 = 1;
/// [`super::payload::HwInfoArmSmmuv3`].
pub const HW_INFO_TYPE_ARM_SMMUV3: u32 = 2;
/// [`super::payload::HwInfoTegra241Cmdqv`].
pub const HW_INFO_TYPE_TEGRA241_CMDQV: u32 = 3;
/// [`super::payload::HwInfoAmd`].
pub const HW_INFO_TYPE_AMD: u32 = 4;
/// Dirty tracking.
pub const HW_CAP_DIRTY_TRACKING: u64 = 1;
/// PASIDs with execute permission.
pub const HW_CAP_PCI_PASID_EXEC: u64 = 2;
/// PASIDs with privileged mode.
pub const HW_CAP_PCI_PASID_PRIV: u64 = 4;
/// No ATS.
pub const HW_CAP_PCI_ATS_NOT_SUPPORTED: u64 = 8;
/// No read-only mappings in a nesting parent.
pub const HW_INFO_VTD_ERRATA_772415_SPR17: u32 = 1;
/// Every TLBI and CFGI, with its SYNC, is issued twice.
pub const HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI: u32 = 1;

// HWPT_SET_DIRTY_TRACKING, HWPT_GET_DIRTY_BITMAP

/// On.
pub const HWPT_DIRTY_TRACKING_ENABLE: u32 = 1;
/// Read, and clear nothing.
pub const HWPT_GET_DIRTY_BITMAP_NO_CLEAR: u32 = 1;

// HWPT_INVALIDATE

/// [`super::payload::HwptVtdS1Invalidate`].
pub const HWPT_INVALIDATE_DATA_VTD_S1: u32 = 0;
/// [`super::payload::ViommuArmSmmuv3Invalidate`].
pub const VIOMMU_INVALIDATE_DATA_ARM_SMMUV3: u32 = 1;
/// Leaves only.
pub const VTD_INV_FLAGS_LEAF: u32 = 1;
/// Entries a call at most.
pub const INVALIDATE_ENTRIES_MAX: u32 = 0x80000;

// FAULT queues

/// `pasid` counts.
pub const PGFAULT_FLAGS_PASID_VALID: u32 = 1;
/// The group is whole.
pub const PGFAULT_FLAGS_LAST_PAGE: u32 = 2;
/// To read.
pub const PGFAULT_PERM_READ: u32 = 1;
/// To write.
pub const PGFAULT_PERM_WRITE: u32 = 2;
/// To execute.
pub const PGFAULT_PERM_EXEC: u32 = 4;
/// Privileged.
pub const PGFAULT_PERM_PRIV: u32 = 8;
/// Try again.
pub const PAGE_RESP_SUCCESS: u32 = 0;
/// Give up.
pub const PAGE_RESP_INVALID: u32 = 1;

// VIOMMU_ALLOC

/// None.
pub const VIOMMU_TYPE_DEFAULT: u32 = 0;
/// Arm.
pub const VIOMMU_TYPE_ARM_SMMUV3: u32 = 1;
/// Arm with NVIDIA's CMDQV.
pub const VIOMMU_TYPE_TEGRA241_CMDQV: u32 = 2;

// VEVENTQ_ALLOC

/// None.
pub const VEVENTQ_TYPE_DEFAULT: u32 = 0;
/// [`super::payload::VeventArmSmmuv3`].
pub const VEVENTQ_TYPE_ARM_SMMUV3: u32 = 1;
/// [`super::payload::VeventTegra241Cmdqv`].
pub const VEVENTQ_TYPE_TEGRA241_CMDQV: u32 = 2;
/// Events were lost; there is no payload.
pub const VEVENTQ_FLAG_LOST_EVENTS: u32 = 1;
/// Records a queue holds at most.
pub const VEVENTQ_DEPTH_MAX: u32 = 0x80000;

// HW_QUEUE_ALLOC

/// None.
pub const HW_QUEUE_TYPE_DEFAULT: u32 = 0;
/// A virtual command queue.
pub const HW_QUEUE_TYPE_TEGRA241_CMDQV: u32 = 1;

// VFIO devices

/// ioctl code.
pub const VFIO_DEVICE_GET_INFO: u32 = 0x3b6b;
/// ioctl code.
pub const VFIO_DEVICE_GET_REGION_INFO: u32 = 0x3b6c;
/// ioctl code.
pub const VFIO_DEVICE_SET_IRQS: u32 = 0x3b6e;
/// ioctl code.
pub const VFIO_DEVICE_RESET: u32 = 0x3b6f;
/// ioctl code.
pub const VFIO_DEVICE_FEATURE: u32 = 0x3b75;
/// ioctl code.
pub const VFIO_DEVICE_BIND_IOMMUFD: u32 = 0x3b76;
/// ioctl code.
pub const VFIO_DEVICE_ATTACH_IOMMUFD_PT: u32 = 0x3b77;
/// ioctl code.
pub const VFIO_DEVICE_DETACH_IOMMUFD_PT: u32 = 0x3b78;
/// A token comes along.
pub const VFIO_DEVICE_BIND_FLAG_TOKEN: u32 = 1;
/// One PASID.
pub const VFIO_DEVICE_ATTACH_PASID: u32 = 1;
/// One PASID.
pub const VFIO_DEVICE_DETACH_PASID: u32 = 1;
/// Nothing follows.
pub const VFIO_IRQ_SET_DATA_NONE: u32 = 1;
/// Eventfds follow.
pub const VFIO_IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
/// What is to happen when the interrupt is raised.
pub const VFIO_IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;
