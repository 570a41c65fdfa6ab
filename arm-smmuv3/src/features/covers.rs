//! Whether one SMMU serves a guest that was shown another's ID registers (§6.3.1 to §6.3.6).
//!
//! Not compared is what the frontend does itself (IDR0.MSI, SEV, ST_LEVEL; IDR1.SIDSIZE, CMDQS, EVENTQS, PRIQS), what
//! only concerns stage 2, which is never the guest's (IDR0.S2P, VMW, VMID16; IDR3.XNX, FWB), hints (IDR0.DORMHINT), what
//! says that something is missing (IDR0.NS1ATS), and names and versions (IDR4, IIDR, AIDR).

use super::Features;
use crate::spec::registers::address_bits;
use viommu_plugin::Refusal;

/// A field as the guest was shown it and as it is here, for people; and whether that will do.
struct Field {
    name: &'static str,
    shown: String,
    here: String,
    covered: bool,
}

/// A field in which more is better.
fn at_least(name: &'static str, shown: impl Into<u32>, here: impl Into<u32>) -> Field {
    let (shown, here) = (shown.into(), here.into());
    Field { name, shown: shown.to_string(), here: here.to_string(), covered: here >= shown }
}

/// A field with rules of its own.
fn coded(name: &'static str, shown: u8, here: u8, covered: bool) -> Field {
    Field { name, shown: shown.to_string(), here: here.to_string(), covered }
}

/// An address size as in IDR5.OAS.
fn address_size(name: &'static str, shown: u8, here: u8) -> Field {
    let (shown, here) = (address_bits(shown), address_bits(here));
    Field { name, shown: format!("{shown} bits"), here: here.to_string(), covered: here >= shown }
}

