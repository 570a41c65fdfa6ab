//! One event's message: control, data and address (§11.4.7.5 to §11.4.7.8, and the like of them).

use crate::spec::registers::EventControl;
use viommu_plugin::Effects;

/// The four registers xECTL, xEDATA, xEADDR, xEUADDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) control: EventControl,
    pub(super) data: u32,
    pub(super) address: u32,
    pub(super) upper_address: u32,
}

impl Default for Event {
    /// As after reset: held back.
    fn default() -> Self {
        Self { control: EventControl::new().with_mask(true), data: 0, address: 0, upper_address: 0 }
    }
}

impl Event {
    /// Reads the word `at` bytes into the group.
    pub(super) fn read(&self, at: u64) -> u32 {
        match at {
            0 => self.control.into_bits(),
            4 => self.data,
            8 => self.address,
            _ => self.upper_address,
        }
    }

    /// Writes the word `at` bytes into the group. A message that was held back goes out when IM becomes 0.
    pub(super) fn write(&mut self, at: u64, value: u32, effects: &mut Effects) {
        match at {
            0 => {
                self.control.set_mask(EventControl::from_bits(value).mask());
                if self.control.pending() {
                    self.raise(effects);
                }
            }
            4 => self.data = value,
            8 => self.address = value & !3,
            _ => self.upper_address = value,
        }
    }

    /// Sends the message, or holds it back if IM is 1.
    pub(super) fn raise(&mut self, effects: &mut Effects) {
        self.control.set_pending(self.control.mask());
        if !self.control.mask() {
            effects.msi(u64::from(self.upper_address) << 32 | u64::from(self.address), self.data);
        }
    }

    /// What a held-back message would have told of is gone.
    pub(super) fn withdraw(&mut self) {
        self.control.set_pending(false);
    }
}
