//! The register frame a guest sees (§6): state, reads, writes, and the guest's half of its queues.

mod irq;
mod output_queue;
mod ring;
mod saved;
mod stream_table;

use crate::features::Features;
use crate::spec::commands::{COMMAND_BYTES, COMMAND_WORDS, Signal, Sync};
use crate::spec::registers::{
    CmdqCons, CommandError, Cr0, Gbpa, Gerror, IrqCtrl, QueueBase, StrtabBase, StrtabBaseCfg, offset, register_name,
};
use irq::{IrqConfig, Line};
use output_queue::OutputQueue;
use ring::Ring;
use viommu_plugin::{
    Actions, Effects, Frontend, GuestFault, GuestMemory, GuestQueue, Lookup, Mode, QueueState, Refusal, Register,
};

/// Bits of CR0 that hold a value.
const CR0_BITS: u32 = 0x1df;
/// Bits of IRQ_CTRL that hold a value.
const IRQ_CTRL_BITS: u32 = 0x7;

/// One guest's SMMU, as its registers describe it.
#[derive(Debug, Clone)]
pub struct ArmFrontend {
    features: Features,
    cr0: Cr0,
    cr1: u32,
    cr2: u32,
    gbpa: Gbpa,
    irq_ctrl: IrqCtrl,
    gerror: u32,
    gerrorn: u32,
    gerror_irq: IrqConfig,
    strtab_base: StrtabBase,
    strtab_cfg: StrtabBaseCfg,
    cmdq_base: QueueBase,
    cmdq_prod: u32,
    cmdq_cons: CmdqCons,
    eventq: OutputQueue,
    priq: OutputQueue,
}

