//! What a guest sees: an SMMU, and behind it a CMDQV with one VINTF.
//!
//! ```text
//!   0x00000  SMMU                      ArmFrontend
//!   0x20000  CMDQV config page         here: PARAM, CMDQ_ALLOC, VINTF 0 without HYP_OWN, error maps as last reported
//!   0x30000  all queues, page0         here: reads as zero (no driver uses it; VINTF 0's pages are the same queues)
//!   0x40000  all queues, page1         here, as VINTF 0's
//!   0x50000  VINTF 0 page0             not here: the hardware's own page, which the VMM maps into the guest
//!   0x60000  VINTF 0 page1             here: BASE, which asks for a queue
//! ```

mod cmdqv;
mod saved;

use crate::spec::CMDQV;
use arm_smmuv3::frontend::ArmFrontend;
use cmdqv::GuestCmdqv;
use viommu_plugin::{
    Effects, Frontend, GuestFault, GuestMemory, GuestQueue, HwQueueRequest, Lookup, Message, Mode, NO_STREAM, Refusal,
    Register,
};

pub use cmdqv::{covers, shown};

/// One guest's SMMU and CMDQV.
#[derive(Debug, Clone)]
pub struct TegraFrontend {
    smmu: ArmFrontend,
    cmdqv: GuestCmdqv,
}

impl TegraFrontend {
    /// A frontend that shows these ID registers, everything else at its reset value. PARAM, if it is not listed, is
    /// one VINTF of [`crate::spec::Param::MODEL`].
    ///
    /// # Errors
    /// As [`ArmFrontend::new`] and [`shown`].
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        Ok(Self { smmu: ArmFrontend::new(registers)?, cmdqv: GuestCmdqv::new(shown(registers)?) })
    }
}

impl Frontend for TegraFrontend {
    fn read(&self, at: u64, size: u32) -> u64 {
        if at < CMDQV { self.smmu.read(at, size) } else { self.cmdqv.read(at - CMDQV, size) }
    }

    fn write(&mut self, at: u64, size: u32, value: u64) -> Effects {
        if at < CMDQV { self.smmu.write(at, size, value) } else { self.cmdqv.write(at - CMDQV, size, value) }
    }

    fn queue(&self) -> GuestQueue {
        self.smmu.queue()
    }

    fn advance(&mut self, commands: u32) {
        self.smmu.advance(commands);
    }

    fn fault(&mut self, fault: GuestFault) -> Effects {
        self.smmu.fault(fault)
    }

    fn sync_done(&mut self, command: &[u64]) -> Effects {
        self.smmu.sync_done(command)
    }

    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        match virt_id {
            NO_STREAM => self.cmdqv.queue_errors(record),
            _ => self.smmu.event(virt_id, record),
        }
    }

    fn event_lost(&mut self) -> Effects {
        self.smmu.event_lost()
    }

    fn mode(&self) -> Mode {
        self.smmu.mode()
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        self.smmu.entry(memory, virt_id, entry)
    }

    fn reset(&mut self) {
        self.smmu.reset();
        self.cmdqv = GuestCmdqv::new(self.cmdqv.param());
    }

    fn register_name(&self, at: u64) -> Option<&'static str> {
        if at < CMDQV { self.smmu.register_name(at) } else { cmdqv::register_name(at - CMDQV) }
    }

    fn trouble(&self, text: &mut Message) {
        self.smmu.trouble(text);
    }

    fn hw_queues(&self, queues: &mut [HwQueueRequest]) -> usize {
        self.cmdqv.requests(queues)
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal> {
        *self = self.of_bytes(state)?;
        Ok(())
    }
}
