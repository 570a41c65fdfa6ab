//! The register frame, as a guest uses and abuses it.

mod command_buffer;
mod device_table;
mod event_log;
mod saved;

use amd_vi::frontend::AmdFrontend;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, Message, Mode, Register};

/// IommuEn, EventLogEn, EventIntEn, ComWaitIntEn, CmdBufEn.
const ON: u64 = 1 | 4 | 8 | 16 | 1 << 12;

fn frontend() -> AmdFrontend {
    AmdFrontend::new(&[]).unwrap()
}

/// With a command buffer of 256 entries and an event log of 256, on.
fn running() -> AmdFrontend {
    let mut iommu = frontend();
    iommu.write(offset::COMMAND_BASE, 8, 0x0800_0000_0010_0000);
    iommu.write(offset::EVENT_BASE, 8, 0x0800_0000_0020_0000);
    iommu.write(offset::CONTROL, 8, ON);
    iommu
}

#[test]
fn linux_brings_it_up_in_halves() {
    let mut iommu = frontend();
    assert_eq!(iommu.mode(), Mode::BYPASS);
    for (at, value) in [
        (0x0000, 0x0126_0007),
        (0x0004, 0),
        (0x0008, 0x0124_8000),
        (0x000c, 0x0900_0000),
        (0x2000, 0),
        (0x2008, 0),
        (0x0010, 0x01e5_6000),
        (0x0014, 0x0900_0000),
    ] {
        iommu.write(at, 4, value);
        assert_eq!(iommu.read(at, 4), value, "{at:#x}");
    }
    assert_eq!(iommu.read(offset::COMMAND_BASE, 8), 0x0900_0000_0124_8000);
    assert_eq!(iommu.write(offset::CONTROL, 8, 0x1482).actions, Actions(0), "not on yet");
    assert_eq!(
        iommu.write(offset::CONTROL, 8, 0x4_0000_0003_1483).actions,
        Actions(Actions::KICK | Actions::RECONFIGURE)
    );
    assert_eq!(iommu.write(offset::CONTROL, 8, 0xc_0000_0003_048f | 0x1000).actions, Actions(0));
    assert_eq!((iommu.mode(), iommu.read(offset::STATUS, 4)), (Mode::TRANSLATE, 0x18), "both rings run");
    assert_eq!(iommu.write(offset::CONTROL, 8, 0).actions, Actions(Actions::RECONFIGURE));
    assert_eq!((iommu.mode(), iommu.read(offset::STATUS, 8)), (Mode::BYPASS, 0));
}

#[test]
fn id_registers_and_unknown_places_cannot_be_written() {
    let registers = [
        Register { offset: offset::EFR, value: 0x29d7 },
        Register { offset: offset::EFR2, value: 0 },
        Register { offset: 0x1_0000_0000, value: 0x0c0b_000f },
    ];
    let mut iommu = AmdFrontend::new(&registers).unwrap();
    for at in [offset::EFR, offset::EFR2, 0x190, 0x2028, 0x3ff8, 0x1_0000_0000] {
        iommu.write(at, 8, u64::MAX);
    }
    assert_eq!((iommu.read(offset::EFR, 8), iommu.read(offset::EFR + 4, 4)), (0x29d7, 0));
    assert_eq!([offset::EFR2, 0x190, 0x2028, 0x3ff8].map(|at| iommu.read(at, 8)), [0; 4]);
    assert_eq!(iommu.read(0x1_0000_0000, 4), 0x0c0b_000f);
    for (at, size) in [(0x18, 2), (0x18, 16), (0x1a, 4), (0x1c, 8)] {
        iommu.write(at, size, u64::MAX);
        assert_eq!((iommu.read(at, size), iommu.read(offset::CONTROL, 8)), (0, 0), "{at:#x} {size}");
    }
}

#[test]
fn what_means_nothing_here_keeps_its_value() {
    let mut iommu = frontend();
    for at in [0x20, 0x28, 0x38, 0xe0, 0xe8, 0x160, 0x170, 0x178, 0x180, 0x2030, 0x2038, 0x2040, 0x2048] {
        iommu.write(at, 8, at << 32 | 0x5a50);
        assert_eq!(iommu.read(at, 8), at << 32 | 0x5a50, "{at:#x}");
    }
    iommu.write(0x15c, 4, 0xfee0_0000);
    assert_eq!((iommu.read(0x15c, 4), iommu.read(0x160, 4)), (0xfee0_0000, 0x5a50));
    iommu.reset();
    assert_eq!((0..0x4000).step_by(4).filter(|at| iommu.read(*at, 4) != 0).count(), 3, "EFR and EFR2 are left");
}

#[test]
fn a_guest_that_asks_for_what_it_was_not_offered_is_named() {
    let mut iommu = frontend();
    for (bits, names) in [(0, ""), (1 << 53, "vIOMMU"), (1 << 60, "vIOMMU"), (1 << 34, "segments"), (3 << 32, "logs")] {
        iommu.write(offset::CONTROL, 8, ON | bits);
        let mut text = Message::default();
        iommu.trouble(&mut text);
        assert_eq!(text.text().is_empty(), names.is_empty());
        assert!(text.text().contains(names), "{}", text.text());
    }
}
