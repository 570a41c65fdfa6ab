//! The ID registers a guest is shown, and what they may not promise.

mod covers;

use crate::spec::registers::{Idr0, Idr1, Idr3, Idr5, offset};
use viommu_plugin::{Refusal, Register};

/// ID registers of one guest: frontend and codec are fixed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// SMMU_IDR0.
    pub idr0: Idr0,
    /// SMMU_IDR1.
    pub idr1: Idr1,
    /// SMMU_IDR2 (VATOS page; nothing of it is offered).
    pub idr2: u32,
    /// SMMU_IDR3.
    pub idr3: Idr3,
    /// SMMU_IDR4 (implementation defined).
    pub idr4: u32,
    /// SMMU_IDR5.
    pub idr5: Idr5,
    /// SMMU_IIDR.
    pub iidr: u32,
    /// SMMU_AIDR.
    pub aidr: u32,
}

impl Default for Features {
    /// What a guest is shown where nothing else is said: stage 1 of VMSAv8-64 with all granules and 44-bit addresses,
    /// range invalidation, 16-bit StreamIDs and ASIDs, two-level stream tables, wired interrupts.
    fn default() -> Self {
        Self {
            idr0: Idr0::new()
                .with_s1p(true)
                .with_ttf(2)
                .with_cohacc(true)
                .with_asid16(true)
                .with_cd2l(true)
                .with_ttendian(2)
                .with_stall_model(1)
                .with_term_model(true)
                .with_st_level(1),
            idr1: Idr1::new().with_sidsize(16).with_eventqs(19).with_cmdqs(19),
            idr2: 0,
            idr3: Idr3::new().with_had(true).with_ril(true).with_bbml(2),
            idr4: 0,
            idr5: Idr5::new().with_oas(4).with_gran4k(true).with_gran16k(true).with_gran64k(true),
            iidr: 0,
            aidr: 0,
        }
    }
}

impl Features {
    /// The features in `registers`; an offset not listed has the value of [`Features::default`].
    ///
    /// # Errors
    /// If they promise what a vIOMMU cannot be: no stage 1, EL2 regimes, preset tables, only other table formats.
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let mut features = Self::default();
        for register in registers {
            let value = register.value as u32;
            match register.offset {
                offset::IDR0 => features.idr0 = Idr0::from_bits(value),
                offset::IDR1 => features.idr1 = Idr1::from_bits(value),
                offset::IDR2 => features.idr2 = value,
                offset::IDR3 => features.idr3 = Idr3::from_bits(value),
                offset::IDR4 => features.idr4 = value,
                offset::IDR5 => features.idr5 = Idr5::from_bits(value),
                offset::IIDR => features.iidr = value,
                offset::AIDR => features.aidr = value,
                _ => {}
            }
        }
        match features.impossible() {
            Some(reason) => Err(Refusal::new(Refusal::EOPNOTSUPP, reason)),
            None => Ok(features),
        }
    }

    /// Why a vIOMMU cannot be what the registers say.
    fn impossible(&self) -> Option<&'static str> {
        let (idr0, idr1) = (self.idr0, self.idr1);
        if !idr0.s1p() {
            return Some("IDR0.S1P = 0: the guest would own stage 2, which a vIOMMU never offers");
        }
        if idr0.hyp() {
            return Some("IDR0.HYP = 1: the guest would use EL2 translation regimes, which a vIOMMU never offers");
        }
        if idr0.ttf() & 2 == 0 {
            return Some("IDR0.TTF has no AArch64: the guest would use VMSAv8-32 tables, which are not supported");
        }
        if idr0.ttendian() & 1 != 0 {
            return Some("IDR0.TTENDIAN is big-endian or reserved: only little-endian tables are supported");
        }
        if idr1.tables_preset() || idr1.queues_preset() {
            return Some("IDR1.TABLES_PRESET or QUEUES_PRESET = 1: a guest's tables and queues are in its own memory");
        }
        if idr1.ecmdq() {
            return Some("IDR1.ECMDQ = 1: enhanced command queues are not offered");
        }
        if idr1.sidsize() > 32 {
            return Some("IDR1.SIDSIZE is above 32");
        }
        None
    }

    /// The ID registers with their offsets, as a guest reads them.
    pub fn registers(&self) -> [Register; 8] {
        let register = |offset, value: u32| Register { offset, value: u64::from(value) };
        [
            register(offset::IDR0, self.idr0.into_bits()),
            register(offset::IDR1, self.idr1.into_bits()),
            register(offset::IDR2, self.idr2),
            register(offset::IDR3, self.idr3.into_bits()),
            register(offset::IDR4, self.idr4),
            register(offset::IDR5, self.idr5.into_bits()),
            register(offset::IIDR, self.iidr),
            register(offset::AIDR, self.aidr),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: u64, value: u32) -> Result<Features, Refusal> {
        Features::new(&[Register { offset, value: value.into() }])
    }

    #[test]
    fn a_guest_that_would_own_stage_2_is_refused_by_name() {
        let refusal = with(offset::IDR0, 0x0d44_1019).unwrap_err();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains("IDR0.S1P"), "{refusal}");
    }

    #[test]
    fn qemu_values_are_taken_and_shown_as_given() {
        let features = with(offset::IDR0, 0x0d44_101b).unwrap();
        assert!(features.idr0.s2p() && features.idr0.asid16() && !features.idr0.ats());
        assert_eq!(features.registers()[0].value, 0x0d44_101b);
    }

    #[test]
    fn defaults_survive_their_own_check() {
        let features = Features::default();
        assert_eq!(Features::new(&features.registers()).unwrap(), features);
        assert_eq!(Features::new(&[]).unwrap(), features);
    }

    #[test]
    fn impossible_sets_are_refused() {
        for (at, value, names) in [
            (offset::IDR0, 0x0d44_121b, "HYP"),
            (offset::IDR0, 0x0d44_1017, "TTF"),
            (offset::IDR0, 0x0d64_101b, "TTENDIAN"),
            (offset::IDR1, 1 << 30, "PRESET"),
            (offset::IDR1, 1 << 31, "ECMDQ"),
            (offset::IDR1, 33, "SIDSIZE"),
        ] {
            let refusal = with(at, value).unwrap_err();
            assert!(refusal.text.contains(names), "{refusal}");
        }
    }
}
