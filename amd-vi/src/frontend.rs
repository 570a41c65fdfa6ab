//! The register frame a guest sees: state, reads, writes, and the guest's half of its rings.
//!
//! All registers are 64 bits wide and may be written in halves. A guest whose command buffer stopped (STATUS.CmdBufRun
//! reads 0) restarts it as on hardware: it clears CONTROL.CmdBufEn and sets it again; the head stays where it was.

mod device_table;
mod event_log;
mod hw_viommu;
mod saved;

use crate::features::Features;
use crate::spec::commands::{COMMAND_BYTES, COMMAND_WORDS, CompletionWait};
use crate::spec::events::EventCode;
use crate::spec::registers::{
    CAPABILITY_HEADER, Control, DeviceTableBase, RingBase, RingPointer, Status, offset, register_name,
};
use crate::spec::viommu::{GUEST_PAGE, PAGE};
use event_log::EventLog;
use std::fmt::Write;
use viommu_plugin::{
    Actions, Effects, Frontend, GuestFault, GuestMemory, GuestQueue, HwQueueRequest, Lookup, Message, Mode, QueueState,
    Refusal, Register,
};

/// The interrupt of the IOMMU itself: event log and completion wait, as the recordings number it.
const LINE_GENERAL: u32 = 0;
/// Status bits that this frontend sets beside the Run bits, which follow from other registers.
const STATUS_HELD: Status = Status::new().with_event_overflow(true).with_event_log_int(true).with_com_wait_int(true);

/// Registers that hold what is written and mean nothing here: exclusion ranges, PPR and GA logs, interrupt messages.
const PLAIN: [u64; 14] = [
    offset::EXCLUSION_BASE,
    offset::EXCLUSION_LIMIT,
    offset::PPR_BASE,
    offset::GA_LOG_BASE,
    offset::GA_LOG_TAIL,
    // The three words from MSI_ADDRESS_LOW on lie across two doublewords.
    MSI_FIRST,
    MSI_SECOND,
    offset::X2APIC_EVENT,
    offset::X2APIC_PPR,
    offset::X2APIC_GA_LOG,
    offset::PPR_HEAD,
    offset::PPR_TAIL,
    offset::GA_LOG_HEAD,
    offset::GA_LOG_TAIL_INDEX,
];
/// The doubleword whose upper half is MSI_ADDRESS_LOW.
const MSI_FIRST: u64 = offset::MSI_ADDRESS_LOW - 4;
/// The doubleword of MSI_ADDRESS_HIGH and MSI_DATA.
const MSI_SECOND: u64 = offset::MSI_ADDRESS_HIGH;
/// End of the page that is the hardware's own, if the guest drives its part itself.
const GUEST_PAGE_END: u64 = GUEST_PAGE + PAGE;

/// One guest's IOMMU, as its registers describe it.
#[derive(Debug, Clone)]
pub struct AmdFrontend {
    features: Features,
    device_table: DeviceTableBase,
    command_base: RingBase,
    command_head: RingPointer,
    command_tail: RingPointer,
    /// The command buffer stopped at an error.
    stopped: bool,
    control: Control,
    /// Bits of [`STATUS_HELD`].
    status: Status,
    events: EventLog,
    /// In the order of [`PLAIN`].
    plain: [u64; PLAIN.len()],
}

