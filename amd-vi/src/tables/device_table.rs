//! The physical device table: one array with an entry for every DeviceID.

use super::{ABORT, Dte, broken};
use crate::spec::dte::{DTE_BYTES, DTE_WORDS};
use crate::spec::registers::DeviceTableBase;
use viommu_plugin::{Hardware, Refusal};

/// DeviceIDs: 16 bits.
const DEVICES: u32 = 1 << 16;

/// The device table.
#[derive(Debug)]
pub struct DeviceTable {
    base: u64,
}

impl DeviceTable {
    /// A table in which every device's DMA stops.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(hardware: &dyn Hardware) -> Result<Self, Refusal> {
        let bytes = DTE_BYTES * u64::from(DEVICES);
        let base = hardware.alloc(bytes, bytes)?;
        let page: Vec<u8> = ABORT.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().repeat(128);
        for at in (0..bytes).step_by(page.len()) {
            hardware.write(base + at, &page).map_err(broken)?;
        }
        Ok(Self { base })
    }

    /// DeviceIDs that have an entry.
    pub fn devices(&self) -> u32 {
        DEVICES
    }

    /// Value of the base register.
    pub fn register(&self) -> DeviceTableBase {
        let pages = (DTE_BYTES * u64::from(DEVICES)) >> 12;
        DeviceTableBase::new().with_base(self.base >> 12).with_size(pages as u16 - 1)
    }

    fn address(&self, device: u32) -> Result<u64, Refusal> {
        if device >= DEVICES {
            let text = format!("DeviceID {device:#x} is beyond the device table of 16 bits");
            return Err(Refusal::new(Refusal::EINVAL, text));
        }
        Ok(self.base + u64::from(device) * DTE_BYTES)
    }

    /// Reads a device's entry.
    ///
    /// # Errors
    /// If the DeviceID is beyond the table.
    pub fn read(&self, hardware: &dyn Hardware, device: u32) -> Result<Dte, Refusal> {
        let mut bytes = [0; DTE_BYTES as usize];
        hardware.read(self.address(device)?, &mut bytes).map_err(broken)?;
        let mut dte = [0; DTE_WORDS];
        for (word, bytes) in dte.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(dte)
    }

    /// Writes one word of a device's entry, in one piece.
    ///
    /// # Errors
    /// If the DeviceID is beyond the table.
    pub fn write(&self, hardware: &dyn Hardware, device: u32, word: usize, value: u64) -> Result<(), Refusal> {
        hardware.write(self.address(device)? + 8 * word as u64, &value.to_le_bytes()).map_err(broken)
    }
}
