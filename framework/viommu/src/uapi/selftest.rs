//! The kernel's mock driver (CONFIG_IOMMUFD_TEST): its command, its constants, its payloads.
//!
//! What a test of the object rules needs and no hardware gives: devices out of thin air, translation caches that can be
//! looked into, events on demand. The kernel's own selftests run on it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// TEST_CMD: the operations of the mock driver.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TestCommand {
    /// Bytes of this struct as the caller knows it.
    pub size: u32,
    /// [`op`].
    pub op: u32,
    /// What it is about.
    pub id: u32,
    /// Zero.
    pub __reserved: u32,
    /// Depends on the operation: a union, 32-bit fields first.
    pub union: [u32; 12],
    /// The union's last word.
    pub last: u64,
}

impl TestCommand {
    /// The union's 32-bit field at this offset of the struct (16 to 60).
    pub fn u32_at(&self, offset: usize) -> u32 {
        self.union[(offset - 16) / 4]
    }

    /// Sets it.
    pub fn set_u32_at(&mut self, offset: usize, value: u32) {
        self.union[(offset - 16) / 4] = value;
    }

    /// The union's 64-bit field at this offset of the struct (16 to 56).
    pub fn u64_at(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.union.as_bytes()[offset - 16..offset - 8].try_into().unwrap_or_default())
    }

    /// Sets it.
    pub fn set_u64_at(&mut self, offset: usize, value: u64) {
        self.union.as_mut_bytes()[offset - 16..offset - 8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// [`TestCommand::op`].
#[allow(missing_docs)]
pub mod op {
    pub const ADD_RESERVED: u32 = 1;
    pub const MOCK_DOMAIN: u32 = 2;
    pub const MD_CHECK_MAP: u32 = 3;
    pub const MD_CHECK_REFS: u32 = 4;
    pub const CREATE_ACCESS: u32 = 5;
    pub const DESTROY_ACCESS_PAGES: u32 = 6;
    pub const ACCESS_PAGES: u32 = 7;
    pub const ACCESS_RW: u32 = 8;
    pub const SET_TEMP_MEMORY_LIMIT: u32 = 9;
    pub const MOCK_DOMAIN_REPLACE: u32 = 10;
    pub const ACCESS_REPLACE_IOAS: u32 = 11;
    pub const MOCK_DOMAIN_FLAGS: u32 = 12;
    pub const DIRTY: u32 = 13;
    pub const MD_CHECK_IOTLB: u32 = 14;
    pub const TRIGGER_IOPF: u32 = 15;
    pub const DEV_CHECK_CACHE: u32 = 16;
    pub const TRIGGER_VEVENT: u32 = 17;
    pub const PASID_ATTACH: u32 = 18;
    pub const PASID_REPLACE: u32 = 19;
    pub const PASID_DETACH: u32 = 20;
    pub const PASID_CHECK_HWPT: u32 = 21;
    pub const DMABUF_GET: u32 = 22;
    pub const DMABUF_REVOKE: u32 = 23;
}

/// A device without dirty tracking (`dev_flags`).
pub const DEVICE_NO_DIRTY: u32 = 1;
/// A device with PASIDs (`dev_flags`).
pub const DEVICE_PASID: u32 = 4;
/// Bytes of the mock IOMMU's page.
pub const PAGE_SIZE: u64 = 2048;
/// Bytes of its huge page.
pub const HUGE_PAGE_SIZE: u64 = 1 << 20;
/// Its first IOVA.
pub const APERTURE_START: u64 = 0x100_0000;
/// Its last IOVA.
pub const APERTURE_LAST: u64 = 0x7fff_ffff;
/// Type of GET_HW_INFO's payload.
pub const HW_INFO_TYPE: u32 = 0xfeed_beef;
/// `test_reg` in it.
pub const HW_INFO_REGISTER: u32 = 0xdead_beef;
/// Type of a nested HWPT's payload.
pub const HWPT_DATA: u32 = 0xdead;
/// Translation cache slots of a nested HWPT, and cache slots of a device.
pub const CACHE_SLOTS: usize = 4;
/// What a device's cache slots hold at first.
pub const DEVICE_CACHE: u32 = 0xba_ddad;
/// Type of an invalidation on a nested HWPT.
pub const HWPT_INVALIDATE_DATA: u32 = 0xdead_beef;
/// All slots, in either invalidation's flags.
pub const INVALIDATE_ALL: u32 = 1;
/// Type of the vIOMMU.
pub const VIOMMU_TYPE: u32 = 0xdead_beef;
/// Type of an invalidation on a vIOMMU.
pub const VIOMMU_INVALIDATE_DATA: u32 = 0xdead_beef;
/// Type of the event queue.
pub const VEVENTQ_TYPE: u32 = 0xbeef_beef;
/// Type of the hardware queue.
pub const HW_QUEUE_TYPE: u32 = 0xdead_beef;
/// Hardware queues a vIOMMU has at most.
pub const HW_QUEUES: u32 = 2;
/// Width of PASIDs.
pub const PASID_LOG2: u8 = 20;
/// The PASID whose second attachment fails with ENOMEM.
pub const PASID_TRAP: u32 = 1024;

/// GET_HW_INFO's payload.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwInfoSelftest {
    /// Zero.
    pub flags: u32,
    /// [`HW_INFO_REGISTER`].
    pub test_reg: u32,
}

/// A nested HWPT's payload; the first field alone is taken too.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptSelftest {
    /// What its cache slots hold at first.
    pub iotlb: u32,
    /// Kind of a paging HWPT's table: 0, or 1 for huge pages.
    pub pagetable_type: u32,
}

/// An entry of an invalidation on a nested HWPT.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HwptInvalidateSelftest {
    /// [`INVALIDATE_ALL`] or zero.
    pub flags: u32,
    /// The slot.
    pub iotlb_id: u32,
}

/// VIOMMU_ALLOC's payload, in and out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ViommuSelftest {
    /// Comes back in `out_data` and as the first word of the mapped page.
    pub in_data: u32,
    /// `in_data`.
    pub out_data: u32,
    /// For mmap.
    pub out_mmap_offset: u64,
    /// For mmap.
    pub out_mmap_length: u64,
}

/// An entry of an invalidation on a vIOMMU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ViommuInvalidateSelftest {
    /// [`INVALIDATE_ALL`] or zero.
    pub flags: u32,
    /// The guest's name of the device.
    pub vdev_id: u32,
    /// The slot.
    pub cache_id: u32,
}

/// Payload of an event record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VeventSelftest {
    /// The guest's name of the device.
    pub virt_id: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_the_union_are_the_kernels() {
        assert_eq!(size_of::<TestCommand>(), 72);
        assert_eq!([size_of::<ViommuSelftest>(), size_of::<ViommuInvalidateSelftest>()], [24, 12]);
        let mut command = TestCommand::default();
        command.set_u32_at(28, 7);
        command.set_u64_at(24, command.u64_at(24) | 5);
        assert_eq!((command.u32_at(24), command.u32_at(28)), (5, 7));
        assert_eq!(command.as_bytes()[24..32], [5, 0, 0, 0, 7, 0, 0, 0]);
    }
}
