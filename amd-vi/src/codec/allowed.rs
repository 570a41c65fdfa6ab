//! Which bits a guest may set, written down once per opcode.

use crate::features::Features;
use crate::spec::commands::{
    CompletePprRequest, CompletionWait, InvalidateDevice, InvalidateIommuPages, InvalidateIotlbPages,
};
use viommu_plugin::TranslationMode;

const OPCODE: u64 = 0xf << 60;
/// GN, in the second word of every command that has it.
const GN: u64 = 1 << 2;
/// PASID of INVALIDATE_IOMMU_PAGES.
const PAGES_PASID: u64 = 0xf_ffff;
/// PASID of PREFETCH_IOMMU_PAGES and COMPLETE_PPR_REQUEST.
const HIGH_PASID: u64 = 0xf_ffff << 32;
/// PASID of INVALIDATE_IOTLB_PAGES: its two bytes.
const DEVICE_PASID: u64 = 0xff << 48 | 0xff << 16;
/// PREFETCH_IOMMU_PAGES: DeviceID, PFCount, PASID; S, GN, Inval and the address.
const PREFETCH: [u64; 2] = [0xffff | 0xff << 24 | HIGH_PASID, !0xfff | 1 << 4 | GN | 1];

/// The bits an opcode forbids, by word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask {
    forbidden: [u64; 2],
}

impl Mask {
    const fn allowing(allowed: [u64; 2]) -> Self {
        Self { forbidden: [!(allowed[0] | OPCODE), !allowed[1]] }
    }

    /// Whether the words set no other bits.
    #[inline(always)]
    pub(super) fn holds(&self, w0: u64, w1: u64) -> bool {
        (w0 & self.forbidden[0]) | (w1 & self.forbidden[1]) == 0
    }
}

/// The allow-list of one guest.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) wait: Mask,
    /// Commands that name a device and nothing else.
    pub(super) device: Mask,
    /// Commands without a field.
    pub(super) nothing: Mask,
    pages: Mask,
    device_pages: Mask,
    prefetch: Mask,
    response: Mask,
    pub(super) shadow: bool,
    /// IotlbSup.
    pub(super) ats: bool,
    /// EFR.IASup.
    pub(super) all: bool,
    /// EFR.PreFSup.
    pub(super) hints: bool,
    /// EFR.PPRSup.
    pub(super) requests: bool,
}

impl Allowed {
    pub(super) fn new(features: &Features) -> Self {
        let efr = features.efr;
        // Without guest translation there is no GN, and so no PASID.
        let pasid = if efr.gt_sup() { (1u32 << (u32::from(efr.pas_max()) + 1).min(20)) - 1 } else { 0 };
        let gn = efr.gt_sup();
        let address = (1 << 52) - 1;
        let of_pasid = |mut words: [u64; 2]| {
            if !gn {
                words[0] &= !HIGH_PASID;
                words[1] &= !GN;
            }
            words
        };
        let narrow = |words: [u64; 2]| [words[0] & (!HIGH_PASID | u64::from(pasid) << 32), words[1]];
        Self {
            wait: Mask::allowing(
                CompletionWait::new()
                    .with_s(true)
                    .with_i(true)
                    .with_f(true)
                    .with_store((1 << 49) - 1)
                    .with_data(u64::MAX)
                    .words(),
            ),
            device: Mask::allowing(InvalidateDevice::new().with_device_id(u16::MAX).words()),
            nothing: Mask::allowing([0, 0]),
            pages: Mask::allowing(
                InvalidateIommuPages::new()
                    .with_domain_id(u16::MAX)
                    .with_pasid(pasid)
                    .with_s(true)
                    .with_pde(true)
                    .with_gn(gn)
                    .with_address(address)
                    .words(),
            ),
            device_pages: Mask::allowing(
                InvalidateIotlbPages::new()
                    .with_device_id(u16::MAX)
                    .with_queue_id(u16::MAX)
                    .with_max_pend(u8::MAX)
                    // Linux and this format know PASIDs of 16 bits.
                    .with_pasid(pasid as u16)
                    .with_s(true)
                    .with_gn(gn)
                    .with_address(address)
                    .words(),
            ),
            prefetch: Mask::allowing(narrow(of_pasid(PREFETCH))),
            response: Mask::allowing(
                CompletePprRequest::new()
                    .with_device_id(u16::MAX)
                    .with_pasid(pasid)
                    .with_gn(gn)
                    .with_tag(0x1ff)
                    .with_status(0xf)
                    .words(),
            ),
            shadow: features.mode() == TranslationMode::SHADOW,
            ats: features.header.iotlb_sup(),
            all: efr.ia_sup(),
            hints: efr.pref_sup(),
            requests: efr.ppr_sup(),
        }
    }

    /// INVALIDATE_IOMMU_PAGES: the mask, and a PASID only where GN says that there is one.
    #[inline(always)]
    pub(super) fn pages(&self, w0: u64, w1: u64) -> bool {
        self.pages.holds(w0, w1) & with_gn(w0 & PAGES_PASID, w1)
    }

    /// INVALIDATE_IOTLB_PAGES, as [`Allowed::pages`].
    #[inline(always)]
    pub(super) fn device_pages(&self, w0: u64, w1: u64) -> bool {
        self.device_pages.holds(w0, w1) & with_gn(w0 & DEVICE_PASID, w1)
    }

    /// PREFETCH_IOMMU_PAGES, as [`Allowed::pages`].
    pub(super) fn prefetch(&self, w0: u64, w1: u64) -> bool {
        self.prefetch.holds(w0, w1) & with_gn(w0 & HIGH_PASID, w1)
    }

    /// COMPLETE_PPR_REQUEST, as [`Allowed::pages`].
    pub(super) fn response(&self, w0: u64, w1: u64) -> bool {
        self.response.holds(w0, w1) & with_gn(w0 & HIGH_PASID, w1)
    }
}

#[inline(always)]
fn with_gn(pasid: u64, w1: u64) -> bool {
    (pasid == 0) | (w1 & GN != 0)
}
