//! The register frame (§11.4): what a write changes by itself, and what it asks the unit to do.

use super::identity::Identity;
use crate::spec::registers::{
    EventControl, FAULT_RECORD_BYTES, FRAME_BYTES, FaultRecord0, FaultRecord1, FaultStatus, Global, QueueAddress,
    RootTable, offset,
};

/// Bits of FSTS that writing 1 clears: PFO, IQE, ICE, ITE, PRO.
const FSTS_W1C: u32 = 0xf1;
/// QT of IQT.
const IQT_BITS: u32 = 0x7_fff0;
/// The highest bit of a register's upper half: ICC, IVT, F.
const TOP: u32 = 1 << 31;
/// Offset of the control register of an event to its data, address and upper address.
const EVENT_DATA: u64 = 4;

/// What a write asks of the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// GCMD.SRTP.
    RootTable,
    /// CCMD.ICC.
    ContextCommand,
    /// IOTLB.IVT.
    IotlbCommand,
    /// The control register at this offset may let a held-back message go.
    Event(u64),
}

/// The registers, as software reads them.
pub(crate) struct Registers {
    words: Box<[u32]>,
    identity: Identity,
    /// RTADDR as SRTP took it.
    root: RootTable,
    /// The fault recording register that the next fault goes to.
    next_record: u32,
}

impl Registers {
    /// Power-on values: all off, no queue, events masked.
    pub(crate) fn new(identity: Identity) -> Self {
        let words = vec![0; (FRAME_BYTES / 4) as usize].into_boxed_slice();
        let mut registers = Self { words, identity, root: RootTable::new(), next_record: 0 };
        registers.set(offset::VER, identity.version);
        registers.set_double(offset::CAP, identity.cap.into());
        registers.set_double(offset::ECAP, identity.ecap.into());
        for at in [offset::FECTL, offset::IECTL, offset::PECTL] {
            registers.set(at, EventControl::new().with_mask(true).into());
        }
        registers
    }

