//! An SMMUv3 as a VMM emulates it: registers, stream table, command queue. It knows nothing of the hardware below.

use crate::event_queue::EventQueue;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::plugin::{GuestFault, Register};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_examples::Story;

/// Physical stream of the first device; a real VMM gets it from the device it was given.
const FIRST_STREAM: u32 = 0x400;

// Registers (IHI 0070, 6.3), where the emulation has something to do beyond keeping what was written.
const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const GBPA: u64 = 0x44;
const IRQ_CTRL: u64 = 0x50;
const IRQ_CTRLACK: u64 = 0x54;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;
/// Bytes of the frame.
const FRAME: usize = 0x2_0000;
/// CR0.SMMUEN, EVENTQEN, CMDQEN; GBPA.ABORT and Update; GERROR.CMDQ_ERR.
const SMMUEN: u64 = 1;
const EVENTQEN: u64 = 1 << 2;
const CMDQEN: u64 = 1 << 3;
const GBPA_ABORT: u64 = 1 << 20;
const GBPA_UPDATE: u64 = 1 << 31;
const CMDQ_ERR: u64 = 1;
/// Commands (4.1.1) that are not invalidations of caches. What else is legal is viommu's to say.
const CFGI_STE: u64 = 0x03;
const CFGI_STE_RANGE: u64 = 0x04;
const CMD_SYNC: u64 = 0x46;
/// CMDQ_CONS.ERR (7.1).
const CERROR_ILL: u64 = 1;
const CERROR_ABT: u64 = 2;
const CERROR_ATC_INV_SYNC: u64 = 3;

/// What passed through the emulation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) invalidations: u64,
    pub(crate) syncs: u64,
    /// Table entries read.
    pub(crate) entries: u64,
    pub(crate) events: u64,
}

/// The SMMU of one guest.
pub(crate) struct OwnSmmu<'a> {
    host: &'a Host,
    viommu: Viommu,
    memory: Arc<GuestMemoryMmap>,
    events: Arc<EventQueue>,
    id_registers: Vec<Register>,
    frame: Vec<u8>,
    devices: BTreeMap<u32, (Vdevice, Device)>,
    count: Count,
}

impl<'a> OwnSmmu<'a> {
    pub(crate) fn new(
        host: &'a Host,
        viommu: Viommu,
        events: Arc<EventQueue>,
        memory: &Arc<GuestMemoryMmap>,
        id_registers: Vec<Register>,
    ) -> Self {
        let (memory, frame, devices) = (memory.clone(), Vec::new(), BTreeMap::new());
        let mut smmu = Self { host, viommu, memory, events, id_registers, frame, devices, count: Count::default() };
        smmu.clear_registers();
        smmu
    }

    pub(crate) fn count(&self) -> Count {
        Count { events: self.events.count(), ..self.count }
    }

    /// Gives the guest a device, if it has not got it; its physical stream. It aborts until we say what it does, which
    /// is what the guest's table says now.
    pub(crate) fn plug(&mut self, guest_stream: u32) -> Story<u32> {
        if let Some((_, device)) = self.devices.get(&guest_stream) {
            return Ok(device.handle().stream());
        }
        let stream = FIRST_STREAM + self.devices.len() as u32;
        let device = self.host.device(stream)?;
        let vdevice = self.viommu.vdevice(&device, guest_stream)?;
        self.devices.insert(guest_stream, (vdevice, device));
        self.configure(guest_stream..=guest_stream)?;
        Ok(stream)
    }

    pub(crate) fn reset(&mut self) -> Story {
        self.clear_registers();
        self.configure(0..=u32::MAX)?;
        // Whatever the hardware cached for the guest before the reset is flushed.
        Ok(self.viommu.reset()?)
    }

    fn clear_registers(&mut self) {
        self.frame = vec![0; FRAME];
        for Register { offset, value } in self.id_registers.clone() {
            self.set(offset, 4, value);
        }
        *self.events.lock() = Default::default();
    }

    /// A vCPU left the guest at a read.
    pub(crate) fn read(&self, offset: u64, size: u32) -> u64 {
        match offset {
            EVENTQ_PROD => self.events.lock().prod,
            _ => self.get(offset, size),
        }
    }

