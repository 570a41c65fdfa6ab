//! VT-d words, by hand from the manual (D51397): descriptors, table entries, registers.

use crate::oracle::Command;

/// Register offsets.
pub(super) mod at {
    pub(crate) const CAP: u64 = 0x08;
    pub(crate) const GCMD: u64 = 0x18;
    pub(crate) const RTADDR: u64 = 0x20;
    pub(crate) const FSTS: u64 = 0x34;
    pub(crate) const IQH: u64 = 0x80;
    pub(crate) const IQT: u64 = 0x88;
    pub(crate) const IQA: u64 = 0x90;
    pub(crate) const ICS: u64 = 0x9c;
    pub(crate) const IECTL: u64 = 0xa0;
    pub(crate) const IEDATA: u64 = 0xa4;
    pub(crate) const IEADDR: u64 = 0xa8;
    pub(crate) const IEUADDR: u64 = 0xac;
    pub(crate) const IQERCD: u64 = 0xb0;
}

/// GCMD.
pub(super) const TE: u64 = 1 << 31;
pub(super) const SRTP: u64 = 1 << 30;
pub(super) const QIE: u64 = 1 << 26;
/// RTADDR.TTM: scalable mode.
pub(super) const SCALABLE: u64 = 1 << 10;
/// IQA.DW: descriptors of 256 bits.
pub(super) const WIDE: u64 = 1 << 11;
/// FSTS: PFO; IQE, ICE and ITE, with which the queue stops.
pub(super) const OVERFLOW: u64 = 1;
pub(super) const STOPPED: u64 = 7 << 4;
/// ICS.IWC.
pub(super) const WAIT_COMPLETE: u64 = 1;

/// Of a present bit, and of table pointers.
pub(super) const PRESENT: u64 = 1;
/// Levels of second-stage tables less two.
const AW: u64 = 2;

/// Context cache: everything; a domain; a device.
pub(super) fn context_cache() -> Command {
    [1 | 1 << 4, 0, 0, 0]
}
pub(super) fn context_cache_domain(domain: u16) -> Command {
    [1 | 2 << 4 | u64::from(domain) << 16, 0, 0, 0]
}
pub(super) fn context_cache_device(domain: u16, source: u32) -> Command {
    [1 | 3 << 4 | u64::from(domain) << 16 | u64::from(source & 0xffff) << 32, 0, 0, 0]
}
/// IOTLB: everything; a domain; 2^`log2` bytes of one, with drains as Linux has it.
pub(super) fn iotlb() -> Command {
    [2 | 1 << 4 | 3 << 6, 0, 0, 0]
}
pub(super) fn iotlb_domain(domain: u16) -> Command {
    [2 | 2 << 4 | 3 << 6 | u64::from(domain) << 16, 0, 0, 0]
}
pub(super) fn iotlb_pages(domain: u16, base: u64, log2: u32) -> Command {
    [2 | 3 << 4 | 3 << 6 | u64::from(domain) << 16, base | u64::from(log2 - 12), 0, 0]
}
pub(super) fn device_tlb(source: u32) -> Command {
    [3 | u64::from(source & 0xffff) << 32, 0x7fff_ffff_ffff_f001, 0, 0]
}
/// Wait: the fence alone; with a status write; with an interrupt.
pub(super) fn wait() -> Command {
    [5 | 1 << 6, 0, 0, 0]
}
pub(super) fn wait_store(address: u64, data: u32) -> Command {
    [5 | 1 << 5 | 1 << 6 | u64::from(data) << 32, address, 0, 0]
}
pub(super) fn wait_interrupt() -> Command {
    [5 | 1 << 4 | 1 << 6, 0, 0, 0]
}
/// PASID 0's translations of a domain: all of them; 2^`log2` bytes.
pub(super) fn pasid_iotlb(domain: u16) -> Command {
    [6 | 2 << 4 | u64::from(domain) << 16, 0, 0, 0]
}
pub(super) fn pasid_iotlb_pages(domain: u16, base: u64, log2: u32) -> Command {
    [6 | 3 << 4 | u64::from(domain) << 16, base | u64::from(log2 - 12), 0, 0]
}
/// PASID cache: everything; a domain; PASID 0 of one.
pub(super) fn pasid_cache() -> Command {
    [7 | 3 << 4, 0, 0, 0]
}
pub(super) fn pasid_cache_domain(domain: u16) -> Command {
    [7 | u64::from(domain) << 16, 0, 0, 0]
}
pub(super) fn pasid_cache_pasid(domain: u16) -> Command {
    [7 | 1 << 4 | u64::from(domain) << 16, 0, 0, 0]
}

/// First three words of a PASID table entry; the others are zero.
pub(super) mod pasid_entry {
    pub(crate) fn first_stage(root: u64, domain: u16) -> [u64; 3] {
        [1 | 1 << 6, domain.into(), root]
    }
    pub(crate) fn second_stage(root: u64, domain: u16) -> [u64; 3] {
        [1 | super::AW << 2 | 2 << 6 | root, domain.into(), 0]
    }
    pub(crate) fn pass_through(domain: u16) -> [u64; 3] {
        [1 | super::AW << 2 | 4 << 6, domain.into(), 0]
    }
    /// A reserved PGTT.
    pub(crate) fn invalid() -> [u64; 3] {
        [1 | 7 << 6, 0, 0]
    }
}

/// A legacy context entry.
pub(super) mod context_entry {
    pub(crate) fn second_stage(root: u64, domain: u16) -> [u64; 2] {
        [1 | root, super::AW | u64::from(domain) << 8]
    }
    pub(crate) fn pass_through(domain: u16) -> [u64; 2] {
        [1 | 2 << 2, super::AW | u64::from(domain) << 8]
    }
    /// A reserved TT.
    pub(crate) fn invalid() -> [u64; 2] {
        [1 | 3 << 2, super::AW]
    }
}

const DOMAIN: u64 = 0xffff << 16;

fn kind(command: Command) -> u64 {
    command[0] & 0xf
}

fn granularity(command: Command) -> u64 {
    command[0] >> 4 & 3
}

/// An IOTLB or PASID-IOTLB invalidation of a domain, or less of it, without the domain.
pub(super) fn invalidation(command: Command) -> Option<Command> {
    let plain = matches!(kind(command), 2 | 6) && granularity(command) >= 2;
    plain.then_some([command[0] & !DOMAIN, command[1], 0, 0])
}

/// The domain that it names.
pub(super) fn domain(command: Command) -> Option<u16> {
    invalidation(command).map(|_| (command[0] >> 16) as u16)
}

/// Whether a descriptor tells of changed table entries, or is served as if it did.
pub(super) fn configures(command: Command) -> bool {
    matches!((kind(command), granularity(command)), (1 | 7, _) | (2, 1))
}

/// The same with a domain that no guest has.
pub(super) fn with_other_tag(command: Command) -> Command {
    [command[0] & !DOMAIN | 0xfff0 << 16, command[1], 0, 0]
}
