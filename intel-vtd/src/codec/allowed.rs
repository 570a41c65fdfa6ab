//! Which bits a guest may set, written down once per type (§6.5.2).

use crate::features::{Features, Service};
use crate::spec::descriptors::{
    ContextCacheInv, DeviceTlbInv, InterruptEntryCacheInv, IotlbInv, PageGroupResponse, PasidCacheInv,
    PasidDeviceTlbInv, PasidIotlbInv, WIDE_WORDS, Wait,
};

/// AM in the second word of an IOTLB or PASID-IOTLB invalidation.
const ADDRESS_MASK: u64 = PasidIotlbInv::new().with_address_mask(63).words()[1];

/// The bits a type forbids, by word. All of the third and fourth are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask {
    forbidden: [u64; 2],
}

impl Mask {
    /// Everything that the manual does not reserve, but `without`.
    fn new(reserved: [u64; 2], without: [u64; 2]) -> Self {
        Self { forbidden: [reserved[0] | without[0], reserved[1] | without[1]] }
    }

    /// Whether the words set no other bits.
    #[inline(always)]
    pub(super) fn holds(&self, words: &[u64; WIDE_WORDS]) -> bool {
        (words[0] & self.forbidden[0]) | (words[1] & self.forbidden[1]) | words[2] | words[3] == 0
    }
}

/// The allow-list of one guest.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) context_cache: Mask,
    pub(super) iotlb: Mask,
    pub(super) device_tlb_inv: Mask,
    pub(super) interrupt_entry_cache: Mask,
    pub(super) wait: Mask,
    pub(super) pasid_iotlb: Mask,
    /// [`Allowed::pasid_iotlb`] of a guest whose invalidations go to the hardware as they are; else nothing.
    pub(super) direct_pasid_iotlb: Mask,
    pub(super) pasid_cache: Mask,
    pub(super) pasid_device_tlb_inv: Mask,
    pub(super) page_group_response: Mask,
    /// The guest's second-stage tables are followed.
    pub(super) shadow: bool,
    /// ECAP.SMTS.
    pub(super) scalable: bool,
    /// CAP.PSI.
    pub(super) page_selective: bool,
    /// ECAP.DT.
    pub(super) device_tlb: bool,
    /// ECAP.DT and PASID, in scalable mode.
    pub(super) pasid_device_tlb: bool,
    /// ECAP.IR.
    pub(super) interrupt_remapping: bool,
    /// ECAP.PRS.
    pub(super) page_request: bool,
    /// CAP.MAMV.
    max_address_mask: u64,
}

impl Allowed {
    pub(super) fn new(features: &Features) -> Self {
        let (cap, ecap) = (features.cap, features.ecap);
        let drain = Wait::new().with_kind(0).with_page_request_drain(!ecap.page_request_drain()).words();
        // PFSID names a physical device, and is there with ECAP.DIT only, which no guest is shown.
        let pfsid = DeviceTlbInv::new().with_kind(0).with_pfsid_low(0xf).with_pfsid_high(0xfff).words();
        Self {
            context_cache: Mask::new(ContextCacheInv::RESERVED, [0; 2]),
            iotlb: Mask::new(IotlbInv::RESERVED, [0; 2]),
            device_tlb_inv: Mask::new(DeviceTlbInv::RESERVED, pfsid),
            interrupt_entry_cache: Mask::new(InterruptEntryCacheInv::RESERVED, [0; 2]),
            wait: Mask::new(Wait::RESERVED, drain),
            pasid_iotlb: Mask::new(PasidIotlbInv::RESERVED, [0; 2]),
            direct_pasid_iotlb: match features.service() {
                Service::Nested => Mask::new(PasidIotlbInv::RESERVED, [0; 2]),
                // Every descriptor has a type, and no bit of one is allowed.
                Service::Shadow => Mask::new([u64::MAX; 2], [0; 2]),
            },
            pasid_cache: Mask::new(PasidCacheInv::RESERVED, [0; 2]),
            pasid_device_tlb_inv: Mask::new(PasidDeviceTlbInv::RESERVED, pfsid),
            page_group_response: Mask::new(PageGroupResponse::RESERVED, [0; 2]),
            shadow: features.service() == Service::Shadow,
            scalable: ecap.scalable_mode(),
            page_selective: cap.page_selective(),
            device_tlb: ecap.device_tlb(),
            pasid_device_tlb: ecap.device_tlb() && ecap.pasid() && ecap.scalable_mode(),
            interrupt_remapping: ecap.interrupt_remapping(),
            page_request: ecap.page_request(),
            max_address_mask: cap.max_address_mask().into(),
        }
    }

    /// AM of a page-selective invalidation is at most CAP.MAMV.
    #[inline(always)]
    pub(super) fn address_mask(&self, w1: u64) -> bool {
        w1 & ADDRESS_MASK <= self.max_address_mask
    }
}
