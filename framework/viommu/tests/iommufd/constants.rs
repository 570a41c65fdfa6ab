//! `uapi`'s constants are the C headers', as bindgen read them for the crate iommufd-bindings.

use iommufd_bindings as c;
use viommu::uapi::flags;

macro_rules! both {
    ($($ours:ident = $theirs:ident;)*) => {
        [$((stringify!($ours), u64::from(flags::$ours), u64::from(c::$theirs))),*]
    };
}

#[test]
fn constants_are_the_headers() {
    let both = both! {
        IOAS_MAP_FIXED_IOVA = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA;
        IOAS_MAP_WRITEABLE = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
        IOAS_MAP_READABLE = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
        OPTION_RLIMIT_MODE = iommufd_option_IOMMU_OPTION_RLIMIT_MODE;
        OPTION_HUGE_PAGES = iommufd_option_IOMMU_OPTION_HUGE_PAGES;
        OPTION_OP_SET = iommufd_option_ops_IOMMU_OPTION_OP_SET;
        OPTION_OP_GET = iommufd_option_ops_IOMMU_OPTION_OP_GET;
        VFIO_IOAS_GET = iommufd_vfio_ioas_op_IOMMU_VFIO_IOAS_GET;
        VFIO_IOAS_SET = iommufd_vfio_ioas_op_IOMMU_VFIO_IOAS_SET;
        VFIO_IOAS_CLEAR = iommufd_vfio_ioas_op_IOMMU_VFIO_IOAS_CLEAR;
        HWPT_ALLOC_NEST_PARENT = iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT;
        HWPT_ALLOC_DIRTY_TRACKING = iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
        HWPT_FAULT_ID_VALID = iommufd_hwpt_alloc_flags_IOMMU_HWPT_FAULT_ID_VALID;
        HWPT_ALLOC_PASID = iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID;
        VTD_S1_SRE = iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_SRE;
        VTD_S1_EAFE = iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_EAFE;
        VTD_S1_WPE = iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_WPE;
        HWPT_DATA_NONE = iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE;
        HWPT_DATA_VTD_S1 = iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1;
        HWPT_DATA_ARM_SMMUV3 = iommu_hwpt_data_type_IOMMU_HWPT_DATA_ARM_SMMUV3;
        HWPT_DATA_AMD_GUEST = iommu_hwpt_data_type_IOMMU_HWPT_DATA_AMD_GUEST;
        HW_INFO_VTD_ERRATA_772415_SPR17 = iommu_hw_info_vtd_flags_IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17;
        HW_INFO_TYPE_NONE = iommu_hw_info_type_IOMMU_HW_INFO_TYPE_NONE;
        HW_INFO_TYPE_INTEL_VTD = iommu_hw_info_type_IOMMU_HW_INFO_TYPE_INTEL_VTD;
        HW_INFO_TYPE_ARM_SMMUV3 = iommu_hw_info_type_IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
        HW_INFO_TYPE_TEGRA241_CMDQV = iommu_hw_info_type_IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV;
        HW_INFO_TYPE_AMD = iommu_hw_info_type_IOMMU_HW_INFO_TYPE_AMD;
        HW_CAP_DIRTY_TRACKING = iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING;
        HW_CAP_PCI_PASID_EXEC = iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_PASID_EXEC;
        HW_CAP_PCI_PASID_PRIV = iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_PASID_PRIV;
        HW_CAP_PCI_ATS_NOT_SUPPORTED = iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
        HW_INFO_FLAG_INPUT_TYPE = iommufd_hw_info_flags_IOMMU_HW_INFO_FLAG_INPUT_TYPE;
        PGFAULT_FLAGS_PASID_VALID = iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_PASID_VALID;
        PGFAULT_FLAGS_LAST_PAGE = iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_LAST_PAGE;
        PGFAULT_PERM_READ = iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_READ;
        PGFAULT_PERM_WRITE = iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_WRITE;
        PGFAULT_PERM_EXEC = iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_EXEC;
        PGFAULT_PERM_PRIV = iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_PRIV;
        PAGE_RESP_SUCCESS = iommufd_page_response_code_IOMMUFD_PAGE_RESP_SUCCESS;
        PAGE_RESP_INVALID = iommufd_page_response_code_IOMMUFD_PAGE_RESP_INVALID;
        VIOMMU_TYPE_DEFAULT = iommu_viommu_type_IOMMU_VIOMMU_TYPE_DEFAULT;
        VIOMMU_TYPE_ARM_SMMUV3 = iommu_viommu_type_IOMMU_VIOMMU_TYPE_ARM_SMMUV3;
        VIOMMU_TYPE_TEGRA241_CMDQV = iommu_viommu_type_IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV;
        VEVENTQ_FLAG_LOST_EVENTS = iommu_veventq_flag_IOMMU_VEVENTQ_FLAG_LOST_EVENTS;
        VEVENTQ_TYPE_DEFAULT = iommu_veventq_type_IOMMU_VEVENTQ_TYPE_DEFAULT;
        VEVENTQ_TYPE_ARM_SMMUV3 = iommu_veventq_type_IOMMU_VEVENTQ_TYPE_ARM_SMMUV3;
        VEVENTQ_TYPE_TEGRA241_CMDQV = iommu_veventq_type_IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV;
        HW_QUEUE_TYPE_DEFAULT = iommu_hw_queue_type_IOMMU_HW_QUEUE_TYPE_DEFAULT;
        HW_QUEUE_TYPE_TEGRA241_CMDQV = iommu_hw_queue_type_IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV;
        HWPT_DIRTY_TRACKING_ENABLE = iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
        HWPT_GET_DIRTY_BITMAP_NO_CLEAR = iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
        HWPT_INVALIDATE_DATA_VTD_S1 = iommu_hwpt_invalidate_data_type_IOMMU_HWPT_INVALIDATE_DATA_VTD_S1;
        VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = iommu_hwpt_invalidate_data_type_IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3;
        VTD_INV_FLAGS_LEAF = iommu_hwpt_vtd_s1_invalidate_flags_IOMMU_VTD_INV_FLAGS_LEAF;
    };
    for (name, ours, theirs) in both {
        assert_eq!(ours, theirs, "{name}");
    }
}
