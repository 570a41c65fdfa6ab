//! What pointers in arguments lead to, by vendor, and the records of event queues.

#[cfg(doc)]
use super::flags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// HWPT_ALLOC with [`flags::HWPT_DATA_VTD_S1`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptVtdS1 {
    /// [`flags::VTD_S1_SRE`] and its kind.
    pub flags: u64,
    /// The guest's first-stage table, in the parent's IOVAs.
    pub pgtbl_addr: u64,
    /// 48 or 57.
    pub addr_width: u32,
    /// Zero.
    pub __reserved: u32,
}

/// HWPT_ALLOC with [`flags::HWPT_DATA_ARM_SMMUV3`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptArmSmmuv3 {
    /// The first two words of the guest's STE, little-endian.
    pub ste: [u64; 2],
}

/// HWPT_ALLOC with [`flags::HWPT_DATA_AMD_GUEST`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptAmdGuest {
    /// The guest's DTE.
    pub dte: [u64; 4],
}

/// GET_HW_INFO of [`flags::HW_INFO_TYPE_INTEL_VTD`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfoVtd {
    /// [`flags::HW_INFO_VTD_ERRATA_772415_SPR17`].
    pub flags: u32,
    /// Zero.
    pub __reserved: u32,
    /// CAP_REG.
    pub cap_reg: u64,
    /// ECAP_REG.
    pub ecap_reg: u64,
}

/// GET_HW_INFO of [`flags::HW_INFO_TYPE_ARM_SMMUV3`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfoArmSmmuv3 {
    /// [`flags::HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI`].
    pub flags: u32,
    /// Zero.
    pub __reserved: u32,
    /// SMMU_IDR0 to 5.
    pub idr: [u32; 6],
    /// SMMU_IIDR.
    pub iidr: u32,
    /// SMMU_AIDR.
    pub aidr: u32,
}

/// GET_HW_INFO of [`flags::HW_INFO_TYPE_TEGRA241_CMDQV`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfoTegra241Cmdqv {
    /// Zero.
    pub flags: u32,
    /// Of the unit.
    pub version: u8,
    /// Queues a vIOMMU can have, as a power of two.
    pub log2vcmdqs: u8,
    /// vSIDs a vIOMMU can have, as a power of two.
    pub log2vsids: u8,
    /// Zero.
    pub __reserved: u8,
}

/// GET_HW_INFO of [`flags::HW_INFO_TYPE_AMD`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfoAmd {
    /// Extended Feature Register.
    pub efr: u64,
    /// Extended Feature 2 Register.
    pub efr2: u64,
}

/// An entry of HWPT_INVALIDATE with [`flags::HWPT_INVALIDATE_DATA_VTD_S1`], on a nested HWPT.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptVtdS1Invalidate {
    /// The first address.
    pub addr: u64,
    /// Pages of 4 KiB; all ones with address zero for everything.
    pub npages: u64,
    /// [`flags::VTD_INV_FLAGS_LEAF`].
    pub flags: u32,
    /// Zero.
    pub __reserved: u32,
}

/// An entry of HWPT_INVALIDATE with [`flags::VIOMMU_INVALIDATE_DATA_ARM_SMMUV3`], on a vIOMMU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ViommuArmSmmuv3Invalidate {
    /// The guest's command, little-endian.
    pub cmd: [u64; 2],
}

/// VIOMMU_ALLOC with [`flags::VIOMMU_TYPE_TEGRA241_CMDQV`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ViommuTegra241Cmdqv {
    /// Offset of the virtual interface's page 0, for mmap.
    pub out_vintf_mmap_offset: u64,
    /// Its bytes.
    pub out_vintf_mmap_length: u64,
}

/// A page request read from a FAULT queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptPgfault {
    /// [`flags::PGFAULT_FLAGS_PASID_VALID`] and its kind.
    pub flags: u32,
    /// The device.
    pub dev_id: u32,
    /// With the flag.
    pub pasid: u32,
    /// The device's number of the group.
    pub grpid: u32,
    /// [`flags::PGFAULT_PERM_READ`] and its kind.
    pub perm: u32,
    /// Zero.
    pub __reserved: u32,
    /// The address.
    pub addr: u64,
    /// Zero today.
    pub length: u32,
    /// Names the group in the answer.
    pub cookie: u32,
}

/// The answer to a page request, written to its FAULT queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptPageResponse {
    /// The group.
    pub cookie: u32,
    /// [`flags::PAGE_RESP_SUCCESS`] or [`flags::PAGE_RESP_INVALID`].
    pub code: u32,
}

/// What every record of a VEVENTQ starts with.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VeventHeader {
    /// [`flags::VEVENTQ_FLAG_LOST_EVENTS`] or zero.
    pub flags: u32,
    /// 0 to 2^31 - 1 and again; counts lost events too.
    pub sequence: u32,
}

/// A record of [`flags::VEVENTQ_TYPE_ARM_SMMUV3`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VeventArmSmmuv3 {
    /// The event, little-endian, with the vSID.
    pub evt: [u64; 4],
}

/// A record of [`flags::VEVENTQ_TYPE_TEGRA241_CMDQV`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VeventTegra241Cmdqv {
    /// A bit a queue that stopped, little-endian.
    pub lvcmdq_err_map: [u64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!([size_of::<HwptVtdS1>(), size_of::<HwptArmSmmuv3>(), size_of::<HwptAmdGuest>()], [24, 16, 32]);
        assert_eq!([size_of::<HwInfoVtd>(), size_of::<HwInfoArmSmmuv3>(), size_of::<HwInfoAmd>()], [24, 40, 16]);
        assert_eq!([size_of::<HwInfoTegra241Cmdqv>(), size_of::<ViommuTegra241Cmdqv>()], [8, 16]);
        assert_eq!([size_of::<HwptVtdS1Invalidate>(), size_of::<ViommuArmSmmuv3Invalidate>()], [24, 16]);
        assert_eq!([size_of::<HwptPgfault>(), size_of::<HwptPageResponse>(), size_of::<VeventHeader>()], [40, 8, 8]);
        assert_eq!([size_of::<VeventArmSmmuv3>(), size_of::<VeventTegra241Cmdqv>()], [32, 16]);
    }
}
