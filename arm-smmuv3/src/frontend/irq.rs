//! Interrupts of the SMMU itself: a wired line, or a message where IDR0.MSI is shown and an address is set (§3.18).

use crate::spec::registers::IrqCfg0;
use viommu_plugin::Effects;

/// Wired interrupt lines, numbered as the recordings number them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line(u32);

impl Line {
    pub(super) const EVENTQ: Self = Self(0);
    pub(super) const PRIQ: Self = Self(1);
    pub(super) const CMD_SYNC: Self = Self(2);
    pub(super) const GERROR: Self = Self(3);

    pub(super) fn pulse(self, effects: &mut Effects) {
        effects.lines |= 1 << self.0;
    }
}

/// The registers *_IRQ_CFG0..2, 16 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IrqConfig {
    words: [u32; 4],
}

impl IrqConfig {
    /// Reads the word `at` bytes into the group.
    pub(super) fn read(&self, at: u64) -> u32 {
        self.words.get(at as usize / 4).copied().unwrap_or(0)
    }

    /// Writes the word `at` bytes into the group.
    pub(super) fn write(&mut self, at: u64, value: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    /// Raises the interrupt: as a message if `msi` is offered and an address is set, else on `line`.
    pub(super) fn raise(&self, line: Line, msi: bool, effects: &mut Effects) {
        let address = IrqCfg0::from_bits(u64::from(self.words[0]) | u64::from(self.words[1]) << 32).address();
        if msi && address != 0 {
            effects.msi(address, self.words[2]);
        } else {
            line.pulse(effects);
        }
    }
}
