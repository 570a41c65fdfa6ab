//! The ID registers a guest is shown, and what they may not promise.

mod covers;

use crate::spec::registers::{Cap, Ecap, offset};
use viommu_plugin::{Refusal, Register, TranslationMode};

/// ID registers of one guest: frontend and codec are fixed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// VER.
    pub ver: u32,
    /// CAP.
    pub cap: Cap,
    /// ECAP.
    pub ecap: Ecap,
}

/// How a guest's own tables are put to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The hardware walks the guest's first-stage tables, nested in the host's second stage.
    Nested,
    /// The framework walks the guest's second-stage tables, at each invalidation.
    Shadow,
}

impl Default for Features {
    /// What a guest is shown where nothing else is said: scalable mode with first-stage tables of four levels, caching
    /// mode, 16-bit domain-ids, 256-bit descriptors, one fault recording register; no PASIDs, no device-TLBs.
    fn default() -> Self {
        Self {
            ver: 0x10,
            cap: Cap::new()
                .with_domains(6)
                .with_caching_mode(true)
                // Three and four levels: a Linux guest gives up without any, though it uses none.
                .with_second_stage_levels(0b110)
                .with_address_width(47)
                .with_fault_offset(0x22)
                .with_second_stage_leaves(0b11)
                .with_page_selective(true)
                .with_max_address_mask(18)
                .with_drain_writes(true)
                .with_drain_reads(true)
                .with_first_stage_1g(true),
            ecap: Ecap::new()
                .with_coherent(true)
                .with_queued_invalidation(true)
                .with_pass_through(true)
                .with_iotlb_offset(0xf)
                .with_scalable_mode(true)
                .with_first_stage(true)
                .with_scalable_coherent(true),
        }
    }
}

impl Features {
    /// What guests served in `mode` may be shown on hardware with the ID registers `host`.
    pub(crate) fn shown(host: Self, mode: TranslationMode) -> Self {
        let own = Self::default();
        let cap = own
            .cap
            .with_domains(host.cap.domains().min(6))
            .with_page_selective(host.cap.page_selective())
            .with_max_address_mask(host.cap.max_address_mask())
            .with_first_stage_1g(host.cap.first_stage_1g())
            .with_first_stage_5_levels(host.cap.first_stage_5_levels());
        let ecap = own.ecap.with_coherent(true).with_device_tlb(host.ecap.device_tlb());
        match mode {
            TranslationMode::NESTED => Self {
                ver: host.ver,
                cap,
                ecap: ecap
                    .with_supervisor_request(host.ecap.supervisor_request())
                    .with_extended_accessed(host.ecap.extended_accessed())
                    .with_scalable_coherent(host.ecap.scalable_coherent()),
            },
            _ => Self {
                ver: host.ver,
                cap: cap.with_first_stage_1g(false).with_first_stage_5_levels(false),
                ecap: ecap.with_scalable_mode(false).with_first_stage(false).with_scalable_coherent(false),
            },
        }
    }