    fn place(at: u64) -> Option<usize> {
        (at.is_multiple_of(4) && at < FRAME_BYTES).then_some((at / 4) as usize)
    }
    pub(crate) fn word(&self, at: u64) -> u32 {
        Self::place(at).map_or(0, |place| self.words[place])
    }
    pub(crate) fn set(&mut self, at: u64, value: u32) {
        if let Some(place) = Self::place(at) {
            self.words[place] = value;
        }
    }
    pub(crate) fn double(&self, at: u64) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }
    pub(crate) fn set_double(&mut self, at: u64, value: u64) {
        self.set(at, value as u32);
        self.set(at + 4, (value >> 32) as u32);
    }

    /// A read of `size` bytes; zero where there is no register.
    pub(crate) fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 => u64::from(self.word(at)),
            8 if at.is_multiple_of(8) && at < FRAME_BYTES => self.double(at),
            _ => 0,
        }
    }

    /// A write of one register of 4 bytes, or half of one of 8.
    pub(crate) fn write(&mut self, at: u64, value: u32) -> Effect {
        let iotlb = self.identity.ecap.iotlb();
        match at {
            offset::GCMD => return self.command(Global::from(value)),
            offset::FSTS => {
                self.set(at, self.word(at) & !(value & FSTS_W1C));
                self.settle_faults();
            }
            offset::FECTL | offset::IECTL | offset::PECTL => {
                let control = EventControl::from(self.word(at)).with_mask(EventControl::from(value).mask());
                self.set(at, control.into());
                return Effect::Event(at);
            }
            offset::ICS => {
                self.set(at, self.word(at) & !(value & 1));
                if self.word(at) == 0 {
                    self.set_pending(offset::IECTL, false);
                }
            }
            offset::IQT => self.set(at, value & IQT_BITS),
            _ if at & !4 == offset::IQA && !self.status().queued_invalidation() => self.set(at, value),
            _ if at == offset::CCMD + 4 => {
                self.set(at, value);
                return if value & TOP != 0 { Effect::ContextCommand } else { Effect::None };
            }
            offset::CCMD
            | offset::FEDATA..=offset::FEUADDR
            | offset::IEDATA..=offset::IEUADDR
            | offset::PEDATA..=offset::PEUADDR => self.set(at, value),
            _ if [offset::RTADDR, offset::IRTA, offset::PQA].contains(&(at & !4)) => self.set(at, value),
            ..=offset::PEUADDR => {}
            _ if at == iotlb + 4 => {
                self.set(at, value);
                return if value & TOP != 0 { Effect::IotlbCommand } else { Effect::None };
            }
            _ if (self.identity.ecap.iva()..iotlb + 4).contains(&at) => self.set(at, value),
            _ => self.acknowledge(at, value),
        }
        Effect::None
    }

    /// GCMD (§11.4.4): the status follows at once.
    fn command(&mut self, command: Global) -> Effect {
        let status = self.status();
        if status.queued_invalidation() && !command.queued_invalidation() {
            self.set_double(offset::IQH, 0);
        }
        let next = status
            .with_translation(command.translation())
            .with_queued_invalidation(command.queued_invalidation() && self.identity.ecap.queued_invalidation())
            .with_interrupt_remapping(command.interrupt_remapping() && self.identity.ecap.interrupt_remapping())
            .with_compatibility_interrupts(command.compatibility_interrupts())
            .with_root_table(status.root_table() || command.root_table())
            .with_interrupt_table(status.interrupt_table() || command.interrupt_table());
        self.set(offset::GSTS, next.into());
        if !command.root_table() {
            return Effect::None;
        }
        self.root = RootTable::from(self.double(offset::RTADDR));
        Effect::RootTable
    }

    /// GSTS.
    #[inline]
    pub(crate) fn status(&self) -> Global {
        Global::from(self.words[(offset::GSTS / 4) as usize])
    }
    /// RTADDR as SRTP took it.
    #[inline]
    pub(crate) fn root(&self) -> RootTable {
        self.root
    }
    /// IQA; without scalable mode all descriptors have 128 bits.
    pub(crate) fn queue(&self) -> QueueAddress {
        let queue = QueueAddress::from(self.double(offset::IQA));
        queue.with_wide(queue.wide() && self.identity.ecap.scalable_mode())
    }

    /// FSTS.
    pub(crate) fn fault_status(&self) -> FaultStatus {
        FaultStatus::from(self.word(offset::FSTS))
    }
    /// Sets FSTS.
    pub(crate) fn set_fault_status(&mut self, status: FaultStatus) {
        self.set(offset::FSTS, status.into());
    }
    /// Sets IP of the event with its control register at `control`.
    pub(crate) fn set_pending(&mut self, control: u64, pending: bool) {
        self.set(control, EventControl::from(self.word(control)).with_pending(pending).into());
    }
    /// Address and data of the message of the event with its control register at `control`.
    pub(crate) fn message(&self, control: u64) -> (u64, u32) {
        let data = control + EVENT_DATA;
        let address = u64::from(self.word(data + 4) & !3) | u64::from(self.word(data + 8)) << 32;
        (address, self.word(data))
    }

    /// Number of fault recording registers.
    fn records(&self) -> u32 {
        u32::from(self.identity.cap.fault_registers()) + 1
    }
    /// The high half of fault recording register `index`.
    fn fault_record(&self, index: u32) -> FaultRecord1 {
        FaultRecord1::from(self.double(self.identity.cap.fault_register(index) + 8))
    }
    /// Whether a fault of `source` is recorded and not acknowledged.
    pub(crate) fn has_fault_of(&self, source: u16) -> bool {
        (0..self.records()).map(|index| self.fault_record(index)).any(|r| r.fault() && r.source_id() == source)
    }
    /// Puts a fault into the next recording register; `false` if that one is not acknowledged yet.
    pub(crate) fn put_fault(&mut self, (low, high): (FaultRecord0, FaultRecord1)) -> bool {
        let index = self.next_record;
        if self.fault_record(index).fault() {
            return false;
        }
        let at = self.identity.cap.fault_register(index);
        self.set_double(at, low.into());
        self.set_double(at + 8, high.into());
        self.next_record = (index + 1) % self.records();
        self.settle_faults();
        true
    }
    /// A write to the last word of a fault recording register: F is cleared by 1.
    fn acknowledge(&mut self, at: u64, value: u32) {
        let first = self.identity.cap.fault_register(0);
        let within = first..first + FAULT_RECORD_BYTES * u64::from(self.records());
        if within.contains(&at) && (at - first) % FAULT_RECORD_BYTES == 12 {
            self.set(at, self.word(at) & !(value & TOP));
            self.settle_faults();
        }
    }
    /// PPF and FRI as the recording registers say; and no message is due once nothing is left to tell.
    fn settle_faults(&mut self) {
        let (count, status) = (self.records(), self.fault_status());
        let from = if status.pending() { u32::from(status.first_register()) } else { self.next_record };
        // Oldest first: the next to be written is the oldest that there is.
        let oldest = (0..count).map(|step| (from + step) % count).find(|&index| self.fault_record(index).fault());
        let status = status.with_pending(oldest.is_some()).with_first_register(oldest.unwrap_or(0) as u8);
        self.set_fault_status(status);
        if u32::from(status) == 0 {
            self.set_pending(offset::FECTL, false);
        }
    }
}
