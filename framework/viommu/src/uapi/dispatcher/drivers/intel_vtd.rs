//! Intel's VT-d driver: nesting directly on the parent, no vIOMMU, invalidation by ranges, one at a time.

use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, HwInformation, NestedHwpt, PAGE_SIZE, PagingDomain, Target,
        UserData,
    },
    flags::{
        HW_INFO_TYPE_INTEL_VTD, HW_INFO_TYPE_NONE, HW_INFO_VTD_ERRATA_772415_SPR17, HWPT_ALLOC_DIRTY_TRACKING,
        HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_VTD_S1, HWPT_INVALIDATE_DATA_VTD_S1, VTD_INV_FLAGS_LEAF,
        VTD_S1_EAFE, VTD_S1_SRE,
    },
    payload::{HwInfoVtd, HwptVtdS1, HwptVtdS1Invalidate},
};
use std::any::Any;
use zerocopy::IntoBytes;

/// CAP.FL5LP; ECAP.NEST, SRS, EAFS, SMTS.
const FL5LP: u32 = 60;
const NEST: u32 = 26;
const SRS: u32 = 31;
const EAFS: u32 = 34;
const SMTS: u32 = 43;

/// The driver of one kind of VT-d unit.
#[derive(Debug, Clone, Copy)]
pub struct IntelVtd {
    /// CAP_REG.
    pub cap: u64,
    /// ECAP_REG.
    pub ecap: u64,
}

impl IntelVtd {
    fn ecap(self, bit: u32) -> bool {
        self.ecap >> bit & 1 != 0
    }
}

/// A nested HWPT: the guest's first-stage table.
#[derive(Debug)]
struct Nested(HwptVtdS1);

impl Driver for IntelVtd {
    fn hw_info(&self, _: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if ![HW_INFO_TYPE_NONE, HW_INFO_TYPE_INTEL_VTD].contains(&data_type) {
            return Err(Errno::OPNOTSUPP);
        }
        // The driver takes every unit for one with the erratum.
        let flags = HW_INFO_VTD_ERRATA_772415_SPR17;
        let info = HwInfoVtd { flags, __reserved: 0, cap_reg: self.cap, ecap_reg: self.ecap };
        Ok(HwInformation { data_type: HW_INFO_TYPE_INTEL_VTD, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, _: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        let nest_parent = flags & HWPT_ALLOC_NEST_PARENT != 0;
        let known = HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_DIRTY_TRACKING | HWPT_ALLOC_PASID;
        if data.is_some() || flags & !known != 0 || (nest_parent && !(self.ecap(NEST) && self.ecap(SMTS))) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(PagingDomain { page_size: PAGE_SIZE, aperture: 0..=(1 << 48) - 1, refuses_read_only: nest_parent })
    }

    fn nests_on_parent(&self) -> bool {
        true
    }

    fn nested(&self, _: &DeviceConfig, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if !self.ecap(NEST) || !self.ecap(SMTS) || flags & !HWPT_ALLOC_PASID != 0 || data.data_type != HWPT_DATA_VTD_S1
        {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(Box::new(Nested(data.read(HWPT_DATA_VTD_S1, size_of::<HwptVtdS1>())?)))
    }

    /// Only here the guest's numbers are looked at.
    fn attach(&self, _: &BoundDevice, _: u32, target: &Target<'_>) -> Result<(), Errno> {
        let Target::Nested { hwpt, .. } = target else { return Ok(()) };
        let Some(Nested(config)) = hwpt.as_any().downcast_ref::<Nested>() else { return Err(Errno::INVAL) };
        let width = config.addr_width == 48 || (config.addr_width == 57 && self.cap >> FL5LP & 1 != 0);
        let supervisor = config.flags & VTD_S1_SRE == 0 || self.ecap(SRS);
        let accessed = config.flags & VTD_S1_EAFE == 0 || self.ecap(EAFS);
        if width && supervisor && accessed { Ok(()) } else { Err(Errno::INVAL) }
    }
}

impl NestedHwpt for Nested {
    fn invalidate(&mut self, entries: &mut Entries<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        if entries.data_type != HWPT_INVALIDATE_DATA_VTD_S1 {
            return Err(Errno::INVAL);
        }
        for index in 0..entries.count {
            let size = size_of::<HwptVtdS1Invalidate>();
            let entry: HwptVtdS1Invalidate = entries.one(HWPT_INVALIDATE_DATA_VTD_S1, size, index)?;
            if entry.flags & !VTD_INV_FLAGS_LEAF != 0 || entry.__reserved != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            if !entry.addr.is_multiple_of(4096) || (entry.npages == u64::MAX && entry.addr != 0) {
                return Err(Errno::INVAL);
            }
            entries.handled += 1;
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