impl ArmFrontend {
    /// A frontend that shows these ID registers, everything else at its reset value.
    ///
    /// # Errors
    /// As [`Features::new`].
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        Ok(Self::with_features(Features::new(registers)?))
    }

    fn with_features(features: Features) -> Self {
        Self {
            features,
            cr0: Cr0::new(),
            cr1: 0,
            cr2: 0,
            // Incoming shareability, no abort: what QEMU and most implementations reset to.
            gbpa: Gbpa::new().with_shcfg(1),
            irq_ctrl: IrqCtrl::new(),
            gerror: 0,
            gerrorn: 0,
            gerror_irq: IrqConfig::default(),
            strtab_base: StrtabBase::new(),
            strtab_cfg: StrtabBaseCfg::new(),
            cmdq_base: QueueBase::new(),
            cmdq_prod: 0,
            cmdq_cons: CmdqCons::new(),
            eventq: OutputQueue::new(Line::EVENTQ),
            priq: OutputQueue::new(Line::PRIQ),
        }
    }

    /// Indices of the command queue: size as far as IDR1.CMDQS allows.
    fn ring(&self) -> Ring {
        Ring::new(self.cmdq_base, self.features.idr1.cmdqs(), COMMAND_BYTES)
    }

    /// Errors that are active: GERROR and GERRORN differ.
    fn active_errors(&self) -> u32 {
        (self.gerror ^ self.gerrorn) & Gerror::MASK
    }

    fn command_error_active(&self) -> bool {
        Gerror::from_bits(self.active_errors()).cmdq_err()
    }

    /// Makes an error active, unless it is.
    fn global_error(&mut self, error: Gerror) -> Effects {
        let mut effects = Effects::default();
        if self.active_errors() & error.into_bits() == 0 {
            self.gerror ^= error.into_bits();
            if self.irq_ctrl.gerror_irqen() {
                self.gerror_irq.raise(Line::GERROR, self.features.idr0.msi(), &mut effects);
            }
        }
        effects
    }

    /// One aligned word of the frame.
    fn read32(&self, at: u64) -> u32 {
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        match at {
            offset::IDR0 => self.features.idr0.into_bits(),
            offset::IDR1 => self.features.idr1.into_bits(),
            offset::IDR2 => self.features.idr2,
            offset::IDR3 => self.features.idr3.into_bits(),
            offset::IDR4 => self.features.idr4,
            offset::IDR5 => self.features.idr5.into_bits(),
            offset::IIDR => self.features.iidr,
            offset::AIDR => self.features.aidr,
            offset::CR0 | offset::CR0ACK => self.cr0.into_bits(),
            offset::CR1 => self.cr1,
            offset::CR2 => self.cr2,
            offset::GBPA => self.gbpa.into_bits(),
            offset::IRQ_CTRL | offset::IRQ_CTRLACK => self.irq_ctrl.into_bits(),
            offset::GERROR => self.gerror,
            offset::GERRORN => self.gerrorn,
            offset::GERROR_IRQ_CFG0..=offset::GERROR_IRQ_CFG2 => self.gerror_irq.read(at - offset::GERROR_IRQ_CFG0),
            offset::STRTAB_BASE => low(self.strtab_base.into_bits()),
            STRTAB_BASE_HIGH => high(self.strtab_base.into_bits()),
            offset::STRTAB_BASE_CFG => self.strtab_cfg.into_bits(),
            offset::CMDQ_BASE => low(self.cmdq_base.into_bits()),
            CMDQ_BASE_HIGH => high(self.cmdq_base.into_bits()),
            offset::CMDQ_PROD => self.cmdq_prod,
            offset::CMDQ_CONS => self.cmdq_cons.into_bits(),
            offset::EVENTQ_BASE => low(self.eventq.base.into_bits()),
            EVENTQ_BASE_HIGH => high(self.eventq.base.into_bits()),
            offset::EVENTQ_PROD => self.eventq.prod.into_bits(),
            offset::EVENTQ_CONS => self.eventq.cons.into_bits(),
            offset::EVENTQ_IRQ_CFG0..=offset::EVENTQ_IRQ_CFG2 => self.eventq.irq.read(at - offset::EVENTQ_IRQ_CFG0),
            offset::PRIQ_BASE => low(self.priq.base.into_bits()),
            PRIQ_BASE_HIGH => high(self.priq.base.into_bits()),
            offset::PRIQ_PROD => self.priq.prod.into_bits(),
            offset::PRIQ_CONS => self.priq.cons.into_bits(),
            offset::PRIQ_IRQ_CFG0..=offset::PRIQ_IRQ_CFG2 => self.priq.irq.read(at - offset::PRIQ_IRQ_CFG0),
            _ => 0,
        }
    }

    /// Writes one aligned word of the frame; which [`Actions`] follow.
    fn write32(&mut self, at: u64, value: u32) -> u32 {
        match at {
            offset::CR0 => return self.write_cr0(Cr0::from_bits(value & CR0_BITS)),
            offset::CR1 => self.cr1 = value,
            offset::CR2 => self.cr2 = value,
            offset::GBPA => return self.write_gbpa(Gbpa::from_bits(value)),
            offset::IRQ_CTRL => self.irq_ctrl = IrqCtrl::from_bits(value & IRQ_CTRL_BITS),
            offset::GERRORN => return self.write_gerrorn(value),
            offset::GERROR_IRQ_CFG0..=offset::GERROR_IRQ_CFG2 => {
                self.gerror_irq.write(at - offset::GERROR_IRQ_CFG0, value);
            }
            // Writing these while SMMUEN is 1 is not allowed; what the guest then gets is what it wrote.
            offset::STRTAB_BASE => return self.write_strtab(with_low(self.strtab_base.into(), value), self.strtab_cfg),
            STRTAB_BASE_HIGH => return self.write_strtab(with_high(self.strtab_base.into(), value), self.strtab_cfg),
            offset::STRTAB_BASE_CFG => return self.write_strtab(self.strtab_base.into(), value.into()),
            offset::CMDQ_BASE => self.cmdq_base = with_low(self.cmdq_base.into(), value).into(),
            CMDQ_BASE_HIGH => self.cmdq_base = with_high(self.cmdq_base.into(), value).into(),
            offset::CMDQ_PROD => {
                self.cmdq_prod = value & INDEX_BITS;
                return Actions::KICK;
            }
            // The SMMU's own while the queue is enabled.
            offset::CMDQ_CONS if !self.cr0.cmdqen() => self.cmdq_cons = CmdqCons::from_bits(value),
            offset::EVENTQ_BASE => self.eventq.base = with_low(self.eventq.base.into(), value).into(),
            EVENTQ_BASE_HIGH => self.eventq.base = with_high(self.eventq.base.into(), value).into(),
            offset::EVENTQ_PROD if !self.cr0.eventqen() => self.eventq.prod = value.into(),
            offset::EVENTQ_CONS => self.eventq.write_cons(value, self.features.idr1.eventqs()),
            offset::EVENTQ_IRQ_CFG0..=offset::EVENTQ_IRQ_CFG2 => {
                self.eventq.irq.write(at - offset::EVENTQ_IRQ_CFG0, value);
            }
            offset::PRIQ_BASE => self.priq.base = with_low(self.priq.base.into(), value).into(),
            PRIQ_BASE_HIGH => self.priq.base = with_high(self.priq.base.into(), value).into(),
            offset::PRIQ_PROD if !self.cr0.priqen() => self.priq.prod = value.into(),
            offset::PRIQ_CONS => self.priq.write_cons(value, self.features.idr1.priqs()),
            offset::PRIQ_IRQ_CFG0..=offset::PRIQ_IRQ_CFG2 => self.priq.irq.write(at - offset::PRIQ_IRQ_CFG0, value),
            _ => {}
        }
        0
    }

    fn write_cr0(&mut self, new: Cr0) -> u32 {
        let old = std::mem::replace(&mut self.cr0, new);
        let mut actions = 0;
        if old.smmuen() != new.smmuen() {
            actions |= Actions::RECONFIGURE;
        }
        if !old.cmdqen() && new.cmdqen() {
            actions |= Actions::KICK;
        }
        actions
    }

    /// GBPA takes a value only together with UPDATE, and at once: UPDATE reads 0.
    fn write_gbpa(&mut self, new: Gbpa) -> u32 {
        if !new.update() {
            return 0;
        }
        self.gbpa = new.with_update(false);
        Actions::RECONFIGURE
    }

    fn write_strtab(&mut self, base: u64, cfg: StrtabBaseCfg) -> u32 {
        self.strtab_base = base.into();
        self.strtab_cfg = cfg;
        Actions::RECONFIGURE
    }

    /// Acknowledges the active errors whose bits now equal GERROR's. Bits of inactive errors do not change: a guest
    /// may acknowledge what another implementation would have reported (a recorded one does).
    fn write_gerrorn(&mut self, value: u32) -> u32 {
        let active = self.active_errors();
        let stopped = self.command_error_active();
        self.gerrorn = self.gerrorn & !active | value & active;
        if stopped && !self.command_error_active() { Actions::KICK } else { 0 }
    }
}

