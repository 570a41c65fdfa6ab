//! Taking over an SMMU, in the order in which Linux does it.

use super::{ArmDriver, Identity, Queue};
use crate::spec::commands::{COMMAND_BYTES, CfgiSteRange, Opcode, Sync, Tlbi};
use crate::spec::events::EVENT_BYTES;
use crate::spec::registers::{Cr0, Cr1, Cr2, Gbpa, Gerror, Idr0, Idr1, Idr3, Idr5, IrqCtrl, QueueBase, offset};
use crate::tables::{Geometry, StreamTable};
use std::collections::BTreeMap;
use viommu_plugin::{Hardware, Refusal};

/// log2 of the command queue, if the hardware can: 8192 commands.
const COMMANDS_LOG2: u32 = 13;
/// log2 of the event queue, if the hardware can: 4096 records.
const EVENTS_LOG2: u32 = 12;
/// Register reads before "does not answer": about a second.
const POLLS: u32 = 1 << 20;

impl Identity {
    fn read(hardware: &dyn Hardware) -> Self {
        let read = |at| hardware.mmio_read(at, 4) as u32;
        Self {
            idr0: Idr0::from_bits(read(offset::IDR0)),
            idr1: Idr1::from_bits(read(offset::IDR1)),
            idr3: Idr3::from_bits(read(offset::IDR3)),
            idr5: Idr5::from_bits(read(offset::IDR5)),
            iidr: read(offset::IIDR),
            aidr: read(offset::AIDR),
        }
    }

    /// What nesting needs and the hardware lacks.
    fn missing(&self) -> Option<&'static str> {
        let (idr0, idr1) = (self.idr0, self.idr1);
        if !idr0.s1p() || !idr0.s2p() {
            return Some("IDR0.S1P and S2P must both be 1: nesting needs both stages");
        }
        if idr0.ttf() & 2 == 0 {
            return Some("IDR0.TTF has no AArch64 tables");
        }
        if idr0.ttendian() == 3 {
            return Some("IDR0.TTENDIAN: only big-endian tables");
        }
        if !idr0.cohacc() {
            return Some("IDR0.COHACC = 0: table walks and queues must be coherent");
        }
        if idr0.stall_model() == 2 {
            return Some("IDR0.STALL_MODEL = 2: faults always stall, and nothing here resumes them");
        }
        if !self.idr5.gran4k() {
            return Some("IDR5.GRAN4K = 0: stage-2 tables have 4 KiB pages");
        }
        if idr1.tables_preset() || idr1.queues_preset() {
            return Some("IDR1.TABLES_PRESET or QUEUES_PRESET = 1 is not supported");
        }
        None
    }
}

pub(super) fn take_over(hardware: Box<dyn Hardware>) -> Result<ArmDriver, Refusal> {
    let identity = Identity::read(&*hardware);
    if let Some(missing) = identity.missing() {
        return Err(Refusal::new(Refusal::EOPNOTSUPP, format!("SMMUv3 cannot host a vIOMMU: {missing}")));
    }
    let geometry = Geometry::new(identity.idr5.oas());
    let streams = StreamTable::new(&*hardware, identity.idr0, identity.idr1)?;
    let commands = allocate(&*hardware, u32::from(identity.idr1.cmdqs()).min(COMMANDS_LOG2), COMMAND_BYTES)?;
    let events = allocate(&*hardware, u32::from(identity.idr1.eventqs()).min(EVENTS_LOG2), EVENT_BYTES)?;

    let setup = Setup { hardware: &*hardware, commands };
    setup.disable()?;
    setup.tables(&streams);
    let mut cr0 = Cr0::new();
    setup.command_queue();
    cr0.set_cmdqen(true);
    setup.enable(cr0)?;
    setup.invalidate_all(identity.idr0)?;
    setup.event_queue(events);
    cr0.set_eventqen(true);
    setup.enable(cr0)?;
    if identity.idr0.ats() {
        cr0.set_atschk(true);
        setup.enable(cr0)?;
    }
    setup.interrupts()?;
    cr0.set_smmuen(true);
    setup.enable(cr0)?;
    Ok(ArmDriver { hardware, identity, streams, commands, events, geometry, stage2s: BTreeMap::new(), next_stage2: 1 })
}

fn allocate(hardware: &dyn Hardware, log2: u32, entry_bytes: u64) -> Result<Queue, Refusal> {
    let bytes = entry_bytes << log2;
    // A base has no bits below 32 bytes.
    Ok(Queue { base: hardware.alloc(bytes, bytes.max(32))?, log2 })
}

struct Setup<'a> {
    hardware: &'a dyn Hardware,
    commands: Queue,
}

