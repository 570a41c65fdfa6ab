//! SMMUv3 words, by hand from the manual (IHI 0070): commands, table entries, descriptors, registers.

use crate::oracle::Command;
use viommu_plugin::Register;

/// Register offsets.
pub(super) mod at {
    pub(crate) const IDR0: u64 = 0x0;
    pub(crate) const IDR1: u64 = 0x4;
    pub(crate) const IDR3: u64 = 0xc;
    pub(crate) const CR0: u64 = 0x20;
    pub(crate) const GBPA: u64 = 0x44;
    pub(crate) const IRQ_CTRL: u64 = 0x50;
    pub(crate) const GERROR: u64 = 0x60;
    pub(crate) const GERRORN: u64 = 0x64;
    pub(crate) const STRTAB_BASE: u64 = 0x80;
    pub(crate) const STRTAB_BASE_CFG: u64 = 0x88;
    pub(crate) const CMDQ_BASE: u64 = 0x90;
    pub(crate) const CMDQ_PROD: u64 = 0x98;
    pub(crate) const CMDQ_CONS: u64 = 0x9c;
    pub(crate) const EVENTQ_BASE: u64 = 0xa0;
    pub(crate) const EVENTQ_PROD: u64 = 0x100a8;
    pub(crate) const EVENTQ_CONS: u64 = 0x100ac;
}

/// CR0.
pub(super) const SMMUEN: u64 = 1;
pub(super) const EVENTQEN: u64 = 1 << 2;
pub(super) const CMDQEN: u64 = 1 << 3;
/// GBPA.
pub(super) const GBPA_ABORT: u64 = 1 << 20;
pub(super) const GBPA_UPDATE: u64 = 1 << 31;
/// GERROR.CMDQ_ERR.
pub(super) const CMDQ_ERR: u64 = 1;
/// CMDQ_CONS.ERR: CERROR_ILL.
pub(super) const CERROR_ILL: u64 = 1;
/// IDR0.MSI and IDR3.RIL.
pub(super) const MSI: u64 = 1 << 13;
pub(super) const RIL: u64 = 1 << 10;

pub(super) fn tlbi_nh_all() -> Command {
    [0x10, 0, 0, 0]
}
pub(super) fn tlbi_nsnh_all() -> Command {
    [0x30, 0, 0, 0]
}
pub(super) fn tlbi_nh_asid(asid: u16) -> Command {
    [0x11 | u64::from(asid) << 48, 0, 0, 0]
}
/// One address of an ASID, or of all.
pub(super) fn tlbi_address(asid: Option<u16>, va: u64, leaf: bool) -> Command {
    let first = asid.map_or(0x13, |asid| 0x12 | u64::from(asid) << 48);
    [first, va & !0xfff | u64::from(leaf), 0, 0]
}
/// `num + 1` times 2^`scale` pages of 4 KiB.
pub(super) fn tlbi_range(asid: u16, va: u64, num: u64, scale: u64, ttl: u64) -> Command {
    let [first, second, ..] = tlbi_address(Some(asid), va, true);
    [first | num << 12 | scale << 20, second | 1 << 10 | ttl << 8, 0, 0]
}
pub(super) fn cfgi_ste(stream: u32, leaf: bool) -> Command {
    [0x03 | u64::from(stream) << 32, u64::from(leaf), 0, 0]
}
/// 2^(`range` + 1) entries.
pub(super) fn cfgi_ste_range(stream: u32, range: u64) -> Command {
    [0x04 | u64::from(stream) << 32, range, 0, 0]
}
pub(super) fn cfgi_cd(stream: u32, leaf: bool) -> Command {
    [0x05 | u64::from(stream) << 32, u64::from(leaf), 0, 0]
}
pub(super) fn cfgi_cd_all(stream: u32) -> Command {
    [0x06 | u64::from(stream) << 32, 0, 0, 0]
}
pub(super) fn prefetch(stream: u32) -> Command {
    [0x01 | u64::from(stream) << 32, 0, 0, 0]
}
/// CMD_SYNC without a signal.
pub(super) fn sync() -> Command {
    [0x46, 0, 0, 0]
}
/// CMD_SYNC with an interrupt: a message if `address` is not 0.
pub(super) fn sync_interrupt(address: u64, data: u32) -> Command {
    [0x46 | 1 << 12 | u64::from(data) << 32, address, 0, 0]
}
/// CMD_SYNC with an event for waiting processors.
pub(super) fn sync_event() -> Command {
    [0x46 | 2 << 12 | 3 << 22, 0, 0, 0]
}

/// Stream table entries, first two words.
pub(super) fn ste_abort() -> [u64; 2] {
    [1, 0]
}
pub(super) fn ste_bypass(leftover: u64) -> [u64; 2] {
    [1 | 4 << 1 | leftover, 1 << 44]
}
/// Stage 1, one context descriptor at `cd`; walks cacheable and shareable.
pub(super) fn ste_stage_1(cd: u64) -> [u64; 2] {
    [1 | 5 << 1 | cd, 1 << 2 | 1 << 4 | 3 << 6]
}

/// Address bits of stage 1: three levels of tables.
const T0SZ: u64 = 25;

/// A context descriptor: 4 KiB pages from `root`, TTB1 off, 40-bit addresses, faults are recorded.
pub(super) fn cd(asid: u16, root: u64) -> [u64; 8] {
    let walks = 1 << 8 | 1 << 10 | 3 << 12;
    let low = T0SZ | walks | 1 << 30 | 1 << 31 | 2 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 47;
    [low | u64::from(asid) << 48, root, 0, 0xff, 0, 0, 0, 0]
}

/// Opcodes of translation cache invalidations. "Everything" is everything of the guest for the host.
pub(super) fn invalidation([first, second, ..]: Command) -> Option<Command> {
    const VMID: u64 = 0xffff << 32;
    match first & 0xff {
        0x30 => Some([0x10, 0, 0, 0]),
        0x10..=0x13 => Some([first & !VMID, second, 0, 0]),
        _ => None,
    }
}

/// Whether a command tells of changed table entries.
pub(super) fn configures([first, ..]: Command) -> bool {
    matches!(first & 0xff, 3 | 4)
}

/// The same with a VMID that no guest has.
pub(super) fn with_other_tag([first, second, ..]: Command) -> Command {
    [first | 0xffff << 32, second, 0, 0]
}

/// A guest's ID registers with and without messages and ranges.
pub(crate) fn messages_and_ranges(registers: &mut [Register], messages: bool, ranges: bool) {
    for register in registers {
        match register.offset {
            at::IDR0 if messages => register.value |= MSI,
            at::IDR3 if !ranges => register.value &= !RIL,
            _ => {}
        }
    }
}

/// ID registers of the physical SMMU: its own, with small queues and few streams.
pub(crate) fn physical(own: impl Fn(u64) -> u64, ring_log2: u8) -> Vec<Register> {
    // SIDSIZE 5:0, EVENTQS 20:16, CMDQS 25:21.
    let idr1 = own(at::IDR1) & !0x3ff_003f | 9 | 6 << 16 | u64::from(ring_log2) << 21;
    vec![Register { offset: at::IDR1, value: idr1 }]
}
