//! The register frame (§6): what a write changes by itself, and when it is ignored.

use super::identity::Identity;
use crate::spec::registers::{
    CmdqCons, Cr0, Cr2, FRAME_BYTES, Gbpa, Gerror, IrqCfg0, IrqCtrl, OutputIndex, PAGE1, QueueBase, StrtabBase,
    StrtabBaseCfg, offset,
};

/// Bits of CR0 that exist: enables, ATSCHK, VMW.
const CR0_BITS: u32 = 0x1df;
/// Bits of IRQ_CTRL that exist.
const IRQ_CTRL_BITS: u32 = 0x7;
/// WR or RD index with wrap bit.
const INDEX_BITS: u32 = 0xf_ffff;
/// The index and ERR fields of CMDQ_CONS.
const CMDQ_CONS_BITS: u32 = 0x7f0f_ffff;
/// The index and overflow fields of the event and PRI queues.
const OUTPUT_INDEX_BITS: u32 = 0x800f_ffff;
/// Bytes of page 0 that hold registers which this model has.
const WINDOW: u64 = 0x100;

/// The registers after the ID registers, as software reads them.
pub(crate) struct Registers {
    words: [u32; (WINDOW / 4) as usize],
}

impl Registers {
    /// Power-on values: all off, everything bypasses.
    pub(crate) fn new(identity: &Identity) -> Self {
        let mut words = [0; (WINDOW / 4) as usize];
        for (place, word) in words.iter_mut().enumerate() {
            *word = identity.word(place).unwrap_or(0);
        }
        Self { words }
    }

    /// The place of the register at `at`. Of page 1 only the queue indexes exist; page 0 shows them too.
    fn place(at: u64) -> Option<usize> {
        let at = match at {
            offset::EVENTQ_PROD | offset::EVENTQ_CONS | offset::PRIQ_PROD | offset::PRIQ_CONS => at - PAGE1,
            _ => at,
        };
        (at.is_multiple_of(4) && at < WINDOW).then_some((at / 4) as usize)
    }

    fn word(&self, at: u64) -> u32 {
        Self::place(at).map_or(0, |place| self.words[place])
    }

    fn set(&mut self, at: u64, value: u32) {
        if let Some(place) = Self::place(at) {
            self.words[place] = value;
        }
    }

