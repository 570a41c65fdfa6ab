//! The ID registers a guest is shown, what they may not promise, and how a guest with them is served.

mod covers;

use crate::spec::registers::{CAPABILITY_HEADER, CapabilityHeader, Efr, Efr2, offset};
use viommu_plugin::{Refusal, Register, TranslationMode};

/// ID registers of one guest: frontend and codec are fixed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// First word of the IOMMU's PCI capability. It is no MMIO register; see [`CAPABILITY_HEADER`].
    pub header: CapabilityHeader,
    /// EFR.
    pub efr: Efr,
    /// EFR2.
    pub efr2: Efr2,
}

impl Default for Features {
    /// What a guest is shown where nothing else is said: guest translation (GCR3) with four levels, one-level GCR3 tables
    /// and 16-bit PASIDs, no device caches.
    fn default() -> Self {
        Self {
            header: CapabilityHeader::new().with_cap_id(0x0f).with_cap_type(3).with_cap_rev(1).with_efr_sup(true),
            efr: Efr::new()
                .with_pref_sup(true)
                .with_gt_sup(true)
                .with_ia_sup(true)
                .with_glx_sup(1)
                .with_pas_max(15)
                .with_gio_sup(true),
            efr2: Efr2::new().with_gcr3_trp_mode(true),
        }
    }
}

