//! First stage over second stage: each table address and each output goes through the second.

use crate::machine::*;
use intel_vtd::spec::descriptors::{IotlbInv, PasidIotlbInv};
use intel_vtd::spec::fault_reason::FaultReason;
use viommu_plugin::Status;

/// Guest-physical and physical place of the guest's tables.
const GUEST_TABLES: u64 = 0x80_0000;
const IOVA: u64 = 0x1234_5000;
const GUEST: u64 = 0x40_0000;
const OUT: u64 = 0x7_0040_0000;

/// Device 1 of domain 9: IOVA to GUEST in the first stage, of `level`; GUEST to OUT below, of `below`. The guest's
/// tables are at GUEST_TABLES for it, and where the machine puts them for the host.
fn nesting(level: u8, below: u8) -> (Machine, Tables, Tables) {
    let mut m = Machine::new();
    let (mut fs, mut ss) = (m.first_stage(4), m.second_stage(4));
    let physical = fs.root;
    for page in 0..16u64 {
        ss.map(&m.memory, GUEST_TABLES + (page << 12), physical + (page << 12), 1, SS_RW);
    }
    fs = Tables { root: GUEST_TABLES, shift: physical - GUEST_TABLES, next: GUEST_TABLES + 0x1000, ..fs };
    let aligned = |address: u64, level: u8| address & !((1 << Tables::span(level)) - 1);
    fs.map(&m.memory, aligned(IOVA, level), aligned(GUEST, level), level, FS_RW);
    for page in 0..4u64 {
        if below == 1 {
            ss.map(&m.memory, GUEST + (page << 12), OUT + (page << 12), 1, SS_RW);
        }
    }
    if below > 1 {
        ss.map(&m.memory, aligned(GUEST, below), aligned(OUT, below), below, SS_RW);
    }
    m.device(1, nested(9, &fs, &ss));
    (m, fs, ss)
}

#[test]
fn both_stages_translate_and_the_smaller_leaf_counts() {
    for (level, below, log2) in [(1, 1, 12), (1, 2, 12), (2, 1, 12), (2, 2, 21)] {
        let (mut m, ..) = nesting(level, below);
        // With a 2 MiB first-stage leaf IOVA's offset in it reaches into the mapped guest pages or not.
        let iova = if level == 2 { IOVA & !0x1f_ffff } else { IOVA };
        let answer = m.access(1, iova + 8, 2);
        assert_eq!(answer.status, Status::OK, "{}", m.explain(1, iova));
        assert_eq!((answer.output, answer.leaf_log2, answer.stage), (OUT + 8, log2, 1));
        assert_eq!(m.ask(1, iova).flags, FROM_TLB);
    }
}

#[test]
fn a_hole_below_is_told_apart_by_what_fell_into_it() {
    let refused = |reason: FaultReason| u32::from(reason.0);
    let (mut m, _, mut ss) = nesting(1, 1);
    let leaf = ss.entry(&m.memory, GUEST, 1);
    m.memory.put(leaf, &[OUT | SS_RO]);
    let answer = m.access(1, IOVA + 0x10, 2);
    assert_eq!((answer.fault, answer.stage), (refused(FaultReason::SM_SS_NO_PERMISSION), 2));
    assert_eq!(answer.ipa, GUEST + 0x10);
    assert_eq!(m.access(1, IOVA, 1).permissions, 1, "both stages' permissions together");

    for (place, reason) in
        [(GUEST_TABLES, FaultReason::SM_FS_ROOT_NO_READ), (GUEST_TABLES + 0x1000, FaultReason::SM_FS_NO_READ)]
    {
        let (mut m, _, mut ss) = nesting(1, 1);
        let entry = ss.entry(&m.memory, place, 1);
        m.memory.put(entry, &[0]);
        let answer = m.ask(1, IOVA);
        assert_eq!((answer.fault, answer.stage, answer.ipa & !0xfff), (refused(reason), 2, place));
    }

    let (mut m, mut fs, _) = nesting(1, 1);
    let top = fs.entry(&m.memory, IOVA, 4);
    m.memory.put(top + fs.shift, &[1 << 50 | FS_RW]);
    assert_eq!(m.ask(1, IOVA).fault, refused(FaultReason::SM_FS_ADDRESS_BEYOND));
}

/// The combined entry has the nested PASID entry's domain-id; an invalidation of the second stage's pages cannot find
/// it by address, so all of the domain go (§6.5.2.3).
#[test]
fn a_combined_entry_goes_with_either_stage() {
    let by_pages = PasidIotlbInv::new().with_granularity(3).with_domain_id(9);
    let below = IotlbInv::new().with_granularity(3).with_domain_id(9);
    for (words, gone) in [
        (by_pages.with_address(IOVA >> 12).words(), true),
        (by_pages.with_address((IOVA >> 12) + 1).words(), false),
        (by_pages.with_domain_id(8).with_address(IOVA >> 12).words(), false),
        (below.with_address(0x9999).words(), true),
        (below.with_domain_id(8).with_address(GUEST >> 12).words(), false),
        (IotlbInv::new().with_granularity(2).with_domain_id(9).words(), true),
    ] {
        let (mut m, mut fs, _) = nesting(1, 1);
        m.ask(1, IOVA);
        let leaf = fs.entry(&m.memory, IOVA, 1);
        m.memory.put(leaf + fs.shift, &[0]);
        m.invalidate(words);
        let expected = if gone { Status::FAULT } else { Status::OK };
        assert_eq!(m.ask(1, IOVA).status, expected, "{words:x?}");
    }
}

/// A page cut from a large first-stage leaf goes when any page of that leaf is named.
#[test]
fn a_cut_entry_goes_with_its_leaf() {
    let (mut m, ..) = nesting(2, 1);
    let iova = IOVA & !0x1f_ffff;
    m.ask(1, iova);
    let pages = PasidIotlbInv::new().with_granularity(3).with_domain_id(9);
    m.invalidate(pages.with_address((iova >> 12) + 0x100).words());
    assert_eq!(m.ask(1, iova).flags, 0);
    m.invalidate(pages.with_address((iova >> 12) + 0x200).words());
    assert_eq!(m.ask(1, iova).flags, FROM_TLB, "the next leaf is another");
}
