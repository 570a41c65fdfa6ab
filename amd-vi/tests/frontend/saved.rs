//! Saved registers: a guest goes on where it was, or is refused by name.

use crate::{ON, running};
use amd_vi::features::Features;
use amd_vi::frontend::AmdFrontend;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Frontend, GuestFault, QueueState, Refusal};

#[test]
fn a_stopped_guest_is_restored_stopped_and_restarts_as_before() {
    let mut lived = running();
    lived.write(offset::DEVICE_TABLE_BASE, 8, 0x126_0007);
    lived.write(offset::COMMAND_TAIL, 4, 0x80);
    lived.write(offset::X2APIC_EVENT, 8, 0x20_0000_0404);
    lived.advance(3);
    lived.event(0x10, &[0x2000_0000_0000_0000, 0x1000]);
    lived.fault(GuestFault::ILLEGAL_OPCODE);
    let bytes = lived.save();
    let mut moved = running();
    moved.restore(&bytes).unwrap();
    assert_eq!(moved.save(), bytes);
    assert_eq!((moved.queue(), moved.queue().state), (lived.queue(), QueueState::STOPPED));
    for at in (0..0x4000).step_by(8) {
        assert_eq!(moved.read(at, 8), lived.read(at, 8), "{at:#x}");
    }
    for control in [ON & !(1 << 12), ON] {
        moved.write(offset::CONTROL, 8, control);
    }
    assert_eq!((moved.queue().state, moved.queue().pending), (QueueState::RUNNING, 5));
}

#[test]
fn other_registers_are_refused_by_name_and_change_nothing() {
    let bytes = running().save();
    let own = Features::default();
    for (other, names) in [
        (Features { efr: own.efr.with_glx_sup(0), ..own }, "EFR.GLXSup"),
        (Features { efr: own.efr.with_pas_max(7), ..own }, "EFR.PASmax"),
        (Features { efr: own.efr.with_gats(1), ..own }, "EFR"),
    ] {
        let mut frontend = AmdFrontend::new(&other.registers()).unwrap();
        let before = frontend.save();
        let refusal = frontend.restore(&bytes).unwrap_err();
        assert!(refusal.text.contains(names), "{refusal}");
        assert_eq!(frontend.save(), before);
    }
}

#[test]
fn fields_that_no_frontend_can_hold_are_refused_by_name() {
    let good = running().save();
    // Version and three ID registers, three bases, CONTROL, four pointers; STATUS; two flags.
    let (pointers, status, stopped) = (4 + 8 * 7, 4 + 8 * 11, 4 + 8 * 12);
    for (at, value, names) in [
        (0, 9, "version"),
        (pointers, 1, "COMMAND_HEAD"),
        (pointers + 24 + 2, 0x80, "EVENT_TAIL"),
        (status, 0x10, "STATUS"),
        (stopped, 2, "command buffer stopped"),
        (stopped + 1, 7, "event log stopped"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        let refusal = running().restore(&bytes).unwrap_err();
        assert_eq!(refusal.errno, Refusal::EINVAL);
        assert!(refusal.text.contains(names), "{names}: {refusal}");
    }
    let mut off = AmdFrontend::new(&[]).unwrap().save();
    off[stopped] = 1;
    assert!(running().restore(&off).unwrap_err().text.contains("while it is off"));
}