    fn double(&self, at: u64) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }

    /// A read of `size` bytes; zero where there is no register.
    pub(crate) fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 => u64::from(self.word(at)),
            8 if at.is_multiple_of(8) && at < FRAME_BYTES => self.double(at),
            _ => 0,
        }
    }

    /// A write of `size` bytes. Eight bytes are two registers, or both halves of one.
    pub(crate) fn write(&mut self, at: u64, size: u32, value: u64) {
        match size {
            4 if at < FRAME_BYTES => self.write_word(at, value as u32),
            8 if at.is_multiple_of(8) && at < FRAME_BYTES => {
                self.write_word(at, value as u32);
                self.write_word(at + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn write_word(&mut self, at: u64, value: u32) {
        let (cr0, irq) = (self.cr0(), self.irq_ctrl());
        // Page 0 may show the indexes of page 1 (§6.2).
        let at = if Self::is_output_index(at) { at + PAGE1 } else { at };
        match at {
            offset::CR0 => {
                self.set(offset::CR0, value & CR0_BITS);
                self.set(offset::CR0ACK, value & CR0_BITS);
            }
            offset::IRQ_CTRL => {
                self.set(offset::IRQ_CTRL, value & IRQ_CTRL_BITS);
                self.set(offset::IRQ_CTRLACK, value & IRQ_CTRL_BITS);
            }
            offset::GBPA if Gbpa::from(value).update() => self.set(at, Gbpa::from(value).with_update(false).into()),
            offset::GERRORN => {
                // Only an active error can be acknowledged.
                let errorn = self.word(at);
                self.set(at, errorn ^ (errorn ^ value) & self.active_errors());
            }
            offset::CR1 if u32::from(cr0) & 0xf == 0 => self.set(at, value),
            offset::CR2 | offset::STRTAB_BASE_CFG if !cr0.smmuen() => self.set(at, value),
            _ if at & !4 == offset::STRTAB_BASE && !cr0.smmuen() => self.set(at, value),
            _ if at & !4 == offset::CMDQ_BASE && !cr0.cmdqen() => self.set(at, value),
            _ if at & !4 == offset::EVENTQ_BASE && !cr0.eventqen() => self.set(at, value),
            _ if at & !4 == offset::PRIQ_BASE && !cr0.priqen() => self.set(at, value),
            offset::CMDQ_PROD => self.set(at, value & INDEX_BITS),
            offset::CMDQ_CONS if !cr0.cmdqen() => self.set(at, value & CMDQ_CONS_BITS),
            offset::EVENTQ_CONS | offset::PRIQ_CONS => self.set(at, value & OUTPUT_INDEX_BITS),
            offset::EVENTQ_PROD if !cr0.eventqen() => self.set(at, value & OUTPUT_INDEX_BITS),
            offset::PRIQ_PROD if !cr0.priqen() => self.set(at, value & OUTPUT_INDEX_BITS),
            offset::GERROR_IRQ_CFG0..=offset::GERROR_IRQ_CFG2 if !irq.gerror_irqen() => self.set(at, value),
            offset::EVENTQ_IRQ_CFG0..=offset::EVENTQ_IRQ_CFG2 if !irq.eventq_irqen() => self.set(at, value),
            offset::PRIQ_IRQ_CFG0..=offset::PRIQ_IRQ_CFG2 if !irq.priq_irqen() => self.set(at, value),
            _ => {}
        }
    }

    fn is_output_index(at: u64) -> bool {
        at + PAGE1 == offset::EVENTQ_PROD
            || at + PAGE1 == offset::EVENTQ_CONS
            || at + PAGE1 == offset::PRIQ_PROD
            || at + PAGE1 == offset::PRIQ_CONS
    }

    /// CR0.
    #[inline]
    pub(crate) fn cr0(&self) -> Cr0 {
        Cr0::from(self.words[(offset::CR0 / 4) as usize])
    }
    /// CR2.
    pub(crate) fn cr2(&self) -> Cr2 {
        Cr2::from(self.word(offset::CR2))
    }
    /// GBPA.
    pub(crate) fn gbpa(&self) -> Gbpa {
        Gbpa::from(self.word(offset::GBPA))
    }
    /// IRQ_CTRL.
    pub(crate) fn irq_ctrl(&self) -> IrqCtrl {
        IrqCtrl::from(self.word(offset::IRQ_CTRL))
    }
    /// STRTAB_BASE.
    pub(crate) fn strtab_base(&self) -> StrtabBase {
        StrtabBase::from(self.double(offset::STRTAB_BASE))
    }
    /// STRTAB_BASE_CFG.
    pub(crate) fn strtab_base_cfg(&self) -> StrtabBaseCfg {
        StrtabBaseCfg::from(self.word(offset::STRTAB_BASE_CFG))
    }
    /// CMDQ_BASE.
    pub(crate) fn cmdq_base(&self) -> QueueBase {
        QueueBase::from(self.double(offset::CMDQ_BASE))
    }
    /// CMDQ_PROD: index with wrap bit.
    pub(crate) fn cmdq_prod(&self) -> u32 {
        self.word(offset::CMDQ_PROD)
    }
    /// CMDQ_CONS.
    pub(crate) fn cmdq_cons(&self) -> CmdqCons {
        CmdqCons::from(self.word(offset::CMDQ_CONS))
    }
    /// Moves CMDQ_CONS.
    pub(crate) fn set_cmdq_cons(&mut self, cons: CmdqCons) {
        self.set(offset::CMDQ_CONS, cons.into());
    }
    /// EVENTQ_BASE.
    pub(crate) fn eventq_base(&self) -> QueueBase {
        QueueBase::from(self.double(offset::EVENTQ_BASE))
    }
    /// EVENTQ_PROD.
    pub(crate) fn eventq_prod(&self) -> OutputIndex {
        OutputIndex::from(self.word(offset::EVENTQ_PROD))
    }
    /// EVENTQ_CONS.
    pub(crate) fn eventq_cons(&self) -> OutputIndex {
        OutputIndex::from(self.word(offset::EVENTQ_CONS))
    }
    /// Moves EVENTQ_PROD.
    pub(crate) fn set_eventq_prod(&mut self, prod: OutputIndex) {
        self.set(offset::EVENTQ_PROD, prod.into());
    }
    /// Address and data of an interrupt message, from its IRQ_CFG0 at `at` and IRQ_CFG1.
    pub(crate) fn message(&self, at: u64) -> (u64, u32) {
        (IrqCfg0::from(self.double(at)).address(), self.word(at + 8))
    }

    /// Errors that software has not acknowledged: where GERROR and GERRORN differ.
    pub(crate) fn active_errors(&self) -> u32 {
        (self.word(offset::GERROR) ^ self.word(offset::GERRORN)) & Gerror::MASK
    }
    /// Makes `error` active; `false` if it was.
    pub(crate) fn raise(&mut self, error: Gerror) -> bool {
        let fresh = u32::from(error) & !self.active_errors();
        self.set(offset::GERROR, self.word(offset::GERROR) ^ fresh);
        fresh != 0
    }
}