    /// The features in `registers`; an offset not listed has the value of [`Features::default`].
    ///
    /// # Errors
    /// If they promise what a vIOMMU cannot be, or tables that neither the hardware can walk nor anybody can follow.
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let mut features = Self::default();
        for register in registers {
            match register.offset {
                offset::VER => features.ver = register.value as u32,
                offset::CAP => features.cap = register.value.into(),
                offset::ECAP => features.ecap = register.value.into(),
                _ => {}
            }
        }
        match features.impossible() {
            Some(reason) => Err(Refusal::new(Refusal::EOPNOTSUPP, reason)),
            None => Ok(features),
        }
    }

    /// How this guest is served: its first-stage tables where it has them, else its second-stage tables, which it must
    /// announce. [`Features::new`] has made sure of one of the two.
    #[inline]
    pub fn service(&self) -> Service {
        if self.ecap.scalable_mode() && self.ecap.first_stage() { Service::Nested } else { Service::Shadow }
    }

    /// Why a vIOMMU cannot be what the registers say.
    fn impossible(&self) -> Option<&'static str> {
        let (cap, ecap) = (self.cap, self.ecap);
        if !ecap.queued_invalidation() {
            return Some("ECAP.QI = 0: a vIOMMU takes invalidations by the queue only");
        }
        if self.service() == Service::Shadow && !cap.caching_mode() {
            return Some(
                "ECAP.SMTS or ECAP.FSTS = 0 and CAP.CM = 0: the guest would use second-stage tables, which no hardware \
                 nests, and would not announce what it maps in them",
            );
        }
        if ecap.nested() {
            return Some("ECAP.NEST = 1: a vIOMMU nests one stage of a guest, not two");
        }
        if ecap.rid_pasid() {
            return Some("ECAP.RPS = 1: requests without PASID are looked up as PASID 0, whatever RID_PASID says");
        }
        if ecap.rid_privileged() {
            return Some("ECAP.RPRIVS = 1: requests without PASID are never privileged");
        }
        if ecap.device_tlb_throttle() {
            return Some("ECAP.DIT = 1: the PFSID of a guest's device-TLB invalidations would name a physical device");
        }
        if cap.advanced_fault_log() {
            return Some("CAP.AFL = 1: faults are reported in the recording registers only");
        }
        if cap.domains() > 6 {
            return Some("CAP.ND = 7 is reserved");
        }
        // What both places must not run into: the registers with fixed offsets, each other, the end of the frame.
        let (faults, end) = (cap.fault_register(0), cap.fault_register(u32::from(cap.fault_registers()) + 1));
        let (iva, iotlb_end) = (ecap.iva(), ecap.iotlb() + 8);
        let inside = |start: u64, end: u64| start >= FIXED_END && end <= crate::spec::registers::FRAME_BYTES;
        if !inside(faults, end) || !inside(iva, iotlb_end) || faults < iotlb_end && iva < end {
            return Some("CAP.FRO, CAP.NFR or ECAP.IRO place registers outside the frame or over others");
        }
        None
    }

    /// The ID registers with their offsets, as a guest reads them.
    pub fn registers(&self) -> [Register; 3] {
        let register = |offset, value| Register { offset, value };
        [
            register(offset::VER, self.ver.into()),
            register(offset::CAP, self.cap.into_bits()),
            register(offset::ECAP, self.ecap.into_bits()),
        ]
    }
}

/// Behind the last register with a fixed place that is offered (PEUADDR).
const FIXED_END: u64 = 0xf0;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cap: u64, ecap: u64) -> Result<Features, Refusal> {
        let register = |offset, value| Register { offset, value };
        Features::new(&[register(offset::CAP, cap), register(offset::ECAP, ecap)])
    }

    #[test]
    fn recorded_guests_in_scalable_mode_are_nested_and_see_what_they_saw() {
        for (cap, ecap) in [(0x81d2_008c_222f_0606, 0x8800_00f0_0f4e), (0x81d2_008c_222f_0606, 0x8800_00f0_0f4a)] {
            let features = with(cap, ecap).unwrap();
            assert_eq!(features.service(), Service::Nested);
            assert_eq!((features.registers()[1].value, features.registers()[2].value), (cap, ecap));
        }
    }

    #[test]
    fn a_legacy_guest_without_caching_mode_is_refused_by_name_and_with_it_is_followed() {
        let refusal = with(0x80d2_008c_222f_0606, 0xf0_0f4a).unwrap_err();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        for name in ["ECAP.SMTS", "ECAP.FSTS", "CAP.CM"] {
            assert!(refusal.text.contains(name), "{refusal}");
        }
        assert_eq!(with(0x80d2_008c_222f_0686, 0xf0_0f4a).unwrap().service(), Service::Shadow);
    }

    #[test]
    fn defaults_survive_their_own_check() {
        let features = Features::default();
        assert_eq!(Features::new(&features.registers()).unwrap(), features);
        assert_eq!(Features::new(&[]).unwrap(), features);
    }

    #[test]
    fn impossible_sets_are_refused() {
        let (cap, ecap) = (Features::default().cap, Features::default().ecap);
        for (cap, ecap, names) in [
            (cap, ecap.with_queued_invalidation(false), "ECAP.QI"),
            (cap, ecap.with_nested(true), "ECAP.NEST"),
            (cap, ecap.with_rid_pasid(true), "ECAP.RPS"),
            (cap, ecap.with_rid_privileged(true), "ECAP.RPRIVS"),
            (cap, ecap.with_device_tlb_throttle(true), "ECAP.DIT"),
            (cap.with_advanced_fault_log(true), ecap, "CAP.AFL"),
            (cap.with_domains(7), ecap, "CAP.ND"),
            (cap.with_fault_offset(0xe), ecap, "CAP.FRO"),
            (cap.with_fault_offset(0xf), ecap, "CAP.FRO"),
            (cap.with_fault_registers(255), ecap, "CAP.NFR"),
            (cap, ecap.with_iotlb_offset(0x100), "ECAP.IRO"),
            (cap.with_caching_mode(false), ecap.with_first_stage(false), "ECAP.FSTS"),
        ] {
            let refusal = with(cap.into(), ecap.into()).unwrap_err();
            assert!(refusal.text.contains(names), "{names}: {refusal}");
        }
    }
}