impl Setup<'_> {
    fn write(&self, at: u64, value: u32) {
        self.hardware.mmio_write(at, 4, value.into());
    }

    /// Waits until `done` holds for the register.
    fn poll(&self, at: u64, done: impl Fn(u32) -> bool, what: &str) -> Result<(), Refusal> {
        for _ in 0..POLLS {
            if done(self.hardware.mmio_read(at, 4) as u32) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(Refusal::new(Refusal::ETIMEDOUT, format!("SMMUv3 does not answer: {what}")))
    }

    fn enable(&self, cr0: Cr0) -> Result<(), Refusal> {
        self.write(offset::CR0, cr0.into_bits());
        self.poll(offset::CR0ACK, |ack| ack == cr0.into_bits(), "CR0ACK does not follow CR0")
    }

    /// Off, and everything aborts while it is.
    fn disable(&self) -> Result<(), Refusal> {
        let gbpa = Gbpa::from_bits(self.hardware.mmio_read(offset::GBPA, 4) as u32);
        self.write(offset::GBPA, gbpa.with_abort(true).with_update(true).into_bits());
        self.poll(offset::GBPA, |gbpa| !Gbpa::from_bits(gbpa).update(), "GBPA.UPDATE stays set")?;
        self.enable(Cr0::new())
    }

    fn tables(&self, streams: &StreamTable) {
        // Inner shareable, write-back, for tables and queues.
        let cr1 = Cr1::new().with_table_sh(3).with_table_oc(1).with_table_ic(1);
        self.write(offset::CR1, cr1.with_queue_sh(3).with_queue_oc(1).with_queue_ic(1).into_bits());
        // The CPUs' broadcast invalidations name other guests' VMIDs: not for us.
        self.write(offset::CR2, Cr2::new().with_ptm(true).with_recinvsid(true).into_bits());
        self.hardware.mmio_write(offset::STRTAB_BASE, 8, streams.base_register().into_bits());
        self.write(offset::STRTAB_BASE_CFG, streams.cfg_register().into_bits());
    }

    fn command_queue(&self) {
        self.hardware.mmio_write(offset::CMDQ_BASE, 8, base_register(self.commands));
        self.write(offset::CMDQ_PROD, 0);
        self.write(offset::CMDQ_CONS, 0);
    }

    fn event_queue(&self, events: Queue) {
        self.hardware.mmio_write(offset::EVENTQ_BASE, 8, base_register(events));
        self.write(offset::EVENTQ_PROD, 0);
        self.write(offset::EVENTQ_CONS, 0);
    }

    fn interrupts(&self) -> Result<(), Refusal> {
        let irqs = IrqCtrl::new().with_gerror_irqen(true).with_eventq_irqen(true);
        self.write(offset::IRQ_CTRL, 0);
        self.poll(offset::IRQ_CTRLACK, |ack| ack == 0, "IRQ_CTRLACK does not follow IRQ_CTRL")?;
        self.hardware.mmio_write(offset::GERROR_IRQ_CFG0, 8, 0);
        self.hardware.mmio_write(offset::EVENTQ_IRQ_CFG0, 8, 0);
        self.write(offset::IRQ_CTRL, irqs.into_bits());
        self.poll(offset::IRQ_CTRLACK, |ack| ack == irqs.into_bits(), "IRQ_CTRLACK does not follow IRQ_CTRL")
    }

    /// Nothing that was cached before counts.
    fn invalidate_all(&self, idr0: Idr0) -> Result<(), Refusal> {
        let sync = Sync::new().with_opcode(Opcode::SYNC.0).words();
        let tlbi = |opcode: Opcode| Tlbi::new().with_opcode(opcode.0).words();
        let all_streams =
            CfgiSteRange::new().with_opcode(Opcode::CFGI_STE_RANGE.0).with_range(CfgiSteRange::ALL).words();
        let mut prod = 0;
        let hyp = idr0.hyp().then(|| tlbi(Opcode::TLBI_EL2_ALL));
        for command in [Some(all_streams), hyp, Some(tlbi(Opcode::TLBI_NSNH_ALL))].into_iter().flatten() {
            prod = self.run(prod, &[command, sync])?;
        }
        Ok(())
    }

    /// Puts commands at `prod` and waits for the hardware; the index after them.
    fn run(&self, mut prod: u32, commands: &[[u64; 2]]) -> Result<u32, Refusal> {
        for command in commands {
            let mut bytes = [0; COMMAND_BYTES as usize];
            bytes[..8].copy_from_slice(&command[0].to_le_bytes());
            bytes[8..].copy_from_slice(&command[1].to_le_bytes());
            let at = self.commands.base + self.commands.slot(prod) * COMMAND_BYTES;
            self.hardware.write(at, &bytes).map_err(crate::tables::broken)?;
            prod = self.commands.index(prod + 1);
        }
        self.write(offset::CMDQ_PROD, prod);
        let errors = || {
            let (gerror, gerrorn) =
                (self.hardware.mmio_read(offset::GERROR, 4), self.hardware.mmio_read(offset::GERRORN, 4));
            Gerror::from_bits((gerror ^ gerrorn) as u32).cmdq_err()
        };
        let done = |cons| self.commands.index(cons) == prod || errors();
        self.poll(offset::CMDQ_CONS, done, "CMDQ_CONS does not reach CMDQ_PROD")?;
        if errors() {
            return Err(Refusal::new(Refusal::EIO, "SMMUv3 refuses the first commands (GERROR.CMDQ_ERR)"));
        }
        Ok(prod)
    }
}

fn base_register(queue: Queue) -> u64 {
    QueueBase::new().with_addr(queue.base >> 5).with_log2size(queue.log2 as u8).with_alloc_hint(true).into_bits()
}
