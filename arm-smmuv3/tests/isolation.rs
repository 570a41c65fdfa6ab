//! Whatever a guest commands, host words name its own tag and its own devices' streams, and nothing else.

use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Classes, Codec, Configuration, HostIds, NO_STREAM, Register, Rewritten, Stop};
use viommu_plugin_check::Random;

/// A command as a guest might write it: mostly near something legal, else anything.
fn command(random: &mut Random) -> [u64; 2] {
    let streams = random.below(12) << 32;
    let address = random.next() & !0xfff;
    let [mut w0, mut w1] = match random.below(14) {
        0 => [random.next(), random.next()],
        1 => [random.below(0x50), 0],
        2 => [0x10 | (random.next() & 0xffff) << 32, 0],
        3 => [0x11 | random.next() & 0xffff_ffff_0000_0000, 0],
        4 | 5 => [0x12 | random.next() & 0xffff_ffff_0000_0000, address | 1],
        6 => [0x12 | random.next() & 0xffff_ffff_01f1_f000, address | 0x501],
        7 => [0x13 | (random.next() & 0xffff) << 32, address],
        8 => [0x30, 0],
        9 => [0x05 | streams, random.below(2)],
        10 => [0x06 | streams, 0],
        11 => [0x40 | streams, address | random.below(64)],
        12 => [(0x01 + random.below(3)) | streams, 0],
        _ => [0x46 | random.below(4) << 12, 0],
    };
    if random.below(8) == 0 {
        w0 ^= 1 << random.below(64);
    }
    if random.below(8) == 0 {
        w1 ^= 1 << random.below(64);
    }
    [w0, w1]
}

fn codec(ats: bool, ssid: u64) -> ArmCodec {
    let register = |offset, value| Register { offset, value };
    let idr0 = 0x0d44_101b | u64::from(ats) << 10;
    ArmCodec::new(&[register(offset::IDR0, idr0), register(offset::IDR1, 0x0273_0010 | ssid << 6)]).unwrap()
}

/// What a host command names, by the manual's opcodes alone. Panics on one that may not be there at all.
fn assert_own(words: [u64; 2], ids: &HostIds<'_>, context: &str) {
    match words[0] as u8 {
        0x10..=0x13 => assert_eq!((words[0] >> 32) as u16, ids.tag as u16, "{context}: VMID in {words:#x?}"),
        0x05 | 0x06 | 0x40 => {
            let stream = (words[0] >> 32) as u32;
            assert!(stream != NO_STREAM && ids.streams.contains(&stream), "{context}: stream in {words:#x?}");
        }
        opcode => panic!("{context}: opcode {opcode:#x} reached the hardware: {words:#x?}"),
    }
}

#[test]
fn host_words_name_only_the_guests_own() {
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let codec = codec(seed % 2 == 0, if seed % 3 == 0 { 20 } else { 0 });
        let mut reached = 0;
        for round in 0..400 {
            let streams: Vec<u32> = (0..random.below(12))
                .map(|_| if random.below(3) == 0 { NO_STREAM } else { random.next() as u32 & 0xff_ffff })
                .collect();
            let ids = HostIds { tag: random.next() as u32 & 0xffff, streams: &streams, domains: &[] };
            let guest: Vec<u64> = (0..random.below(9)).flat_map(|_| command(&mut random)).collect();
            let mut out = vec![0xa5a5_a5a5_a5a5_a5a5; 2 * random.below(10) as usize];
            let before = Classes(random.below(8) as u32);
            let done = codec.rewrite(&guest, before, ids, &mut out);
            let context = format!("seed {seed} round {round}");
            check_counts(&done, &guest, &out, &context);
            for &words in out[..2 * done.written as usize].as_chunks::<2>().0 {
                assert_own(words, &ids, &context);
                reached += 1;
            }
        }
        assert!(reached > 200, "seed {seed}: only {reached} commands reached the hardware");
    }
}

fn check_counts(done: &Rewritten, guest: &[u64], out: &[u64], context: &str) {
    assert_eq!(done.taken, done.written + done.local_stream + done.hints, "{context}");
    assert_eq!(done.written, done.tlb + done.config + done.atc, "{context}");
    assert!(2 * done.taken as usize <= guest.len() && 2 * done.written as usize <= out.len(), "{context}");
    assert_eq!(done.stop == Stop::END, 2 * done.taken as usize == guest.len(), "{context}");
    let rest = &out[2 * done.written as usize..];
    assert!(rest.iter().all(|&word| word == 0xa5a5_a5a5_a5a5_a5a5), "{context}: wrote beyond its count");
}

#[test]
fn a_device_cache_is_invalidated_only_after_synced_tlb_invalidations() {
    let codec = codec(true, 0);
    let ids = HostIds { tag: 5, streams: &[7, NO_STREAM], domains: &[] };
    let (tlbi, atc, foreign) = ([0x12, 0x1001], [0x40, 52], [1 << 32 | 0x40, 52]);
    let mut out = [0; 8];
    let guest = [tlbi, atc, atc].concat();
    let done = codec.rewrite(&guest, Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.classes), (1, Stop::ORDER, Classes::TLB));
    let done = codec.rewrite(&guest[2..], done.classes, ids, &mut out);
    assert_eq!((done.taken, done.stop), (0, Stop::ORDER));
    let done = codec.rewrite(&guest[2..], Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.atc), (2, Stop::END, 2));
    // What never reaches the hardware has no order.
    let done = codec.rewrite(&[tlbi, foreign].concat(), Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.local_stream, done.stop), (2, 1, Stop::END));
}

#[test]
fn a_full_output_stops_before_the_command_that_does_not_fit() {
    let codec = codec(false, 0);
    let ids = HostIds { tag: 5, streams: &[NO_STREAM], domains: &[] };
    let guest = [[0x10, 0], [0x01, 0], [0x10, 0]].concat();
    let done = codec.rewrite(&guest, Classes::NONE, ids, &mut [0; 2]);
    assert_eq!((done.taken, done.written, done.stop), (2, 1, Stop::ROOM));
}

#[test]
fn scopes_of_configuration_commands() {
    let codec = codec(false, 0);
    for (command, first, last) in [
        ([0x03 | 0x18 << 32, 1], 0x18, 0x18),
        ([0x04 | 0x1f << 32, 0], 0x1e, 0x1f),
        ([0x04 | 0x1f << 32, 3], 0x10, 0x1f),
        ([0x04 | 0x1f << 32, 30], 0, 0x7fff_ffff),
        ([0x04, 31], 0, u32::MAX),
        ([0x04 | 0xdead << 32, 31], 0, u32::MAX),
    ] {
        assert_eq!(codec.configuration(&command), Configuration::entries(first, last), "{command:#x?}");
    }
}

#[test]
fn descriptions_name_the_fields() {
    let codec = codec(true, 20);
    for (command, text) in [
        (
            [0x12 | 3 << 12 | 2 << 20 | 7 << 32 | 9 << 48, 0x5000 | 0x701],
            "TLBI_NH_VA vmid 0x7 asid 0x9 addr 0x5000 leaf 4 x 2^2 granules of 2^12 ttl 3",
        ),
        ([0x04, 31], "CFGI_ALL"),
        ([0x46 | 2 << 12, 0], "SYNC sev"),
        ([0x99, 1], "opcode 0x99 (0x0000000000000099 0x0000000000000001)"),
    ] {
        let mut message = viommu_plugin::Message::default();
        codec.describe(&command, &mut message);
        assert_eq!(message.text(), text);
    }
}
