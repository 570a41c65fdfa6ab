//! What guests of this IOMMU may be shown.

use super::Identity;
use crate::features::Features;
use crate::spec::registers::{CapabilityHeader, Efr, Efr2};
use viommu_plugin::{Register, TranslationMode};

/// Most PASID bits less one: INVALIDATE_IOTLB_PAGES as Linux knows it has room for 16.
const PASID_BITS: u8 = 15;

impl Identity {
    /// The ID registers for guests served in `mode`; none if it is not offered.
    ///
    /// Of the hardware's features a nested guest gets what Linux's uAPI lets a VMM copy (GTSup, GIoSup, EPHSup, GATS,
    /// GLXSup, PASmax), without PPRSup, which nothing here carries, and GASup, which is the VMM's to add with the rest of
    /// interrupt remapping. INVALIDATE_IOMMU_ALL and PREFETCH_IOMMU_PAGES need no hardware. A shadowed guest gets v1
    /// tables of as many levels as the host's have, and NpCache, so that it announces what it maps.
    pub(crate) fn shown(&self, mode: TranslationMode) -> Vec<Register> {
        let efr = Efr::new().with_ia_sup(true).with_pref_sup(true);
        let header = CapabilityHeader::new().with_cap_id(0x0f).with_cap_type(3).with_cap_rev(1).with_efr_sup(true);
        let host = self.efr;
        let features = match mode {
            TranslationMode::NESTED if self.nests() => Features {
                header: header.with_iotlb_sup(self.header.iotlb_sup()),
                efr: efr
                    .with_gt_sup(true)
                    .with_gio_sup(true)
                    .with_eph_sup(host.eph_sup())
                    .with_gats(host.gats().min(1))
                    .with_glx_sup(host.glx_sup().min(2))
                    .with_pas_max(host.pas_max().min(PASID_BITS))
                    .with_viommu_sup(host.viommu_sup()),
                efr2: Efr2::new().with_gcr3_trp_mode(true),
            },
            TranslationMode::SHADOW => Features {
                header: header.with_np_cache(true),
                efr: efr.with_hats(host.hats().min(2)),
                efr2: Efr2::new(),
            },
            _ => return Vec::new(),
        };
        features.registers().to_vec()
    }
}
