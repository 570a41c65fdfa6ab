//! Whether one IOMMU serves a guest that was shown another's ID registers.
//!
//! Not compared is what the frontend and the framework do themselves (IASup), what only concerns interrupts,
//! which are the VMM's (XTSup, GASup, GAMSup, NumIntRemapSup), hints (PreFSup), what reads as nothing here (HESup,
//! PCSup), and what a guest may ask for and never gets (PPRSup).

use super::Features;
use viommu_plugin::{Refusal, TranslationMode};

/// A field as the guest was shown it and as it is here; and whether that will do.
struct Field {
    name: &'static str,
    shown: u32,
    here: u32,
    covered: bool,
}

/// A field in which more is better.
fn at_least(name: &'static str, shown: impl Into<u32>, here: impl Into<u32>) -> Field {
    let (shown, here) = (shown.into(), here.into());
    Field { name, shown, here, covered: here >= shown }
}

impl Features {
    /// Whether an IOMMU of these features serves a guest that was shown `shown`.
    ///
    /// # Errors
    /// The first field in which it falls short, by name (`EOPNOTSUPP`).
    pub fn covers(&self, shown: &Self) -> Result<(), Refusal> {
        let lacking = self.fields(shown).into_iter().find(|field| !field.covered);
        lacking.map_or(Ok(()), |Field { name, shown, here, .. }| {
            let text = format!("{name}: the guest was shown {shown}, this host has {here}");
            Err(Refusal::new(Refusal::EOPNOTSUPP, text))
        })
    }

    /// Every field that the hardware must keep, in the order of the registers.
    fn fields(&self, shown: &Self) -> Vec<Field> {
        let (s, h) = (shown.efr, self.efr);
        let mut fields = vec![
            at_least("EFR.HATS", s.hats(), h.hats()),
            at_least("EFR.EPHSup", s.eph_sup(), h.eph_sup()),
            at_least("capability header IotlbSup", shown.header.iotlb_sup(), self.header.iotlb_sup()),
        ];
        // A shadowed guest has no tables that hardware walks: these are the host's own there.
        if shown.mode() == TranslationMode::NESTED {
            fields.extend([
                at_least("EFR.GTSup", s.gt_sup(), h.gt_sup()),
                at_least("EFR.GIoSup", s.gio_sup(), h.gio_sup()),
                at_least("EFR2.GCR3TRPMode", shown.efr2.gcr3_trp_mode(), self.efr2.gcr3_trp_mode()),
                at_least("EFR.vIommuSup", s.viommu_sup(), h.viommu_sup()),
                at_least("EFR.NXSup", s.nx_sup(), h.nx_sup()),
                at_least("EFR.GATS", s.gats(), h.gats()),
                at_least("EFR.GLXSup", s.glx_sup(), h.glx_sup()),
                at_least("EFR.PASmax", s.pas_max(), h.pas_max()),
                at_least("EFR.HASup", s.ha_sup(), h.ha_sup()),
                at_least("EFR.HDSup", s.hd_sup(), h.hd_sup()),
            ]);
        } else {
            fields.push(at_least("capability header NpCache", shown.header.np_cache(), self.header.np_cache()));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::registers::Efr2;

    fn lacks(here: &Features, shown: &Features) -> String {
        here.covers(shown).map_or_else(|refusal| refusal.text, |()| "nothing".into())
    }

    #[test]
    fn a_shortcoming_is_named_with_both_values() {
        let here = Features::default();
        for (shown, text) in [
            (Features { efr: here.efr.with_gats(1), ..here }, "EFR.GATS: the guest was shown 1, this host has 0"),
            (Features { efr: here.efr.with_glx_sup(2), ..here }, "EFR.GLXSup: the guest was shown 2, this host has 1"),
            (Features { efr: here.efr.with_hats(2), ..here }, "EFR.HATS: the guest was shown 2, this host has 0"),
            (
                Features { header: here.header.with_iotlb_sup(true), ..here },
                "capability header IotlbSup: the guest was shown 1, this host has 0",
            ),
        ] {
            assert_eq!(lacks(&here, &shown), text);
            assert_eq!(lacks(&shown, &here), "nothing", "more than was shown is no shortcoming");
        }
        assert_eq!(lacks(&here, &here), "nothing");
    }

    #[test]
    fn what_is_the_vmms_or_not_carried_is_not_compared() {
        let here = Features::default();
        let efr = here.efr.with_ppr_sup(true).with_xt_sup(true).with_ga_sup(true).with_gam_sup(1).with_pc_sup(true);
        assert_eq!(lacks(&here, &Features { efr: efr.with_he_sup(true), ..here }), "nothing");
    }

    #[test]
    fn a_shadowed_guest_needs_no_guest_translation() {
        let nested = Features::default();
        let header = nested.header.with_np_cache(true);
        let shown = Features { header, efr: nested.efr.with_gio_sup(false).with_gats(1), efr2: Efr2::new() };
        let here = Features { header, efr: nested.efr.with_gt_sup(false), efr2: Efr2::new() };
        assert_eq!(lacks(&here, &shown), "nothing");
        assert_eq!(
            lacks(&nested, &shown),
            "capability header NpCache: the guest was shown 1, this host has 0",
            "what it offers guests of this kind is what counts"
        );
    }
}
