//! Stage 1 inside stage 2.

use crate::machine::*;
use arm_smmuv3::spec::commands::{Opcode, Tlbi};
use arm_smmuv3::spec::ste::{Config, SteWord0};
use viommu_plugin::Status;

/// Guest memory is this far away from its IPAs.
const SHIFT: u64 = 0x40_0000_0000;
const CD: u64 = 0x50_0000;
const IOVA: u64 = 0x8000_0000;

/// Stream 1 of VMID 5: a guest whose tables, CD and data lie at IPAs, all of them mapped by 1 GiB blocks.
struct Guest {
    m: Machine,
    first: Tables,
    second: Tables,
}

fn guest(granule: u8) -> Guest {
    let mut m = Machine::new();
    let level = if granule == 16 { 1 } else { 0 };
    let mut first = m.tables(granule, level, 48);
    let mut second = m.tables(12, 1, 40);
    first.shift = SHIFT;
    for block in 0..2 {
        second.map(&m.memory, block << 30, SHIFT + (block << 30), 1, S2_RW);
    }
    m.put_cd(CD + SHIFT, 1, &first);
    m.ste_stage2(1, 5, &second, Some(CD));
    Guest { m, first, second }
}

#[test]
fn output_goes_through_both_stages() {
    for granule in [12, 14, 16] {
        let Guest { mut m, mut first, .. } = guest(granule);
        first.map(&m.memory, IOVA, 0x1234_0000, 3, S1_RO);
        let answer = m.ask(1, IOVA + 0x18);
        let why = m.explain(1, IOVA);
        assert_eq!((answer.status, answer.stage), (Status::OK, 1), "{why}");
        assert_eq!((answer.output, answer.permissions), (SHIFT + 0x1234_0018, 1), "{why}");
        assert_eq!(answer.leaf_log2, granule.into(), "{why}");
        assert_eq!(m.ask(1, IOVA).flags, 1);
        assert!(
            why.contains("STE 0x1") && why.contains("CD 0") && why.contains("S1 L3") && why.contains(" S2 L1"),
            "{why}"
        );
    }
}

#[test]
fn an_entry_is_as_large_as_the_smaller_leaf() {
    let Guest { mut m, mut first, mut second } = guest(12);
    second.map(&m.memory, 0x9000_0000, 0x1_0000_0000, 2, S2_RW);
    second.map(&m.memory, 0x9020_0000, 0x2_0000_0000, 3, S2_RO);
    first.map(&m.memory, IOVA, 0x9000_3000, 3, S1_RW);
    first.map(&m.memory, IOVA + (1 << 21), 0x9000_0000, 2, S1_RW);
    first.map(&m.memory, IOVA + (2 << 21), 0x9020_0000, 2, S1_RW);
    first.map(&m.memory, IOVA + (1 << 30), 0, 1, S1_RW);
    let leaves = [(0, 12), (1 << 21, 21), (2 << 21, 12), (1 << 30, 30)];
    for (offset, log2) in leaves {
        assert_eq!(m.ask(1, IOVA + offset).leaf_log2, log2, "at {offset:#x}");
    }
    let answer = m.ask(1, IOVA + (2 << 21) + 0xff8);
    assert_eq!((answer.output, answer.permissions, answer.flags), (0x2_0000_0ff8, 1, 1));
    let answer = m.ask(1, IOVA + (2 << 21) + 0x1000);
    assert_eq!((answer.fault, answer.stage, answer.ipa), (0x10, 2, 0x9020_1000), "its neighbour has no stage 2");
}

/// A guest without range invalidation names one address of its 2 MiB block: every entry cut from it goes.
#[test]
fn an_invalidation_reaches_what_stage_2_cut_small() {
    let Guest { mut m, mut first, mut second } = guest(12);
    for page in 0..3 {
        second.map(&m.memory, 0x9020_0000 + (page << 12), 0x2_0000_0000 + (page << 12), 3, S2_RW);
    }
    first.map(&m.memory, IOVA, 0x9020_0000, 2, S1_RW);
    first.map(&m.memory, IOVA + (1 << 21), 0x1000, 3, S1_RW);
    let asks: [u64; 4] = [0, 0x1000, 0x2000, 1 << 21];
    assert_eq!(asks.map(|offset| m.ask(1, IOVA + offset).flags), [0, 0, 0, 0]);
    assert_eq!(asks.map(|offset| m.ask(1, IOVA + offset).flags), [1, 1, 1, 1]);
    let command = Tlbi::new().with_opcode(Opcode::TLBI_NH_VA.0).with_vmid(5).with_asid(1).with_address(IOVA >> 12);
    m.command(command.words());
    assert_eq!(asks.map(|offset| m.ask(1, IOVA + offset).flags), [0, 0, 0, 1]);
}

