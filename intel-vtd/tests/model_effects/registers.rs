//! The register frame: widths, halves, read-only bits, command and status.

use crate::machine::*;
use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::registers::{Cap, FRAME_BYTES, Global, TableMode, offset};
use viommu_plugin::{Model, ModelConfig, Refusal, Status};

#[test]
fn the_status_follows_the_command() {
    let mut m = Machine::off(&[], false, 0);
    assert_eq!((m.read(offset::GSTS), m.read(offset::FECTL), m.read(offset::IECTL)), (0, 1 << 31, 1 << 31));
    for (command, status) in [
        (Global::new().with_queued_invalidation(true), 0x0400_0000),
        (Global::new().with_queued_invalidation(true).with_interrupt_table(true), 0x0500_0000),
        (Global::new().with_queued_invalidation(true).with_interrupt_remapping(true), 0x0700_0000),
        (Global::new().with_queued_invalidation(true).with_root_table(true), 0x4500_0000),
        (Global::new().with_translation(true), 0xc100_0000),
        (Global::new().with_fault_log(true).with_advanced_fault_log(true).with_write_buffer_flush(true), 0x4100_0000),
    ] {
        m.command(command);
        assert_eq!(m.read(offset::GSTS), status, "{command:?}");
        assert_eq!(m.read(offset::GCMD), 0, "GCMD reads as zero");
    }
}

#[test]
fn read_only_registers_are() {
    let mut m = Machine::new();
    let all: Vec<u64> = (0..FRAME_BYTES).step_by(4).map(|at| m.unit.mmio_read(at, 4)).collect();
    for at in [offset::VER, offset::CAP, offset::ECAP, offset::GSTS, offset::IQH, offset::IQERCD, offset::PMEN, 0xf00] {
        m.write(at, 4, u64::MAX);
        m.write(at & !7, 8, if at == offset::GSTS { 0xffff_ffff << 32 | 0x8400_0000 } else { u64::MAX });
    }
    let now: Vec<u64> = (0..FRAME_BYTES).step_by(4).map(|at| m.unit.mmio_read(at, 4)).collect();
    assert_eq!(all, now);
}

#[test]
fn registers_of_eight_bytes_may_be_written_in_halves() {
    let (mut whole, mut halves) = (Machine::off(&[], false, 0), Machine::off(&[], false, 0));
    for at in [offset::RTADDR, offset::IQA, offset::IRTA, offset::PQA, 0xf0] {
        let value = 0x1234_5678_9abc_d003;
        whole.write(at, 8, value);
        halves.write(at, 4, value & 0xffff_ffff);
        halves.write(at + 4, 4, value >> 32);
        assert_eq!(whole.unit.mmio_read(at, 8), value);
        assert_eq!(halves.unit.mmio_read(at, 8), value);
        assert_eq!(halves.unit.mmio_read(at + 4, 4), value >> 32);
    }
    for (at, size) in
        [(offset::RTADDR, 1), (offset::RTADDR, 2), (offset::RTADDR + 4, 8), (offset::RTADDR + 2, 4), (u64::MAX - 3, 8)]
    {
        let before = whole.unit.mmio_read(offset::RTADDR, 8);
        whole.write(at, size, 0);
        assert_eq!((whole.unit.mmio_read(at, size), whole.unit.mmio_read(offset::RTADDR, 8)), (0, before));
    }
}

#[test]
fn the_root_table_address_counts_when_it_is_set() {
    let mut m = Machine::new();
    let mut tables = m.first_stage(4);
    tables.map(&m.memory, 0x1000, 0x7000, 1, FS_RW);
    m.device(1, first(1, &tables));
    m.write(offset::RTADDR, 8, 0);
    assert_eq!(m.ask(1, 0x1000).status, Status::OK, "RTADDR is only written");
    let status = m.read(offset::GSTS);
    m.command(Global::from(status));
    assert_eq!(m.ask(1, 0x1000).status, Status::FAULT, "RTPS in the command is SRTP");
}

#[test]
fn a_reset_is_power_on() {
    let (mut fresh, mut used) = (Machine::off(&[], true, 0), Machine::with(&[], true, 0));
    let mut tables = used.first_stage(4);
    tables.map(&used.memory, 0x1000, 0x7000, 1, FS_RW);
    used.device(1, first(1, &tables));
    used.ask(1, 0x1000);
    used.ask(2, 0x1000);
    used.unit.reset();
    for at in (0..FRAME_BYTES).step_by(4) {
        assert_eq!(used.unit.mmio_read(at, 4), fresh.unit.mmio_read(at, 4), "{at:#x}");
    }
    assert_eq!(used.ask(1, 0x1000).status, Status::DISABLED);
    used.enable(TableMode::SCALABLE);
    let answer = used.ask(1, 0x1000);
    assert_eq!((answer.output, answer.flags), (0x7000, 0), "nothing was kept");
}

#[test]
fn a_unit_without_any_stage_is_refused() {
    let none = identity(|cap, ecap| (cap.with_second_stage_levels(0), ecap.with_first_stage(false)));
    let make = |registers: &[_]| {
        RemappingUnit::new(Box::new(Memory::new(MEMORY_END)), ModelConfig { registers, ..ModelConfig::default() }).err()
    };
    assert_eq!(make(&none).map(|refusal| refusal.errno), Some(Refusal::EOPNOTSUPP));
    let only_first = identity(|_, ecap| (Cap::new(), ecap));
    assert!(make(&only_first).is_none());
}
