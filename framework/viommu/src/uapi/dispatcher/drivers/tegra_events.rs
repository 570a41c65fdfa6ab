//! A guest's own command queue (LVCMDQ) on a Tegra241: what hardware takes from it, and how a queue that stops is told.

use crate::uapi::{
    Errno,
    dispatcher::{Dispatcher, mmap},
    flags::VEVENTQ_TYPE_TEGRA241_CMDQV,
    payload::VeventTegra241Cmdqv,
};
use zerocopy::IntoBytes;

/// Bytes from one queue's registers to the next in page 0 of a virtual interface.
const QUEUE: usize = 0x80;
/// Registers of a queue in page 0.
const CONS: usize = 0x00;
const GERROR: usize = 0x10;
const GERRORN: usize = 0x14;
/// CONS.ERR, and CERROR_ILL in it.
const ERR: u32 = 0x7f << 24;
const CERROR_ILL: u32 = 1 << 24;

/// What hardware made of a command in a guest's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestQueue {
    /// It ran.
    Ran,
    /// It is illegal there: CONS.ERR says so, GERROR is active, and the vIOMMU's VEVENTQ has a record.
    Stopped,
    /// The queue stopped before and nobody acknowledged (GERRORN): nothing happens, nothing is told again.
    Waits,
}

/// The hardware's side: it reads a command (SMMUv3 manual, chapter 4; little-endian words) from a hardware queue of this
/// vIOMMU. A guest's queue takes TLBI_NH_ASID, TLBI_NH_VA, ATC_INV, and SYNC without a completion signal. Whoever mapped
/// page 0 acknowledges by writing GERROR to GERRORN; the host never does.
///
/// # Errors
/// ENOENT without the queue or a page 0.
pub fn run_tegra_command(
    iommufd: &Dispatcher,
    viommu: u32,
    queue: u32,
    command: [u64; 2],
) -> Result<GuestQueue, Errno> {
    let page = {
        let state = iommufd.lock();
        let queues = &state.table.viommu(viommu)?.hw_queues;
        queues.get(&queue).ok_or(Errno::NOENT)?;
        state.mmaps.of(viommu).ok_or(Errno::NOENT)?
    };
    let at = queue as usize * QUEUE;
    let read = |register| mmap::read(&page, at + register).ok_or(Errno::NOENT);
    let write = |register, value| mmap::write(&page, at + register, value).ok_or(Errno::NOENT);
    let (active, acknowledged) = (read(GERROR)?, read(GERRORN)?);
    if (active ^ acknowledged) & 1 != 0 {
        return Ok(GuestQueue::Waits);
    }
    let first = u64::from_le(command[0]);
    let runs = match first & 0xff {
        0x11 | 0x12 | 0x40 => true,
        // CS: no interrupt, no event.
        0x46 => first >> 12 & 3 == 0,
        _ => false,
    };
    if runs {
        return Ok(GuestQueue::Ran);
    }
    write(CONS, read(CONS)? & !ERR | CERROR_ILL)?;
    write(GERROR, active ^ 1)?;
    let mut map = VeventTegra241Cmdqv::default();
    map.lvcmdq_err_map[queue as usize / 64] = (1u64 << (queue % 64)).to_le();
    // Without a VEVENTQ nobody is told, which is the VMM's choice.
    let _ = iommufd.report_event(viommu, VEVENTQ_TYPE_TEGRA241_CMDQV, map.as_bytes());
    Ok(GuestQueue::Stopped)
}
