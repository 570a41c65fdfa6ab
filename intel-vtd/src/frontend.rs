//! The register frame a guest sees (§11.4): state, reads, writes, and the guest's half of its queue and fault records.

mod event;
mod faults;
mod queue;
mod saved;
mod tables;

use crate::features::Features;
use crate::spec::descriptors::{WIDE_WORDS, Wait};
use crate::spec::registers::{
    CompletionStatus, ContextCommand, Global, InterruptTable, IotlbCommand, RootTable, TableMode, offset, register_name,
};
use event::Event;
use faults::Faults;
use queue::Queue;
use viommu_plugin::{
    Actions, Effects, Frontend, GuestFault, GuestMemory, GuestQueue, Lookup, Message, Mode, QueueState, Refusal,
    Register,
};

/// One guest's VT-d, as its registers describe it.
#[derive(Debug, Clone)]
pub struct VtdFrontend {
    features: Features,
    /// GSTS.
    status: Global,
    /// RTADDR as written.
    root_register: RootTable,
    /// RTADDR as the last SRTP took it.
    root: RootTable,
    context_command: ContextCommand,
    invalidate_address: u64,
    iotlb_command: IotlbCommand,
    faults: Faults,
    queue: Queue,
    completion: CompletionStatus,
    completion_event: Event,
    interrupt_table: InterruptTable,
    /// PQH, PQT, PQA: no page request is ever put there.
    page_requests: [u64; 3],
    page_request_event: Event,
}