    /// A vCPU left the guest at a write.
    pub(crate) fn write(&mut self, offset: u64, size: u32, value: u64) -> Story {
        let before = self.get(CR0, 4);
        // ID registers, acknowledgements and errors are not the guest's to write.
        if offset >= 0x20 && !matches!(offset, CR0ACK | IRQ_CTRLACK | GERROR) {
            self.set(offset, size, value);
        }
        match offset {
            CR0 => {
                self.set(CR0ACK, 4, value & 0x3df);
                if (before ^ value) & SMMUEN != 0 {
                    self.configure(0..=u32::MAX)?;
                }
                self.consume()?;
            }
            GBPA => {
                self.set(GBPA, 4, value & !GBPA_UPDATE);
                if before & SMMUEN == 0 {
                    self.configure(0..=u32::MAX)?;
                }
            }
            IRQ_CTRL => self.set(IRQ_CTRLACK, 4, value & 7),
            CMDQ_PROD | GERRORN => self.consume()?,
            _ => {}
        }
        let mut events = self.events.lock();
        events.enabled = self.get(CR0, 4) & EVENTQEN != 0;
        events.base = self.get(EVENTQ_BASE, 8);
        match offset {
            EVENTQ_PROD => events.prod = value,
            EVENTQ_CONS => events.consumed(value),
            _ => {}
        }
        Ok(())
    }

    /// Brings the devices in `range` to what the guest says now. Each call returns when the device obeys.
    fn configure(&mut self, range: RangeInclusive<u32>) -> Story {
        let in_range: Vec<u32> = self.devices.keys().copied().filter(|stream| range.contains(stream)).collect();
        for stream in in_range {
            self.count.entries += 1;
            if self.get(CR0, 4) & SMMUEN != 0 {
                match self.stream_table_entry(stream) {
                    Some(ste) => self.viommu.install_entry(stream, &ste)?,
                    None => self.viommu.set_blocking(stream)?,
                }
            } else if self.get(GBPA, 4) & GBPA_ABORT != 0 {
                self.viommu.set_blocking(stream)?;
            } else {
                self.viommu.set_passthrough(stream)?;
            }
        }
        Ok(())
    }

    /// The guest's STE (3.3): in a linear table, or behind a level-1 descriptor.
    fn stream_table_entry(&self, stream: u32) -> Option<[u64; 8]> {
        let (base, cfg) = (self.get(STRTAB_BASE, 8), self.get(STRTAB_BASE_CFG, 4));
        let (stream, log2, split) = (u64::from(stream), (cfg & 0x3f).min(32), cfg >> 6 & 0x1f);
        if stream >> log2 != 0 {
            return None;
        }
        let table = base & 0xf_ffff_ffff_ffc0;
        let two_level = cfg >> 16 & 3 == 1;
        let at = if two_level {
            let descriptor = self.load(table + (stream >> split) * 8)?;
            let (span, index) = (descriptor & 0x1f, stream & ((1 << split) - 1));
            if span == 0 || index >> (span - 1) != 0 {
                return None;
            }
            (descriptor & 0xf_ffff_ffff_ffc0) + index * 64
        } else {
            table + stream * 64
        };
        let mut ste = [0; 8];
        for (word, offset) in ste.iter_mut().zip((0..).step_by(8)) {
            *word = self.load(at + offset)?;
        }
        Some(ste)
    }

    /// Takes the command queue as far as it goes. Invalidations are collected and carried out together; CONS stays
    /// where it is until they are complete.
    fn consume(&mut self) -> Story {
        let mut collected = Vec::new();
        while let Some(at) = self.next_command(collected.len() as u64 / 2) {
            let (Some(w0), Some(w1)) = (self.load(at), self.load(at + 8)) else {
                if self.carry_out(&mut collected)? {
                    self.command_error(CERROR_ABT);
                }
                return Ok(());
            };
            if !matches!(w0 & 0xff, CFGI_STE | CFGI_STE_RANGE | CMD_SYNC) {
                collected.extend([w0, w1]);
                continue;
            }
            if !self.carry_out(&mut collected)? {
                return Ok(());
            }
            match w0 & 0xff {
                CFGI_STE => self.configure((w0 >> 32) as u32..=(w0 >> 32) as u32)?,
                CFGI_STE_RANGE => {
                    let rest = ((2_u64 << (w1 & 0x1f)) - 1) as u32;
                    let first = (w0 >> 32) as u32 & !rest;
                    self.configure(first..=first | rest)?;
                }
                // CS = 3 is reserved.
                _ if w0 >> 12 & 3 == 3 => {
                    self.command_error(CERROR_ILL);
                    return Ok(());
                }
                _ => self.sync_done(w0, w1),
            }
            self.advance(1);
        }
        self.carry_out(&mut collected).map(drop)
    }