impl Features {
    /// Whether an SMMU of these features serves a guest that was shown `shown`.
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
        let (s0, s1, s3, s5) = (shown.idr0, shown.idr1, shown.idr3, shown.idr5);
        let (h0, h1, h3, h5) = (self.idr0, self.idr1, self.idr3, self.idr5);
        // 0: both byte orders, 2: little-endian, 3: big-endian.
        let endian = h0.ttendian() == 0 || h0.ttendian() == s0.ttendian();
        // 0: stalls and terminates, 1: terminates only, 2: stalls only.
        let stalls = h0.stall_model() == 0 && s0.stall_model() < 2 || h0.stall_model() == s0.stall_model();
        vec![
            coded("IDR0.TTF", s0.ttf(), h0.ttf(), s0.ttf() & !h0.ttf() == 0),
            at_least("IDR0.COHACC", s0.cohacc(), h0.cohacc()),
            at_least("IDR0.BTM", s0.btm(), h0.btm()),
            at_least("IDR0.HTTU", s0.httu(), h0.httu()),
            at_least("IDR0.ATS", s0.ats(), h0.ats()),
            at_least("IDR0.ASID16", s0.asid16(), h0.asid16()),
            at_least("IDR0.ATOS", s0.atos(), h0.atos()),
            at_least("IDR0.PRI", s0.pri(), h0.pri()),
            at_least("IDR0.CD2L", s0.cd2l(), h0.cd2l()),
            at_least("IDR0.VATOS", s0.vatos(), h0.vatos()),
            coded("IDR0.TTENDIAN", s0.ttendian(), h0.ttendian(), endian),
            at_least("IDR0.ATSRECERR", s0.atsrecerr(), h0.atsrecerr()),
            coded("IDR0.STALL_MODEL", s0.stall_model(), h0.stall_model(), stalls),
            // 1: a terminated access is always told to the device; 0: the guest's CD.A chooses.
            coded(
                "IDR0.TERM_MODEL",
                s0.term_model().into(),
                h0.term_model().into(),
                s0.term_model() || !h0.term_model(),
            ),
            at_least("IDR1.SSIDSIZE", s1.ssidsize(), h1.ssidsize()),
            at_least("IDR1.ATTR_PERMS_OVR", s1.attr_perms_ovr(), h1.attr_perms_ovr()),
            at_least("IDR1.ATTR_TYPES_OVR", s1.attr_types_ovr(), h1.attr_types_ovr()),
            at_least("IDR3.HAD", s3.had(), h3.had()),
            at_least("IDR3.PBHA", s3.pbha(), h3.pbha()),
            at_least("IDR3.PPS", s3.pps(), h3.pps()),
            at_least("IDR3.MPAM", s3.mpam(), h3.mpam()),
            at_least("IDR3.STT", s3.stt(), h3.stt()),
            at_least("IDR3.RIL", s3.ril(), h3.ril()),
            at_least("IDR3.BBML", s3.bbml(), h3.bbml()),
            address_size("IDR5.OAS", s5.oas(), h5.oas()),
            at_least("IDR5.GRAN4K", s5.gran4k(), h5.gran4k()),
            at_least("IDR5.GRAN16K", s5.gran16k(), h5.gran16k()),
            at_least("IDR5.GRAN64K", s5.gran64k(), h5.gran64k()),
            at_least("IDR5.DS", s5.ds(), h5.ds()),
            at_least("IDR5.VAX", s5.vax(), h5.vax()),
            at_least("IDR5.STALL_MAX", s5.stall_max(), h5.stall_max()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::registers::{Idr0, Idr1, Idr3, Idr5};

    fn lacks(here: &Features, shown: &Features) -> String {
        here.covers(shown).map_or_else(|refusal| refusal.text, |()| "nothing".into())
    }

    #[test]
    fn a_shortcoming_is_named_with_both_values() {
        let here = Features::default();
        let shown = Features { idr5: here.idr5.with_oas(5), ..here };
        assert_eq!(lacks(&here, &shown), "IDR5.OAS: the guest was shown 48 bits, this host has 44");
        let shown = Features { idr0: here.idr0.with_ats(true), ..here };
        assert_eq!(lacks(&here, &shown), "IDR0.ATS: the guest was shown 1, this host has 0");
        assert_eq!(lacks(&shown, &here), "nothing", "more than was shown is no shortcoming");
        assert_eq!(lacks(&here, &here), "nothing");
    }

    #[test]
    fn what_is_the_frontends_or_of_stage_2_is_not_compared() {
        let here = Features::default();
        let shown = Features {
            idr0: here.idr0.with_msi(true).with_sev(true).with_s2p(true).with_vmid16(true).with_st_level(0),
            idr1: here.idr1.with_sidsize(32).with_cmdqs(4),
            idr3: here.idr3.with_fwb(true).with_xnx(true),
            iidr: 0x43b,
            ..here
        };
        assert_eq!(lacks(&here, &shown), "nothing");
    }

    #[test]
    fn models_that_are_no_numbers_have_their_own_order() {
        let with = |stall, endian, term| Features {
            idr0: Features::default().idr0.with_stall_model(stall).with_ttendian(endian).with_term_model(term),
            ..Features::default()
        };
        let covered = |here, shown| lacks(&here, &shown) == "nothing";
        assert!(covered(with(0, 2, true), with(1, 2, true)), "terminating only is part of both");
        assert!(!covered(with(1, 2, true), with(0, 2, true)));
        assert!(!covered(with(2, 2, true), with(1, 2, true)));
        assert!(covered(with(1, 0, true), with(1, 2, true)), "mixed takes little-endian");
        assert!(!covered(with(1, 2, true), with(1, 0, true)));
        assert!(covered(with(1, 2, false), with(1, 2, true)) && !covered(with(1, 2, true), with(1, 2, false)));
    }

    #[test]
    fn every_field_that_is_compared_can_be_found_short() {
        let everything = Features {
            idr0: Idr0::from_bits(u32::MAX).with_ttendian(0).with_stall_model(0).with_term_model(false),
            idr1: Idr1::from_bits(u32::MAX),
            idr3: Idr3::from_bits(u32::MAX),
            idr5: Idr5::from_bits(u32::MAX),
            ..Features::default()
        };
        let nothing = Features {
            idr0: Idr0::new().with_ttendian(2).with_stall_model(1).with_term_model(true),
            idr1: Idr1::new(),
            idr3: Idr3::new(),
            idr5: Idr5::new(),
            ..everything
        };
        for field in nothing.fields(&everything) {
            assert!(!field.covered, "{} {} {}", field.name, field.shown, field.here);
        }
        assert_eq!(lacks(&everything, &nothing), "nothing");
    }
}
