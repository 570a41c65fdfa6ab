//! AMD-Vi words, by hand from public descriptions of manual 48882: commands, table entries, registers.

use crate::oracle::Command;

/// Register offsets.
pub(super) mod at {
    pub(crate) const DEVICE_TABLE_BASE: u64 = 0x0;
    pub(crate) const COMMAND_BASE: u64 = 0x8;
    pub(crate) const EVENT_BASE: u64 = 0x10;
    pub(crate) const CONTROL: u64 = 0x18;
    pub(crate) const COMMAND_HEAD: u64 = 0x2000;
    pub(crate) const COMMAND_TAIL: u64 = 0x2008;
    pub(crate) const EVENT_HEAD: u64 = 0x2010;
    pub(crate) const EVENT_TAIL: u64 = 0x2018;
    pub(crate) const STATUS: u64 = 0x2020;
}

/// CONTROL.
pub(super) const IOMMU_EN: u64 = 1;
pub(super) const EVENT_LOG_EN: u64 = 1 << 2;
pub(super) const COM_WAIT_INT_EN: u64 = 1 << 4;
pub(super) const CMD_BUF_EN: u64 = 1 << 12;
pub(super) const GT_EN: u64 = 1 << 16;
/// STATUS.
pub(super) const EVENT_OVERFLOW: u64 = 1;
pub(super) const COM_WAIT_INT: u64 = 1 << 2;
pub(super) const CMD_BUF_RUN: u64 = 1 << 4;

/// A base register of a ring with 2^`log2` entries.
pub(super) fn ring_base(address: u64, log2: u64) -> u64 {
    address | log2 << 56
}

/// COMPLETION_WAIT that does nothing else.
pub(super) fn completion_wait() -> Command {
    [1 << 60, 0, 0, 0]
}
/// With a store of 64 bits.
pub(super) fn completion_wait_store(address: u64, data: u64) -> Command {
    [1 << 60 | address | 1, data, 0, 0]
}
/// With an interrupt.
pub(super) fn completion_wait_interrupt() -> Command {
    [1 << 60 | 2, 0, 0, 0]
}
pub(super) fn invalidate_devtab_entry(device: u32) -> Command {
    [2 << 60 | u64::from(device), 0, 0, 0]
}
/// Flags of INVALIDATE_IOMMU_PAGES.
pub(super) const SIZE: u64 = 1;
pub(super) const PDE: u64 = 2;
pub(super) const GN: u64 = 4;
/// The address that, with [`SIZE`], is everything.
pub(super) const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;
pub(super) fn invalidate_pages(domain: u16, address: u64, flags: u64) -> Command {
    [3 << 60 | u64::from(domain) << 32, address | flags, 0, 0]
}
/// An aligned range of 2^`log2` bytes, at least a page: its size is told by the lowest 0 from bit 12 on.
pub(super) fn invalidate_range(domain: u16, base: u64, log2: u32, flags: u64) -> Command {
    if log2 == 12 {
        return invalidate_pages(domain, base, flags);
    }
    let ones = (1 << (log2 - 1)) - (1 << 12);
    invalidate_pages(domain, base | ones, flags | SIZE)
}
pub(super) fn invalidate_iotlb_pages(device: u32) -> Command {
    let device = u64::from(device & 0xffff);
    [4 << 60 | device | device << 32, EVERYTHING | SIZE, 0, 0]
}
pub(super) fn invalidate_interrupt_table(device: u32) -> Command {
    [5 << 60 | u64::from(device), 0, 0, 0]
}
pub(super) fn prefetch(device: u32) -> Command {
    [6 << 60 | u64::from(device), 0, 0, 0]
}
pub(super) fn invalidate_all() -> Command {
    [8 << 60, 0, 0, 0]
}

/// First two words of a device table entry; the others are zero.
pub(super) mod dte {
    /// V without TV: nothing passes.
    pub(crate) fn abort() -> [u64; 2] {
        [1, 0]
    }
    /// V, TV, IR and IW without tables.
    pub(crate) fn bypass() -> [u64; 2] {
        [3 | 3 << 61, 0]
    }
    /// A v1 table of three levels.
    pub(crate) fn v1(root: u64, domain: u16) -> [u64; 2] {
        [3 | 3 << 9 | root | 3 << 61, domain.into()]
    }
    /// A GCR3 table of one level, for requests without PASID too.
    pub(crate) fn gcr3(table: u64, domain: u16) -> [u64; 2] {
        let low = 3 | 1 << 54 | 1 << 55 | (table >> 12 & 7) << 58 | 3 << 61;
        [low, u64::from(domain) | (table >> 15 & 0xffff) << 16 | (table >> 31 & 0x1f_ffff) << 43]
    }
}

const DOMAIN: u64 = 0xffff << 32;

fn opcode(command: Command) -> u64 {
    command[0] >> 60
}

/// INVALIDATE_IOMMU_PAGES without its domain.
pub(super) fn invalidation(command: Command) -> Option<Command> {
    (opcode(command) == 3).then_some([command[0] & !DOMAIN, command[1], 0, 0])
}

/// The domain that it names.
pub(super) fn domain(command: Command) -> Option<u16> {
    (opcode(command) == 3).then_some((command[0] >> 32) as u16)
}

/// Whether a command tells of changed table entries.
pub(super) fn configures(command: Command) -> bool {
    matches!(opcode(command), 2 | 8)
}

/// The same with a domain that no guest has.
pub(super) fn with_other_tag(command: Command) -> Command {
    [command[0] & !DOMAIN | 0xfff0 << 32, command[1], 0, 0]
}
