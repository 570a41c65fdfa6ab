//! What this unit is: VER, CAP and ECAP, the model's own or those of a recording.

use crate::spec::registers::{Cap, Ecap, offset};
use viommu_plugin::{Refusal, Register};

/// VER, CAP and ECAP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) cap: Cap,
    pub(crate) ecap: Ecap,
}

impl Identity {
    /// The registers that `registers` lists, whole or by half, and the model's own values for the others.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if they describe a unit that can translate in no stage.
    pub(crate) fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let mut identity = Self::default();
        for register in registers {
            match register.offset {
                offset::VER => identity.version = register.value as u32,
                offset::CAP => identity.cap = register.value.into(),
                offset::ECAP => identity.ecap = register.value.into(),
                _ => {}
            }
        }
        let first_stage = identity.ecap.scalable_mode() && identity.ecap.first_stage();
        if !first_stage && identity.cap.second_stage_levels() & 0b1110 == 0 {
            let text = "VT-d model: CAP.SAGAW offers no second stage and ECAP.SMTS, FSTS no first stage";
            return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
        }
        Ok(identity)
    }

    /// Whether AW (levels less two) of a second-stage table is one that CAP.SAGAW offers.
    pub(crate) fn has_second_stage(&self, address_width: u8) -> bool {
        (1..=3).contains(&address_width) && self.cap.second_stage_levels() >> address_width & 1 != 0
    }
}

impl Default for Identity {
    /// Both modes, both stages of every depth, nesting, PASIDs, ATS, eight fault recording registers.
    fn default() -> Self {
        let cap = Cap::new()
            .with_domains(6)
            .with_second_stage_levels(0b1110)
            .with_address_width(56)
            .with_fault_offset(0x22)
            .with_second_stage_leaves(3)
            .with_page_selective(true)
            .with_fault_registers(7)
            .with_max_address_mask(18)
            .with_drain_writes(true)
            .with_drain_reads(true)
            .with_first_stage_1g(true)
            .with_first_stage_5_levels(true)
            .with_set_root_table_invalidates(true);
        let ecap = Ecap::new()
            .with_coherent(true)
            .with_queued_invalidation(true)
            .with_device_tlb(true)
            .with_interrupt_remapping(true)
            .with_pass_through(true)
            .with_snoop_control(true)
            .with_iotlb_offset(0xf)
            .with_max_handle_mask(15)
            .with_nested(true)
            .with_supervisor_request(true)
            .with_pasid_size(19)
            .with_pasid(true)
            .with_scalable_mode(true)
            .with_second_stage(true)
            .with_first_stage(true)
            .with_scalable_coherent(true)
            .with_rid_pasid(true)
            .with_abort_mode(true)
            .with_rid_privileged(true);
        Self { version: 0x10, cap, ecap }
    }
}
