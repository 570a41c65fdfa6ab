//! QEMU's `edu` device, reached through VFIO: registers of its own to start a DMA, or to raise its interrupt. A DMA takes it
//! a tenth of a second.

use crate::bench::{Direction, Engine};
use std::sync::Arc;
use std::time::{Duration, Instant};
use viommu::backend::kernel::sys::RawDevice;
use viommu_examples::Story;

/// VFIO's numbers of the regions: BAR 0 and configuration space.
const BAR: u32 = 0;
const CONFIGURATION: u32 = 7;
/// PCI command register, and its bits for memory and bus master.
const COMMAND: u64 = 4;
const ENABLED: u16 = 1 << 1 | 1 << 2;

const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const DMA: u64 = 0x98;
const STARTED: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where the device has its buffer, and the half that is read into and never written from.
const BUFFER: u64 = 0x4_0000;
const AWAY: u64 = BUFFER + 2048;

/// The device's own side of a VFIO device.
pub(crate) struct Edu {
    device: Arc<RawDevice>,
    bar: u64,
}

impl Edu {
    /// Turns bus mastering on.
    pub(crate) fn new(device: Arc<RawDevice>) -> Story<Self> {
        let configuration = device.region(CONFIGURATION)?.offset;
        let mut command = [0; 2];
        rustix::io::pread(device.fd(), &mut command, configuration + COMMAND)?;
        let command = u16::from_le_bytes(command) | ENABLED;
        rustix::io::pwrite(device.fd(), &command.to_le_bytes(), configuration + COMMAND)?;
        let bar = device.region(BAR)?.offset;
        Ok(Self { device, bar })
    }

    /// Whether a DMA is on its way.
    pub(crate) fn busy(&self) -> Story<bool> {
        let mut state = [0; 8];
        rustix::io::pread(self.device.fd(), &mut state, self.bar + DMA)?;
        Ok(u64::from_le_bytes(state) & STARTED != 0)
    }

    fn store(&self, register: u64, bytes: &[u8]) -> Story {
        let written = rustix::io::pwrite(self.device.fd(), bytes, self.bar + register)?;
        if written == bytes.len() { Ok(()) } else { Err(format!("register {register:#x} took {written} bytes").into()) }
    }
}

impl Engine for Edu {
    fn start(&self, bus: u64, bytes: u32, direction: Direction) -> Story {
        let (from, to, command) = match direction {
            Direction::Read => (bus, BUFFER, STARTED),
            Direction::ReadAway => (bus, AWAY, STARTED),
            Direction::Write => (BUFFER, bus, STARTED | TO_MEMORY),
        };
        for (register, value) in [(SOURCE, from), (DESTINATION, to), (COUNT, bytes.into()), (DMA, command)] {
            self.store(register, &value.to_le_bytes())?;
        }
        Ok(())
    }

    fn finish(&self) -> Story {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if !self.busy()? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the device does not finish its DMA".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn interrupt(&self) -> Story {
        self.store(RAISE, &1u32.to_le_bytes())?;
        self.store(ACKNOWLEDGE, &1u32.to_le_bytes())
    }
}
