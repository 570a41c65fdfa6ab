//! The register frame.

use crate::machine::*;
use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::registers::{FRAME_BYTES, Idr0, offset};
use viommu_plugin::{Model, ModelConfig, Refusal, Register, Status};

#[test]
fn id_registers_are_what_was_asked_for_and_read_only() {
    let mut m = Machine::with(&[Register { offset: offset::IDR5, value: 0x74 }], false, 0);
    assert_eq!(m.read(offset::IDR5), 0x74);
    let own = m.read(offset::IDR1);
    assert_eq!((own & 0x3f, own >> 21 & 0x1f, own >> 16 & 0x1f), (24, 19, 19), "SIDSIZE, CMDQS, EVENTQS");
    m.write(offset::IDR5, 4, 0);
    m.write(offset::IDR0, 8, 0);
    assert_eq!(m.read(offset::IDR5), 0x74);
    assert_eq!(m.smmu.mmio_read(offset::IDR0, 8) >> 32, own.into());
}

#[test]
fn impossible_hardware_is_refused() {
    for idr0 in [Idr0::new().with_s1p(true), Idr0::new().with_ttf(2)] {
        let registers = [Register { offset: offset::IDR0, value: u32::from(idr0).into() }];
        let config = ModelConfig { registers: &registers, ..ModelConfig::default() };
        let refusal = Smmu::new(Box::new(Memory::new(MEMORY_END)), config).err().unwrap();
        assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
        assert!(refusal.text.contains("IDR0"), "{refusal}");
    }
}

#[test]
fn enables_are_acknowledged_and_guard_their_registers() {
    let mut m = Machine::new();
    assert_eq!((m.read(offset::CR0ACK), m.read(offset::IRQ_CTRLACK)), (0b1101, 7));
    for at in [offset::STRTAB_BASE, offset::CMDQ_BASE, offset::EVENTQ_BASE, offset::GERROR_IRQ_CFG0] {
        let before = m.smmu.mmio_read(at, 8);
        m.write(at, 8, 0x5555_0000);
        m.write(at + 4, 4, 0x55);
        assert_eq!(m.smmu.mmio_read(at, 8), before, "{at:#x}");
    }
    for at in [offset::STRTAB_BASE_CFG, offset::CR2, offset::CMDQ_CONS, offset::EVENTQ_PROD, offset::GERROR] {
        let before = m.read(at);
        m.write(at, 4, 0x7);
        assert_eq!(m.read(at), before, "{at:#x}");
    }
    m.write(offset::CR0, 4, 0);
    m.write(offset::CMDQ_BASE, 4, 0x1000);
    m.write(offset::CMDQ_BASE + 4, 4, 0x4);
    assert_eq!(m.smmu.mmio_read(offset::CMDQ_BASE, 8), 0x4_0000_1000, "halves make a whole");
}

#[test]
fn an_inactive_error_cannot_be_acknowledged() {
    let mut m = Machine::new();
    m.write(offset::GERRORN, 4, 0x5);
    assert_eq!(m.read(offset::GERRORN), 0);
    m.post([0xff, 0]);
    m.smmu.step(1);
    m.write(offset::GERRORN, 4, 0x5);
    assert_eq!(m.read(offset::GERRORN), 1);
}

#[test]
fn event_queue_indexes_are_in_page_1() {
    let mut m = Machine::new();
    m.write(offset::EVENTQ_CONS, 4, 0x8000_0003);
    assert_eq!(m.read(offset::EVENTQ_CONS), 0x8000_0003);
    assert_eq!(m.smmu.mmio_read(offset::EVENTQ_PROD, 8), 0x8000_0003_0000_0000);
}

#[test]
fn odd_accesses_do_nothing() {
    let mut m = Machine::new();
    for at in [0, 1, 0x98, 0x9e, 0xfc, 0x100, 0x1_00a8, FRAME_BYTES - 4, FRAME_BYTES, u64::MAX - 7, u64::MAX] {
        for size in [0, 1, 2, 3, 16] {
            m.write(at, size, u64::MAX);
            assert_eq!(m.smmu.mmio_read(at, size), 0);
        }
        for size in [4, 8] {
            m.smmu.mmio_read(at, size);
            if at % 4 != 0 || at >= 0x100 && at != 0x1_00a8 {
                m.write(at, size, u64::MAX);
                assert_eq!(m.smmu.mmio_read(at, size), 0, "{at:#x} {size}");
            }
        }
    }
    assert_eq!(m.read(offset::CMDQ_PROD), 0);
}

#[test]
fn reset_is_power_on() {
    let mut m = Machine::new();
    m.put_ste(1, [9, 0, 0, 0]);
    assert_eq!(m.ask(1, 5).status, Status::BYPASS);
    m.put_ste(1, [1, 0, 0, 0]);
    m.command(sync());
    m.smmu.reset();
    assert_eq!(m.ask(1, 5).status, Status::DISABLED);
    assert_eq!((m.read(offset::CMDQ_CONS), m.read(offset::CR0), m.read(offset::GERROR)), (0, 0, 0));
    m.enable();
    assert_eq!(m.ask(1, 5).status, Status::ABORT, "no entry survives");
}
