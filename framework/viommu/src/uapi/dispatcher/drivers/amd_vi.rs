//! AMD's driver as of Linux 7.3: hardware information and nesting parents; a vIOMMU of any type, on which nothing can be
//! nested and nothing invalidated.

use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PAGE_SIZE,
        PagingDomain, Parent, UserData, ViommuDriver,
    },
    flags::{HW_INFO_TYPE_AMD, HW_INFO_TYPE_NONE, HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID},
    payload::HwInfoAmd,
};
use zerocopy::IntoBytes;

/// The driver of one kind of AMD IOMMU.
#[derive(Debug, Clone, Copy)]
pub struct AmdVi {
    /// Extended Feature Register.
    pub efr: u64,
    /// Extended Feature 2 Register.
    pub efr2: u64,
    /// Whether these have what a nesting parent needs.
    pub nesting: bool,
}

/// A vIOMMU that can do nothing.
#[derive(Debug)]
struct AmdViommu;

impl Driver for AmdVi {
    fn hw_info(&self, _: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if ![HW_INFO_TYPE_NONE, HW_INFO_TYPE_AMD].contains(&data_type) {
            return Err(Errno::OPNOTSUPP);
        }
        let info = HwInfoAmd { efr: self.efr, efr2: self.efr2 };
        Ok(HwInformation { data_type: HW_INFO_TYPE_AMD, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, _: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        let taken = match flags & !HWPT_ALLOC_DIRTY_TRACKING {
            0 => true,
            HWPT_ALLOC_NEST_PARENT => self.nesting,
            HWPT_ALLOC_PASID => flags & HWPT_ALLOC_DIRTY_TRACKING == 0,
            _ => false,
        };
        if data.is_some() || !taken {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(PagingDomain { page_size: PAGE_SIZE, aperture: 0..=(1 << 48) - 1, refuses_read_only: false })
    }

    /// The driver does not look at the type.
    fn has_viommu(&self, _: &DeviceConfig, _: u32) -> bool {
        true
    }

    fn viommu(
        &self,
        _: &BoundDevice,
        _: Parent,
        _: u32,
        _: Option<UserData<'_>>,
        _: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        Ok(Box::new(AmdViommu))
    }
}

impl ViommuDriver for AmdViommu {
    fn nested(&mut self, _: u32, _: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, _: &FindDevice<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        Err(Errno::OPNOTSUPP)
    }
}