impl VtdFrontend {
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
            status: Global::new(),
            root_register: RootTable::new(),
            root: RootTable::new(),
            context_command: ContextCommand::new(),
            invalidate_address: 0,
            iotlb_command: IotlbCommand::new(),
            faults: Faults::new(u32::from(features.cap.fault_registers()) + 1),
            queue: Queue::default(),
            completion: CompletionStatus::new(),
            completion_event: Event::default(),
            interrupt_table: InterruptTable::new(),
            page_requests: [0; 3],
            page_request_event: Event::default(),
        }
    }

    /// One aligned word of the frame.
    fn read32(&self, at: u64) -> u32 {
        if let Some((index, word)) = self.fault_word(at) {
            return self.faults.read(index, word);
        }
        match at {
            offset::VER => self.features.ver,
            offset::CAP | CAP_HIGH => half(self.features.cap.into(), at),
            offset::ECAP | ECAP_HIGH => half(self.features.ecap.into(), at),
            offset::GSTS => self.status.into_bits(),
            offset::RTADDR | RTADDR_HIGH => half(self.root_register.into(), at),
            offset::CCMD | CCMD_HIGH => half(self.context_command.into(), at),
            offset::FSTS => self.faults.status().into_bits(),
            offset::FECTL..=offset::FEUADDR => self.faults.event.read(at - offset::FECTL),
            offset::IQH => self.queue.head,
            offset::IQT => self.queue.tail,
            offset::IQA | IQA_HIGH => half(self.queue.address.into(), at),
            offset::ICS => self.completion.into_bits(),
            offset::IECTL..=offset::IEUADDR => self.completion_event.read(at - offset::IECTL),
            offset::IQERCD | IQERCD_HIGH => half(self.queue.error.into(), at),
            offset::IRTA | IRTA_HIGH => half(self.interrupt_table.into(), at),
            offset::PQH..PQA_END if self.features.ecap.page_request() => {
                half(self.page_requests[(at - offset::PQH) as usize / 8], at)
            }
            offset::PECTL..=offset::PEUADDR if self.features.ecap.page_request() => {
                self.page_request_event.read(at - offset::PECTL)
            }
            _ if at & !7 == self.features.ecap.iotlb() => half(self.iotlb_command.into(), at),
            _ => 0,
        }
    }

    /// Writes one aligned word of the frame.
    fn write32(&mut self, at: u64, value: u32, effects: &mut Effects) {
        if let Some((index, word)) = self.fault_word(at) {
            return self.faults.write(index, word, value);
        }
        match at {
            offset::GCMD => effects.actions.0 |= self.command(Global::from_bits(value)),
            offset::RTADDR | RTADDR_HIGH => self.root_register = with_half(self.root_register.into(), at, value).into(),
            offset::CCMD | CCMD_HIGH => {
                self.context_command = with_half(self.context_command.into(), at, value).into();
                effects.actions.0 |= self.invalidate_contexts();
            }
            // An error that is cleared lets the queue go on.
            offset::FSTS if self.faults.acknowledge(value) => effects.actions.0 |= Actions::KICK,
            offset::FECTL..=offset::FEUADDR => self.faults.event.write(at - offset::FECTL, value, effects),
            offset::IQT => {
                self.queue.ring(value);
                effects.actions.0 |= Actions::KICK;
            }
            // The queue stays where it is while it runs.
            offset::IQA | IQA_HIGH if !self.status.queued_invalidation() => {
                self.queue.address = with_half(self.queue.address.into(), at, value).into();
            }
            offset::ICS if CompletionStatus::from_bits(value).wait_complete() => {
                self.completion.set_wait_complete(false);
                self.completion_event.withdraw();
            }
            offset::IECTL..=offset::IEUADDR => self.completion_event.write(at - offset::IECTL, value, effects),
            offset::IRTA | IRTA_HIGH => self.interrupt_table = with_half(self.interrupt_table.into(), at, value).into(),
            offset::PQH..PQA_END if self.features.ecap.page_request() => {
                let register = &mut self.page_requests[(at - offset::PQH) as usize / 8];
                *register = with_half(*register, at, value);
            }
            offset::PECTL..=offset::PEUADDR if self.features.ecap.page_request() => {
                self.page_request_event.write(at - offset::PECTL, value, effects);
            }
            _ if at & !7 == self.features.ecap.iva() => {
                self.invalidate_address = with_half(self.invalidate_address, at, value);
            }
            _ if at & !7 == self.features.ecap.iotlb() => {
                self.iotlb_command = with_half(self.iotlb_command.into(), at, value).into();
                self.invalidate_iotlb();
            }
            _ => {}
        }
    }

    /// Which fault recording register, and which of its words, is at `at`.
    fn fault_word(&self, at: u64) -> Option<(usize, usize)> {
        let from = at.checked_sub(self.features.cap.fault_register(0))?;
        let index = (from / crate::spec::registers::FAULT_RECORD_BYTES) as usize;
        (index < self.faults.count()).then_some((index, (from % 16) as usize / 4))
    }

    /// GCMD: the status follows at once; which [`Actions`] follow.
    fn command(&mut self, new: Global) -> u32 {
        let old = self.status;
        let mut actions = 0;
        if new.root_table() {
            self.root = self.root_register;
            self.status.set_root_table(true);
            if new.translation() {
                actions |= Actions::RECONFIGURE;
            }
        }
        if self.features.ecap.interrupt_remapping() {
            // Taken, shown, and otherwise the VMM's affair.
            self.status.set_interrupt_table(old.interrupt_table() || new.interrupt_table());
            self.status.set_interrupt_remapping(new.interrupt_remapping());
            self.status.set_compatibility_interrupts(new.compatibility_interrupts());
        }
        self.status.set_queued_invalidation(new.queued_invalidation());
        if old.queued_invalidation() != new.queued_invalidation() {
            self.queue.restart();
            actions |= Actions::KICK;
        }
        self.status.set_translation(new.translation());
        if old.translation() != new.translation() {
            actions |= Actions::RECONFIGURE;
        }
        actions
    }

    /// CCMD with ICC: every entry is read again, which is as much as any granularity asks for.
    fn invalidate_contexts(&mut self) -> u32 {
        if !self.context_command.invalidate() {
            return 0;
        }
        let asked = self.context_command.granularity();
        self.context_command.set_actual(asked);
        self.context_command.set_invalidate(false);
        if self.status.translation() { Actions::RECONFIGURE } else { 0 }
    }

    /// IOTLB with IVT. While nothing is translated there is nothing to forget. Otherwise the answer is the manual's
    /// "not done" (IAIG 0): translations are invalidated by the queue only.
    fn invalidate_iotlb(&mut self) {
        if self.iotlb_command.invalidate() {
            let asked = self.iotlb_command.granularity();
            self.iotlb_command.set_actual(if self.status.translation() { 0 } else { asked });
            self.iotlb_command.set_invalidate(false);
        }
    }
}

const CAP_HIGH: u64 = offset::CAP + 4;
const ECAP_HIGH: u64 = offset::ECAP + 4;
const RTADDR_HIGH: u64 = offset::RTADDR + 4;
const CCMD_HIGH: u64 = offset::CCMD + 4;
const IQA_HIGH: u64 = offset::IQA + 4;
const IQERCD_HIGH: u64 = offset::IQERCD + 4;
const IRTA_HIGH: u64 = offset::IRTA + 4;
const PQA_END: u64 = offset::PQA + 8;

/// The half of a 64-bit register that is at `at`.
fn half(register: u64, at: u64) -> u32 {
    if at.is_multiple_of(8) { register as u32 } else { (register >> 32) as u32 }
}

/// A 64-bit register with the half at `at` written.
fn with_half(register: u64, at: u64, value: u32) -> u64 {
    if at.is_multiple_of(8) {
        register & !0xffff_ffff | u64::from(value)
    } else {
        register & 0xffff_ffff | u64::from(value) << 32
    }
}

