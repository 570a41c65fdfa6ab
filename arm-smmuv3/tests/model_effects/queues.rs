//! Command queue errors and completion, event records and overflow.

use crate::machine::*;
use arm_smmuv3::spec::commands::{Opcode, Sync, Tlbi};
use arm_smmuv3::spec::registers::{Idr0, offset};
use viommu_plugin::{Model, Register};

const ILL: u32 = 1 << 24;
const ABT: u32 = 2 << 24;
const ATC_INV_SYNC: u32 = 3 << 24;

/// Acknowledges every active error.
fn acknowledge(m: &mut Machine) {
    let gerror = m.read(offset::GERROR);
    m.write(offset::GERRORN, 4, gerror.into());
}

#[test]
fn a_doorbell_only_records_and_step_has_a_budget() {
    let mut m = Machine::new();
    for _ in 0..5 {
        m.post(sync());
    }
    assert_eq!(m.read(offset::CMDQ_CONS), 0);
    assert_eq!(m.smmu.step(2), 2);
    assert_eq!(m.read(offset::CMDQ_CONS), 2);
    assert_eq!(m.smmu.step(0), 0);
    assert_eq!(m.smmu.step(100), 3);
    assert_eq!(m.smmu.step(100), 0);
}

#[test]
fn the_ring_wraps() {
    let mut m = Machine::new();
    for _ in 0..3 << QUEUE_LOG2 {
        m.command(sync());
    }
    for _ in 0..1 << QUEUE_LOG2 {
        m.post(sync());
    }
    assert_eq!(m.smmu.step(100), 1 << QUEUE_LOG2, "a full ring is not an empty one");
}

#[test]
fn a_disabled_queue_stands_still() {
    let mut m = Machine::new();
    m.write(offset::CR0, 4, 0);
    m.post(sync());
    assert_eq!(m.smmu.step(10), 0);
    m.write(offset::CR0, 4, 8);
    assert_eq!(m.smmu.step(10), 1);
}

#[test]
fn an_illegal_command_stops_the_queue_until_acknowledged() {
    let mut m = Machine::new();
    m.post(sync());
    m.post([0xff, 0]);
    m.post(sync());
    assert_eq!(m.smmu.step(10), 1);
    assert_eq!(m.read(offset::CMDQ_CONS), ILL | 1);
    assert_eq!((m.read(offset::GERROR), m.memory.irqs()), (1, vec![3]));
    assert_eq!(m.smmu.step(10), 0);
    // Linux: replace the offender by a SYNC, then acknowledge.
    m.memory.put(COMMANDS + 16, &sync());
    m.write(offset::GERRORN, 4, 1);
    assert_eq!(m.read(offset::CMDQ_CONS), ILL | 1, "only step moves CONS");
    assert_eq!(m.smmu.step(10), 2);
    assert_eq!(m.read(offset::CMDQ_CONS), 3);
    // The second error toggles GERROR back to 0, which is active against GERRORN 1.
    m.post([0xff, 0]);
    m.smmu.step(10);
    assert_eq!((m.read(offset::GERROR), m.read(offset::CMDQ_CONS)), (0, ILL | 3));
    acknowledge(&mut m);
    assert_eq!((m.smmu.step(10), m.read(offset::CMDQ_CONS)), (0, ILL | 3), "still illegal");
}

