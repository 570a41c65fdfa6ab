//! Payloads of Linux's iommufd, byte by byte, by the names of `<linux/iommufd.h>`.

use arm_smmuv3::features::Features;
use arm_smmuv3::kernel::ArmKernel;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{
    EntryKey, KernelAbi, KernelFacts, KeyKind, NO_DOMAIN, PCI_ATS_NOT_SUPPORTED, Refusal, Register, TranslationMode,
};

/// `struct iommu_hw_info_arm_smmuv3` of QEMU 9.2's SMMUv3 with both stages: flags, __reserved, idr\[6\], iidr, aidr.
const HW_INFO: [u32; 10] = [0, 0, 0x0d44_101b, 0x0273_0010, 0, 0x1404, 0, 0x74, 0, 0];

fn hw_info(words: [u32; 10]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn shown(words: [u32; 10], capabilities: u64) -> Result<Features, Refusal> {
    let registers = ArmKernel.registers(&hw_info(words), capabilities, TranslationMode::NESTED)?;
    Features::new(&registers)
}

#[test]
fn types_and_sizes() {
    let facts = ArmKernel.facts();
    assert_eq!((facts.hw_info_type, facts.hw_info_bytes), (2, 40));
    assert_eq!((facts.viommu_type, facts.viommu_data_bytes), (1, 0));
    assert_eq!((facts.hwpt_data_type, facts.hwpt_data_bytes), (2, 16));
    assert_eq!((facts.invalidate_data_type, facts.invalidate_entry_bytes), (1, 16));
    assert_eq!((facts.veventq_type, facts.vevent_bytes, facts.hw_queue_type), (1, 32, 0));
    assert_eq!(KernelFacts { reserved: 0, ..facts }, facts);
}

#[test]
fn a_guest_is_shown_what_user_space_may_rely_on_and_nothing_else() {
    let guest = shown(HW_INFO, 0).expect("a usual host");
    // 16-bit ASIDs, two-level tables, 4 and 64 KiB granules, range invalidation, coherent; no stalls.
    assert!(guest.idr0.asid16() && guest.idr0.cohacc() && guest.idr0.s1p() && guest.idr3.ril());
    assert_eq!((guest.idr0.st_level(), guest.idr0.stall_model(), guest.idr0.ttf()), (1, 1, 2));
    assert!(!guest.idr0.s2p() && !guest.idr0.ats());
    assert_eq!((guest.idr5.gran4k(), guest.idr5.gran16k(), guest.idr5.gran64k()), (true, true, true));

    // Every other bit of the hardware changes nothing. OAS may make the guest's smaller, not larger.
    const RELIED: [(u64, u32); 4] = [
        // ST_LEVEL, TERM_MODEL, STALL_MODEL, TTENDIAN, CD2L, ASID16, ATS, TTF; SIDSIZE, SSIDSIZE; BBML, RIL; VAX, DS, GRANs, OAS
        (offset::IDR0, 3 << 27 | 1 << 26 | 3 << 24 | 3 << 21 | 1 << 19 | 1 << 12 | 1 << 10 | 3 << 2),
        (offset::IDR1, 0x7ff),
        (offset::IDR3, 3 << 11 | 1 << 10),
        (offset::IDR5, 3 << 10 | 1 << 7 | 7 << 4 | 7),
    ];
    for (index, mask) in [RELIED[0].1, RELIED[1].1, 0, RELIED[2].1, 0, RELIED[3].1].into_iter().enumerate() {
        for bit in (0..32).filter(|bit| mask >> bit & 1 == 0) {
            let mut other = HW_INFO;
            other[2 + index] ^= 1 << bit;
            assert_eq!(shown(other, 0), Ok(guest), "IDR{index} bit {bit}");
        }
    }
    // And every bit that may be relied on can be seen, but for what a guest is never offered.
    for (register, bit, seen) in [
        (0, 12, guest.idr0.with_asid16(false).into_bits()),
        (0, 19, guest.idr0.with_cd2l(!guest.idr0.cd2l()).into_bits()),
        (0, 26, guest.idr0.with_term_model(!guest.idr0.term_model()).into_bits()),
        (0, 10, guest.idr0.with_ats(true).into_bits()),
    ] {
        let mut other = HW_INFO;
        other[2 + register] ^= 1 << bit;
        assert_eq!(shown(other, 0).map(|other| other.idr0.into_bits()), Ok(seen), "IDR{register} bit {bit}");
    }
}

#[test]
fn ats_is_for_devices_that_have_it() {
    let mut ats = HW_INFO;
    ats[2] |= 1 << 10;
    assert_eq!(shown(ats, 0).map(|guest| guest.idr0.ats()), Ok(true));
    assert_eq!(shown(ats, PCI_ATS_NOT_SUPPORTED).map(|guest| guest.idr0.ats()), Ok(false));
}

#[test]
fn what_no_guest_can_be_shown_is_refused_by_name() {
    for (idr0, names) in [(0x0d64_101b, "TTENDIAN"), (0x0d44_1013, "TTF"), (0x0e44_101b, "STALL_MODEL")] {
        let mut other = HW_INFO;
        other[2] = idr0;
        let refusal = shown(other, 0).expect_err("it cannot be shown");
        assert!(refusal.errno == Refusal::EOPNOTSUPP && refusal.text.contains(names), "{names}: {refusal}");
    }
    let short = ArmKernel.registers(&[0; 39], 0, TranslationMode::NESTED).expect_err("a byte is missing");
    assert!(short.text.contains("hw_info_arm_smmuv3"), "{short}");
    assert_eq!(ArmKernel.registers(&hw_info(HW_INFO), 0, TranslationMode::SHADOW), Ok(Vec::<Register>::new()));
}

/// `struct iommu_hwpt_arm_smmuv3`: two little-endian words of an STE.
#[test]
fn nested_tables_bypass_and_abort() {
    let key = |kind, words| EntryKey { kind, words, ..EntryKey::default() };
    #[rustfmt::skip]
    let right: [(EntryKey, [u8; 16]); 3] = [
        // V, Config 5, CD table at 0x4567_8000, S1CDMax 6; S1DSS 2, S1CIR 1, S1COR 1, S1CSH 3, EATS 1.
        (key(KeyKind::TRANSLATE, [0x3000_0000_4567_800b, 0x1000_00d6, 0, 0]),
            [0x0b, 0x80, 0x67, 0x45, 0, 0, 0, 0x30, 0xd6, 0, 0, 0x10, 0, 0, 0, 0]),
        // V, Config 4.
        (key(KeyKind::BYPASS, [0; 4]), [0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        // V, Config 0.
        (key(KeyKind::ABORT, [0; 4]), [0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (key, bytes) in right {
        let mut data = [0xa5; 20];
        assert_eq!(ArmKernel.hwpt_data(&key, &mut data), 16);
        assert_eq!((&data[..16], &data[16..]), (&bytes[..], &[0xa5; 4][..]), "{key:?}");
        assert_eq!(ArmKernel.hwpt_data(&key, &mut data[..15]), 0);
    }
}

/// `struct iommu_viommu_arm_smmuv3_invalidate`: the command, little-endian.
#[test]
fn an_entry_is_the_command() {
    let commands = [
        0x0001_0000_0000_0012,
        0x7f80_0000_1001, // TLBI_NH_VA, ASID 1, Leaf
        0x0000_0010_0000_0040,
        0x34, // ATC_INV of vSID 16, everything
        0x0000_0010_0000_0003,
        1, // CFGI_STE, which the kernel does not take
        0x0000_0000_0000_0030,
        0, // NSNH_ALL
    ];
    let mut room = [0xa5; 64];
    let done = ArmKernel.entries(&commands, &mut room);
    assert_eq!((done.taken, done.written, done.refused, done.domain), (4, 32, 1, NO_DOMAIN));
    #[rustfmt::skip]
    let right = [
        0x12, 0, 0, 0, 0, 0, 1, 0, 0x01, 0x10, 0, 0, 0x80, 0x7f, 0, 0,
        0x40, 0, 0, 0, 0x10, 0, 0, 0, 0x34, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!((&room[..32], &room[32..]), (&right[..], &[0xa5; 32][..]));
    let done = ArmKernel.entries(&commands[6..], &mut room[..20]);
    assert_eq!((done.taken, done.written, done.refused), (2, 16, 0));
    let done = ArmKernel.entries(&commands, &mut room[..31]);
    assert_eq!((done.taken, done.written, done.refused), (2, 16, 0), "no room is no refusal");
    // TLBI and CFGI are sent twice on hardware with the erratum, ATC_INV is not.
    let twice = |opcode| ArmKernel.repeatable(&[opcode, 0]);
    assert!([0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30].into_iter().all(twice) && !twice(0x40) && !twice(0x46));
}

/// `struct iommu_vevent_arm_smmuv3`: evt\[4\], with the guest's StreamID.
#[test]
fn an_event_names_the_guests_stream() {
    let mut evt = [0; 32];
    evt[..8].copy_from_slice(&[0x10, 0, 0, 0, 0x20, 0x01, 0, 0]);
    evt[16..24].copy_from_slice(&0x1234_5000_u64.to_le_bytes());
    let event = ArmKernel.event(1, &evt).expect("F_TRANSLATION");
    assert_eq!((event.virt_id, event.words), (0x120, 4));
    assert_eq!(event.record[..4], [0x10, 0, 0x1234_5000, 0], "without the stream");
    assert_eq!(ArmKernel.event(2, &evt), None);
    assert_eq!(ArmKernel.event(1, &evt[..31]), None);
}
