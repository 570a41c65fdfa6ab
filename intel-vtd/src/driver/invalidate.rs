//! The host's own invalidations (§6.5.2).

use crate::spec::descriptors::{
    DeviceTlbInv, Granularity, IotlbInv, NARROW_WORDS, PasidIotlbGranularity, PasidIotlbInv, WIDE_WORDS, Wait,
};
use viommu_plugin::{HostInvalidation, Scope};

/// What bounds the invalidations of this hardware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// CAP.MAMV; `None` without CAP.PSI.
    pub(super) pages_log2: Option<u32>,
    /// ECAP.DT.
    pub(super) device_tlb: bool,
}

/// ADDR of a device-TLB invalidation of everything: the lowest zero bit is bit 63.
const EVERYTHING: u64 = (1 << 51) - 1;

/// A descriptor of a 256-bit queue.
pub(super) fn wide(words: [u64; NARROW_WORDS]) -> [u64; WIDE_WORDS] {
    [words[0], words[1], 0, 0]
}

/// Device-TLB invalidation of everything that a device holds.
pub(super) fn device_tlb(stream: u32) -> [u64; WIDE_WORDS] {
    wide(DeviceTlbInv::new().with_source_id(stream as u16).with_size(true).with_address(EVERYTHING).words())
}

/// All that was translated through a guest's tables under a domain-id: devices are served as PASID 0.
fn first_stage(domain: u16) -> [u64; WIDE_WORDS] {
    let command = PasidIotlbInv::new().with_granularity(PasidIotlbGranularity::PASID.0).with_domain_id(domain);
    wide(command.words())
}

/// All of a domain-id, whatever the stages.
fn domain(domain: u16) -> [u64; WIDE_WORDS] {
    let command = IotlbInv::new().with_granularity(Granularity::DOMAIN.0).with_domain_id(domain);
    wide(command.with_drain_writes(true).with_drain_reads(true).words())
}

/// Everything of a domain-id: what the manual asks for after an entry changed, of PASID and of domain. Words written.
pub(super) fn tag(tag: u16, out: &mut [u64]) -> usize {
    put(&[first_stage(tag), domain(tag)], out)
}

/// Second-stage translations of a range: one naturally aligned power of two of pages that holds it, or if that is more
/// than the hardware takes, the domain-id. Nested translations of the domain-id go in either case.
fn range(tag: u16, address: u64, length: u64, pages_log2: Option<u32>) -> [u64; WIDE_WORDS] {
    let last = length.checked_sub(1).and_then(|more| address.checked_add(more));
    let Some((last, pages_log2)) = last.zip(pages_log2) else { return domain(tag) };
    // Bits in which first and last page differ, and all below.
    let log2 = u64::BITS - (address >> 12 ^ last >> 12).leading_zeros();
    if log2 > pages_log2 {
        return domain(tag);
    }
    let command = IotlbInv::new().with_granularity(Granularity::SELECTIVE.0).with_domain_id(tag);
    let command = command.with_drain_writes(true).with_drain_reads(true).with_address_mask(log2 as u8);
    wide(command.with_address(address >> 12 & !((1 << log2) - 1)).words())
}

/// Writes the descriptors for `what`; how many words. Nothing is written where nothing is to do, or where they do not
/// fit.
///
/// Of a device's configuration nothing is cached but what the driver wrote and announced itself: the hardware never
/// reads a guest's tables.
pub(super) fn encode(what: &HostInvalidation, limits: Limits, out: &mut [u64]) -> usize {
    let domain = what.tag as u16;
    match what.scope {
        Scope::SYNC => put(&[wide(Wait::new().with_fence(true).words())], out),
        Scope::STAGE1_ALL => put(&[first_stage(domain)], out),
        Scope::STAGE2_RANGE => put(&[range(domain, what.address, what.length, limits.pages_log2)], out),
        Scope::TAG => tag(domain, out),
        Scope::DEVICE_CACHE if limits.device_tlb => put(&[device_tlb(what.stream)], out),
        _ => 0,
    }
}

fn put(descriptors: &[[u64; WIDE_WORDS]], out: &mut [u64]) -> usize {
    let words = descriptors.as_flattened();
    match out.get_mut(..words.len()) {
        Some(slots) => {
            slots.copy_from_slice(words);
            words.len()
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { pages_log2: Some(18), device_tlb: true };

    fn stage2_range(address: u64, length: u64, limits: Limits) -> IotlbInv {
        let what =
            HostInvalidation { scope: Scope::STAGE2_RANGE, tag: 7, address, length, ..HostInvalidation::default() };
        let mut out = [0xa5; 8];
        assert_eq!(encode(&what, limits, &mut out), 4);
        assert_eq!(out[2..4], [0, 0]);
        let command = IotlbInv::from_words([out[0], out[1]]);
        assert_eq!((command.kind(), command.domain_id()), (2, 7));
        command
    }

    #[test]
    fn a_range_is_widened_to_one_aligned_block_that_holds_it() {
        for pages in [1u64, 2, 3, 31, 32, 33, 511, 512, 513, 0x1_0001] {
            for first in [0u64, 1, 7, 0x3fff0, 0x4_0000, 0x4_0000_0000] {
                let command = stage2_range(first << 12, pages << 12, LIMITS);
                if command.granularity() == Granularity::DOMAIN.0 {
                    let differ = 64 - (first ^ (first + pages - 1)).leading_zeros();
                    assert!(differ > 18, "{first:#x} + {pages}: everything, where 2^{differ} pages would do");
                    continue;
                }
                let block = 1u64 << command.address_mask();
                assert!(command.address().is_multiple_of(block) && command.address() <= first);
                assert!(command.address() + block >= first + pages, "{first:#x} + {pages}: {command:?}");
            }
        }
    }

    #[test]
    fn what_is_too_large_or_impossible_or_not_selectable_is_the_domain() {
        let none = Limits { pages_log2: None, ..LIMITS };
        for (address, length, limits) in
            [(0, 0, LIMITS), (u64::MAX, 2, LIMITS), (0, 1 << 31, LIMITS), (0x1000, 0x1000, none)]
        {
            assert_eq!(stage2_range(address, length, limits).granularity(), Granularity::DOMAIN.0);
        }
        assert_eq!(stage2_range(0, 1 << 30, LIMITS).granularity(), Granularity::SELECTIVE.0);
    }

    #[test]
    fn a_device_cache_goes_as_a_whole_where_there_is_one() {
        let what = HostInvalidation { scope: Scope::DEVICE_CACHE, stream: 9, ..HostInvalidation::default() };
        let mut out = [0; 4];
        assert_eq!(encode(&what, Limits { device_tlb: false, ..LIMITS }, &mut out), 0);
        assert_eq!(encode(&what, LIMITS, &mut out), 4);
        assert_eq!(out, [9 << 32 | 3, 0x7fff_ffff_ffff_f001, 0, 0]);
        assert_eq!(encode(&what, LIMITS, &mut [0; 3]), 0);
    }

    #[test]
    fn a_tag_goes_with_its_first_stage_and_as_a_domain_or_not_at_all() {
        let what = HostInvalidation { scope: Scope::TAG, tag: 0x1234, ..HostInvalidation::default() };
        let mut out = [0; 8];
        assert_eq!(encode(&what, LIMITS, &mut out), 8);
        assert_eq!((out[0], out[4]), (0x1234_0026, 0x1234_00e2));
        assert_eq!(encode(&what, LIMITS, &mut out[..7]), 0);
    }
}
