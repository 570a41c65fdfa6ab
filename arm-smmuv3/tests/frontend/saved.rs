//! The register frame as bytes. The bytes of version 1 are written down here and are read for ever.

use crate::{frontend, write};
use arm_smmuv3::features::Features;
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Frontend, GuestFault, Mode, QueueState, Refusal, Register};

/// Every register that can be written, with a value of its own.
const WRITES: [(u64, u32, u64); 21] = [
    (offset::CR1, 4, 0xd75),
    (offset::CR2, 4, 6),
    (offset::GBPA, 4, 1 << 31 | 1 << 20 | 1 << 12),
    (offset::IRQ_CTRL, 4, 5),
    (offset::GERROR_IRQ_CFG0, 8, 0x0809_0040),
    (offset::GERROR_IRQ_CFG1, 4, 0x11),
    (offset::GERROR_IRQ_CFG2, 4, 0x12),
    (offset::STRTAB_BASE, 8, 0x4000_0000_4451_0000),
    (offset::STRTAB_BASE_CFG, 4, 0x1_0210),
    (offset::CMDQ_BASE, 8, 0x4000_0000_5bf0_0008),
    (offset::CMDQ_CONS, 4, 0xfd),
    (offset::EVENTQ_BASE, 8, 0x4000_0000_5c00_0007),
    (offset::EVENTQ_PROD, 4, 0x8000_0009),
    (offset::EVENTQ_CONS, 4, 0x8000_0005),
    (offset::EVENTQ_IRQ_CFG0, 8, 0x0809_0044),
    (offset::EVENTQ_IRQ_CFG1, 4, 0x21),
    (offset::PRIQ_BASE, 8, 0x4000_0000_5d00_0006),
    (offset::PRIQ_PROD, 4, 7),
    (offset::PRIQ_CONS, 4, 6),
    (offset::PRIQ_IRQ_CFG0, 8, 0x0809_0048),
    (offset::CMDQ_PROD, 4, 0x101),
];

/// A guest in the middle of its work, its queue stopped by an illegal command.
fn lived() -> ArmFrontend {
    let mut smmu = frontend();
    for (at, size, value) in WRITES {
        smmu.write(at, size, value);
    }
    write(&mut smmu, offset::CR0, 0xd);
    smmu.advance(1);
    smmu.fault(GuestFault::ILLEGAL_OPCODE);
    smmu.fault(GuestFault::EVENT_ABORT);
    write(&mut smmu, offset::GERRORN, 4);
    smmu
}

/// [`lived`] as version 1 wrote it.
#[rustfmt::skip]
const VERSION_1: [u32; 43] = [
    1, // version
    0x0d48_101a, 0x0273_0010, 0, 0x1404, 0, 0x74, 0, 0, // IDR0 to IDR5, IIDR, AIDR
    0xd, 0xd75, 6, 0x0010_1000, 5, 5, 4, // CR0, CR1, CR2, GBPA, IRQ_CTRL, GERROR, GERRORN
    0x0809_0040, 0, 0x11, 0x12, // GERROR_IRQ_CFG
    0x4451_0000, 0x4000_0000, 0x1_0210, // STRTAB_BASE, STRTAB_BASE_CFG
    0x5bf0_0008, 0x4000_0000, 0x101, 0x0100_00fe, // CMDQ_BASE, CMDQ_PROD, CMDQ_CONS
    0x5c00_0007, 0x4000_0000, 0x8000_0009, 0x8000_0005, 0x0809_0044, 0, 0x21, 0, // EVENTQ
    0x5d00_0006, 0x4000_0000, 7, 6, 0x0809_0048, 0, 0, 0, // PRIQ
];

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn restored(state: &[u8]) -> Result<ArmFrontend, Refusal> {
    let mut smmu = frontend();
    smmu.restore(state).map(|()| smmu)
}

