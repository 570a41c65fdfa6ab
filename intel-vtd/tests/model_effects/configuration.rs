//! Root, context and PASID tables: what they may say, and that what was read stays until it is named.

use crate::machine::*;
use intel_vtd::spec::context::{RootEntry, ScalableContext0, ScalableContext1};
use intel_vtd::spec::descriptors::{ContextCacheInv, PasidCacheInv};
use intel_vtd::spec::fault_reason::FaultReason;
use intel_vtd::spec::pasid::{DirectoryEntry, PasidEntry0, PasidEntry2, TranslationKind};
use intel_vtd::spec::registers::TableMode;
use viommu_plugin::{Request, Status};

const IOVA: u64 = 0x1000;
const OUT: u64 = 0x7000;

fn reason(reason: FaultReason) -> u32 {
    reason.0.into()
}

fn mapped(m: &mut Machine) -> Tables {
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, IOVA, OUT, 1, FS_RW);
    tables
}

fn with_pasid(stream: u32, pasid: u32) -> Request {
    Request { stream, pasid, iova: IOVA, access: 0, flags: 0 }
}

#[test]
fn every_structure_on_the_way_has_its_reasons() {
    type Break = fn(&Machine);
    let cases: [(Break, FaultReason); 14] = [
        (|m| m.memory.put(ROOT, &[0, 0]), FaultReason::SM_ROOT_NOT_PRESENT),
        (|m| m.memory.put(ROOT, &[CONTEXTS | 3, 0]), FaultReason::SM_ROOT_RESERVED),
        (|m| m.memory.put(ROOT, &[MEMORY_END | 1, 0]), FaultReason::SM_CONTEXT_UNREADABLE),
        (|m| m.memory.put(m.context_at(1), &[0]), FaultReason::SM_CONTEXT_NOT_PRESENT),
        (|m| m.memory.put(m.context_at(1), &[1 | 1 << 6]), FaultReason::SM_CONTEXT_RESERVED),
        (|m| m.memory.put(m.context_at(1) + 16, &[1]), FaultReason::SM_CONTEXT_RESERVED),
        (|m| m.memory.put(m.context_at(1), &[1 | 1 << 4]), FaultReason::SM_CONTEXT_INVALID),
        (|m| m.memory.put(m.context_at(1), &[MEMORY_END | 1]), FaultReason::SM_DIRECTORY_UNREADABLE),
        (|m| m.memory.put(directory_of(1), &[0]), FaultReason::SM_DIRECTORY_NOT_PRESENT),
        (|m| m.memory.put(directory_of(1), &[5]), FaultReason::SM_DIRECTORY_RESERVED),
        (|m| m.memory.put(directory_of(1), &[MEMORY_END | 1]), FaultReason::SM_PASID_UNREADABLE),
        (|m| m.put_pasid(1, 0, [0; 3]), FaultReason::SM_PASID_NOT_PRESENT),
        (|m| m.put_pasid(1, 0, [1 | 1 << 6 | 1 << 10, 0, 0]), FaultReason::SM_PASID_RESERVED),
        (|m| m.put_pasid(1, 0, [1 | 5 << 6, 0, 0]), FaultReason::SM_PASID_INVALID),
    ];
    for (spoil, expected) in cases {
        let mut m = Machine::new();
        let tables = mapped(&mut m);
        m.device(1, first(1, &tables));
        spoil(&m);
        assert_eq!(m.ask(1, IOVA).fault, reason(expected), "{}", m.explain(1, IOVA));
        m.device(1, first(1, &tables));
        m.memory.put(m.context_at(1) + 16, &[0]);
        m.memory.put(ROOT, &[CONTEXTS | 1, (CONTEXTS + 0x1000) | 1]);
        if expected == FaultReason::SM_DIRECTORY_UNREADABLE {
            // The context entry that leads nowhere is itself good.
            m.invalidate(ContextCacheInv::new().with_granularity(1).words());
        }
        assert_eq!(m.ask(1, IOVA).output, OUT, "{expected:?}: nothing bad is cached");
    }
}

