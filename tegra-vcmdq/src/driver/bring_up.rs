//! Taking over a CMDQV, in the order in which Linux does it.

use super::{Cmdqv, POLLS};
use crate::spec::{CMDQV, CmdqAlloc, Enable, Param, VintfConfig, VintfStatus, offset, vintf};
use viommu_plugin::{Hardware, Refusal};

impl Cmdqv {
    /// `None` if there is none, or it does not come up: the SMMU works without.
    pub(super) fn take_over(hardware: &dyn Hardware) -> Option<Self> {
        let read = |at| hardware.mmio_read(CMDQV + at, 4) as u32;
        let write = |at, value: u32| hardware.mmio_write(CMDQV + at, 4, value.into());
        let param = Param::from_bits(read(offset::PARAM));
        if param.ver() == 0 || param.into_bits() == u32::MAX || param.per_vintf() == 0 {
            return None;
        }
        // 1. Off; nobody has a queue; each queue has its place, the same for ever.
        let enabled = |on: bool| move |status| Enable::from_bits(status).en() == on;
        write(offset::CONFIG, Enable::new().into_bits());
        poll(hardware, offset::STATUS, enabled(false), "STATUS does not follow CONFIG").ok()?;
        for queue in 0..param.vcmdqs() {
            write(offset::CMDQ_ALLOC + 4 * u64::from(queue), place(param, queue).into_bits());
        }
        for number in 0..param.vintfs() {
            let block = offset::VINTF + offset::VINTF_STRIDE * u64::from(number);
            write(block + vintf::CONFIG, VintfConfig::new().into_bits());
            for slot in 0..u64::from(param.slots()) {
                write(block + vintf::SID_MATCH + 4 * slot, 0);
                write(block + vintf::SID_REPLACE + 4 * slot, 0);
            }
        }
        // 2. Every VINTF's errors interrupt.
        write(offset::VINTF_INT_MASK, 0);
        write(offset::VINTF_INT_MASK + 4, 0);
        write(offset::CONFIG, Enable::new().with_en(true).into_bits());
        poll(hardware, offset::STATUS, enabled(true), "STATUS does not follow CONFIG").ok()?;
        // 3. The host's own VINTF. The host's commands go through the SMMU's queue, so none of its queues is used.
        let host = VintfConfig::new().with_hyp_own(true).with_en(true);
        write(offset::VINTF + vintf::CONFIG, host.into_bits());
        let up = |status| VintfStatus::from_bits(status).enabled();
        poll(hardware, offset::VINTF + vintf::STATUS, up, "VINTF 0 does not come up").ok()?;
        Some(Self { param, vintfs: (0..param.vintfs()).map(|_| None).collect() })
    }
}

/// CMDQ_ALLOC of a queue that nobody has: a VINTF's queues lie side by side.
pub(super) fn place(param: Param, queue: u32) -> CmdqAlloc {
    let (vintf, lvcmdq) = (queue / param.per_vintf(), queue % param.per_vintf());
    CmdqAlloc::new().with_vintf(vintf as u8).with_lvcmdq(lvcmdq as u8)
}

/// Waits until `done` holds for the register.
pub(super) fn poll(hardware: &dyn Hardware, at: u64, done: impl Fn(u32) -> bool, what: &str) -> Result<(), Refusal> {
    for _ in 0..POLLS {
        if done(hardware.mmio_read(CMDQV + at, 4) as u32) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(Refusal::new(Refusal::ETIMEDOUT, format!("CMDQV does not answer: {what}")))
}
