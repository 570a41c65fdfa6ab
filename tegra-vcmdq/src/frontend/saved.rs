//! The guest's CMDQV as bytes: the SMMU's, counted, then every register that holds a value. What is hardware's (page0)
//! is not here: a guest with queues of its own is not moved.

use super::TegraFrontend;
use super::cmdqv::{ALLOC_BITS, BASE_BITS, GuestCmdqv, Queue, VINTF_BITS, covers};
use crate::spec::{CmdqAlloc, Enable, Param, VcmdqBase, VintfConfig};
use viommu_plugin::{Frontend, Refusal, StateReader, StateWriter};

const WHAT: &str = "saved CMDQV registers";
/// The version written, and the newest one read.
const VERSION: u32 = 1;

impl TegraFrontend {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { smmu, cmdqv } = self;
        let mut state = StateWriter::new(VERSION);
        state.counted(&smmu.save()).u32(cmdqv.param().into_bits());
        state.u32(cmdqv.config.into_bits()).u32(cmdqv.int_mask[0]).u32(cmdqv.int_mask[1]);
        state.u32(cmdqv.vintf.into_bits()).u64(cmdqv.errors as u64).u64((cmdqv.errors >> 64) as u64);
        for queue in &cmdqv.queues {
            state.u32(queue.alloc.into_bits()).u64(queue.base.into_bits());
        }
        state.into_bytes()
    }

    /// The frontend of `bytes`, which shows what this one shows.
    ///
    /// # Errors
    /// As [`Frontend::restore`].
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Result<Self, Refusal> {
        let (mut state, _) = StateReader::versioned(WHAT, bytes, VERSION)?;
        let mut smmu = self.smmu.clone();
        smmu.restore(state.counted("SMMU")?)?;
        let (shown, own) = (Param::from_bits(state.u32("PARAM")?), self.cmdqv.param());
        covers(own, shown)?;
        if shown != own {
            let (shown, own) = (shown.into_bits(), own.into_bits());
            return Err(state.wrong("PARAM", format!("the guest was shown {shown:#x}, this shows {own:#x}")).into());
        }
        let mut cmdqv = GuestCmdqv::new(own);
        cmdqv.config = Enable::from_bits(state.u32_within(1, "CONFIG")?);
        cmdqv.int_mask = [state.u32("VINTF_INT_MASK")?, state.u32("VINTF_INT_MASK")?];
        cmdqv.vintf = VintfConfig::from_bits(state.u32_within(VINTF_BITS, "VINTF_CONFIG")?);
        cmdqv.errors = u128::from(state.u64("LVCMDQ_ERR_MAP")?) | u128::from(state.u64("LVCMDQ_ERR_MAP")?) << 64;
        if cmdqv.errors.checked_shr(cmdqv.queues.len() as u32).unwrap_or(0) != 0 {
            return Err(state.wrong("LVCMDQ_ERR_MAP", "names queues that there are not").into());
        }
        for queue in &mut cmdqv.queues {
            let alloc = CmdqAlloc::from_bits(state.u32_within(ALLOC_BITS, "CMDQ_ALLOC")?);
            *queue = Queue { alloc, base: VcmdqBase::from_bits(state.u64_within(BASE_BITS, "BASE")?) };
        }
        state.end()?;
        Ok(Self { smmu, cmdqv })
    }
}