    /// Carries out what was collected, from CONS on. Whether the queue goes on: a command that viommu refuses stops it
    /// there, as hardware would.
    fn carry_out(&mut self, collected: &mut Vec<u64>) -> Story<bool> {
        if collected.is_empty() {
            return Ok(true);
        }
        let done = self.viommu.invalidate(collected)?;
        collected.clear();
        self.count.invalidations += done.handled as u64;
        self.advance(done.handled as u64);
        match done.fault {
            GuestFault::NONE => return Ok(true),
            GuestFault::ATC_TIMEOUT => self.command_error(CERROR_ATC_INV_SYNC),
            _ => self.command_error(CERROR_ILL),
        }
        Ok(false)
    }

    /// Everything before this CMD_SYNC is complete. Its signal (4.7): an MSI, which Linux aims at the command itself;
    /// wired lines and events of the CPU are for a VMM with vCPUs.
    fn sync_done(&mut self, w0: u64, w1: u64) {
        self.count.syncs += 1;
        let (address, data) = (w1 & 0xf_ffff_ffff_fffc, (w0 >> 32) as u32);
        if w0 >> 12 & 3 == 1 && address != 0 {
            // An address that is no memory is an interrupt controller's.
            drop(self.memory.write_slice(&data.to_le_bytes(), GuestAddress(address)));
        }
    }

    /// Where the command is that is `ahead` of CONS; `None` if there is none, or the queue is off or stopped. A PROD
    /// that is further than the queue is long is taken modulo its length.
    fn next_command(&self, ahead: u64) -> Option<u64> {
        let stopped = (self.get(GERROR, 4) ^ self.get(GERRORN, 4)) & CMDQ_ERR != 0;
        let base = self.get(CMDQ_BASE, 8);
        let log2 = (base & 0x1f).min(19);
        let indices = (2 << log2) - 1;
        let next = (self.get(CMDQ_CONS, 4) + ahead) & indices;
        let running = self.get(CR0, 4) & CMDQEN != 0 && !stopped;
        let slot = next & (indices >> 1);
        (running && next != self.get(CMDQ_PROD, 4) & indices).then_some((base & 0xf_ffff_ffff_ffe0) + slot * 16)
    }

    fn advance(&mut self, commands: u64) {
        let indices = (2 << (self.get(CMDQ_BASE, 8) & 0x1f).min(19)) - 1;
        let cons = self.get(CMDQ_CONS, 4);
        self.set(CMDQ_CONS, 4, cons & 0x7f00_0000 | (cons + commands) & indices);
    }

    fn command_error(&mut self, error: u64) {
        let (cons, gerror) = (self.get(CMDQ_CONS, 4), self.get(GERROR, 4));
        self.set(CMDQ_CONS, 4, cons & 0xf_ffff | error << 24);
        self.set(GERROR, 4, gerror ^ CMDQ_ERR);
    }

    fn load(&self, gpa: u64) -> Option<u64> {
        self.memory.read_obj(GuestAddress(gpa)).ok().map(u64::from_le)
    }

    fn get(&self, offset: u64, size: u32) -> u64 {
        let mut bytes = [0; 8];
        if let Some(from) = self.frame.get(offset as usize..offset as usize + size.min(8) as usize) {
            bytes[..from.len()].copy_from_slice(from);
        }
        u64::from_le_bytes(bytes)
    }

    fn set(&mut self, offset: u64, size: u32, value: u64) {
        if let Some(to) = self.frame.get_mut(offset as usize..offset as usize + size.min(8) as usize) {
            to.copy_from_slice(&value.to_le_bytes()[..to.len()]);
        }
    }
}
