//! Whatever a guest commands, host words name its own domains' tags and its own devices, and nothing else.

use amd_vi::codec::AmdCodec;
use amd_vi::spec::registers::{CAPABILITY_HEADER, offset};
use viommu_plugin::{
    Classes, Codec, Configuration, HostIds, Message, NO_STREAM, NO_TAG, Register, Rewritten, ShadowRange, Stop,
    TranslationMode,
};
use viommu_plugin_check::Random;

/// A command as a guest might write it: mostly near something legal, else anything.
fn command(random: &mut Random) -> [u64; 2] {
    let (device, domain) = (random.below(12), random.below(12) << 32);
    let address = random.next() & !0xfff;
    let op = |opcode: u64| opcode << 60;
    let [mut w0, mut w1] = match random.below(12) {
        0 => [random.next(), random.next()],
        1 => [random.below(16) << 60, 0],
        2 | 3 => [op(3) | domain, address | random.below(4)],
        4 => [op(3) | domain | random.below(1 << 16), address | 4 | random.below(4)],
        5 => [op(4) | device | random.next() & 0xffff << 32 | random.next() & 0xff << 24, address | random.below(2)],
        6 => [op(4) | device | random.next() & 0x00ff_ffff_ffff_0000, address | 4],
        7 => [op(2) | device, 0],
        8 => [op(5) | device, 0],
        9 => [op(6) | device, address],
        10 => [op(8), 0],
        _ => [op(1) | random.next() & 0x000f_ffff_ffff_ffff, random.next()],
    };
    if random.below(8) == 0 {
        w0 ^= 1 << random.below(64);
    }
    if random.below(8) == 0 {
        w1 ^= 1 << random.below(64);
    }
    [w0, w1]
}

/// A nested guest, with device caches or without; or a shadowed one.
fn codec(ats: bool, nested: bool) -> AmdCodec {
    let register = |offset, value| Register { offset, value };
    let efr = 1 | 1 << 4 | 1 << 6 | 15 << 32 | u64::from(nested) << 48;
    let header = 0x080b_000f | u64::from(ats) << 24 | u64::from(!nested) << 26;
    let registers = [
        register(offset::EFR, efr),
        register(offset::EFR2, u64::from(nested) << 3),
        register(CAPABILITY_HEADER, header),
    ];
    AmdCodec::new(&registers).unwrap()
}

/// What a host command names, by opcodes alone. Panics on one that may not be there at all.
fn assert_own(words: [u64; 2], ids: &HostIds<'_>, context: &str) {
    match words[0] >> 60 {
        3 => {
            let tag = (words[0] >> 32) as u32 & 0xffff;
            assert!(ids.domains.contains(&tag), "{context}: DomainID in {words:#x?}");
        }
        4 => {
            let (device, queue) = (words[0] as u32 & 0xffff, (words[0] >> 32) as u32 & 0xffff);
            assert!(ids.streams.contains(&device) && device == queue, "{context}: DeviceID in {words:#x?}");
        }
        opcode => panic!("{context}: opcode {opcode:#x} reached the hardware: {words:#x?}"),
    }
}

fn table(random: &mut Random, none: u32) -> Vec<u32> {
    (0..random.below(12)).map(|_| if random.below(3) == 0 { none } else { random.next() as u32 & 0xffff }).collect()
}

#[test]
fn host_words_name_only_the_guests_own() {
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let nested = seed % 4 != 0;
        let codec = codec(seed % 2 == 0, nested);
        let mut reached = 0;
        for round in 0..400 {
            let (streams, domains) = (table(&mut random, NO_STREAM), table(&mut random, NO_TAG));
            let ids = HostIds { tag: random.next() as u32 & 0xffff, streams: &streams, domains: &domains };
            let guest: Vec<u64> = (0..random.below(9)).flat_map(|_| command(&mut random)).collect();
            let mut out = vec![0xa5a5_a5a5_a5a5_a5a5; 2 * random.below(10) as usize];
            let before = Classes(random.below(8) as u32);
            let done = codec.rewrite(&guest, before, ids, &mut out);
            let context = format!("seed {seed} round {round}");
            check_counts(&done, &guest, &out, &context);
            for &words in out[..2 * done.written as usize].as_chunks::<2>().0 {
                assert!(nested || words[0] >> 60 == 4, "{context}: TLB command of a shadowed guest");
                assert_own(words, &ids, &context);
                reached += 1;
            }
        }
        // A shadowed guest without device caches sends nothing there.
        assert!(reached > 10 || !nested, "seed {seed}: only {reached} commands reached the hardware");
    }
}

