//! Programs one physical SMMUv3: stream table, command and event queues, stage 2.

mod bring_up;
mod events;
mod invalidate;

use crate::features::Features;
use crate::spec::commands::{CfgiSte, Opcode};
use crate::spec::registers::{CmdqCons, CommandError, Gerror, Idr0, Idr1, Idr3, Idr5, offset};
use crate::spec::ste::SteWord1;
use crate::tables::{
    ABORT, Geometry, HostSte, Stage2, Ste, Step, StreamTable, physical_ste, plan, read_ste, write_word,
};
use std::collections::BTreeMap;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, Hardware, HostEvent, HostInvalidation, QueueFault, QueueFaultKind, Refusal, Register,
    RingGeometry, TranslationMode,
};

/// ID registers of the physical SMMU.
#[derive(Debug, Clone, Copy)]
struct Identity {
    idr0: Idr0,
    idr1: Idr1,
    idr3: Idr3,
    idr5: Idr5,
    iidr: u32,
    aidr: u32,
}

/// A command or event queue in host memory.
#[derive(Debug, Clone, Copy)]
struct Queue {
    base: u64,
    log2: u32,
}

impl Queue {
    /// Index with wrap bit.
    fn index(self, register: u32) -> u32 {
        register & ((2 << self.log2) - 1)
    }
    fn slot(self, index: u32) -> u64 {
        u64::from(index & ((1 << self.log2) - 1))
    }
}

/// The driver of one physical SMMU.
pub struct ArmDriver {
    hardware: Box<dyn Hardware>,
    identity: Identity,
    streams: StreamTable,
    commands: Queue,
    events: Queue,
    geometry: Geometry,
    stage2s: BTreeMap<u32, Stage2>,
    next_stage2: u32,
}

impl ArmDriver {
    /// Takes over the SMMU: tables and queues, then enabled with every stream aborting.
    ///
    /// The first commands go onto the ring by the driver's own hand, as [`Hardware::issue`] needs the ring's geometry,
    /// which [`Driver::info`] gives only later. Whoever drives the ring from then on starts at the index that
    /// CMDQ_CONS shows.
    ///
    /// # Errors
    /// EOPNOTSUPP naming the missing feature, ENOMEM, ETIMEDOUT if it does not answer, EIO if it refuses a command.
    pub fn new(hardware: Box<dyn Hardware>) -> Result<Self, Refusal> {
        bring_up::take_over(hardware)
    }

    /// The machine: for a driver of more than the SMMU, that holds this one.
    pub fn hardware(&self) -> &dyn Hardware {
        &*self.hardware
    }

    /// The VMID of a stage-2 table.
    ///
    /// # Errors
    /// ENOENT if there is no such table.
    pub fn vmid(&self, stage2: u32) -> Result<u16, Refusal> {
        self.stage2(stage2).map(Stage2::tag)
    }

    /// log2 of the largest command queue (IDR1.CMDQS).
    pub fn command_queue_log2(&self) -> u8 {
        self.identity.idr1.cmdqs()
    }

    /// What of this SMMU decides bits of every STE.
    fn host_ste(&self) -> HostSte {
        let (idr0, idr1) = (self.identity.idr0, self.identity.idr1);
        HostSte {
            ats: idr0.ats(),
            fwb: self.identity.idr3.fwb(),
            stalls: idr0.stall_model() == 0,
            attr_types_ovr: idr1.attr_types_ovr(),
        }
    }

    /// Brings a stream's STE to `target`, each step seen by the hardware before the next.
    fn write_ste(&self, stream: u32, address: u64, leaf: bool, target: &Ste) -> Result<(), Refusal> {
        let hardware = &*self.hardware;
        let steps = plan(&read_ste(hardware, address)?, target);
        let changed = CfgiSte::new().with_opcode(Opcode::CFGI_STE.0).with_stream_id(stream).with_leaf(leaf);
        for step in &steps {
            match *step {
                Step::Write { word, value } => write_word(hardware, address, word, value)?,
                Step::Sync => hardware.issue(&changed.words())?,
            }
        }
        // What the device cached under another entry must not live on under this one. Without EATS nothing cached
        // counts: CR0.ATSCHK has the SMMU look at the STE of each translated request.
        if !steps.is_empty() && SteWord1::from_bits(target[1]).eats() == 1 {
            hardware.issue(&invalidate::device_cache(stream).words())?;
        }
        Ok(())
    }

    fn stage2(&self, handle: u32) -> Result<&Stage2, Refusal> {
        self.stage2s.get(&handle).ok_or_else(|| no_stage2(handle))
    }
}

fn no_stage2(handle: u32) -> Refusal {
    Refusal::new(Refusal::ENOENT, format!("stage 2 table {handle}: no such table"))
}