#[test]
fn version_1_is_what_is_written_and_is_read_for_ever() {
    let words: Vec<_> = lived().save().as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    assert_eq!(words, VERSION_1, "{words:#x?}");
    let smmu = restored(&bytes(&VERSION_1)).unwrap();
    for at in (0..0x100).step_by(4).chain((0x1_0000..0x1_0100).step_by(4)) {
        assert_eq!(smmu.read(at, 4), lived().read(at, 4), "{at:#x}");
    }
}

#[test]
fn a_stopped_queue_stays_stopped_until_the_guest_acknowledges() {
    let mut smmu = restored(&bytes(&VERSION_1)).unwrap();
    let queue = smmu.queue();
    assert_eq!((queue.state, queue.pending, smmu.mode()), (QueueState::STOPPED, 3, Mode::TRANSLATE));
    assert_eq!(smmu.read(offset::CMDQ_CONS, 4), 0x0100_00fe, "the error it stopped with");
    // A second event queue error would be a new one, a second command queue error is the one that is active.
    assert_eq!(smmu.fault(GuestFault::ILLEGAL_OPCODE), Default::default());
    write(&mut smmu, offset::GERRORN, 5);
    assert_eq!(smmu.queue().state, QueueState::RUNNING);
}

#[test]
fn an_overflow_that_was_acknowledged_is_not_shown_again() {
    let mut smmu = restored(&bytes(&VERSION_1)).unwrap();
    smmu.event_lost();
    assert_eq!(smmu.read(offset::EVENTQ_PROD, 4), 9, "OVFLG differs from OVACKFLG now");
    let mut again = restored(&smmu.save()).unwrap();
    again.event_lost();
    assert_eq!(again.read(offset::EVENTQ_PROD, 4), 9, "and is not toggled back before the guest saw it");
}

#[test]
fn registers_that_cannot_be_are_refused_by_name() {
    for (word, value, says) in [
        (0, 2, "version 2 is unknown, the newest known is 1"),
        (0, 0, "version 0"),
        (9, 1 << 5, "CR0"),
        (12, 1 << 31, "GBPA"),
        (13, 8, "IRQ_CTRL"),
        (14, 1 << 31, "GERROR"),
        (15, 2, "GERRORN"),
        (25, 1 << 20, "CMDQ_PROD"),
        (1, 0x0d48_1018, "IDR0.S1P"),
        (1, 0x0d48_141a, "IDR0.ATS: the guest was shown 1, this host has 0"),
        (6, 0x75, "IDR5.OAS: the guest was shown 48 bits, this host has 44"),
        (2, 0x0273_0008, "IDR1: the guest was shown 0x2730008, this frontend shows 0x2730010"),
    ] {
        let mut words = VERSION_1;
        words[word] = value;
        let mut smmu = frontend();
        let before = smmu.save();
        let refusal = smmu.restore(&bytes(&words)).expect_err(says);
        assert!(refusal.text.contains(says), "{says}: {refusal}");
        assert_eq!(smmu.save(), before, "{says}: refused, and changed");
    }
}

#[test]
fn bytes_that_are_cut_or_go_on_are_refused_by_the_register_they_end_in() {
    let whole = bytes(&VERSION_1);
    for length in 0..whole.len() {
        let refusal = restored(&whole[..length]).expect_err("cut");
        assert!(refusal.text.contains("cut short in"), "{length}: {refusal}");
    }
    assert!(restored(&[&whole[..], &[0]].concat()).unwrap_err().text.contains("1 bytes behind the end"));
}

#[test]
fn a_frontend_that_shows_more_does_not_serve_either() {
    let idr0 = Features::default().idr0.with_ats(true).into_bits();
    let mut more = ArmFrontend::new(&[Register { offset: offset::IDR0, value: idr0.into() }]).unwrap();
    let refusal = more.restore(&bytes(&VERSION_1)).unwrap_err();
    assert!(refusal.text.contains("IDR0: the guest was shown"), "{refusal}");
}
