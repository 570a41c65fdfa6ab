//! Whether one VT-d serves a guest that was shown another's ID registers (§11.4.2, §11.4.3).
//!
//! Not compared is what the frontend does itself (CAP.CM, NFR, FRO, the protected memory regions; ECAP.IRO), what
//! concerns interrupts (ECAP.IR, EIM, MHMV; CAP.PI), which are the VMM's, what only concerns second-stage tables of a
//! guest, which are walked in software (CAP.SAGAW, MGAW, SSLPS, ZLR; ECAP.SSTS, SC), pass-through (ECAP.PT), which the
//! host's second stage carries, draining (CAP.DWD, DRD), which every wait does, hints, and the version (VER).

use super::Features;
use viommu_plugin::Refusal;

/// A field as the guest was shown it and as it is here. More is better in all of them.
struct Field {
    name: &'static str,
    shown: u32,
    here: u32,
}

fn field(name: &'static str, shown: impl Into<u32>, here: impl Into<u32>) -> Field {
    Field { name, shown: shown.into(), here: here.into() }
}

impl Features {
    /// Whether a VT-d of these features serves a guest that was shown `shown`.
    ///
    /// # Errors
    /// The first field in which it falls short, by name (`EOPNOTSUPP`).
    pub fn covers(&self, shown: &Self) -> Result<(), Refusal> {
        let lacking = self.fields(shown).into_iter().find(|field| field.here < field.shown);
        lacking.map_or(Ok(()), |Field { name, shown, here }| {
            let text = format!("{name}: the guest was shown {shown}, this host has {here}");
            Err(Refusal::new(Refusal::EOPNOTSUPP, text))
        })
    }

    /// Every field that the hardware must keep, in the order of the registers.
    fn fields(&self, shown: &Self) -> Vec<Field> {
        let (shown_cap, shown_ecap, cap, ecap) = (shown.cap, shown.ecap, self.cap, self.ecap);
        vec![
            field("CAP.ND", shown_cap.domains(), cap.domains()),
            field("CAP.PSI", shown_cap.page_selective(), cap.page_selective()),
            field("CAP.MAMV", shown_cap.max_address_mask(), cap.max_address_mask()),
            field("CAP.FS1GP", shown_cap.first_stage_1g(), cap.first_stage_1g()),
            field("CAP.FS5LP", shown_cap.first_stage_5_levels(), cap.first_stage_5_levels()),
            field("ECAP.C", shown_ecap.coherent(), ecap.coherent()),
            field("ECAP.QI", shown_ecap.queued_invalidation(), ecap.queued_invalidation()),
            field("ECAP.DT", shown_ecap.device_tlb(), ecap.device_tlb()),
            field("ECAP.PRS", shown_ecap.page_request(), ecap.page_request()),
            field("ECAP.ERS", shown_ecap.execute_request(), ecap.execute_request()),
            field("ECAP.SRS", shown_ecap.supervisor_request(), ecap.supervisor_request()),
            field("ECAP.NWFS", shown_ecap.no_write_flag(), ecap.no_write_flag()),
            field("ECAP.EAFS", shown_ecap.extended_accessed(), ecap.extended_accessed()),
            field("ECAP.PASID", shown_ecap.pasid(), ecap.pasid()),
            field("ECAP.PSS", shown_ecap.pasid_size(), ecap.pasid_size()),
            field("ECAP.PDS", shown_ecap.page_request_drain(), ecap.page_request_drain()),
            field("ECAP.SMTS", shown_ecap.scalable_mode(), ecap.scalable_mode()),
            field("ECAP.FSTS", shown_ecap.first_stage(), ecap.first_stage()),
            field("ECAP.SMPWCS", shown_ecap.scalable_coherent(), ecap.scalable_coherent()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(here: &Features, shown: &Features) -> String {
        here.covers(shown).map_or_else(|refusal| refusal.text, |()| "nothing".into())
    }

    #[test]
    fn a_shortcoming_is_named_with_both_values() {
        let here = Features::default();
        let shown = Features { cap: here.cap.with_max_address_mask(20), ..here };
        assert_eq!(lacks(&here, &shown), "CAP.MAMV: the guest was shown 20, this host has 18");
        let shown = Features { ecap: here.ecap.with_device_tlb(true), ..here };
        assert_eq!(lacks(&here, &shown), "ECAP.DT: the guest was shown 1, this host has 0");
        assert_eq!(lacks(&shown, &here), "nothing", "more than was shown is no shortcoming");
        assert_eq!(lacks(&here, &here), "nothing");
    }

    #[test]
    fn what_is_the_frontends_or_the_vmms_is_not_compared() {
        let here = Features::default();
        let shown = Features {
            ver: 0x60,
            cap: here.cap.with_fault_offset(0x40).with_fault_registers(7).with_second_stage_levels(0b1110),
            ecap: here.ecap.with_interrupt_remapping(true).with_max_handle_mask(15).with_iotlb_offset(0x10),
        };
        assert_eq!(lacks(&here, &shown), "nothing");
    }

    #[test]
    fn every_feature_that_is_missing_is_missed_by_its_own_name() {
        let most = Features { cap: u64::MAX.into(), ecap: u64::MAX.into(), ver: 0 };
        let none = Features { cap: 0.into(), ecap: 0.into(), ver: 0 };
        let names: Vec<_> = most.fields(&none).into_iter().map(|field| field.name).collect();
        for (at, name) in names.iter().enumerate() {
            let mut fields = none.fields(&most);
            fields[..at].iter_mut().for_each(|field| field.here = field.shown);
            assert_eq!(fields.iter().find(|field| field.here < field.shown).map(|field| field.name), Some(*name));
        }
    }
}
