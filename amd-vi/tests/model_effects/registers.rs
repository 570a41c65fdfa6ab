//! The register frame as software finds it.

use crate::machine::{Machine, wait};
use amd_vi::spec::registers::{Control, Efr, FRAME_BYTES, Status, offset};
use viommu_plugin::{Model, Register};

#[test]
fn bases_may_come_in_halves() {
    let mut machine = Machine::new();
    for base in [offset::DEVICE_TABLE_BASE, offset::COMMAND_BASE, offset::EVENT_BASE, offset::PPR_BASE] {
        machine.iommu.mmio_write(base, 4, 0x0124_8000);
        machine.iommu.mmio_write(base + 4, 4, 0x0900_0001);
        let expected = if base == offset::DEVICE_TABLE_BASE { 0x1_0124_8000 } else { 0x0900_0001_0124_8000 };
        assert_eq!(machine.read(base), expected);
        assert_eq!(machine.iommu.mmio_read(base, 4), 0x0124_8000);
        assert_eq!(machine.iommu.mmio_read(base + 4, 4), expected >> 32);
    }
}

#[test]
fn a_new_base_starts_empty() {
    let mut machine = Machine::new();
    machine.submit(&[wait(), wait()]);
    assert_eq!(machine.read(offset::COMMAND_HEAD), 32);
    machine.iommu.mmio_write(offset::COMMAND_BASE, 4, 0x40_0000);
    assert_eq!((machine.read(offset::COMMAND_HEAD), machine.read(offset::COMMAND_TAIL)), (0, 0));
}

#[test]
fn features_are_read_only_and_as_configured() {
    let efr = Efr::new().with_ia_sup(true).with_hats(1);
    let registers = [Register { offset: offset::EFR, value: efr.into() }];
    let mut machine = Machine::with(&registers, false, 0);
    machine.write(offset::EFR, u64::MAX);
    machine.write(offset::EFR2, u64::MAX);
    assert_eq!((machine.read(offset::EFR), machine.read(offset::EFR2)), (efr.into(), 8));
    // GTEn, GCR3TRPMode and the hardware vIOMMU's bits do not stick: there is no such feature.
    machine.write(offset::CONTROL, u64::MAX);
    let control = Control::from(machine.read(offset::CONTROL));
    assert!(control.iommu_en() && control.snp_avic_en() == 7 && control.int_cap_xt_en());
    assert!(!control.gt_en() && !control.gcr3_trp_mode() && !control.gst_buffer_trp_mode() && !control.viommu_en());
}

#[test]
fn status_is_cleared_by_ones_and_runs_by_itself() {
    let mut machine = Machine::new();
    let running = Status::new().with_cmd_buf_run(true).with_event_log_run(true);
    machine.write(offset::STATUS, u64::MAX);
    assert_eq!(machine.read(offset::STATUS), running.into());
    assert_eq!(machine.iommu.mmio_read(offset::STATUS, 4), 0x18, "as recorded");
    machine.write(offset::CONTROL, 0);
    assert_eq!(machine.read(offset::STATUS), 0);
}

#[test]
fn what_the_iommu_moves_is_its_own_while_it_runs() {
    let mut machine = Machine::new();
    machine.submit(&[wait()]);
    machine.write(offset::COMMAND_HEAD, 0x40);
    machine.write(offset::EVENT_TAIL, 0x40);
    assert_eq!((machine.read(offset::COMMAND_HEAD), machine.read(offset::EVENT_TAIL)), (16, 0));
    machine.write(offset::CONTROL, 0);
    machine.write(offset::COMMAND_HEAD, u64::MAX);
    machine.write(offset::EVENT_TAIL, 0x40);
    assert_eq!((machine.read(offset::COMMAND_HEAD), machine.read(offset::EVENT_TAIL)), (0x7_fff0, 0x40));
}

#[test]
fn ppr_and_message_registers_are_there() {
    let mut machine = Machine::new();
    for (at, size, value) in [
        (offset::PPR_HEAD, 4, 0x40),
        (offset::PPR_TAIL, 4, 0x50),
        (offset::MSI_ADDRESS_LOW, 4, 0xfee0_0000),
        (offset::MSI_ADDRESS_HIGH, 4, 7),
        (offset::MSI_DATA, 4, 0x4041),
        (offset::X2APIC_EVENT, 8, 0x20_0000_0404),
    ] {
        machine.iommu.mmio_write(at, size, value);
        assert_eq!(machine.iommu.mmio_read(at, size), value, "{at:#x}");
    }
}

#[test]
fn odd_accesses_do_nothing() {
    let mut machine = Machine::new();
    let before: Vec<u64> = (0..FRAME_BYTES).step_by(8).map(|at| machine.read(at)).collect();
    for (at, size) in [(0, 1), (0, 2), (0, 16), (2, 4), (4, 8), (FRAME_BYTES, 8), (u64::MAX, 4), (0x1000, 8)] {
        machine.iommu.mmio_write(at, size, u64::MAX);
    }
    assert_eq!(
        (machine.iommu.mmio_read(0, 2), machine.iommu.mmio_read(4, 8), machine.iommu.mmio_read(!3, 4)),
        (0, 0, 0)
    );
    let after: Vec<u64> = (0..FRAME_BYTES).step_by(8).map(|at| machine.read(at)).collect();
    assert_eq!(before, after);
}

#[test]
fn reset_is_power_on() {
    let mut machine = Machine::new();
    machine.submit(&[wait()]);
    machine.iommu.reset();
    let features = [offset::EFR, offset::EFR2];
    for at in (0..FRAME_BYTES).step_by(8).filter(|at| !features.contains(at)) {
        assert_eq!(machine.read(at), 0, "{at:#x}");
    }
}