#[test]
fn legacy_structures_have_reasons_of_their_own() {
    type Break = fn(&Machine);
    let cases: [(Break, FaultReason); 9] = [
        (|m| m.memory.put(ROOT, &[0]), FaultReason::ROOT_NOT_PRESENT),
        (|m| m.memory.put(ROOT + 8, &[1]), FaultReason::ROOT_RESERVED),
        (|m| m.memory.put(ROOT, &[MEMORY_END | 1]), FaultReason::CONTEXT_UNREADABLE),
        (|m| m.memory.put(m.context_at(1), &[0]), FaultReason::CONTEXT_NOT_PRESENT),
        (|m| m.memory.put(m.context_at(1), &[1 | 1 << 5]), FaultReason::CONTEXT_RESERVED),
        (|m| m.memory.put(m.context_at(1) + 8, &[2 | 1 << 30]), FaultReason::CONTEXT_RESERVED),
        (|m| m.memory.put(m.context_at(1), &[1 | 3 << 2]), FaultReason::CONTEXT_INVALID),
        (|m| m.memory.put(m.context_at(1) + 8, &[0]), FaultReason::CONTEXT_INVALID),
        (|m| m.memory.put(m.context_at(1) + 8, &[4]), FaultReason::CONTEXT_INVALID),
    ];
    for (spoil, expected) in cases {
        let mut m = Machine::legacy(&[], false);
        let mut tables = m.second_stage(4);
        tables.map(&m.memory, IOVA, OUT, 1, SS_RW);
        m.memory.put(m.context_at(1), &legacy_entry(1, 0, &tables));
        spoil(&m);
        assert_eq!(m.ask(1, IOVA).fault, reason(expected), "{}", m.explain(1, IOVA));
        m.memory.put(m.context_at(1), &legacy_entry(1, 0, &tables));
        m.memory.put(ROOT, &[CONTEXTS | 1, 0]);
        assert_eq!(m.ask(1, IOVA).output, OUT, "{expected:?}: nothing bad is cached");
        assert_eq!(m.request(with_pasid(1, 1)).fault, reason(FaultReason::SM_PASID_IN_LEGACY_MODE));
    }
}

#[test]
fn what_ecap_and_cap_do_not_offer_is_invalid() {
    let without = identity(|cap, ecap| {
        let ecap = ecap.with_nested(false).with_second_stage(false).with_pass_through(false);
        (cap.with_first_stage_5_levels(false).with_second_stage_levels(4), ecap.with_supervisor_request(false))
    });
    for (registers, works) in [(&[][..], true), (&without, false)] {
        let mut m = Machine::with(registers, false, 0);
        let (fs, five, ss) = (mapped(&mut m), m.first_stage(5), m.second_stage(3));
        let mut supervisor = first(1, &fs);
        supervisor[2] = PasidEntry2::from(supervisor[2]).with_supervisor_enable(true).into();
        let entries = [first(1, &five), second(1, &ss), nested(1, &fs, &ss), supervisor];
        for (stream, words) in (1..).zip(entries) {
            m.device(stream, words);
            let invalid = m.ask(stream, IOVA).fault == reason(FaultReason::SM_PASID_INVALID);
            assert_eq!(invalid, !works, "{words:x?}");
        }
        m.device(9, pasid_entry(TranslationKind::PASS_THROUGH, 1, None, None));
        assert_eq!(m.ask(9, IOVA).status == Status::BYPASS, works);
    }
}