impl Features {
    /// The features in `registers`; an offset not listed has the value of [`Features::default`], except that whoever is
    /// given an EFR and no EFR2 has none: older hardware reads it as zero.
    ///
    /// # Errors
    /// If they promise what a vIOMMU cannot be, or leave no way to serve the guest (`EOPNOTSUPP`).
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let mut features = Self::default();
        let given = |at| registers.iter().rev().find(|register| register.offset == at).map(|register| register.value);
        if let Some(value) = given(offset::EFR) {
            features.efr = Efr::from_bits(value);
            features.efr2 = Efr2::new();
        }
        if let Some(value) = given(offset::EFR2) {
            features.efr2 = Efr2::from_bits(value);
        }
        if let Some(value) = given(CAPABILITY_HEADER) {
            features.header = CapabilityHeader::from_bits(value as u32);
        }
        match features.impossible() {
            Some(reason) => Err(Refusal::new(Refusal::EOPNOTSUPP, reason)),
            None => Ok(features),
        }
    }

    /// Nested if the guest can put all of its translation into GCR3 tables whose addresses are its own physical ones;
    /// else its v1 tables are shadowed.
    pub fn mode(&self) -> TranslationMode {
        if self.efr.gt_sup() && self.efr.gio_sup() && self.efr2.gcr3_trp_mode() {
            TranslationMode::NESTED
        } else {
            TranslationMode::SHADOW
        }
    }

    /// Why a vIOMMU cannot be what the registers say. Features of interrupt remapping (XTSup, GASup, GAMSup,
    /// NumIntRemapSup) are the VMM's affair and not looked at.
    fn impossible(&self) -> Option<&'static str> {
        let shadow = self.mode() == TranslationMode::SHADOW;
        if shadow && !self.header.np_cache() {
            return Some(
                "capability header NpCache = 0: a guest with v1 tables that does not invalidate what it maps cannot be \
                 shadowed, and EFR.GTSup, EFR.GIoSup and EFR2.GCR3TRPMode are not all there to nest it",
            );
        }
        if shadow && (self.efr.ha_sup() || self.efr.hd_sup()) {
            return Some("EFR.HASup or HDSup = 1: accessed and dirty bits of shadowed tables are not carried");
        }
        if self.efr.hats() == 3 {
            return Some("EFR.HATS = 3 is reserved");
        }
        if self.efr.gt_sup() && (self.efr.gats() > 1 || self.efr.glx_sup() == 3) && !shadow {
            return Some("EFR.GATS above 1 or GLXSup = 3: no such guest tables are known");
        }
        if self.efr.snp_sup() || self.efr2.sev_snp_io_sup() {
            return Some("EFR.SNPSup or EFR2.SEVSNPIOSup = 1: a vIOMMU does not offer SEV-SNP");
        }
        if self.efr.viommu_sup() && shadow {
            return Some("EFR.vIommuSup = 1: the hardware vIOMMU is for guests with GCR3 tables alone");
        }
        // Fields that no driver here names, by their bits: DevTblSegSup, MarcSup.
        if self.efr.into_bits() & (3 << 38 | 3 << 42) != 0 {
            return Some("EFR.DevTblSegSup or MarcSup is not 0: device table segments and MARC are not offered");
        }
        None
    }

    /// Whether the guest drives a part of the IOMMU itself. Says EFR.vIommuSup, which the guest itself reads as 0: it has no
    /// guests to give parts to, and need not know that it is one.
    pub fn hw_viommu(&self) -> bool {
        self.efr.viommu_sup()
    }

    /// EFR as the guest reads it.
    pub fn guest_efr(&self) -> Efr {
        self.efr.with_viommu_sup(false)
    }

    /// The ID registers with their offsets, as they are handed in.
    pub fn registers(&self) -> [Register; 3] {
        [
            Register { offset: offset::EFR, value: self.efr.into_bits() },
            Register { offset: offset::EFR2, value: self.efr2.into_bits() },
            Register { offset: CAPABILITY_HEADER, value: self.header.into_bits().into() },
        ]
    }

    /// Most levels of a v1 table.
    pub fn host_levels(&self) -> u8 {
        4 + self.efr.hats().min(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(offset: u64, value: u64) -> Register {
        Register { offset, value }
    }

    /// What QEMU's amd-iommu shows: no GIoSup.
    const QEMU: u64 = 0x29d7;
    /// IOMMU capability with EFRSup, and NpCache.
    const HEADER: u64 = 0x0c0b_000f;

    #[test]
    fn a_recorded_guest_is_shadowed_and_shown_what_it_was_shown() {
        let features = Features::new(&[
            register(offset::EFR, QEMU),
            register(offset::EFR2, 0),
            register(CAPABILITY_HEADER, HEADER),
        ])
        .unwrap();
        assert_eq!(features.mode(), TranslationMode::SHADOW);
        assert_eq!(features.host_levels(), 6);
        assert_eq!(features.registers().map(|it| it.value), [QEMU, 0, HEADER]);
    }

    #[test]
    fn a_guest_that_does_not_announce_its_mappings_is_refused_by_name() {
        let refusal = Features::new(&[register(offset::EFR, QEMU), register(CAPABILITY_HEADER, HEADER & !(1 << 26))]);
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains("NpCache"), "{refusal}");
    }

    #[test]
    fn nesting_takes_all_three_features() {
        let own = Features::default();
        assert_eq!(Features::new(&own.registers()).unwrap(), own);
        assert_eq!(Features::new(&[]).unwrap(), own);
        assert_eq!(own.mode(), TranslationMode::NESTED);
        let shadowed = CapabilityHeader::from_bits(HEADER as u32);
        for less in [
            Features { efr: own.efr.with_gt_sup(false), header: shadowed, ..own },
            Features { efr: own.efr.with_gio_sup(false), header: shadowed, ..own },
            Features { efr2: Efr2::new(), header: shadowed, ..own },
        ] {
            assert_eq!(Features::new(&less.registers()).unwrap().mode(), TranslationMode::SHADOW);
        }
        // An EFR alone is that of hardware without EFR2.
        let alone = [register(offset::EFR, own.efr.into_bits()), register(CAPABILITY_HEADER, HEADER)];
        assert_eq!(Features::new(&alone).unwrap().mode(), TranslationMode::SHADOW);
    }

    #[test]
    fn impossible_sets_are_refused() {
        let own = Features::default();
        for (wrong, names) in [
            (Features { efr: own.efr.with_hats(3), ..own }, "HATS"),
            (Features { efr: own.efr.with_gats(2), ..own }, "GATS"),
            (Features { efr: own.efr.with_glx_sup(3), ..own }, "GLXSup"),
            (Features { efr: own.efr.with_snp_sup(true), ..own }, "SNPSup"),
            (
                Features {
                    header: own.header.with_np_cache(true),
                    efr: own.efr.with_gt_sup(false).with_viommu_sup(true),
                    ..own
                },
                "vIommuSup",
            ),
            (Features { efr: Efr::from_bits(own.efr.into_bits() | 1 << 38), ..own }, "DevTblSegSup"),
            (Features { efr: Efr::from_bits(own.efr.into_bits() | 1 << 43), ..own }, "MarcSup"),
            (Features { efr2: own.efr2.with_sev_snp_io_sup(true), ..own }, "SEVSNPIOSup"),
            (
                Features {
                    header: own.header.with_np_cache(true),
                    efr: own.efr.with_gio_sup(false).with_hd_sup(true),
                    ..own
                },
                "HDSup",
            ),
        ] {
            let refusal = Features::new(&wrong.registers()).unwrap_err();
            assert!(refusal.text.contains(names), "{names}: {refusal}");
        }
    }
}
