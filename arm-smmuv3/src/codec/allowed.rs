//! Which bits a guest may set, written down once per opcode (the manual's §4 and what Linux's vIOMMU takes).

use crate::features::Features;
use crate::spec::commands::{AtcInv, CfgiCd, CfgiSte, CfgiSteRange, Prefetch, Signal, Sync, Tlbi};

/// Bits of VMID in the first word of a TLBI.
pub(super) const VMID: u64 = Tlbi::new().with_vmid(u16::MAX).words()[0];

const NUM_SCALE: u64 = Tlbi::new().with_num(31).with_scale(63).words()[0];
const TTL: u64 = Tlbi::new().with_ttl(3).words()[1];
const TTL_1: u64 = Tlbi::new().with_ttl(1).words()[1];
const TG: u64 = Tlbi::new().with_tg(3).words()[1];
const TG_16K: u64 = Tlbi::new().with_tg(2).words()[1];
const CS: u64 = Sync::new().with_cs(3).words()[0];

/// The bits an opcode forbids, by word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask {
    forbidden: [u64; 2],
}

impl Mask {
    const fn allowing(allowed: [u64; 2]) -> Self {
        Self { forbidden: [!allowed[0], !allowed[1]] }
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
    pub(super) nh_all: Mask,
    pub(super) nh_asid: Mask,
    pub(super) nh_va: Mask,
    pub(super) nh_vaa: Mask,
    pub(super) nsnh_all: Mask,
    pub(super) cfgi_ste: Mask,
    pub(super) cfgi_ste_range: Mask,
    pub(super) cfgi_cd: Mask,
    pub(super) cfgi_cd_all: Mask,
    pub(super) prefetch: Mask,
    atc_inv: Mask,
    sync: Mask,
    /// IDR0.ATS.
    pub(super) ats: bool,
    /// IDR5.DS.
    ds: bool,
}

impl Allowed {
    pub(super) fn new(features: &Features) -> Self {
        let asid = if features.idr0.asid16() { u16::MAX } else { u8::MAX.into() };
        let substreams = features.idr1.ssidsize() > 0;
        let ssid = if substreams { 0xf_ffff } else { 0 };
        let any_stream = u32::MAX;
        let tlbi = Tlbi::new().with_opcode(0xff).with_vmid(u16::MAX);
        let mut vaa = tlbi.with_leaf(true).with_address((1 << 52) - 1);
        if features.idr3.ril() {
            let scale = if features.idr5.ds() { 63 } else { 31 };
            vaa = vaa.with_num(31).with_scale(scale).with_ttl(3).with_tg(3);
        }
        Self {
            nh_all: Mask::allowing(tlbi.words()),
            nh_asid: Mask::allowing(tlbi.with_asid(asid).words()),
            nh_va: Mask::allowing(vaa.with_asid(asid).words()),
            nh_vaa: Mask::allowing(vaa.words()),
            nsnh_all: Mask::allowing(tlbi.with_vmid(0).words()),
            cfgi_ste: Mask::allowing(
                CfgiSte::new().with_opcode(0xff).with_stream_id(any_stream).with_leaf(true).words(),
            ),
            cfgi_ste_range: Mask::allowing(
                CfgiSteRange::new().with_opcode(0xff).with_stream_id(any_stream).with_range(31).words(),
            ),
            cfgi_cd: Mask::allowing(
                CfgiCd::new()
                    .with_opcode(0xff)
                    .with_stream_id(any_stream)
                    .with_substream_id(ssid)
                    .with_leaf(true)
                    .words(),
            ),
            cfgi_cd_all: Mask::allowing(CfgiCd::new().with_opcode(0xff).with_stream_id(any_stream).words()),
            prefetch: Mask::allowing(
                Prefetch::new()
                    .with_opcode(0xff)
                    .with_ssv(substreams)
                    .with_substream_id(ssid)
                    .with_stream_id(any_stream)
                    .with_size(31)
                    .with_stride(31)
                    .with_address((1 << 52) - 1)
                    .words(),
            ),
            atc_inv: Mask::allowing(
                AtcInv::new()
                    .with_opcode(0xff)
                    .with_global(substreams)
                    .with_ssv(substreams)
                    .with_substream_id(ssid)
                    .with_stream_id(any_stream)
                    .with_size(63)
                    .with_address((1 << 52) - 1)
                    .words(),
            ),
            // The MSI fields are ignored, not reserved, where CS asks for no MSI: Linux sets MSH and MSIAttr with SEV.
            sync: Mask::allowing(
                Sync::new()
                    .with_opcode(0xff)
                    .with_cs(3)
                    .with_msh(3)
                    .with_msi_attr(15)
                    .with_msi_data(u32::MAX)
                    .with_msi_address((1 << 50) - 1)
                    .words(),
            ),
            ats: features.idr0.ats(),
            ds: features.idr5.ds(),
        }
    }

    /// TLBI by address (§4.4.1): the mask, and no reserved combination of TG, TTL, NUM and SCALE. Without IDR3.RIL
    /// the mask leaves only the combination of four zeros.
    #[inline(always)]
    pub(super) fn range(&self, mask: &Mask, w0: u64, w1: u64) -> bool {
        let (tg, ttl) = (w1 & TG, w1 & TTL);
        let extent = w0 & NUM_SCALE | ttl;
        // No granule, no extent; a granule without an extent is reserved.
        let paired = (tg == 0) == (extent == 0);
        // A 16 KiB granule has leaves at level 1 only with 52-bit addresses.
        let level = self.ds || tg != TG_16K || ttl != TTL_1;
        mask.holds(w0, w1) & paired & level
    }

    /// CMD_ATC_INV (§4.5.1): the mask, a size that exists, and ATS at all.
    #[inline(always)]
    pub(super) fn atc(&self, w0: u64, w1: u64) -> bool {
        self.ats & self.atc_inv.holds(w0, w1) & (w1 & 0x3f <= AtcInv::SIZE_ALL as u64)
    }

    /// CMD_SYNC (§4.6.3): the mask and a completion signal that exists. SEV is legal whatever IDR0.SEV says.
    #[inline(always)]
    pub(super) fn sync(&self, w0: u64, w1: u64) -> bool {
        const RESERVED: u64 = Sync::new().with_cs(Signal::RESERVED.0).words()[0];
        self.sync.holds(w0, w1) & (w0 & CS != RESERVED)
    }
}