#[test]
fn a_request_uses_its_pasid_or_rid_pasid() {
    let mut m = Machine::new();
    m.put_context(1, false);
    m.memory.put(m.context_at(1) + 8, &[ScalableContext1::new().with_rid_pasid(3).into()]);
    for pasid in [2, 3] {
        let mut tables = m.first_stage(4);
        tables.map(&m.memory, IOVA, OUT + (u64::from(pasid) << 12), 1, FS_RW);
        m.put_pasid(1, pasid, first(1, &tables));
    }
    assert_eq!(m.ask(1, IOVA).output, OUT + 0x3000);
    assert_eq!(m.request(with_pasid(1, 3)).flags, FROM_TLB, "the same PASID, the same entry");
    assert_eq!(m.request(with_pasid(1, 2)).output, OUT + 0x2000);
    assert_eq!(m.request(with_pasid(1, 4)).fault, reason(FaultReason::SM_PASID_NOT_PRESENT));
    assert_eq!(m.request(with_pasid(1, 1 << 13)).fault, reason(FaultReason::SM_PASID_TOO_LARGE));

    let word0 = ScalableContext0::new().with_present(true).with_directory(directory_of(2) >> 12);
    m.memory.put(m.context_at(2), &[word0.into(), ScalableContext1::new().with_rid_pasid(1 << 13).into()]);
    assert_eq!(m.request(with_pasid(2, 2)).fault, reason(FaultReason::SM_PASID_DISABLED));
    assert_eq!(m.ask(2, IOVA).fault, reason(FaultReason::SM_RID_PASID_INVALID));
    let registers = identity(|cap, ecap| (cap, ecap.with_rid_pasid(false)));
    let mut m = Machine::with(&registers, false, 0);
    let tables = mapped(&mut m);
    m.device(1, first(1, &tables));
    m.memory.put(m.context_at(1) + 8, &[ScalableContext1::new().with_rid_pasid(3).into()]);
    assert_eq!(m.ask(1, IOVA).output, OUT, "without ECAP.RPS it is PASID 0");
}

#[test]
fn devices_16_to_31_are_in_the_upper_table() {
    let mut m = Machine::new();
    let tables = mapped(&mut m);
    m.device(0x85, first(1, &tables));
    assert_eq!(m.context_at(0x85), CONTEXTS + 0x1000 + 5 * 32);
    assert_eq!(m.ask(0x85, IOVA).output, OUT);
    m.memory.put(ROOT + 16, &[0, RootEntry::new().with_present(true).with_context_table(CONTEXTS >> 12).into()]);
    m.device(0x5, first(2, &tables));
    assert_eq!(m.ask(0x185, IOVA).output, OUT, "bus 1 has its own root entry");
    assert_eq!(m.ask(0x105, IOVA).fault, reason(FaultReason::SM_ROOT_NOT_PRESENT));
    assert_eq!(m.ask(0x1_0005, IOVA).fault, reason(FaultReason::SM_ROOT_NOT_PRESENT), "no such source-id");
}

/// Devices 0 to 15 in domains 0 to 15, each with an entry in both caches; then their tables vanish.
fn sixteen() -> Machine {
    let mut m = Machine::new();
    let tables = mapped(&mut m);
    for stream in 0..16u32 {
        m.device(stream, first(stream as u16, &tables));
        assert_eq!(m.ask(stream, IOVA).status, Status::OK);
    }
    m
}

fn refused(m: &mut Machine) -> Vec<u32> {
    (0..16).filter(|&stream| m.ask(stream, IOVA).status == Status::FAULT).collect()
}

#[test]
fn a_context_entry_stays_until_it_is_named() {
    let command = ContextCacheInv::new().with_granularity(3).with_domain_id(0x99);
    let all: Vec<u32> = (0..16).collect();
    for (command, gone) in [
        (command.with_source_id(5), vec![5]),
        (command.with_source_id(5).with_function_mask(1), vec![1, 5]),
        (command.with_source_id(5).with_function_mask(2), vec![1, 3, 5, 7]),
        (command.with_source_id(13).with_function_mask(3), (8..16).collect()),
        (command.with_source_id(0x105), vec![]),
        (command.with_granularity(1), all.clone()),
        (command.with_granularity(2), all),
    ] {
        let mut m = sixteen();
        for stream in 0..16 {
            m.memory.put(m.context_at(stream), &[0; 4]);
        }
        assert!(refused(&mut m).is_empty());
        m.invalidate(command.words());
        assert_eq!(refused(&mut m), gone, "{command:?}");
    }
}

#[test]
fn a_pasid_entry_stays_until_it_is_named() {
    let command = PasidCacheInv::new().with_domain_id(5);
    for (command, gone) in [
        (command, vec![5]),
        (command.with_granularity(1), vec![5]),
        (command.with_granularity(1).with_pasid(1), vec![]),
        (command.with_granularity(3), (0..16).collect()),
    ] {
        let mut m = sixteen();
        for stream in 0..16 {
            m.put_pasid(stream, 0, [0; 3]);
        }
        m.invalidate(ContextCacheInv::new().with_granularity(1).words());
        assert!(refused(&mut m).is_empty(), "a context-cache invalidation is not one of the PASID cache");
        m.invalidate(command.words());
        assert_eq!(refused(&mut m), gone, "{command:?}");
    }
}

