//! The register frame, as a guest uses and abuses it.

mod command_queue;
mod event_queue;
mod saved;
mod stream_table;

use arm_smmuv3::features::Features;
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, Mode, Register};

fn frontend() -> ArmFrontend {
    ArmFrontend::new(&[]).unwrap()
}

/// A frontend that shows IDR0.MSI.
fn with_msi() -> ArmFrontend {
    let idr0 = Features::default().idr0.with_msi(true).into_bits();
    ArmFrontend::new(&[Register { offset: offset::IDR0, value: idr0.into() }]).unwrap()
}

fn write(frontend: &mut ArmFrontend, at: u64, value: u64) -> u32 {
    frontend.write(at, 4, value).actions.0
}

#[test]
fn linux_brings_it_up() {
    let mut smmu = frontend();
    assert_eq!(smmu.mode(), Mode::BYPASS);
    for (at, size, value) in [
        (offset::CR0, 4, 0),
        (offset::CR1, 4, 0xd75),
        (offset::CR2, 4, 6),
        (offset::STRTAB_BASE, 8, 0x4000_0000_4451_0000),
        (offset::STRTAB_BASE_CFG, 4, 0x1_0210),
        (offset::CMDQ_BASE, 8, 0x4000_0000_5bf0_0010),
        (offset::CMDQ_PROD, 4, 0),
        (offset::CMDQ_CONS, 4, 0),
    ] {
        smmu.write(at, size, value);
        assert_eq!(smmu.read(at, size), value, "{:?}", smmu.register_name(at));
    }
    assert_eq!(write(&mut smmu, offset::CR0, 8), Actions::KICK);
    assert_eq!(smmu.read(offset::CR0ACK, 4), 8);
    smmu.write(offset::EVENTQ_BASE, 8, 0x4000_0000_5c00_000f);
    assert_eq!(write(&mut smmu, offset::CR0, 0xc), 0);
    write(&mut smmu, offset::IRQ_CTRL, 5);
    assert_eq!(smmu.read(offset::IRQ_CTRLACK, 4), 5);
    assert_eq!(smmu.mode(), Mode::BYPASS);
    assert_eq!(write(&mut smmu, offset::CR0, 0xd), Actions::RECONFIGURE);
    assert_eq!((smmu.mode(), smmu.read(offset::CR0ACK, 4)), (Mode::TRANSLATE, 0xd));
}

#[test]
fn gbpa_takes_a_value_only_with_update() {
    let mut smmu = frontend();
    assert_eq!(write(&mut smmu, offset::GBPA, 1 << 20), 0);
    assert_eq!(smmu.mode(), Mode::BYPASS);
    assert_eq!(write(&mut smmu, offset::GBPA, 1 << 20 | 1 << 31), Actions::RECONFIGURE);
    assert_eq!((smmu.mode(), smmu.read(offset::GBPA, 4)), (Mode::ABORT, 1 << 20));
}

#[test]
fn registers_of_64_bits_take_halves() {
    let (mut halves, mut whole) = (frontend(), frontend());
    for at in [
        offset::STRTAB_BASE,
        offset::CMDQ_BASE,
        offset::EVENTQ_BASE,
        offset::PRIQ_BASE,
        offset::GERROR_IRQ_CFG0,
        offset::EVENTQ_IRQ_CFG0,
    ] {
        let value = 0x4000_0012_3456_0010 | at;
        write(&mut halves, at + 4, value >> 32);
        write(&mut halves, at, value & 0xffff_ffff);
        whole.write(at, 8, value);
        assert_eq!((halves.read(at, 8), whole.read(at, 8)), (value, value), "{:?}", whole.register_name(at));
        assert_eq!(whole.read(at + 4, 4), value >> 32);
    }
}

#[test]
fn id_registers_do_not_change_and_unknown_ones_read_zero() {
    let mut smmu = frontend();
    for register in Features::default().registers() {
        write(&mut smmu, register.offset, 0xffff_ffff);
        assert_eq!(smmu.read(register.offset, 4), register.value);
    }
    for at in [0x30, 0xa8, 0xac, 0xdfc, 0x1_0000, 0x1_ffff_ffff, u64::MAX - 3, u64::MAX] {
        for size in [0, 1, 2, 4, 8, 16, u32::MAX] {
            smmu.write(at, size, u64::MAX);
            assert_eq!(smmu.read(at, size), 0, "{at:#x} size {size}");
        }
    }
    assert_eq!(smmu.read(offset::IDR0 + 2, 4), 0, "misaligned");
    let pair = smmu.read(offset::IDR0, 8);
    assert_eq!(pair, smmu.read(offset::IDR0, 4) | smmu.read(offset::IDR1, 4) << 32);
}

#[test]
fn reset_keeps_the_id_registers_and_nothing_else() {
    let mut smmu = with_msi();
    let shown = smmu.read(offset::IDR0, 4);
    for at in (0..0x200).step_by(4).chain((0x1_0000..0x1_0200).step_by(4)) {
        write(&mut smmu, at, 0x8765_4321);
    }
    smmu.reset();
    let fresh = with_msi();
    for at in (0..0x200).step_by(4).chain((0x1_0000..0x1_0200).step_by(4)) {
        assert_eq!(smmu.read(at, 4), fresh.read(at, 4), "{at:#x}");
    }
    assert_eq!((smmu.read(offset::IDR0, 4), smmu.mode()), (shown, Mode::BYPASS));
}