#[test]
fn what_is_illegal() {
    let command = |opcode: Opcode| [u64::from(opcode.0), 0];
    let idr0 = |idr0: Idr0| Register { offset: offset::IDR0, value: u32::from(idr0).into() };
    let stage1 = idr0(Idr0::new().with_s1p(true).with_ttf(2).with_stall_model(1));
    let stage2 = idr0(Idr0::new().with_s2p(true).with_ttf(2).with_stall_model(0).with_pri(true).with_hyp(true));
    for (register, words, legal) in [
        (stage1, command(Opcode::TLBI_NH_ALL), true),
        (stage1, command(Opcode::TLBI_NSNH_ALL), true),
        (stage1, command(Opcode::TLBI_S2_IPA), false),
        (stage1, command(Opcode::TLBI_S12_VMALL), false),
        (stage1, command(Opcode::TLBI_EL2_ALL), false),
        (stage1, command(Opcode::TLBI_EL3_ALL), false),
        (stage1, command(Opcode::ATC_INV), false),
        (stage1, command(Opcode::PRI_RESP), false),
        (stage1, command(Opcode::RESUME), false),
        (stage1, command(Opcode::STALL_TERM), false),
        (stage1, command(Opcode::PREFETCH_CONFIG), true),
        (stage1, command(Opcode::PREFETCH_ADDR), true),
        (stage1, command(Opcode::CFGI_VMS_PIDM), false),
        (stage1, [0, 0], false),
        (stage1, [u64::from(Opcode::CFGI_STE.0) | 1 << 10, 0], false),
        (stage1, [u64::from(Opcode::SYNC.0) | 3 << 12, 0], false),
        (stage1, [u64::from(Opcode::SYNC.0) | 2 << 12, 0], true),
        (stage2, command(Opcode::TLBI_NH_VA), false),
        (stage2, command(Opcode::TLBI_S2_IPA), true),
        (stage2, command(Opcode::TLBI_EL2_VA), true),
        (stage2, command(Opcode::PRI_RESP), true),
        (stage2, command(Opcode::RESUME), true),
    ] {
        let mut m = Machine::with(&[register], false, 0);
        m.post(words);
        assert_eq!(m.smmu.step(1) == 1, legal, "{words:x?}");
        assert_eq!(m.read(offset::GERROR), u32::from(!legal), "{words:x?}");
    }
}

#[test]
fn a_queue_outside_memory_aborts_the_fetch() {
    let mut m = Machine::off(&[], false, 0);
    m.write(offset::CMDQ_BASE, 8, MEMORY_END | 4);
    m.write(offset::CR0, 4, 8);
    m.write(offset::CMDQ_PROD, 4, 3);
    assert_eq!(m.smmu.step(10), 0);
    assert_eq!((m.read(offset::CMDQ_CONS), m.read(offset::GERROR)), (ABT, 1));
}

#[test]
fn sync_signals_as_asked() {
    let sync = Sync::new().with_opcode(Opcode::SYNC.0);
    let mut m = Machine::new();
    m.memory.put(0x9000, &[0x1111_1111_2222_2222]);
    m.command(sync.with_cs(1).with_msi_address(0x9004 >> 2).with_msi_data(0xabcd).words());
    assert_eq!(m.memory.get(0x9000), 0x0000_abcd_2222_2222);
    assert!(m.memory.irqs().is_empty());
    m.command(sync.with_cs(1).words());
    assert_eq!(m.memory.irqs(), [2], "without an address: the wired line");
    m.command(sync.with_cs(2).words());
    m.command(sync.words());
    assert_eq!(m.memory.irqs(), [2]);
    m.command(sync.with_cs(1).with_msi_address(MEMORY_END >> 2).words());
    assert_eq!(m.read(offset::GERROR), 1 << 4, "MSI_CMDQ_ABT_ERR; the queue goes on");
    m.command(sync.words());
}

#[test]
fn an_unanswered_atc_invalidation_fails_the_next_sync() {
    let mut m = Machine::new();
    let atc_inv = |stream: u64| [stream << 32 | u64::from(Opcode::ATC_INV.0), 52];
    m.smmu.atc_unresponsive(5, true);
    m.post(atc_inv(4));
    m.post(sync());
    m.post(atc_inv(5));
    m.post(Tlbi::new().with_opcode(Opcode::TLBI_NSNH_ALL.0).words());
    m.post(sync());
    m.post(sync());
    assert_eq!(m.smmu.step(10), 4);
    assert_eq!((m.read(offset::CMDQ_CONS), m.read(offset::GERROR)), (ATC_INV_SYNC | 4, 1));
    acknowledge(&mut m);
    assert_eq!((m.smmu.step(10), m.read(offset::CMDQ_CONS)), (2, 6));
    m.smmu.atc_unresponsive(5, false);
    m.command(atc_inv(5));
    m.command(sync());
}