impl Frontend for VtdFrontend {
    fn read(&self, at: u64, size: u32) -> u64 {
        match size {
            4 if at.is_multiple_of(4) => self.read32(at).into(),
            8 if at.is_multiple_of(8) => u64::from(self.read32(at)) | u64::from(self.read32(at + 4)) << 32,
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, size: u32, value: u64) -> Effects {
        let mut effects = Effects::default();
        match size {
            4 if at.is_multiple_of(4) => self.write32(at, value as u32, &mut effects),
            // Two 4-byte writes, low first: of a 64-bit register its halves, of a pair both.
            8 if at.is_multiple_of(8) => {
                self.write32(at, value as u32, &mut effects);
                self.write32(at + 4, (value >> 32) as u32, &mut effects);
            }
            _ => {}
        }
        effects
    }

    fn queue(&self) -> GuestQueue {
        let state = match (self.status.queued_invalidation(), self.faults.stops_queue()) {
            (false, _) => QueueState::DISABLED,
            (true, true) => QueueState::STOPPED,
            (true, false) => QueueState::RUNNING,
        };
        self.queue.describe(&self.features, state)
    }

    fn advance(&mut self, commands: u32) {
        // A guest may have switched the queue off while its last commands were under way: its head is 0 since.
        if self.status.queued_invalidation() {
            self.queue.advance(&self.features, commands);
        }
    }

    fn fault(&mut self, fault: GuestFault) -> Effects {
        let mut effects = Effects::default();
        // Faults are recorded in registers: there is no queue of them that could be out of reach.
        let none = matches!(fault, GuestFault::NONE | GuestFault::EVENT_ABORT);
        if !none && !self.faults.stops_queue() {
            self.queue.explain(&self.features, fault);
            self.faults.queue_error(fault == GuestFault::ATC_TIMEOUT, &mut effects);
        }
        effects
    }

    fn sync_done(&mut self, command: &[u64]) -> Effects {
        let mut effects = Effects::default();
        self.advance(1);
        let &[w0, w1, ..] = command else { return effects };
        let wait = Wait::from_words([w0, w1]);
        if wait.status_write() {
            effects.store(wait.status_address() << 2, &wait.status_data().to_le_bytes());
        }
        if wait.interrupt() && !self.completion.wait_complete() {
            self.completion.set_wait_complete(true);
            self.completion_event.raise(&mut effects);
        }
        effects
    }

    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects {
        let mut effects = Effects::default();
        self.faults.record(virt_id, record, &mut effects);
        effects
    }

    fn event_lost(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.faults.overflow(&mut effects);
        effects
    }

    fn mode(&self) -> Mode {
        match (self.status.translation(), TableMode(self.root.mode())) {
            (false, _) => Mode::BYPASS,
            (true, TableMode::ABORT) if self.features.ecap.abort_mode() => Mode::ABORT,
            (true, _) => Mode::TRANSLATE,
        }
    }

    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup {
        tables::lookup(&self.features, self.root, memory, virt_id, entry)
    }

    /// A guest that was shown caching mode announces every new entry; of one that was not, every table on the way to
    /// an entry is watched.
    fn watched(&self, memory: &dyn GuestMemory, streams: &[u32], from: u32, out: &mut [u64]) -> u32 {
        if self.features.cap.caching_mode() || self.mode() != Mode::TRANSLATE {
            return 0;
        }
        let pages = tables::pages(&self.features, self.root, memory, streams);
        let mut written = 0;
        for (slot, page) in out.iter_mut().zip(pages.into_iter().skip(from as usize)) {
            *slot = page;
            written += 1;
        }
        written
    }

    fn reset(&mut self) {
        *self = Self::with_features(self.features);
    }

    fn register_name(&self, at: u64) -> Option<&'static str> {
        register_name(at).or_else(|| match at {
            _ if at == self.features.ecap.iva() => Some("IVA"),
            _ if at == self.features.ecap.iotlb() => Some("IOTLB"),
            _ => self.fault_word(at).filter(|(_, word)| word % 2 == 0).map(|_| "FRCD"),
        })
    }

    fn trouble(&self, text: &mut Message) {
        use std::fmt::Write;
        // A message cuts what does not fit; it reports no error.
        if self.status.translation() && !self.status.queued_invalidation() {
            let _ = write!(text, "GCMD.TE without GCMD.QIE: a vIOMMU takes invalidations by the queue only");
        } else if self.mode() == Mode::TRANSLATE && tables::second_stage_unserved(&self.features, self.root) {
            let _ = write!(
                text,
                "RTADDR.TTM is legacy: a guest that is shown first-stage tables (ECAP.FSTS) is served no others"
            );
        }
    }

    fn save(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal> {
        *self = self.of_bytes(state)?;
        Ok(())
    }
}

/// Words of a descriptor as the guest's queue has them.
const fn descriptor_words(wide: bool) -> u32 {
    if wide { WIDE_WORDS as u32 } else { crate::spec::descriptors::NARROW_WORDS as u32 }
}
