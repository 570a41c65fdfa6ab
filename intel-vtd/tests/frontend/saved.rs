//! The register frame as bytes. The bytes of version 1 are written down here and are read for ever.

use crate::{IRE, QIE, SIRTP, SRTP, TE, showing, write};
use intel_vtd::features::Features;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, GuestFault, Mode, QueueState, Refusal};

fn fresh() -> VtdFrontend {
    let features = Features::default();
    showing(features.cap, features.ecap.with_interrupt_remapping(true))
}

/// A frontend in which every register has a value of its own: stopped by an error, a fault recorded, messages held.
fn lived() -> VtdFrontend {
    let mut unit = fresh();
    for (at, size, value) in [
        (offset::RTADDR, 8, 0x286_c400),
        (offset::CCMD, 8, 0x3000_0000_0010_0005),
        (offset::FEDATA, 4, 0x20),
        (offset::FEADDR, 4, 0xfee0_2000),
        (offset::FEUADDR, 4, 1),
        (offset::IQA, 8, 0x1_0124_8801),
        (offset::GCMD, 4, QIE | SIRTP | SRTP),
        (offset::GCMD, 4, QIE | IRE | TE),
        (offset::RTADDR, 8, 0x1_0999_9400),
        (offset::IQT, 4, 0x100),
        (offset::IEDATA, 4, 0x30),
        (offset::IEADDR, 4, 0xfee0_3000),
        (offset::IRTA, 8, 0x1_0130_000f),
        (0xf0, 8, 0x7000_0003),
        (0xf8, 8, 0x1002_0005_0000_0000),
    ] {
        unit.write(at, size, value);
    }
    unit.sync_done(&[0x15, 0, 0, 0]);
    unit.advance(1);
    unit.event(0x12, &[0xdead_0000, 1 << 62 | 0x71 << 32]);
    unit.event_lost();
    unit.fault(GuestFault::ILLEGAL_OPCODE);
    unit
}

/// Version 1, in words of 4 bytes.
#[rustfmt::skip]
const VERSION_1: [u32; 51] = [
    1, // version
    0x10, 0, 0x222f_0686, 0x01d2_008c, 0x0f4b, 0x0001_8800, // VER, CAP, ECAP
    0xc700_0000, 0x0999_9400, 1, 0x0286_c400, 0, // GSTS, RTADDR, RTADDR as taken
    0x0010_0005, 0x3000_0000, // CCMD
    0x11, 0xc000_0000, 0x20, 0xfee0_2000, 1, // FSTS, FECTL, FEDATA, FEADDR, FEUADDR
    0x40, 0x100, 0x0124_8801, 1, // IQH, IQT, IQA
    1, 0xc000_0000, 0x30, 0xfee0_3000, 0, // ICS, IECTL
    3, 0, 0x0130_000f, 1, // IQERCD, IRTA
    0, 0, 0, 0, 0, 0, 0x8000_0000, 0, 0, 0, // PQH, PQT, PQA, PECTL
    0x7000_0003, 0, 0, 0x1002_0005, // IVA, IOTLB
    0, // next fault record
    0xdead_0000, 0, 0x12, 0xc000_0071, // FRCD
];

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn restored(state: &[u8]) -> Result<VtdFrontend, Refusal> {
    let mut unit = fresh();
    unit.restore(state).map(|()| unit)
}

#[test]
fn version_1_is_what_is_written_and_is_read_for_ever() {
    let words: Vec<_> = lived().save().as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    assert_eq!(words, VERSION_1, "{words:#x?}");
    let unit = restored(&bytes(&VERSION_1)).unwrap();
    for at in (0..0x300).step_by(4) {
        assert_eq!(unit.read(at, 4), lived().read(at, 4), "{at:#x}");
    }
}

#[test]
fn a_stopped_queue_stays_stopped_until_the_guest_acknowledges() {
    let mut unit = restored(&bytes(&VERSION_1)).unwrap();
    let queue = unit.queue();
    assert_eq!((queue.state, queue.head, queue.pending, unit.mode()), (QueueState::STOPPED, 2, 6, Mode::TRANSLATE));
    assert_eq!(write(&mut unit, offset::FSTS, 0x10), Actions::KICK);
    assert_eq!(unit.queue().state, QueueState::RUNNING);
}

#[test]
fn messages_that_were_held_back_go_out_after_a_move() {
    let mut unit = restored(&bytes(&VERSION_1)).unwrap();
    assert_eq!(unit.write(offset::FECTL, 4, 0).msi_count, 1);
    assert_eq!(unit.write(offset::IECTL, 4, 0).msi_count, 1);
}

#[test]
fn registers_that_cannot_be_are_refused_by_name() {
    for (word, value, says) in [
        (0, 2, "version 2 is unknown, the newest known is 1"),
        (0, 0, "version 0"),
        (7, 1 << 27, "GSTS"),
        (13, 1 << 31, "CCMD"),
        (14, 2, "FSTS"),
        (15, 1, "FECTL"),
        (17, 0xfee0_2002, "FEADDR"),
        (19, 0x48, "IQH"),
        (19, 0x50, "IQH"),
        (19, 0x2000, "IQH"),
        (20, 1 << 19, "IQT"),
        (23, 2, "ICS"),
        (24, 4, "IECTL"),
        (38, 4, "PECTL"),
        (45, 1 << 31, "IOTLB"),
        (46, 1, "next fault record"),
        (47, 1, "FRCD"),
        (6, 0x0000_0800, "ECAP.FSTS"),
        (4, 0x01d4_008c, "CAP.MAMV: the guest was shown 20, this host has 18"),
        (5, 0x0f4f, "ECAP.DT: the guest was shown 1, this host has 0"),
        (5, 0x0f43, "ECAP: the guest was shown"),
    ] {
        let mut words = VERSION_1;
        words[word] = value;
        if says == "ECAP.FSTS" {
            words[3] &= !0x80;
        }
        let mut unit = fresh();
        let before = unit.save();
        let refusal = unit.restore(&bytes(&words)).expect_err(says);
        assert!(refusal.text.contains(says), "{says}: {refusal}");
        assert_eq!(unit.save(), before, "{says}: refused, and changed");
    }
}

#[test]
fn bytes_that_are_cut_or_go_on_are_refused() {
    let whole = bytes(&VERSION_1);
    for length in 0..whole.len() {
        let refusal = restored(&whole[..length]).expect_err("cut");
        assert!(refusal.text.contains("cut short in"), "{length}: {refusal}");
    }
    assert!(restored(&[&whole[..], &[0]].concat()).unwrap_err().text.contains("1 bytes behind the end"));
}