impl Driver for ArmDriver {
    fn info(&self) -> DriverInfo {
        let idr0 = self.identity.idr0;
        DriverInfo {
            ring: RingGeometry {
                base: self.commands.base,
                log2_commands: self.commands.log2,
                command_words: 2,
                producer: offset::CMDQ_PROD,
                consumer: offset::CMDQ_CONS,
                index_shift: 0,
                wrap_bit: 1,
                error_mask: CmdqCons::new().with_err(0x7f).into_bits(),
                error_register: 0,
                error_bits: 0,
                running_bits: 0,
            },
            // VMID 0 is left to streams without stage 2.
            first_tag: 1,
            last_tag: if idr0.vmid16() { u16::MAX.into() } else { u8::MAX.into() },
            streams: self.streams.streams(),
            page_log2: 12,
            ipa_bits: self.geometry.ipa_bits(),
            ats: idr0.ats().into(),
            modes: TranslationMode::NESTED.bit(),
        }
    }

    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        if mode != TranslationMode::NESTED {
            return Vec::new();
        }
        let host = &self.identity;
        let own = Features::default();
        let guest = Features {
            idr0: own
                .idr0
                .with_cohacc(host.idr0.cohacc())
                .with_ats(host.idr0.ats())
                .with_asid16(host.idr0.asid16())
                .with_cd2l(host.idr0.cd2l()),
            idr1: own.idr1.with_sidsize(host.idr1.sidsize().min(16)).with_ssidsize(host.idr1.ssidsize()),
            idr3: own.idr3.with_had(host.idr3.had()).with_ril(host.idr3.ril()).with_bbml(host.idr3.bbml()),
            idr5: own
                .idr5
                .with_oas(self.geometry.output_size())
                .with_gran4k(host.idr5.gran4k())
                .with_gran16k(host.idr5.gran16k())
                .with_gran64k(host.idr5.gran64k()),
            iidr: host.iidr,
            aidr: host.aidr,
            ..own
        };
        guest.registers().to_vec()
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        let info = self.info();
        if !(info.first_tag..=info.last_tag).contains(&tag) {
            return Err(Refusal::new(Refusal::EINVAL, format!("stage 2: VMID {tag} is out of range")));
        }
        let table = Stage2::new(&*self.hardware, self.geometry, tag as u16, self.identity.idr3.fwb())?;
        let handle = self.next_stage2;
        self.next_stage2 += 1;
        self.stage2s.insert(handle, table);
        Ok(handle)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        let table = self.stage2s.get_mut(&stage2).ok_or_else(|| no_stage2(stage2))?;
        table.map(&*self.hardware, ipa, pa, len, access)
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        let table = self.stage2s.get_mut(&stage2).ok_or_else(|| no_stage2(stage2))?;
        table.unmap(&*self.hardware, ipa, len)
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        if let Some(table) = self.stage2s.remove(&stage2) {
            table.destroy(&*self.hardware);
        }
    }

    // The tag is the stage 2's VMID: what a guest's tables translate is told apart by its own ASIDs.
    fn attach(&mut self, stream: u32, stage2: u32, _tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        let target = physical_ste(key, self.stage2(stage2)?, self.host_ste());
        let (address, new) = self.streams.find_or_make(&*self.hardware, stream)?;
        self.write_ste(stream, address, !new, &target)
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        match self.streams.find(&*self.hardware, stream)? {
            Some(address) => self.write_ste(stream, address, true, &ABORT),
            None => Ok(()),
        }
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        invalidate::encode(what, self.identity.idr0.ats(), self.identity.idr3.ril(), out)
    }

    fn queue_fault(&mut self) -> Option<QueueFault> {
        if !self.active_errors().cmdq_err() {
            return None;
        }
        let cons = CmdqCons::from_bits(self.hardware.mmio_read(offset::CMDQ_CONS, 4) as u32);
        let kind = match CommandError(cons.err()) {
            CommandError::ABT => QueueFaultKind::FETCH,
            CommandError::ATC_INV_SYNC => QueueFaultKind::ATC_TIMEOUT,
            _ => QueueFaultKind::ILLEGAL,
        };
        Some(QueueFault { kind, index: self.commands.index(cons.rd()) })
    }

    fn queue_resume(&mut self) {
        self.acknowledge(Gerror::new().with_cmdq_err(true));
    }

    fn event(&mut self) -> Option<HostEvent> {
        self.next_event()
    }
}

impl ArmDriver {
    /// Errors that are active and not acknowledged.
    fn active_errors(&self) -> Gerror {
        let gerror = self.hardware.mmio_read(offset::GERROR, 4) as u32;
        let gerrorn = self.hardware.mmio_read(offset::GERRORN, 4) as u32;
        Gerror::from_bits((gerror ^ gerrorn) & Gerror::MASK)
    }

    /// Acknowledges those of `errors` that are active.
    fn acknowledge(&self, errors: Gerror) {
        let gerrorn = self.hardware.mmio_read(offset::GERRORN, 4) as u32;
        let toggle = self.active_errors().into_bits() & errors.into_bits();
        if toggle != 0 {
            self.hardware.mmio_write(offset::GERRORN, 4, (gerrorn ^ toggle).into());
        }
    }
}
