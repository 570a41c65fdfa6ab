//! The Tegra241 in software: an SMMUv3, and beside it the CMDQV with queues that guests fill themselves.
//!
//! ```text
//!   mmio ──┬─► SMMU frame ───────────────────► Smmu ◄── execute_for ──┐
//!          └─► CMDQV frame ─► registers ─► step: every enabled queue ─┤ VINTF: its VMID, SID_MATCH -> SID_REPLACE
//!                                 ▲                                   │
//!                                 └──── CONS.ERR, GERROR, error maps ◄┘ ─► interrupt (line 4)
//! ```
//!
//! What no public text says is our choice, and marked so where it is made: an opcode that a guest's queue does not take
//! and a StreamID without a slot are CERROR_ILL; a queue that is not given to a VINTF reads as zero there; an ATC_INV of
//! a queue that nobody answered is remembered by the queue until a SYNC of it, or, once it is disabled, one of the
//! SMMU's own queue.
//!
//! Not modelled: CONS_INDX_BASE (a copy of CONS in memory), which Linux does not offer either.

mod commands;
mod registers;
mod vcmdq;

use crate::spec::{CMDQV, CMDQV_LINE, Param, offset};
use arm_smmuv3::model::Smmu;
use registers::Registers;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelConfig, ModelHost, Refusal, Request};

/// A software SMMUv3 with a CMDQV.
pub struct Tegra {
    smmu: Smmu,
    cmdqv: Registers,
    /// The SMMU's own SYNCs so far.
    syncs: u64,
}

impl Tegra {
    /// Both after power-on. PARAM, if `config` does not list it, is [`Param::MODEL`]; version 0 is an SMMU without CMDQV.
    ///
    /// # Errors
    /// As [`Smmu::new`]; and if PARAM says what its own error maps have no room for, or fewer queues than VINTFs.
    pub fn new(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self, Refusal> {
        let listed = config.registers.iter().find(|register| register.offset == CMDQV + offset::PARAM);
        let param = listed.map_or(Param::MODEL, |register| Param::from_bits(register.value as u32));
        if 1u32 << param.num_vintf_log2() > param.vintfs()
            || 1u32 << param.num_vcmdq_log2() > param.vcmdqs()
            || param.num_sid_log2() > 4
            || param.num_vcmdq_log2() < param.num_vintf_log2()
        {
            let text = format!("CMDQV model: PARAM {:#x}: at most 128 queues, 64 VINTFs, 16 slots", param.into_bits());
            return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
        }
        Ok(Self { smmu: Smmu::new(host, config)?, cmdqv: Registers::new(param), syncs: 0 })
    }

    /// Executes at most `budget` commands of the SMMU's own queue; what devices did not answer is told to nobody else
    /// after a SYNC of it.
    fn step_smmu(&mut self, budget: u32) -> u32 {
        let done = self.smmu.step(budget);
        if self.smmu.syncs() != self.syncs {
            self.syncs = self.smmu.syncs();
            self.cmdqv.forget_late_timeouts();
        }
        done
    }
}

impl Model for Tegra {
    fn mmio_read(&mut self, at: u64, size: u32) -> u64 {
        if at < CMDQV { self.smmu.mmio_read(at, size) } else { self.cmdqv.read(at - CMDQV, size) }
    }

    fn mmio_write(&mut self, at: u64, size: u32, value: u64) {
        if at < CMDQV { self.smmu.mmio_write(at, size, value) } else { self.cmdqv.write(at - CMDQV, size, value) }
    }

    /// Every queue in turn, one command each: the SMMU's own, then the CMDQV's by number. Counts turns, so that the
    /// SMMU's own queue never takes more than what is returned.
    fn step(&mut self, budget: u32) -> u32 {
        for turn in 0..budget {
            if !self.queues_have_work() {
                return turn + self.step_smmu(budget - turn);
            }
            let own = self.step_smmu(1) > 0;
            if !self.step_queues() && !own {
                return turn;
            }
        }
        budget
    }

    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> usize {
        self.smmu.translate(requests, answers)
    }

    fn explain(&mut self, request: &Request, text: &mut Message) {
        self.smmu.explain(request, text);
    }

    fn stats(&self) -> CacheStats {
        self.smmu.stats()
    }

    fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) {
        self.smmu.atc_unresponsive(stream, unresponsive);
    }

    fn reset(&mut self) {
        self.smmu.reset();
        self.cmdqv = Registers::new(self.cmdqv.param());
    }
}

impl Tegra {
    /// The CMDQV's one interrupt.
    fn interrupt(&self) {
        self.smmu.host().irq(CMDQV_LINE);
    }
}
