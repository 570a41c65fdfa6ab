//! What this IOMMU can do: its feature registers, given or the model's own.

use crate::spec::dte::DteWord0;
use crate::spec::registers::{CAPABILITY_HEADER, CapabilityHeader, Efr, Efr2, offset};
use viommu_plugin::Register;

/// Feature registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) efr: Efr,
    pub(crate) efr2: Efr2,
    pub(crate) header: CapabilityHeader,
}

impl Identity {
    /// The model's own: everything that it does.
    const OWN: Self = Self {
        efr: Efr::new()
            .with_pref_sup(true)
            .with_ppr_sup(true)
            .with_gt_sup(true)
            .with_ia_sup(true)
            .with_hats(2)
            .with_gats(1)
            .with_glx_sup(2)
            .with_pas_max(15)
            .with_gio_sup(true),
        efr2: Efr2::new().with_gcr3_trp_mode(true),
        header: CapabilityHeader::new().with_cap_id(0x0f).with_cap_type(3).with_iotlb_sup(true).with_efr_sup(true),
    };

    /// The model's own registers, where `registers` says nothing else. Without EFRSup there are no features.
    pub(crate) fn new(registers: &[Register]) -> Self {
        let mut identity = Self::OWN;
        for register in registers {
            match register.offset {
                offset::EFR => identity.efr = Efr::from(register.value),
                offset::EFR2 => identity.efr2 = Efr2::from(register.value),
                CAPABILITY_HEADER => identity.header = CapabilityHeader::from(register.value as u32),
                _ => {}
            }
        }
        if !identity.header.efr_sup() {
            (identity.efr, identity.efr2) = (Efr::new(), Efr2::new());
        }
        identity
    }

    /// The most levels of a host table.
    pub(crate) fn host_levels(&self) -> u8 {
        (4 + self.efr.hats()).min(DteWord0::MODE_MOST)
    }

    /// Levels of guest tables for a GuestPagingMode, if it is offered.
    pub(crate) fn guest_levels(&self, mode: u8) -> Option<u8> {
        match mode {
            0 => Some(4),
            1 if self.efr.gats() >= 1 => Some(5),
            _ => None,
        }
    }

    /// Whether `pasid` has no more bits than PASmax says.
    pub(crate) fn has_pasid(&self, pasid: u32) -> bool {
        u64::from(pasid) >> (u32::from(self.efr.pas_max()) + 1) == 0
    }
}
