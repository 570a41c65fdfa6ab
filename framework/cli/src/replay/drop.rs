//! Bare replay with commands dropped on purpose: the software IOMMU finds a SYNC in their place.

use super::args::Injection;
use super::image::ModelMemory;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use viommu_plugin::GuestQueue;
use viommu_trace::Vendor;

/// Bytes of an Arm command.
const COMMAND: usize = 16;
/// CMD_SYNC with CS = SIG_NONE: waits for what is done already, and signals nobody (IHI 0070, 4.7.3).
const SYNC: [u8; COMMAND] = {
    let mut command = [0; COMMAND];
    command[0] = 0x46;
    command
};
/// Opcodes of CMD_TLBI_* (IHI 0070, 4.4).
const TLBI: RangeInclusive<u8> = 0x10..=0x30;
/// Opcode of CMD_ATC_INV (IHI 0070, 4.5.1).
const ATC_INV: RangeInclusive<u8> = 0x40..=0x40;

/// Hides commands from a model while it consumes them.
pub(crate) struct Dropper {
    opcodes: RangeInclusive<u8>,
    every: NonZeroU64,
    seen: u64,
    hidden: Vec<(u64, [u8; COMMAND])>,
}

impl Dropper {
    /// What `injection` drops; `None` if it is not about dropping commands, or if it is not known how the vendor's
    /// commands look.
    pub(crate) fn new(vendor: Vendor, injection: Injection) -> Option<Self> {
        let (opcodes, every) = match (vendor, injection) {
            (Vendor::ARM_SMMUV3, Injection::DropInvalidation { every }) => (TLBI, every),
            (Vendor::ARM_SMMUV3, Injection::DropAtc) => (ATC_INV, NonZeroU64::MIN),
            _ => return None,
        };
        Some(Self { opcodes, every, seen: 0, hidden: Vec::new() })
    }

    /// Puts SYNCs over the commands to be dropped among those that wait in `queue`.
    pub(crate) fn hide(&mut self, queue: &GuestQueue, memory: &ModelMemory) {
        let mut image = memory.image();
        for index in 0..u64::from(queue.pending) {
            let slot = (u64::from(queue.head) + index) % u64::from(queue.capacity.max(1));
            let address = queue.base.wrapping_add(slot * COMMAND as u64);
            let mut command = [0; COMMAND];
            if image.get(address, &mut command).is_err() || !self.opcodes.contains(&command[0]) {
                continue;
            }
            self.seen += 1;
            if self.seen.is_multiple_of(self.every.get()) {
                self.hidden.push((address, command));
                image.put(address, &SYNC);
            }
        }
    }

    /// Puts the hidden commands back where the guest wrote them.
    pub(crate) fn restore(&mut self, memory: &ModelMemory) {
        let mut image = memory.image();
        self.hidden.drain(..).for_each(|(address, command)| {
            image.put(address, &command);
        });
    }
}