impl AmdFrontend {
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
            device_table: DeviceTableBase::new(),
            command_base: RingBase::new(),
            command_head: RingPointer::new(),
            command_tail: RingPointer::new(),
            stopped: false,
            control: Control::new(),
            status: Status::new(),
            events: EventLog::default(),
            plain: [0; PLAIN.len()],
        }
    }

    fn commands_enabled(&self) -> bool {
        self.control.iommu_en() && self.control.cmd_buf_en()
    }

    fn events_enabled(&self) -> bool {
        self.control.iommu_en() && self.control.event_log_en()
    }

    /// STATUS as it reads now.
    fn status(&self) -> Status {
        self.status
            .with_cmd_buf_run(self.commands_enabled() && !self.stopped)
            .with_event_log_run(self.events_enabled() && !self.events.stopped)
    }

    /// One register, by the offset of its doubleword.
    fn register(&self, at: u64) -> u64 {
        match at {
            offset::DEVICE_TABLE_BASE => self.device_table.into_bits(),
            offset::COMMAND_BASE => self.command_base.into_bits(),
            offset::EVENT_BASE => self.events.base.into_bits(),
            offset::CONTROL => self.control.into_bits(),
            offset::EFR => self.features.guest_efr().into_bits(),
            // The hardware's own page: no access to it comes here.
            GUEST_PAGE..GUEST_PAGE_END if self.features.hw_viommu() => 0,
            offset::EFR2 => self.features.efr2.into_bits(),
            offset::COMMAND_HEAD => self.command_head.into_bits(),
            offset::COMMAND_TAIL => self.command_tail.into_bits(),
            offset::EVENT_HEAD => self.events.head.into_bits(),
            offset::EVENT_TAIL => self.events.tail.into_bits(),
            offset::STATUS => self.status().into_bits(),
            CAPABILITY_HEADER => self.features.header.into_bits().into(),
            _ => PLAIN.iter().position(|&plain| plain == at).map_or(0, |index| self.plain[index]),
        }
    }

    /// Writes one register, all of it; which [`Actions`] follow.
    fn set_register(&mut self, at: u64, value: u64) -> u32 {
        match at {
            GUEST_PAGE..GUEST_PAGE_END if self.features.hw_viommu() => {}
            offset::DEVICE_TABLE_BASE => {
                self.device_table = value.into();
                return Actions::RECONFIGURE;
            }
            offset::COMMAND_BASE => {
                self.command_base = value.into();
                // A new buffer is empty.
                (self.command_head, self.command_tail) = (RingPointer::new(), RingPointer::new());
            }
            offset::EVENT_BASE => self.events.move_to(value.into()),
            offset::CONTROL => return self.write_control(value.into()),
            // The IOMMU's own while it runs.
            offset::COMMAND_HEAD if !self.status().cmd_buf_run() => self.command_head = pointer(value),
            offset::COMMAND_TAIL => {
                self.command_tail = pointer(value);
                return Actions::KICK;
            }
            offset::EVENT_HEAD => self.events.head = pointer(value),
            offset::EVENT_TAIL if !self.status().event_log_run() => self.events.tail = pointer(value),
            offset::STATUS => {
                let cleared = value & Status::WRITE_1_TO_CLEAR;
                self.status = Status::from_bits(self.status.into_bits() & !cleared);
            }
            _ => {
                if let Some(index) = PLAIN.iter().position(|&plain| plain == at) {
                    self.plain[index] = value;
                }
            }
        }
        0
    }

    fn write_control(&mut self, new: Control) -> u32 {
        let (ran, was_on) = (self.commands_enabled(), self.control.iommu_en());
        let logged = self.events_enabled();
        self.control = new;
        let mut actions = 0;
        if !self.commands_enabled() {
            self.stopped = false;
        } else if !ran {
            actions |= Actions::KICK;
        }
        if !logged || !self.events_enabled() {
            self.events.stopped = false;
        }
        if was_on != new.iommu_en() {
            actions |= Actions::RECONFIGURE;
        }
        actions
    }

    /// Raises the general interrupt, if it is enabled for this cause.
    fn interrupt(enabled: bool, effects: &mut Effects) {
        if enabled {
            effects.lines |= 1 << LINE_GENERAL;
        }
    }

    /// Appends a record, or shows that there is no room for it.
    fn log(&mut self, record: [u64; 2]) -> Effects {
        let mut effects = Effects::default();
        if self.status().event_log_run() {
            if self.events.push(record, &mut effects) {
                self.status.set_event_log_int(true);
            } else {
                self.status.set_event_overflow(true);
            }
            Self::interrupt(self.control.event_int_en(), &mut effects);
        }
        effects
    }

    /// Address of the command at the head.
    fn command_address(&self) -> u64 {
        self.command_base.address() + u64::from(self.command_head.index()) * COMMAND_BYTES
    }
}

/// A head or tail as a guest writes it: only the index is kept.
fn pointer(value: u64) -> RingPointer {
    RingPointer::new().with_index(RingPointer::from_bits(value).index())
}

