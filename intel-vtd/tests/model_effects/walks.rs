//! Walks of one stage: what the entries say is what a device gets.

use crate::machine::*;
use intel_vtd::spec::context::ScalableContext1;
use intel_vtd::spec::fault_reason::FaultReason;
use intel_vtd::spec::pasid::PasidEntry2;
use intel_vtd::spec::registers::TableMode;
use viommu_plugin::{Request, Status};

/// Output address of every test: aligned to 1 GiB.
const OUT: u64 = 0x1_4000_0000;

#[test]
fn a_first_stage_of_either_depth_has_leaves_of_three_sizes() {
    for (levels, iova) in [(4, 0x7fff_c000_0000u64), (4, 0xffff_ffff_c000_0000), (5, 0x00aa_ffff_c000_0000)] {
        for (level, log2) in [(1, 12), (2, 21), (3, 30)] {
            let mut m = Machine::new();
            let mut tables = m.first_stage(levels);
            tables.map(&m.memory, iova, OUT, level, FS_RW);
            m.device(1, first(1, &tables));
            let offset = (1 << log2) - 8;
            let answer = m.access(1, iova + offset, 2);
            assert_eq!((answer.status, answer.stage), (Status::OK, 1), "{}", m.explain(1, iova));
            assert_eq!((answer.output, answer.leaf_log2, answer.permissions), (OUT + offset, log2, 3));
            assert_eq!(m.ask(1, iova - 8).fault, u32::from(FaultReason::SM_FS_NOT_PRESENT.0));
        }
    }
}

#[test]
fn a_second_stage_of_every_depth_has_leaves_of_three_sizes() {
    for (levels, iova) in [(3, 0x7f_c000_0000u64), (4, 0xffff_c000_0000), (5, 0x1ff_ffff_c000_0000)] {
        for (level, log2) in [(1, 12), (2, 21), (3, 30)] {
            let (mut scalable, mut legacy) = (Machine::new(), Machine::legacy(&[], false));
            let mut tables = scalable.second_stage(levels);
            tables.map(&scalable.memory, iova, OUT, level, SS_RW);
            scalable.device(1, second(1, &tables));
            let mut tables = legacy.second_stage(levels);
            tables.map(&legacy.memory, iova, OUT, level, SS_RW);
            legacy.memory.put(legacy.context_at(1), &legacy_entry(1, 0, &tables));
            for m in [&mut scalable, &mut legacy] {
                let answer = m.access(1, iova + 0x10, 2);
                assert_eq!((answer.status, answer.stage), (Status::OK, 2), "{}", m.explain(1, iova));
                assert_eq!((answer.output, answer.leaf_log2, answer.permissions), (OUT + 0x10, log2, 3));
            }
        }
    }
}

#[test]
fn permissions_are_those_of_every_level_together() {
    let mut m = Machine::new();
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0x1000, OUT, 1, FS_RW);
    tables.map(&m.memory, 0x2000, OUT, 1, FS_RO);
    m.device(1, first(1, &tables));
    let no_write = u32::from(FaultReason::SM_NO_WRITE.0);
    assert_eq!((m.access(1, 0x1000, 2).permissions, m.access(1, 0x2000, 1).permissions), (3, 1));
    assert_eq!((m.access(1, 0x2000, 2).fault, m.access(1, 0x2000, 2).stage), (no_write, 1));
    let upper = tables.entry(&m.memory, 0x20_0000, 2) & !0xfff;
    m.memory.put(upper, &[m.memory.get(upper) & !2]);
    assert_eq!(m.access(1, 0x1000, 2).status, Status::OK, "as it was cached");
    m.invalidate([6 | 2 << 4 | 1 << 16, 0]);
    assert_eq!(m.access(1, 0x1000, 2).fault, no_write);

    let mut m = Machine::new();
    let mut tables = m.second_stage(4);
    for (page, bits) in [(1u64, SS_RW), (2, SS_RO), (3, 2)] {
        tables.map(&m.memory, page << 12, OUT, 1, bits);
    }
    m.device(1, second(1, &tables));
    let refused = u32::from(FaultReason::SM_SS_NO_PERMISSION.0);
    assert_eq!((m.access(1, 0x2000, 2).fault, m.access(1, 0x3000, 1).fault), (refused, refused));
    assert_eq!((m.access(1, 0x3000, 2).permissions, m.ask(1, 0x3000).permissions), (2, 2));
    assert_eq!(m.ask(1, 0x4000).fault, refused);
}

#[test]
fn legacy_faults_name_the_missing_permission() {
    let mut m = Machine::legacy(&[], false);
    let mut tables = m.second_stage(4);
    tables.map(&m.memory, 0x1000, OUT, 1, SS_RO);
    m.memory.put(m.context_at(1), &legacy_entry(1, 0, &tables));
    assert_eq!(m.access(1, 0x1000, 2).fault, u32::from(FaultReason::NO_WRITE.0));
    assert_eq!(m.access(1, 0x2000, 2).fault, u32::from(FaultReason::NO_WRITE.0));
    assert_eq!(m.access(1, 0x2000, 1).fault, u32::from(FaultReason::NO_READ.0));
    assert_eq!(m.ask(1, 1 << 48).fault, u32::from(FaultReason::BEYOND_MGAW.0));
}