#[test]
fn an_event_says_what_happened() {
    let mut m = Machine::new();
    let tables = m.tables(12, 0, 48);
    m.put_cd(0x50_0000, 1, &tables);
    m.ste_stage1(6, 0, 0x50_0000);
    m.access(6, 0x1234_5678, 2);
    assert_eq!(m.event(0), [6 << 32 | 0x10, 2 << 40, 0x1234_5678, 0]);
    m.access(6, 0x1234_5678, 1);
    assert_eq!(m.event(1), [6 << 32 | 0x10, 2 << 40 | 1 << 35, 0x1234_5678, 0]);
    assert_eq!((m.read(offset::EVENTQ_PROD), m.memory.irqs()), (2, vec![0]), "one pulse: not empty");
    m.write(offset::EVENTQ_CONS, 4, 2);
    m.ask(6, 0);
    assert_eq!(m.memory.irqs(), [0, 0]);
    // CD.R = 0: faults are not recorded.
    m.memory.put(0x50_0000, &[cd_word(1, &tables).with_r(false).into()]);
    m.command(cfgi_ste(6));
    assert_eq!(m.ask(6, 0).fault, 0x10);
    assert_eq!(m.read(offset::EVENTQ_PROD), 3);
}

#[test]
fn an_event_may_be_told_by_message() {
    let mut m = Machine::new();
    m.write(offset::IRQ_CTRL, 4, 0);
    m.write(offset::EVENTQ_IRQ_CFG0, 8, 0x9000);
    m.write(offset::EVENTQ_IRQ_CFG1, 4, 77);
    m.write(offset::IRQ_CTRL, 4, 7);
    m.write(offset::EVENTQ_IRQ_CFG1, 4, 78);
    m.ask(6, 0);
    assert_eq!(m.memory.get(0x9000), 77, "and cannot be redirected while it is enabled");
    assert!(m.memory.irqs().is_empty());
}

#[test]
fn a_full_event_queue_loses_and_says_so_once() {
    let mut m = Machine::new();
    let size = 1 << QUEUE_LOG2;
    for n in 0..size + 3 {
        m.ask(100 + n, 0);
    }
    assert_eq!(m.read(offset::EVENTQ_PROD), 1 << 31 | size, "OVFLG, and PROD at full");
    assert_eq!(m.event(0)[0] >> 32, 100, "the oldest are kept");
    m.write(offset::EVENTQ_CONS, 4, 1);
    m.ask(7, 0);
    assert_eq!(m.read(offset::EVENTQ_PROD), 1 << 31 | (size + 1), "there is room again");
    m.write(offset::EVENTQ_CONS, 4, 1 << 31 | 2);
    m.ask(8, 0);
    m.ask(9, 0);
    assert_eq!(m.read(offset::EVENTQ_PROD), size + 2, "the second overflow toggles back");
    assert_eq!(m.read(offset::GERROR), 0);
}

#[test]
fn an_event_queue_outside_memory_is_a_global_error() {
    let mut m = Machine::off(&[], false, 0);
    m.write(offset::STRTAB_BASE, 8, STREAM_TABLE);
    m.write(offset::EVENTQ_BASE, 8, MEMORY_END | 4);
    m.write(offset::IRQ_CTRL, 4, 7);
    m.write(offset::CR0, 4, 0b101);
    m.ask(0, 0);
    m.ask(0, 0);
    assert_eq!((m.read(offset::GERROR), m.read(offset::EVENTQ_PROD)), (1 << 2, 0));
    assert_eq!(m.memory.irqs(), [3], "active already: no second interrupt");
}