const STRTAB_BASE_HIGH: u64 = offset::STRTAB_BASE + 4;
const CMDQ_BASE_HIGH: u64 = offset::CMDQ_BASE + 4;
const EVENTQ_BASE_HIGH: u64 = offset::EVENTQ_BASE + 4;
const PRIQ_BASE_HIGH: u64 = offset::PRIQ_BASE + 4;
/// CMDQ_PROD.WR.
const INDEX_BITS: u32 = 0xf_ffff;

fn with_low(word: u64, low: u32) -> u64 {
    word & !0xffff_ffff | u64::from(low)
}

fn with_high(word: u64, high: u32) -> u64 {
    word & 0xffff_ffff | u64::from(high) << 32
}

impl Frontend for ArmFrontend {
    fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 if at.is_multiple_of(4) => self.read32(at).into(),
            8 if at.is_multiple_of(8) => u64::from(self.read32(at)) | u64::from(self.read32(at + 4)) << 32,
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, size: u32, value: u64) -> Effects {
        let actions = match size {
            4 if at.is_multiple_of(4) => self.write32(at, value as u32),
            // Two 4-byte writes, low first: of a 64-bit register its halves, of a pair both.
            8 if at.is_multiple_of(8) => self.write32(at, value as u32) | self.write32(at + 4, (value >> 32) as u32),
            _ => 0,
        };
        Effects { actions: Actions(actions), ..Effects::default() }
    }

    /// A PROD more than the queue's size ahead of CONS describes commands that cannot exist. The manual leaves open
    /// what is fetched then (§3.5); here nothing is: the queue reports [`GuestFault::QUEUE_CONFIG`].
    fn queue(&self) -> GuestQueue {
        let ring = self.ring();
        let cons = self.cmdq_cons.rd();
        let used = ring.used(self.cmdq_prod, cons);
        let state = match (self.cr0.cmdqen(), self.command_error_active()) {
            (false, _) => QueueState::DISABLED,
            (true, true) => QueueState::STOPPED,
            (true, false) => QueueState::RUNNING,
        };
        let beyond = used > ring.entries();
        GuestQueue {
            base: ring.base,
            capacity: ring.entries(),
            head: ring.slot(cons),
            pending: if beyond { 0 } else { used },
            command_words: COMMAND_WORDS as u32,
            state,
            fault: if beyond { GuestFault::QUEUE_CONFIG } else { GuestFault::NONE },
        }
    }

    fn advance(&mut self, commands: u32) {
        let commands = commands.min(self.queue().pending);
        self.cmdq_cons.set_rd(self.ring().advanced(self.cmdq_cons.rd(), commands));
    }

    fn fault(&mut self, fault: GuestFault) -> Effects {
        if fault == GuestFault::EVENT_ABORT {
            return self.global_error(Gerror::new().with_eventq_abt_err(true));
        }
        if fault == GuestFault::NONE || self.command_error_active() {
            return Effects::default();
        }
        let error = match fault {
            GuestFault::ATC_TIMEOUT => CommandError::ATC_INV_SYNC,
            // Nothing is wrong with the command itself: the guest may try again.
            GuestFault::FETCH_ABORT | GuestFault::QUEUE_CONFIG | GuestFault::HOST_ERROR => CommandError::ABT,
            _ => CommandError::ILL,
        };
        self.cmdq_cons.set_err(error.0);
        self.global_error(Gerror::new().with_cmdq_err(true))
    }

    /// The MSI of a SYNC is a plain 4-byte write: Linux points it at the SYNC's own slot and polls it there. It is
    /// returned as a store, whatever lies at the address.
    fn sync_done(&mut self, command: &[u64]) -> Effects {
        let mut effects = Effects::default();
        self.advance(1);
        let &[w0, w1, ..] = command else { return effects };
        let sync = Sync::from_words([w0, w1]);
        if Signal(sync.cs()) == Signal::IRQ {
            if self.features.idr0.msi() && sync.msi_address() != 0 {
                effects.store(sync.msi_address() << 2, &sync.msi_data().to_le_bytes());
            } else {
                Line::CMD_SYNC.pulse(&mut effects);
            }
        }
        effects
    }

    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        let mut effects = Effects::default();
        if self.cr0.eventqen() {
            self.eventq.push(virt_id, record, &self.features, self.irq_ctrl.eventq_irqen(), &mut effects);
        }
        effects
    }

    fn event_lost(&mut self) -> Effects {
        let mut effects = Effects::default();
        if self.cr0.eventqen() {
            self.eventq.overflow(&self.features, self.irq_ctrl.eventq_irqen(), &mut effects);
        }
        effects
    }

    fn mode(&self) -> Mode {
        match (self.cr0.smmuen(), self.gbpa.abort()) {
            (true, _) => Mode::TRANSLATE,
            (false, true) => Mode::ABORT,
            (false, false) => Mode::BYPASS,
        }
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        stream_table::lookup(&self.features, self.strtab_base, self.strtab_cfg, memory, virt_id, entry)
    }

    fn reset(&mut self) {
        *self = Self::with_features(self.features);
    }

    fn register_name(&self, offset: u64) -> Option<&'static str> {
        register_name(offset)
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal> {
        *self = self.of_bytes(state)?;
        Ok(())
    }
}
