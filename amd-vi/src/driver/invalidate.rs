//! The host's own invalidations.

use crate::spec::commands::{
    COMMAND_WORDS, CompletionWait, InvalidateDevice, InvalidateIommuPages, InvalidateIotlbPages, Opcode, encode_span,
};
use crate::spec::size::ALL_LOG2;
use viommu_plugin::{HostInvalidation, Scope};

/// INVALIDATE_IOTLB_PAGES of everything that a device holds without PASID.
pub(super) fn device_cache(device: u32) -> InvalidateIotlbPages {
    let (s, address) = encode_span(0, ALL_LOG2);
    InvalidateIotlbPages::new()
        .with_opcode(Opcode::INVALIDATE_IOTLB_PAGES.0)
        .with_device_id(device as u16)
        .with_queue_id(device as u16)
        .with_s(s)
        .with_address(address)
}

/// INVALIDATE_IOMMU_PAGES of host addresses, page directories too. Without GN it takes every combined entry of the domain
/// with it, whose host addresses nobody knows.
fn pages(tag: u32, (s, address): (bool, u64)) -> InvalidateIommuPages {
    InvalidateIommuPages::new()
        .with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0)
        .with_domain_id(tag as u16)
        .with_s(s)
        .with_pde(true)
        .with_address(address)
}

/// Forgets all translations of a domain.
pub(super) fn everything(domain: u16) -> [u64; COMMAND_WORDS] {
    pages(domain.into(), encode_span(0, ALL_LOG2)).words()
}

/// S and address of the smallest power of two that covers the range; everything, if there is no such range.
fn covering(address: u64, length: u64) -> (bool, u64) {
    let Some(last) = length.checked_sub(1).and_then(|more| address.checked_add(more)) else {
        return encode_span(0, ALL_LOG2);
    };
    let log2 = (64 - (address ^ last).leading_zeros() as u8).max(12);
    let first = if log2 >= ALL_LOG2 { 0 } else { address & !((1 << log2) - 1) };
    encode_span(first, log2)
}

/// Writes the command for `what`; how many words. Nothing is written where nothing is to do (no ATS), or where the command
/// does not fit.
pub(super) fn encode(what: &HostInvalidation, ats: bool, out: &mut [u64]) -> usize {
    let command = match what.scope {
        Scope::SYNC => CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).words(),
        Scope::STAGE2_RANGE => pages(what.tag, covering(what.address, what.length)).words(),
        // There is no command for the guest's translations of all PASIDs.
        Scope::STAGE1_ALL | Scope::TAG => pages(what.tag, encode_span(0, ALL_LOG2)).words(),
        Scope::DEVICE_CACHE if ats => device_cache(what.stream).words(),
        Scope::CONFIGURATION => InvalidateDevice::new()
            .with_opcode(Opcode::INVALIDATE_DEVTAB_ENTRY.0)
            .with_device_id(what.stream as u16)
            .words(),
        _ => return 0,
    };
    match out.first_chunk_mut::<COMMAND_WORDS>() {
        Some(slot) => {
            *slot = command;
            COMMAND_WORDS
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::commands::span;

    fn encoded(what: HostInvalidation, ats: bool) -> Vec<u64> {
        let mut out = [0; 8];
        let written = encode(&what, ats, &mut out);
        out[..written].to_vec()
    }

    /// First address and log2 of the size that a range is invalidated with.
    fn covered(address: u64, length: u64) -> (u64, u8) {
        let what =
            HostInvalidation { scope: Scope::STAGE2_RANGE, tag: 7, address, length, ..HostInvalidation::default() };
        let words = encoded(what, false);
        let command = InvalidateIommuPages::from_words([words[0], words[1]]);
        assert_eq!((command.domain_id(), command.gn(), command.pasid(), command.pde()), (7, false, 0, true));
        span(command.s(), command.address())
    }

    #[test]
    fn ranges_cover_what_was_asked_and_no_more_than_they_must() {
        assert_eq!(covered(0x4000_0000, 0x1000), (0x4000_0000, 12));
        assert_eq!(covered(0x4000_0000, 0x2000), (0x4000_0000, 13));
        assert_eq!(covered(0x4000_1000, 0x2000), (0x4000_0000, 14));
        assert_eq!(covered(0x4000_0000, 0x20_0000), (0x4000_0000, 21));
        assert_eq!(covered(0xffff_f000, 0x2000), (0, 33));
        for (address, length) in [(0, 0), (u64::MAX, 2), (0x1000, u64::MAX - 0x1fff)] {
            assert_eq!(covered(address, length), (0, 64), "{address:#x}+{length:#x}");
        }
        let mut seed = 1u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let (address, length) = (seed >> 20 & !0xfff, (seed & 0xf_ffff) << 12 | 0x1000);
            let (first, log2) = covered(address, length);
            let reach = (1u128 << log2) + u128::from(first);
            assert!(first <= address && u128::from(address) + u128::from(length) <= reach, "{address:#x}+{length:#x}");
        }
    }

    #[test]
    fn each_scope_has_its_command() {
        let what = HostInvalidation { tag: 0x1234, stream: 0x4008, ..HostInvalidation::default() };
        for (scope, words) in [
            (Scope::SYNC, [0x1000_0000_0000_0000, 0]),
            (Scope::STAGE1_ALL, [0x3000_1234_0000_0000, 0x7fff_ffff_ffff_f003]),
            (Scope::TAG, [0x3000_1234_0000_0000, 0x7fff_ffff_ffff_f003]),
            (Scope::DEVICE_CACHE, [0x4000_4008_0000_4008, 0x7fff_ffff_ffff_f001]),
            (Scope::CONFIGURATION, [0x2000_0000_0000_4008, 0]),
        ] {
            assert_eq!(encoded(HostInvalidation { scope, ..what }, true), words, "{scope:?}");
        }
        assert!(encoded(HostInvalidation { scope: Scope::DEVICE_CACHE, ..what }, false).is_empty(), "no ATS");
        assert!(encoded(HostInvalidation { scope: Scope(77), ..what }, true).is_empty());
        assert_eq!(encode(&what, true, &mut [0]), 0, "no room");
    }
}
