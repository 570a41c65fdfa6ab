//! The register frame, as a guest uses and abuses it.

mod faults;
mod queue;
mod saved;
mod tables;

use intel_vtd::features::Features;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::spec::registers::{Cap, Ecap, offset};
use viommu_plugin::{Actions, Effects, Frontend, Message, Mode};

const TE: u64 = 1 << 31;
const SRTP: u64 = 1 << 30;
const QIE: u64 = 1 << 26;
const IRE: u64 = 1 << 25;
const SIRTP: u64 = 1 << 24;

const NOTHING: Effects = Effects {
    actions: Actions(0),
    lines: 0,
    store_count: 0,
    msi_count: 0,
    stores: [viommu_plugin::GuestStore { gpa: 0, len: 0, reserved: 0, bytes: [0; viommu_plugin::GuestStore::ROOM] }],
    msis: [viommu_plugin::Msi { address: 0, data: 0, reserved: 0 }; 2],
};

fn frontend() -> VtdFrontend {
    VtdFrontend::new(&[]).unwrap()
}

/// A frontend that shows these.
fn showing(cap: Cap, ecap: Ecap) -> VtdFrontend {
    let features = Features { cap, ecap, ..Features::default() };
    VtdFrontend::new(&features.registers()).unwrap()
}

fn write(frontend: &mut VtdFrontend, at: u64, value: u64) -> u32 {
    frontend.write(at, 4, value).actions.0
}

/// The messages that effects ask for.
fn messages(effects: &Effects) -> Vec<(u64, u32)> {
    effects.msis[..effects.msi_count as usize].iter().map(|msi| (msi.address, msi.data)).collect()
}

fn trouble(frontend: &VtdFrontend) -> String {
    let mut text = Message::default();
    frontend.trouble(&mut text);
    text.text()
}

/// The order of the recorded guests.
#[test]
fn linux_brings_it_up() {
    let features = Features::default();
    let mut unit = showing(features.cap, features.ecap.with_interrupt_remapping(true));
    assert_eq!((unit.mode(), unit.read(offset::FECTL, 4)), (Mode::BYPASS, 1 << 31));
    write(&mut unit, offset::IQT, 0);
    unit.write(offset::IQA, 8, 0x124_8801);
    assert_eq!(write(&mut unit, offset::GCMD, QIE), Actions::KICK);
    assert_eq!(unit.read(offset::GSTS, 4), QIE);
    unit.write(offset::IRTA, 8, 0x130_000f);
    write(&mut unit, offset::GCMD, QIE | SIRTP);
    assert_eq!(unit.read(offset::GSTS, 4), QIE | SIRTP, "a one-shot command stays shown");
    write(&mut unit, offset::GCMD, QIE | IRE);
    assert_eq!(unit.read(offset::GSTS, 4), QIE | IRE | SIRTP);
    unit.write(offset::RTADDR, 8, 0x286_c400);
    assert_eq!(write(&mut unit, offset::GCMD, QIE | IRE | SRTP), 0);
    assert_eq!((unit.read(offset::GSTS, 4), unit.mode()), (QIE | IRE | SRTP | SIRTP, Mode::BYPASS));
    assert_eq!(write(&mut unit, offset::GCMD, QIE | IRE | TE), Actions::RECONFIGURE);
    assert_eq!((unit.read(offset::GSTS, 4), unit.mode()), (TE | SRTP | QIE | IRE | SIRTP, Mode::TRANSLATE));
    assert_eq!(unit.read(offset::IQA, 8), 0x124_8801);
    assert_eq!(trouble(&unit), "");
    assert_eq!(write(&mut unit, offset::GCMD, QIE | IRE), Actions::RECONFIGURE);
    assert_eq!(unit.mode(), Mode::BYPASS);
}