#[test]
fn requests_that_the_first_stage_cannot_serve_are_refused() {
    let mut m = Machine::new();
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0x1000, OUT, 1, FS_RW & !4);
    tables.map(&m.memory, 0x20_0000, OUT + 0x2000, 2, FS_RW);
    let top = tables.entry(&m.memory, 1 << 39, 4);
    m.memory.put(top, &[OUT | FS_RW | LARGE]);
    m.device(1, first(1, &tables));
    for (iova, reason) in [
        (0x1000, FaultReason::SM_FS_SUPERVISOR_ONLY),
        (0x20_0000, FaultReason::SM_FS_RESERVED),
        (1 << 39, FaultReason::SM_FS_RESERVED),
        (1 << 47, FaultReason::SM_NOT_CANONICAL),
        (0x7fff << 48, FaultReason::SM_NOT_CANONICAL),
        (0xfffe_8000_0000_0000, FaultReason::SM_NOT_CANONICAL),
    ] {
        let answer = m.ask(1, iova);
        assert_eq!((answer.fault, answer.stage), (u32::from(reason.0), 1), "{iova:#x}: {}", m.explain(1, iova));
    }
}

#[test]
fn leaves_that_cap_does_not_offer_are_reserved() {
    let registers = identity(|cap, ecap| (cap.with_first_stage_1g(false).with_second_stage_leaves(1), ecap));
    let mut m = Machine::with(&registers, false, 0);
    let (mut fs, mut ss) = (m.first_stage(4), m.second_stage(4));
    fs.map(&m.memory, 0x4000_0000, OUT, 3, FS_RW);
    ss.map(&m.memory, 0x4000_0000, OUT, 3, SS_RW);
    ss.map(&m.memory, 0x20_0000, OUT, 2, SS_RW);
    m.device(1, first(1, &fs));
    m.device(2, second(2, &ss));
    assert_eq!(m.ask(1, 0x4000_0000).fault, u32::from(FaultReason::SM_FS_RESERVED.0));
    assert_eq!(m.ask(2, 0x4000_0000).fault, u32::from(FaultReason::SM_SS_RESERVED.0));
    assert_eq!(m.ask(2, 0x20_0000).leaf_log2, 21);
}

#[test]
fn a_table_outside_memory_is_told_apart_by_its_level() {
    let (mut m, mut old) = (Machine::new(), Machine::legacy(&[], false));
    let (mut fs, mut ss, mut legacy) = (m.first_stage(4), m.second_stage(4), old.second_stage(4));
    let upper = fs.entry(&m.memory, 0, 3);
    m.memory.put(upper, &[MEMORY_END | FS_RW]);
    let upper = ss.entry(&m.memory, 0, 3);
    m.memory.put(upper, &[MEMORY_END | SS_RW]);
    let upper = legacy.entry(&old.memory, 0, 3);
    old.memory.put(upper, &[MEMORY_END | SS_RW]);
    m.device(1, first(1, &fs));
    m.device(2, second(2, &ss));
    m.device(3, first(3, &Tables { root: MEMORY_END, ..fs }));
    m.device(4, second(4, &Tables { root: MEMORY_END, ..ss }));
    old.memory.put(old.context_at(1), &legacy_entry(1, 0, &legacy));
    for (stream, reason) in [
        (1, FaultReason::SM_FS_UNREADABLE),
        (2, FaultReason::SM_SS_UNREADABLE),
        (3, FaultReason::SM_FS_ROOT_UNREADABLE),
        (4, FaultReason::SM_SS_TABLE_UNREADABLE),
    ] {
        assert_eq!(m.ask(stream, 0x1000).fault, u32::from(reason.0), "{}", m.explain(stream, 0x1000));
    }
    assert_eq!(old.ask(1, 0x1000).fault, u32::from(FaultReason::TABLE_UNREADABLE.0));
}

#[test]
fn privileged_requests_need_sre_and_obey_r_w_only_with_wpe() {
    let mut m = Machine::new();
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0x1000, OUT, 1, 1);
    let plain = first(1, &tables);
    let word2 = PasidEntry2::from(plain[2]).with_supervisor_enable(true);
    let privileged = ScalableContext1::new().with_rid_privileged(true);
    for (word2, fault, permissions) in [
        (word2, 0, 3),
        (word2.with_write_protect(true), 0, 1),
        (PasidEntry2::from(plain[2]), u32::from(FaultReason::SM_SUPERVISOR_DISABLED.0), 0),
    ] {
        m.device(1, [plain[0], plain[1], word2.into()]);
        m.memory.put(m.context_at(1) + 8, &[privileged.into()]);
        m.set_root(TableMode::SCALABLE);
        let answer = m.ask(1, 0x1000);
        assert_eq!((answer.fault, answer.permissions), (fault, permissions), "{word2:?}");
    }
}

#[test]
fn the_interrupt_range_is_not_translated() {
    let mut m = Machine::new();
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0xfee0_0000, OUT, 1, FS_RW);
    m.device(1, first(1, &tables));
    let answer = m.access(1, 0xfee0_0010, 2);
    assert_eq!((answer.status, answer.output), (Status::BYPASS, 0xfee0_0010));
    let request = Request { stream: 1, pasid: 0, iova: 0xfee0_0010, access: 2, flags: 0 };
    assert_eq!(m.request(request).fault, u32::from(FaultReason::SM_INTERRUPT_ADDRESS.0));
}
