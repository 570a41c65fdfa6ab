//! The register frame as bytes (docs/saved-state.md): every register that holds a value, in the order of the frame.

use super::irq::{IrqConfig, Line};
use super::output_queue::OutputQueue;
use super::{ArmFrontend, CR0_BITS, INDEX_BITS, IRQ_CTRL_BITS};
use crate::features::Features;
use crate::spec::registers::{CmdqCons, Cr0, Gbpa, Gerror, IrqCtrl, offset, register_name};
use viommu_plugin::{Refusal, Register, StateError, StateReader, StateWriter, same_registers};

const WHAT: &str = "saved SMMUv3 registers";
/// The version written, and the newest one read.
const VERSION: u32 = 1;

/// The ID registers, in the order in which they are saved.
const IDENTITY: [(u64, &str); 8] = [
    (offset::IDR0, "IDR0"),
    (offset::IDR1, "IDR1"),
    (offset::IDR2, "IDR2"),
    (offset::IDR3, "IDR3"),
    (offset::IDR4, "IDR4"),
    (offset::IDR5, "IDR5"),
    (offset::IIDR, "IIDR"),
    (offset::AIDR, "AIDR"),
];

impl ArmFrontend {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut state = StateWriter::new(VERSION);
        for register in self.features.registers() {
            state.u32(register.value as u32);
        }
        state.u32(self.cr0.into_bits()).u32(self.cr1).u32(self.cr2).u32(self.gbpa.into_bits());
        state.u32(self.irq_ctrl.into_bits()).u32(self.gerror).u32(self.gerrorn);
        put_irq(&mut state, &self.gerror_irq);
        state.u64(self.strtab_base.into_bits()).u32(self.strtab_cfg.into_bits());
        state.u64(self.cmdq_base.into_bits()).u32(self.cmdq_prod).u32(self.cmdq_cons.into_bits());
        for queue in [&self.eventq, &self.priq] {
            state.u64(queue.base.into_bits()).u32(queue.prod.into_bits()).u32(queue.cons.into_bits());
            put_irq(&mut state, &queue.irq);
        }
        state.into_bytes()
    }

    /// The frontend of `bytes`, which shows what this one shows.
    ///
    /// # Errors
    /// As [`viommu_plugin::Frontend::restore`].
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Result<Self, Refusal> {
        let (mut state, _) = StateReader::versioned(WHAT, bytes, VERSION)?;
        self.check_identity(&mut state)?;
        let restored = Self {
            features: self.features,
            cr0: Cr0::from_bits(state.u32_within(CR0_BITS, "CR0")?),
            cr1: state.u32("CR1")?,
            cr2: state.u32("CR2")?,
            gbpa: Gbpa::from_bits(state.u32_within(!Gbpa::new().with_update(true).into_bits(), "GBPA")?),
            irq_ctrl: IrqCtrl::from_bits(state.u32_within(IRQ_CTRL_BITS, "IRQ_CTRL")?),
            gerror: state.u32_within(Gerror::MASK, "GERROR")?,
            gerrorn: state.u32_within(Gerror::MASK, "GERRORN")?,
            gerror_irq: take_irq(&mut state, "GERROR_IRQ_CFG")?,
            strtab_base: state.u64("STRTAB_BASE")?.into(),
            strtab_cfg: state.u32("STRTAB_BASE_CFG")?.into(),
            cmdq_base: state.u64("CMDQ_BASE")?.into(),
            cmdq_prod: state.u32_within(INDEX_BITS, "CMDQ_PROD")?,
            cmdq_cons: CmdqCons::from_bits(state.u32("CMDQ_CONS")?),
            eventq: take_queue(&mut state, "EVENTQ", Line::EVENTQ)?,
            priq: take_queue(&mut state, "PRIQ", Line::PRIQ)?,
        };
        state.end()?;
        Ok(restored)
    }

    /// The guest must find what it was shown: first whether that is more than this frontend offers, by field; then
    /// whether it is anything else, by register.
    fn check_identity(&self, state: &mut StateReader<'_>) -> Result<(), Refusal> {
        let mut shown = Vec::with_capacity(IDENTITY.len());
        for (offset, name) in IDENTITY {
            shown.push(Register { offset, value: state.u32(name)?.into() });
        }
        self.features.covers(&Features::new(&shown)?)?;
        same_registers(&self.features.registers(), &shown, register_name)
    }
}

fn put_irq(state: &mut StateWriter, irq: &IrqConfig) {
    for at in [0, 4, 8, 12] {
        state.u32(irq.read(at));
    }
}

fn take_irq(state: &mut StateReader<'_>, name: &'static str) -> Result<IrqConfig, StateError> {
    let mut irq = IrqConfig::default();
    for at in [0, 4, 8, 12] {
        irq.write(at, state.u32(name)?);
    }
    Ok(irq)
}

fn take_queue(state: &mut StateReader<'_>, name: &'static str, line: Line) -> Result<OutputQueue, StateError> {
    let mut queue = OutputQueue::new(line);
    queue.base = state.u64(name)?.into();
    queue.prod = state.u32(name)?.into();
    queue.cons = state.u32(name)?.into();
    queue.irq = take_irq(state, name)?;
    Ok(queue)
}