#[test]
fn a_root_table_counts_from_srtp_on() {
    let mut unit = frontend();
    unit.write(offset::RTADDR, 8, 0x1000 | 3 << 10);
    write(&mut unit, offset::GCMD, TE);
    assert_eq!(unit.mode(), Mode::TRANSLATE, "written, and not taken");
    assert_eq!(write(&mut unit, offset::GCMD, TE | SRTP), Actions::RECONFIGURE);
    assert_eq!(unit.mode(), Mode::TRANSLATE, "abort mode was not shown");
    let features = Features::default();
    let mut unit = showing(features.cap, features.ecap.with_abort_mode(true));
    unit.write(offset::RTADDR, 8, 0x1000 | 3 << 10);
    write(&mut unit, offset::GCMD, SRTP | TE);
    assert_eq!(unit.mode(), Mode::ABORT);
}

#[test]
fn invalidations_by_register_are_answered_and_never_claimed() {
    let mut unit = frontend();
    let iotlb = Features::default().ecap.iotlb();
    // Nothing is translated: nothing to forget. Global; IAIG says so.
    unit.write(iotlb, 8, 1 << 63 | 1 << 60);
    assert_eq!(unit.read(iotlb, 8), 1 << 60 | 1 << 57);
    unit.write(offset::CCMD, 8, 1 << 63 | 1 << 61);
    assert_eq!(unit.read(offset::CCMD, 8), 1 << 61 | 1 << 59);
    write(&mut unit, offset::GCMD, TE);
    unit.write(iotlb, 8, 1 << 63 | 1 << 60);
    assert_eq!(unit.read(iotlb, 8), 1 << 60, "IAIG 0: not done");
    let effects = unit.write(offset::CCMD, 8, 1 << 63 | 3 << 61 | 0x10 << 16);
    assert_eq!(effects.actions.0, Actions::RECONFIGURE);
    assert_eq!(unit.read(offset::CCMD, 8) >> 59, 0b01111, "CAIG as CIRG, ICC 0");
    assert!(trouble(&unit).contains("GCMD.QIE"), "{}", trouble(&unit));
}

#[test]
fn a_guest_that_goes_on_in_legacy_mode_is_told_of() {
    let mut unit = frontend();
    write(&mut unit, offset::GCMD, SRTP | TE | QIE);
    assert!(trouble(&unit).contains("RTADDR.TTM"), "{}", trouble(&unit));
}

#[test]
fn registers_of_64_bits_take_halves() {
    let (mut halves, mut whole) = (frontend(), frontend());
    for at in [offset::RTADDR, offset::IQA, offset::IRTA, offset::CCMD, Features::default().ecap.iotlb()] {
        let value = 0x0000_0012_3456_7010 | at;
        write(&mut halves, at + 4, value >> 32);
        write(&mut halves, at, value & 0xffff_ffff);
        whole.write(at, 8, value);
        assert_eq!((halves.read(at, 8), whole.read(at, 8)), (value, value), "{:?}", whole.register_name(at));
        assert_eq!(whole.read(at + 4, 4), value >> 32);
    }
}

#[test]
fn id_registers_do_not_change_and_unknown_ones_read_zero() {
    let mut unit = frontend();
    for register in Features::default().registers() {
        unit.write(register.offset & !7, 8, u64::MAX);
        assert_eq!(unit.read(register.offset, 8), register.value);
    }
    for at in [0x48, 0x64, 0xc0, 0x200, 0xffc, 0x1_0000, 0x1_ffff_fff8, u64::MAX - 3, u64::MAX] {
        for size in [0, 1, 2, 4, 8, 16, u32::MAX] {
            unit.write(at, size, u64::MAX);
            assert_eq!(unit.read(at, size), 0, "{at:#x} size {size}");
        }
    }
    assert_eq!(unit.read(offset::CAP + 2, 4), 0, "misaligned");
}

#[test]
fn reset_keeps_the_id_registers_and_nothing_else() {
    let mut unit = frontend();
    for at in (0..0x300).step_by(4) {
        write(&mut unit, at, 0x8765_4321);
    }
    unit.event(3, &[0x1000, 0x71 << 32]);
    unit.reset();
    for at in (0..0x300).step_by(4) {
        assert_eq!(unit.read(at, 4), frontend().read(at, 4), "{at:#x}");
    }
    assert_eq!(unit.save(), frontend().save());
}