fn check_counts(done: &Rewritten, guest: &[u64], out: &[u64], context: &str) {
    assert_eq!(done.taken, done.written + done.local_stream + done.local_domain + done.hints, "{context}");
    assert_eq!(done.written, done.tlb + done.config + done.atc, "{context}");
    assert!(2 * done.taken as usize <= guest.len() && 2 * done.written as usize <= out.len(), "{context}");
    assert_eq!(done.stop == Stop::END, 2 * done.taken as usize == guest.len(), "{context}");
    let rest = &out[2 * done.written as usize..];
    assert!(rest.iter().all(|&word| word == 0xa5a5_a5a5_a5a5_a5a5), "{context}: wrote beyond its count");
}

#[test]
fn a_device_cache_is_invalidated_only_after_synced_tlb_invalidations() {
    let codec = codec(true, true);
    let ids = HostIds { tag: 5, streams: &[7, NO_STREAM], domains: &[6, NO_TAG] };
    let (pages, absent, iotlb, foreign) = ([3 << 60, 0x1000], [3 << 60 | 1 << 32, 0], [4 << 60, 0], [4 << 60 | 1, 0]);
    let mut out = [0; 8];
    let guest = [pages, iotlb, iotlb].concat();
    let done = codec.rewrite(&guest, Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.classes), (1, Stop::ORDER, Classes::TLB));
    let done = codec.rewrite(&guest[2..], done.classes, ids, &mut out);
    assert_eq!((done.taken, done.stop), (0, Stop::ORDER));
    let done = codec.rewrite(&guest[2..], Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.atc), (2, Stop::END, 2));
    // What never reaches the hardware has no order.
    let done = codec.rewrite(&[pages, foreign].concat(), Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.local_stream, done.stop), (2, 1, Stop::END));
    let done = codec.rewrite(&[absent, iotlb].concat(), Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.local_domain, done.stop), (2, 1, Stop::END));
}

#[test]
fn scopes_of_configuration_commands() {
    let codec = codec(false, true);
    for (command, scope) in [
        ([2 << 60 | 0x108, 0], Configuration::entries(0x108, 0x108)),
        ([8 << 60, 0], Configuration::EVERYTHING),
        ([3 << 60, 0], Configuration::EVERYTHING),
    ] {
        assert_eq!(codec.configuration(&command), scope, "{command:#x?}");
    }
}

#[test]
fn scopes_of_shadow_commands() {
    let codec = codec(false, false);
    assert_eq!(codec.mode(), TranslationMode::SHADOW);
    let range = |first, last| ShadowRange { domain: 4, all_domains: 0, first, last };
    for (low, right) in [
        (0xffff_8000, range(0xffff_8000, 0xffff_8fff)),
        (0xffff_8002, range(0xffff_8000, 0xffff_8fff)),
        (0xffff_c003, range(0xffff_c000, 0xffff_dfff)),
        (0xfffe_1001, range(0xfffe_0000, 0xfffe_3fff)),
        (0x7fff_ffff_ffff_f003, range(0, u64::MAX)),
        (0xffff_ffff_ffff_f001, range(0, u64::MAX)),
        (0x5004, range(0, u64::MAX)),
    ] {
        assert_eq!(codec.shadow_range(&[3 << 60 | 4 << 32, low]), right, "{low:#x}");
    }
    assert_eq!(codec.shadow_range(&[]).all_domains, 1);
    let ids = HostIds { tag: 5, streams: &[7], domains: &[] };
    let done = codec.rewrite(&[5 << 60, 0, 3 << 60, 0], Classes::NONE, ids, &mut [0; 4]);
    assert_eq!((done.taken, done.hints, done.stop), (1, 1, Stop::SHADOW));
}

#[test]
fn descriptions_name_the_fields() {
    let codec = codec(true, true);
    for (command, text) in [
        ([1 << 60 | 0x123_8003, 7], "COMPLETION_WAIT store 0x7 at 0x1238000 interrupt"),
        ([2 << 60 | 0x10, 0], "INVALIDATE_DEVTAB_ENTRY device 0x10"),
        (
            [3 << 60 | 4 << 32 | 5, 0x1_3007],
            "INVALIDATE_IOMMU_PAGES domain 0x4 pasid 0x5 address 0x10000 size 2^15 pde",
        ),
        (
            [4 << 60 | 0x10 << 32 | 0x10, 0x7fff_ffff_ffff_f001],
            "INVALIDATE_IOTLB_PAGES device 0x10 queue 0x10 everything",
        ),
        ([8 << 60, 0], "INVALIDATE_IOMMU_ALL"),
        ([0xf << 60, 1], "opcode 0xf (0xf000000000000000 0x0000000000000001)"),
    ] {
        let mut message = Message::default();
        codec.describe(&command, &mut message);
        assert_eq!(message.text(), text);
    }
}
