//! One queue's registers.

use crate::spec::{CMDQ_ERR, Enable, VcmdqBase, page0, page1};
use arm_smmuv3::model::Queue;
use arm_smmuv3::spec::commands::COMMAND_BYTES;
use arm_smmuv3::spec::registers::{CmdqCons, CommandError, QueueBase};

/// PROD: index with wrap bit.
const INDEX_BITS: u32 = 0xf_ffff;
/// CONS: index and ERR.
const CONS_BITS: u32 = 0x7f0f_ffff;

/// One VCMDQ.
#[derive(Debug, Clone, Default)]
pub(super) struct Vcmdq {
    cons: CmdqCons,
    prod: u32,
    enable: Enable,
    gerror: u32,
    gerrorn: u32,
    base: VcmdqBase,
    cons_indx_base: u64,
    /// An ATC_INV since the last SYNC was not answered.
    pub(super) atc_timed_out: bool,
}

impl Vcmdq {
    pub(super) fn read0(&self, at: u64) -> u32 {
        match at {
            page0::CONS => self.cons.into_bits(),
            page0::PROD => self.prod,
            page0::CONFIG | page0::STATUS => self.enable.into_bits(),
            page0::GERROR => self.gerror,
            page0::GERRORN => self.gerrorn,
            _ => 0,
        }
    }

    pub(super) fn write0(&mut self, at: u64, value: u32) {
        match at {
            page0::CONS if !self.enable.en() => self.cons = CmdqCons::from_bits(value & CONS_BITS),
            page0::PROD => self.prod = value & INDEX_BITS,
            page0::CONFIG => self.enable = Enable::from_bits(value & 1),
            // Only an active error can be acknowledged.
            page0::GERRORN if self.in_error() => self.gerrorn = value & CMDQ_ERR,
            _ => {}
        }
    }

    pub(super) fn read1(&self, at: u64) -> u32 {
        let half = |register: u64| (register >> (8 * (at & 4))) as u32;
        match at & !4 {
            page1::BASE => half(self.base.into_bits()),
            page1::CONS_INDX_BASE => half(self.cons_indx_base),
            _ => 0,
        }
    }

    /// Page1 is for a queue that rests.
    pub(super) fn write1(&mut self, at: u64, value: u32) {
        if self.enable.en() {
            return;
        }
        let set = |register: u64| {
            let shift = 8 * (at & 4);
            register & !(0xffff_ffff << shift) | u64::from(value) << shift
        };
        match at & !4 {
            page1::BASE => self.base = VcmdqBase::from_bits(set(self.base.into_bits()) & 0x0000_ffff_ffff_ffff),
            page1::CONS_INDX_BASE => self.cons_indx_base = set(self.cons_indx_base),
            _ => {}
        }
    }

    pub(super) fn enabled(&self) -> bool {
        self.enable.en()
    }

    /// An error that its user has not acknowledged.
    pub(super) fn in_error(&self) -> bool {
        (self.gerror ^ self.gerrorn) & CMDQ_ERR != 0
    }

    /// Size and place, as far as the SMMU's own queue could have them.
    fn queue(&self, log2_most: u8) -> Queue {
        let base = QueueBase::new().with_addr(self.base.addr()).with_log2size(self.base.log2size());
        Queue::new(base, log2_most, COMMAND_BYTES)
    }

    /// Address of the next command; `None` if it rests, is empty or in error.
    pub(super) fn next(&self, log2_most: u8) -> Option<u64> {
        if !self.enabled() || self.in_error() {
            return None;
        }
        let queue = self.queue(log2_most);
        let cons = queue.cut(self.cons.rd());
        (!queue.is_empty(self.prod, cons)).then(|| queue.entry(cons))
    }

    /// The command at the head is done.
    pub(super) fn advance(&mut self, log2_most: u8) {
        let queue = self.queue(log2_most);
        self.cons = CmdqCons::new().with_rd(queue.next(queue.cut(self.cons.rd())));
    }

    /// The command at the head cannot be done: the queue stands.
    pub(super) fn stop(&mut self, error: CommandError) {
        self.cons.set_err(error.0);
        self.gerror ^= CMDQ_ERR;
    }
}
