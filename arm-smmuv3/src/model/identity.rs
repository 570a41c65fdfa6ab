//! What this SMMU is: its ID registers, the model's own or those of a recording.

use crate::spec::registers::{Idr0, Idr1, Idr3, Idr5, address_bits, offset};
use viommu_plugin::{Refusal, Register};

/// SMMU_IDR0 to SMMU_AIDR.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    words: [u32; 8],
}

impl Identity {
    /// The ID registers that `registers` lists, and the model's own values for the others. Offsets that are no ID
    /// register are ignored.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if they describe an SMMU without VMSAv8-64 tables or without any stage of translation.
    pub(crate) fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let mut identity = Self::default();
        for register in registers {
            if let (Ok(place), 0) = (usize::try_from(register.offset / 4), register.offset % 4)
                && let Some(word) = identity.words.get_mut(place)
            {
                *word = register.value as u32;
            }
        }
        let idr0 = identity.idr0();
        if idr0.ttf() & 2 == 0 {
            let text = format!("SMMUv3 model: IDR0.TTF is {}: only VMSAv8-64 tables are modelled", idr0.ttf());
            return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
        }
        if !idr0.s1p() && !idr0.s2p() {
            let text = "SMMUv3 model: IDR0 offers neither stage 1 nor stage 2";
            return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
        }
        Ok(identity)
    }

    /// The register at `place` x 4 bytes.
    pub(crate) fn word(&self, place: usize) -> Option<u32> {
        self.words.get(place).copied()
    }
    /// SMMU_IDR0.
    pub(crate) fn idr0(&self) -> Idr0 {
        Idr0::from(self.words[(offset::IDR0 / 4) as usize])
    }
    /// SMMU_IDR1.
    pub(crate) fn idr1(&self) -> Idr1 {
        Idr1::from(self.words[(offset::IDR1 / 4) as usize])
    }
    /// SMMU_IDR3.
    pub(crate) fn idr3(&self) -> Idr3 {
        Idr3::from(self.words[(offset::IDR3 / 4) as usize])
    }
    /// SMMU_IDR5.
    pub(crate) fn idr5(&self) -> Idr5 {
        Idr5::from(self.words[(offset::IDR5 / 4) as usize])
    }

    /// Output address bits of the SMMU (IDR5.OAS).
    pub(crate) fn output_bits(&self) -> u8 {
        address_bits(self.idr5().oas()) as u8
    }
    /// Intermediate address bits (IAS, §3.4): 40 at least where there are VMSAv8-32 tables.
    pub(crate) fn intermediate_bits(&self) -> u8 {
        let lpae = if self.idr0().ttf() & 1 != 0 { 40 } else { 0 };
        self.output_bits().max(lpae)
    }
    /// log2 of a granule coded as in CD.TG0 and STE.S2TG, if this SMMU has it.
    pub(crate) fn granule(&self, tg: u8) -> Option<u8> {
        let idr5 = self.idr5();
        match tg {
            0 if idr5.gran4k() => Some(12),
            1 if idr5.gran64k() => Some(16),
            2 if idr5.gran16k() => Some(14),
            _ => None,
        }
    }
    /// The bits of an ASID that count (IDR0.ASID16).
    pub(crate) fn asid(&self, asid: u16) -> u16 {
        if self.idr0().asid16() { asid } else { asid & 0xff }
    }
    /// The bits of a VMID that count: none without stage 2 (IDR0.S2P, IDR0.VMID16).
    pub(crate) fn vmid(&self, vmid: u16) -> u16 {
        match (self.idr0().s2p(), self.idr0().vmid16()) {
            (false, _) => 0,
            (true, false) => vmid & 0xff,
            (true, true) => vmid,
        }
    }
}

impl Default for Identity {
    /// Both stages, all granules, 48-bit output, 16-bit ASIDs and VMIDs, ATS, range invalidation, hierarchical attributes
    /// that can be disabled, no break-before-make (a TLB with several entries for an address uses one of them), two-level
    /// tables.
    fn default() -> Self {
        let idr0 = Idr0::new()
            .with_s1p(true)
            .with_s2p(true)
            .with_ttf(2)
            .with_cohacc(true)
            .with_ats(true)
            .with_asid16(true)
            .with_msi(true)
            .with_sev(true)
            .with_vmid16(true)
            .with_cd2l(true)
            .with_ttendian(2)
            .with_stall_model(1)
            .with_st_level(1);
        let idr1 = Idr1::new().with_sidsize(24).with_ssidsize(8).with_cmdqs(19).with_eventqs(19);
        let idr3 = Idr3::new().with_had(true).with_ril(true).with_bbml(2);
        let idr5 = Idr5::new().with_oas(5).with_gran4k(true).with_gran16k(true).with_gran64k(true);
        let mut words = [0; 8];
        words[(offset::IDR0 / 4) as usize] = idr0.into();
        words[(offset::IDR1 / 4) as usize] = idr1.into();
        words[(offset::IDR3 / 4) as usize] = idr3.into();
        words[(offset::IDR5 / 4) as usize] = idr5.into();
        Self { words }
    }
}