#[test]
fn a_legacy_entry_goes_by_device_and_domain() {
    let command = ContextCacheInv::new().with_granularity(3).with_source_id(5);
    for (command, gone) in [
        (command.with_domain_id(5), vec![5]),
        (command.with_domain_id(6), vec![]),
        (command.with_domain_id(5).with_function_mask(3), vec![5]),
        (command.with_granularity(2).with_domain_id(7), vec![7]),
        (command.with_granularity(1), (0..16).collect()),
    ] {
        let mut m = Machine::legacy(&[], false);
        let mut tables = m.second_stage(4);
        tables.map(&m.memory, IOVA, OUT, 1, SS_RW);
        for stream in 0..16u32 {
            m.memory.put(m.context_at(stream), &legacy_entry(stream as u16, 0, &tables));
            m.ask(stream, IOVA);
            m.memory.put(m.context_at(stream), &[0, 0]);
        }
        m.invalidate(command.words());
        assert_eq!(refused(&mut m), gone, "{command:?}");
    }
}

#[test]
fn setting_the_root_table_forgets_only_where_cap_says_so() {
    for esrtps in [true, false] {
        let registers = identity(|cap, ecap| (cap.with_set_root_table_invalidates(esrtps), ecap));
        let mut m = Machine::with(&registers, false, 0);
        let tables = mapped(&mut m);
        m.device(1, first(1, &tables));
        m.ask(1, IOVA);
        m.memory.put(ROOT, &[0, 0]);
        m.set_root(TableMode::SCALABLE);
        assert_eq!(m.ask(1, IOVA).status == Status::FAULT, esrtps);
    }
}

#[test]
fn table_modes() {
    let mut m = Machine::new();
    m.set_root(TableMode::ABORT);
    assert_eq!(m.ask(1, IOVA).status, Status::ABORT);
    m.set_root(TableMode::RESERVED);
    assert_eq!(m.ask(1, IOVA).fault, reason(FaultReason::SM_TTM_INVALID));
    let registers = identity(|cap, ecap| (cap, ecap.with_abort_mode(false).with_scalable_mode(false)));
    let mut m = Machine::legacy(&registers, false);
    for mode in [TableMode::ABORT, TableMode::SCALABLE] {
        m.set_root(mode);
        assert_eq!(m.ask(1, IOVA).fault, reason(FaultReason::SM_TTM_INVALID));
    }
    m.command(intel_vtd::spec::registers::Global::new());
    let answer = m.ask(1, IOVA);
    assert_eq!((answer.status, answer.output), (Status::DISABLED, IOVA));
}

/// FPD on any structure from the context entry on: the device is refused, software is not told.
#[test]
fn fault_disable_is_silence() {
    type Silence = fn(&Machine);
    let silences: [(Silence, bool); 4] = [
        (|_| {}, true),
        (|m| m.memory.put(m.context_at(1), &[m.memory.get(m.context_at(1)) | 2]), false),
        (
            |m| m.memory.put(directory_of(1), &[u64::from(DirectoryEntry::from(m.memory.get(directory_of(1)))) | 2]),
            false,
        ),
        (
            |m| {
                let word0 = PasidEntry0::from(m.memory.get(pasid_at(1, 0)));
                m.memory.put(pasid_at(1, 0), &[word0.with_fault_disable(true).into()]);
            },
            false,
        ),
    ];
    for (silence, told) in silences {
        for present in [true, false] {
            let mut m = Machine::new();
            let tables = mapped(&mut m);
            m.device(1, first(1, &tables));
            silence(&m);
            if !present {
                m.memory.put(pasid_at(1, 0), &[m.memory.get(pasid_at(1, 0)) & !1]);
            }
            assert_eq!(m.ask(1, IOVA + 0x1000).status, Status::FAULT);
            assert_eq!(m.read(intel_vtd::spec::registers::offset::FSTS) != 0, told);
        }
    }
}
