//! QEMU's `edu` devices: a buffer of 4 KiB each, and a DMA engine between it and memory.

use crate::QemuError;
use crate::qtest::{Commands, Qtest};
use std::time::{Duration, Instant};

/// Configuration space of the first bus.
const ECAM: u64 = 0x40_1000_0000;
/// Where the devices' registers are put: a MiB each, by slot.
const BARS: u64 = 0x1000_0000;
/// Vendor and device number.
const IDENTITY: u64 = 0x11e8_1234;

/// Registers.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where a device sees its own buffer.
pub(crate) const BUFFER: u64 = 0x4_0000;

fn bar(slot: u32) -> u64 {
    BARS + u64::from(slot) * 0x10_0000
}

/// Gives the device its registers' address and the right to do DMA.
pub(crate) fn enable(qtest: &mut Qtest, slot: u32) -> Result<(), QemuError> {
    let config = ECAM + (u64::from(slot) << 15);
    let found = qtest.run(Commands::default().read(config, 4))?[0];
    if found != IDENTITY {
        return Err(QemuError::Start(format!("slot {slot} has a device {found:#x}, not edu")));
    }
    qtest.run(Commands::default().write(config + 0x10, 4, bar(slot)).write(config + 4, 2, 6)).map(drop)
}

/// One transfer of `bytes` bytes between `address`, as the device sees it, and `offset` in its buffer.
pub(crate) fn transfer(
    qtest: &mut Qtest,
    slot: u32,
    (address, offset, bytes): (u64, u64, u64),
    to_memory: bool,
    limit: Duration,
) -> Result<(), QemuError> {
    let (own, bar) = (BUFFER + offset, bar(slot));
    let (source, destination) = if to_memory { (own, address) } else { (address, own) };
    let mut start = Commands::default();
    start.write(bar + SOURCE, 8, source).write(bar + DESTINATION, 8, destination).write(bar + COUNT, 8, bytes);
    start.write(bar + COMMAND, 8, RUN | if to_memory { TO_MEMORY } else { 0 }).read(bar + COMMAND, 8);
    let mut status = qtest.run(&start)?.pop();
    let until = Instant::now() + limit;
    while status.is_none_or(|status| status & RUN != 0) {
        if Instant::now() > until {
            return Err(QemuError::TimedOut { what: format!("a DMA of the device in slot {slot}"), limit });
        }
        status = qtest.run(Commands::default().read(bar + COMMAND, 8))?.pop();
    }
    Ok(())
}