impl Frontend for AmdFrontend {
    fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 if at.is_multiple_of(4) => self.register(at & !7) >> (8 * (at & 4)) & 0xffff_ffff,
            8 if at.is_multiple_of(8) => self.register(at),
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, size: u32, value: u64) -> Effects {
        let doubleword = at & !7;
        let asked = self.rings();
        let mut actions = match size {
            8 if at.is_multiple_of(8) => self.set_register(at, value),
            // What a 1 clears is not written back.
            4 if doubleword == offset::STATUS && at.is_multiple_of(4) => {
                self.set_register(doubleword, (value & 0xffff_ffff) << (8 * (at & 4)))
            }
            4 if at.is_multiple_of(4) => {
                let shift = 8 * (at & 4);
                let kept = self.register(doubleword) & !(0xffff_ffff << shift);
                self.set_register(doubleword, kept | (value & 0xffff_ffff) << shift)
            }
            _ => 0,
        };
        if self.rings() != asked {
            actions |= Actions::HW_QUEUES;
        }
        Effects { actions: Actions(actions), ..Effects::default() }
    }

    /// A length that is reserved, or a pointer beyond the buffer, describes commands that cannot exist: nothing is
    /// fetched, and [`GuestFault::QUEUE_CONFIG`] says why.
    fn queue(&self) -> GuestQueue {
        let entries = 1 << self.command_base.length();
        let (head, tail) = (u32::from(self.command_head.index()), u32::from(self.command_tail.index()));
        let wrong = self.command_base.length() < RingBase::LENGTH_LEAST || head >= entries || tail >= entries;
        let state = match (self.commands_enabled() && !self.features.hw_viommu(), self.stopped) {
            (false, _) => QueueState::DISABLED,
            (true, true) => QueueState::STOPPED,
            (true, false) => QueueState::RUNNING,
        };
        GuestQueue {
            base: self.command_base.address(),
            capacity: entries,
            head: if wrong { 0 } else { head },
            pending: if wrong { 0 } else { tail.wrapping_sub(head) & (entries - 1) },
            command_words: COMMAND_WORDS as u32,
            state,
            fault: if wrong { GuestFault::QUEUE_CONFIG } else { GuestFault::NONE },
        }
    }

    fn advance(&mut self, commands: u32) {
        let queue = self.queue();
        let head = (queue.head + commands.min(queue.pending)) & (queue.capacity - 1);
        if queue.fault == GuestFault::NONE {
            self.command_head = RingPointer::new().with_index(head as u16);
        }
    }

    /// The buffer stops and the event log says at which command. Which device did not answer an invalidation is not known
    /// here: IOTLB_INV_TIMEOUT names device 0. An event log that cannot be written stops.
    fn fault(&mut self, fault: GuestFault) -> Effects {
        if fault == GuestFault::EVENT_ABORT {
            self.events.stopped = self.events_enabled();
            return Effects::default();
        }
        if fault == GuestFault::NONE || self.stopped {
            return Effects::default();
        }
        let code = match fault {
            GuestFault::ATC_TIMEOUT => EventCode::IOTLB_INV_TIMEOUT,
            // Nothing is wrong with the command itself.
            GuestFault::FETCH_ABORT | GuestFault::QUEUE_CONFIG | GuestFault::HOST_ERROR => {
                EventCode::COMMAND_HARDWARE_ERROR
            }
            _ => EventCode::ILLEGAL_COMMAND_ERROR,
        };
        self.stopped = self.commands_enabled();
        self.log([u64::from(code.0) << 60, self.command_address()])
    }

    fn sync_done(&mut self, command: &[u64]) -> Effects {
        let mut effects = Effects::default();
        self.advance(1);
        let &[w0, w1, ..] = command else { return effects };
        let wait = CompletionWait::from_words([w0, w1]);
        if wait.s() {
            effects.store(wait.store_address(), &wait.data().to_le_bytes());
        }
        if wait.i() {
            self.status.set_com_wait_int(true);
            Self::interrupt(self.control.com_wait_int_en(), &mut effects);
        }
        effects
    }

    /// A guest with a log of its own is only told that there is something in it: what is, hardware wrote.
    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        if self.features.hw_viommu() {
            return self.own_ring_event(virt_id, record);
        }
        let word = |at: usize| record.get(at).copied().unwrap_or(0);
        self.log([word(0) & !0xffff | u64::from(virt_id as u16), word(1)])
    }

    fn event_lost(&mut self) -> Effects {
        let mut effects = Effects::default();
        if !self.features.hw_viommu() && self.status().event_log_run() {
            self.events.stopped = true;
            self.status.set_event_overflow(true);
            Self::interrupt(self.control.event_int_en(), &mut effects);
        }
        effects
    }

    fn mode(&self) -> Mode {
        if self.control.iommu_en() { Mode::TRANSLATE } else { Mode::BYPASS }
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        device_table::lookup(self.device_table, memory, virt_id, entry)
    }

    fn reset(&mut self) {
        *self = Self::with_features(self.features);
    }

    fn register_name(&self, offset: u64) -> Option<&'static str> {
        register_name(offset)
    }

    fn trouble(&self, text: &mut Message) {
        // Bits of public headers that nothing offered here allows: DualPprLogEn, DualEventLogEn, DevTblSegEn, MarcEn.
        let unnamed = self.control.into_bits() & (3 << 30 | 3 << 32 | 7 << 34 | 1 << 40);
        let own = self.control.viommu_en() || self.control.vcmd_en() || self.control.gst_buffer_trp_mode();
        // A message cuts what does not fit; it reports no error.
        let _ = match (unnamed, own) {
            (0, false) => Ok(()),
            (0, true) => write!(text, "CONTROL asks for the hardware vIOMMU, which a guest was not offered"),
            (bits, _) => {
                write!(text, "CONTROL bits {bits:#x} (second logs, device table segments, MARC) were not offered")
            }
        };
    }

    fn watched(&self, _memory: &dyn GuestMemory, streams: &[u32], from: u32, out: &mut [u64]) -> u32 {
        if self.features.hw_viommu() { device_table::pages(self.device_table, streams, from, out) } else { 0 }
    }

    fn hw_queues(&self, queues: &mut [HwQueueRequest]) -> usize {
        let asked = self.rings().into_iter().flatten();
        let mut count = 0;
        for ring in asked {
            if let Some(slot) = queues.get_mut(count) {
                *slot = ring;
            }
            count += 1;
        }
        count
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal> {
        *self = self.of_bytes(state)?;
        Ok(())
    }
}