#[test]
fn a_stage_2_fault_names_the_intermediate_address_and_the_access() {
    let unmapped = 0xd000_0000;
    // The device's own address.
    let Guest { mut m, mut first, .. } = guest(12);
    first.map(&m.memory, IOVA, unmapped, 3, S1_RW);
    let answer = m.access(1, IOVA + 0x123, 2);
    assert_eq!((answer.status, answer.fault, answer.stage), (Status::FAULT, 0x10, 2));
    assert_eq!(answer.ipa, unmapped + 0x123);
    assert_eq!(m.event(0), [1 << 32 | 0x10, 1 << 39 | 2 << 40, IOVA + 0x123, unmapped]);
    // A stage-1 table.
    let Guest { mut m, mut first, .. } = guest(12);
    let descriptor = first.descriptor(&m.memory, IOVA, 1);
    m.memory.put(descriptor + SHIFT, &[unmapped | 3]);
    let answer = m.ask(1, IOVA + (5 << 21));
    assert_eq!((answer.fault, answer.stage, answer.ipa), (0x10, 2, unmapped + 8 * 5));
    assert_eq!(m.event(0)[1] >> 39 & 7, 0b011, "S2, CLASS TTD");
    assert_eq!(m.event(0)[2..], [IOVA + (5 << 21), unmapped]);
    // The CD.
    let Guest { mut m, second, .. } = guest(12);
    m.ste_stage2(1, 5, &second, Some(unmapped));
    let answer = m.ask(1, IOVA);
    assert_eq!((answer.fault, answer.stage, answer.ipa), (0x10, 2, unmapped));
    assert_eq!(m.event(0)[1] >> 39 & 7, 0b001, "S2, CLASS CD");
    // S2R = 0: the host does not hear of it.
    let word0 = SteWord0::new().with_v(true).with_config(Config::NESTED.0).with_s1_context_ptr(unmapped >> 6);
    m.put_ste(1, [word0.into(), 0, stage2_word(5, &second).with_s2_r(false).into(), stage2_table(&second)]);
    m.command(cfgi_ste(1));
    assert_eq!(m.ask(1, IOVA).fault, 0x10);
    assert_eq!(m.event(1), [0; 4]);
}

#[test]
fn a_stage_1_fault_under_nesting_is_the_guests() {
    let Guest { mut m, mut first, .. } = guest(12);
    first.map(&m.memory, IOVA, 0x1000, 3, S1_RO);
    let answer = m.ask(1, IOVA + 0x1000);
    assert_eq!((answer.fault, answer.stage, answer.ipa), (0x10, 1, 0));
    assert_eq!(m.access(1, IOVA, 2).stage, 1);
    assert_eq!(m.event(0)[1], 2 << 40 | 1 << 35);
    assert_eq!(m.event(1)[0] & 0xff, 0x13);
}

#[test]
fn permissions_are_what_both_stages_grant() {
    for (one, two, granted) in [(S1_RW, S2_RW, 3), (S1_RO, S2_RW, 1), (S1_RW, S2_RO, 1), (S1_RW, 1 << 10 | 2 << 6, 2)] {
        let Guest { mut m, mut first, mut second } = guest(12);
        second.map(&m.memory, 0x9000_0000, 0x1_0000_0000, 3, two);
        first.map(&m.memory, IOVA, 0x9000_0000, 3, one);
        assert_eq!(m.ask(1, IOVA).permissions, granted);
        for access in [1, 2] {
            let answer = m.access(1, IOVA, access);
            let stage = if one == S1_RO { 1 } else { 2 };
            let expected = if granted & access == 0 { (0x13, stage) } else { (0, 1) };
            assert_eq!((answer.fault, answer.stage), expected, "{one:#x} {two:#x} access {access}");
        }
    }
    // Tables need to be readable only.
    let Guest { mut m, mut first, mut second } = guest(12);
    first.map(&m.memory, IOVA, 0x1000, 3, S1_RW);
    second.map(&m.memory, 0, SHIFT, 1, S2_RO);
    assert_eq!(m.ask(1, IOVA).permissions, 1);
    second.map(&m.memory, 0, SHIFT, 1, 1 << 10 | 2 << 6);
    m.command([u64::from(Opcode::TLBI_NSNH_ALL.0), 0]);
    let answer = m.ask(1, IOVA);
    assert_eq!((answer.fault, answer.stage), (0x13, 2), "a table that stage 2 forbids to read");
}

/// S2_IPA cannot find combined entries: who unmaps stage 2 sends NH_ALL as well.
#[test]
fn stage_2_invalidation_under_nesting() {
    let Guest { mut m, mut first, mut second } = guest(12);
    first.map(&m.memory, IOVA, 0x1000, 3, S1_RW);
    m.ste_stage2(2, 5, &second, None);
    m.ask(1, IOVA);
    m.ask(2, 0x1000);
    second.map(&m.memory, 0, SHIFT + (1 << 30), 1, S2_RW);
    let command = Tlbi::new().with_vmid(5).with_address(0x1000 >> 12);
    m.command(command.with_opcode(Opcode::TLBI_S2_IPA.0).words());
    assert_eq!(m.ask(2, 0x1000).output, SHIFT + (1 << 30) + 0x1000);
    assert_eq!(m.ask(1, IOVA).output, SHIFT + 0x1000, "stale, as on hardware");
    m.command(command.with_opcode(Opcode::TLBI_NH_ALL.0).with_vmid(6).words());
    assert_eq!(m.ask(1, IOVA).flags, 1, "another VMID's NH_ALL");
    m.command(command.with_opcode(Opcode::TLBI_NH_ALL.0).words());
    assert_eq!(m.ask(1, IOVA).flags, 0);
}

#[test]
fn stage_1_bypass_leaves_stage_2() {
    let Guest { mut m, second, .. } = guest(12);
    let word0 = SteWord0::new().with_v(true).with_config(Config::NESTED.0).with_s1_context_ptr(CD >> 6);
    m.put_ste(
        1,
        [word0.with_s1_cd_max(1).into(), ste_word1(1, 0), stage2_word(5, &second).into(), stage2_table(&second)],
    );
    let answer = m.ask(1, 0x1008);
    assert_eq!((answer.output, answer.stage), (SHIFT + 0x1008, 2));
}

/// A table of 4 levels that points at itself ends after 4 levels.
#[test]
fn a_table_that_points_at_itself() {
    let Guest { mut m, first, .. } = guest(12);
    m.memory.put(first.root + SHIFT, &[first.root | 3 | S1_RW]);
    let answer = m.ask(1, 0x123);
    assert_eq!((answer.status, answer.output), (Status::OK, SHIFT + first.root + 0x123));
}
