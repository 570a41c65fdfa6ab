//! Rings that guests drive themselves, and the interrupts that they ask for.

use crate::driver::AmdDriver;
use crate::spec::registers::{RingBase, Status};
use crate::spec::viommu::{GuestCommand, GuestEvent, PAGE, control, page, vf};
use viommu_plugin::{EventOwner, HostEvent, HwQueueKind, HwQueueRequest, Refusal};

/// Bytes of an entry, in commands and in events.
const ENTRY_BYTES: u64 = 1 << RingBase::ENTRY_LOG2;
/// The longest ring's length code.
const LENGTH_MOST: u32 = 15;

/// Which rings a guest has: by kind, commands and events.
pub(super) type Queues = [bool; 2];

/// A ring's handle, from its guest's and its kind.
fn handle(guest: u32, kind: usize) -> u32 {
    guest << 1 | kind as u32
}

/// The length code of a ring of so many bytes.
fn length(queue: &HwQueueRequest) -> Option<u8> {
    let log2 = (queue.length / ENTRY_BYTES).checked_ilog2()?;
    let fits = queue.length == ENTRY_BYTES << log2 && (RingBase::LENGTH_LEAST.into()..=LENGTH_MOST).contains(&log2);
    fits.then_some(log2 as u8)
}

impl AmdDriver {
    /// A ring at a guest physical address, enabled: a guest asks for it when it enables it. Its interrupt is always on; the
    /// guest's registers decide what comes of it.
    pub(in crate::driver) fn create_queue(&mut self, guest: u32, queue: &HwQueueRequest) -> Result<u32, Refusal> {
        let owned = self.own()?.owned(guest)?;
        let kind = match queue.kind {
            HwQueueKind::COMMAND => 0,
            HwQueueKind::EVENT => 1,
            HwQueueKind(kind) => {
                return Err(Refusal::new(Refusal::EOPNOTSUPP, format!("rings of kind {kind} are not lent")));
            }
        };
        let wrong = |text: String| Err(Refusal::new(Refusal::EINVAL, text));
        let Some(length) = length(queue) else {
            return wrong(format!("a ring has 2^8 to 2^15 entries of 16 bytes, not {:#x} bytes", queue.length));
        };
        if queue.index != 0 || !queue.iova.is_multiple_of(PAGE) || queue.iova >> 52 != 0 {
            return wrong(format!("ring {} at {:#x}: there is one of a kind, in whole pages", queue.index, queue.iova));
        }
        if std::mem::replace(&mut owned.queues[kind], true) {
            return Err(Refusal::new(Refusal::EEXIST, format!("guest {guest} has a ring of kind {kind}")));
        }
        let base = queue.iova >> 12;
        let (register, value) = if kind == 0 {
            let command = GuestCommand::new().with_length(length).with_base(base);
            (control::COMMAND, command.with_enable(true).with_wait_int(true).into_bits())
        } else {
            let event = GuestEvent::new().with_length(length).with_base(base);
            (control::EVENT, event.with_enable(true).with_interrupt(true).into_bits())
        };
        self.write_control(guest as u16, register, value);
        Ok(handle(guest, kind))
    }

    /// Off. Where it was stays, so that a guest that turns it on again in the same place finds its head where it stopped;
    /// another place starts anew.
    pub(in crate::driver) fn destroy_queue(&mut self, queue: u32) -> Result<(), Refusal> {
        let (guest, kind) = (queue >> 1, (queue & 1) as usize);
        let owned = self.own()?.owned(guest)?;
        if !std::mem::take(&mut owned.queues[kind]) {
            return Err(Refusal::new(Refusal::ENOENT, format!("there is no ring {queue}")));
        }
        let register = [control::COMMAND, control::EVENT][kind];
        let at = crate::spec::viommu::vfctl(guest as u16) + register;
        let enable =
            [GuestCommand::new().with_enable(true).into_bits(), GuestEvent::new().with_enable(true).into_bits()];
        let now = self.hardware.mmio_read(at, 8);
        self.hardware.mmio_write(at, 8, now & !enable[kind]);
        Ok(())
    }

    /// Guests' parts asked for an interrupt: each whose status says so is told what it says.
    pub(in crate::driver) fn guests_interrupt(&mut self) {
        let Some(own) = &mut self.own else { return };
        for &id in own.guests.keys() {
            let status = Status::from(self.hardware.mmio_read(vf(id) + page::STATUS, 8));
            if !(status.event_overflow() || status.event_log_int() || status.com_wait_int()) {
                continue;
            }
            let mut event =
                HostEvent { owner: EventOwner::INTERFACE, stream: id.into(), words: 1, ..HostEvent::default() };
            event.record[0] = status.into();
            match own.events.iter_mut().find(|other| other.stream == event.stream) {
                Some(other) => *other = event,
                None => own.events.push_back(event),
            }
        }
    }
}
