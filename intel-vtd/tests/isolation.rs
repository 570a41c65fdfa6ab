//! Whatever a guest commands, host words name its own domains' tags and its own devices' source-ids, and nothing else.

use intel_vtd::codec::VtdCodec;
use intel_vtd::spec::registers::offset;
use viommu_plugin::{
    Classes, Codec, Configuration, HostIds, Message, NO_STREAM, NO_TAG, Register, Rewritten, ShadowRange, Stop,
    TranslationMode,
};
use viommu_plugin_check::Random;

/// A descriptor as a guest might write it: mostly near something legal, else anything.
fn command(random: &mut Random) -> [u64; 4] {
    let (did, device) = (random.below(12) << 16, random.below(12));
    let address = random.next() & !0xfff;
    let mut words = match random.below(12) {
        0 => [random.next(), random.next(), 0, 0],
        1 => [random.below(0x1000), 0, 0, 0],
        2 => [0x01 | random.below(4) << 4 | did | device << 32, 0, 0, 0],
        3 => [0x22 | did, 0, 0, 0],
        4 => [0x32 | did, address | random.below(20), 0, 0],
        5 => [0x03 | device << 32, address | random.below(2), 0, 0],
        6 => [0x05 | random.below(8) << 4 | random.next() & !0xffff_ffff, address, 0, 0],
        7 | 8 => [0x36 | did, address | 0x40 | random.below(20), 0, 0],
        9 => [0x26 | did | random.below(4) << 32, 0, 0, 0],
        10 => [0x07 | random.below(4) << 4 | did, 0, 0, 0],
        _ => [0x08 | device << 16 | random.below(4) << 32, address | random.below(2) << 11, 0, 0],
    };
    if random.below(8) == 0 {
        words[random.below(4) as usize] ^= 1 << random.below(64);
    }
    words
}

const CAP: u64 = 0x01d2_008c_222f_0606;
const ECAP: u64 = 0x8800_0000_0f43;

fn codec(cap: u64, ecap: u64) -> VtdCodec {
    let register = |offset, value| Register { offset, value };
    VtdCodec::new(&[register(offset::CAP, cap), register(offset::ECAP, ecap)]).unwrap()
}

/// With device-TLBs, and PASIDs as well.
fn nested(device_tlb: bool, pasid: bool) -> VtdCodec {
    codec(CAP, ECAP | u64::from(device_tlb) << 2 | u64::from(pasid) << 40)
}

/// What a host command names, by the manual's types alone. Panics on one that may not be there at all.
fn assert_own(words: [u64; 4], ids: &HostIds<'_>, context: &str) {
    assert_eq!(words[2..], [0, 0], "{context}: {words:#x?}");
    let of_device = |stream: u64| {
        let stream = stream as u32 & 0xffff;
        assert!(ids.streams.contains(&stream), "{context}: source-id in {words:#x?}");
    };
    match words[0] & 0xe3f {
        0x22 | 0x32 | 0x26 | 0x36 => {
            let tag = (words[0] >> 16) as u32 & 0xffff;
            assert!(ids.domains.contains(&tag), "{context}: domain-id in {words:#x?}");
        }
        0x03 => {
            of_device(words[0] >> 32);
            assert_eq!(words[0] & 0xfff0_0000_0000_f000, 0, "{context}: PFSID in {words:#x?}");
        }
        kind if kind & 0xe0f == 0x08 => {
            of_device(words[0] >> 16);
            assert_eq!(words[0] & 0xfff0_0000_0000_f000, 0, "{context}: PFSID in {words:#x?}");
        }
        kind => panic!("{context}: type {kind:#x} reached the hardware: {words:#x?}"),
    }
}

#[test]
fn host_words_name_only_the_guests_own() {
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let codec = nested(seed % 2 == 0, seed % 3 == 0);
        let mut reached = 0;
        for round in 0..1200 {
            let mut some = |none| -> Vec<u32> {
                let count = random.below(12);
                (0..count).map(|_| if random.below(3) == 0 { none } else { random.next() as u32 & 0xffff }).collect()
            };
            let (streams, domains) = (some(NO_STREAM), some(NO_TAG));
            let ids = HostIds { tag: random.next() as u32 & 0xffff, streams: &streams, domains: &domains };
            let guest: Vec<u64> = (0..random.below(9)).flat_map(|_| command(&mut random)).collect();
            let mut out = vec![0xa5a5_a5a5_a5a5_a5a5; 4 * random.below(10) as usize];
            let before = Classes(random.below(8) as u32);
            let done = codec.rewrite(&guest, before, ids, &mut out);
            let context = format!("seed {seed} round {round}");
            check_counts(&done, &guest, &out, &context);
            for &words in out[..4 * done.written as usize].as_chunks::<4>().0 {
                assert_own(words, &ids, &context);
                reached += 1;
            }
        }
        assert!(reached > 100, "seed {seed}: only {reached} commands reached the hardware");
    }
}

fn check_counts(done: &Rewritten, guest: &[u64], out: &[u64], context: &str) {
    assert_eq!(done.taken, done.written + done.local_stream + done.local_domain + done.hints, "{context}");
    assert_eq!(done.written, done.tlb + done.config + done.atc, "{context}");
    assert!(4 * done.taken as usize <= guest.len() && 4 * done.written as usize <= out.len(), "{context}");
    assert_eq!(done.stop == Stop::END, 4 * done.taken as usize == guest.len(), "{context}");
    let rest = &out[4 * done.written as usize..];
    assert!(rest.iter().all(|&word| word == 0xa5a5_a5a5_a5a5_a5a5), "{context}: wrote beyond its count");
}

#[test]
fn a_device_cache_is_invalidated_only_after_synced_tlb_invalidations() {
    let codec = nested(true, false);
    let ids = HostIds { tag: 5, streams: &[7, NO_STREAM], domains: &[9] };
    let (tlbi, atc, foreign) = ([0x36, 0x1000, 0, 0], [0x03, 0x1000, 0, 0], [1 << 32 | 0x03, 0x1000, 0, 0]);
    let mut out = [0; 16];
    let guest = [tlbi, atc, atc].concat();
    let done = codec.rewrite(&guest, Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.classes), (1, Stop::ORDER, Classes::TLB));
    let done = codec.rewrite(&guest[4..], done.classes, ids, &mut out);
    assert_eq!((done.taken, done.stop), (0, Stop::ORDER));
    let done = codec.rewrite(&guest[4..], Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.stop, done.atc), (2, Stop::END, 2));
    // What never reaches the hardware has no order.
    let done = codec.rewrite(&[tlbi, foreign].concat(), Classes::NONE, ids, &mut out);
    assert_eq!((done.taken, done.local_stream, done.stop), (2, 1, Stop::END));
}

/// A guest in shadow mode has no tag that its own words may name: nothing of the TLB kind goes out.
#[test]
fn a_shadowed_guest_reaches_device_caches_only() {
    let legacy = codec(CAP | 1 << 7, ECAP & !(1 << 43 | 1 << 47) | 4);
    let scalable = codec(CAP | 1 << 7, ECAP & !(1 << 47) | 4);
    for codec in [legacy, scalable] {
        assert_eq!(codec.mode(), TranslationMode::SHADOW);
        let (streams, domains) = ([7; 12], [9; 12]);
        let ids = HostIds { tag: 5, streams: &streams, domains: &domains };
        let mut random = Random::new(1);
        let mut stops = 0;
        for _ in 0..20_000 {
            let done = codec.rewrite(&command(&mut random), Classes::NONE, ids, &mut [0; 4]);
            assert_eq!((done.tlb, done.config), (0, 0));
            stops += u32::from(done.stop == Stop::SHADOW);
        }
        assert!(stops > 100, "{stops}");
    }
}

#[test]
fn scopes_of_configuration_commands() {
    let codec = nested(false, false);
    for (word0, scope) in [
        (0x31 | 0x18 << 32, Configuration::entries(0x18, 0x18)),
        (0x31 | 0x13 << 32 | 1 << 48, Configuration::entries(0x13, 0x17)),
        (0x31 | 0x13 << 32 | 2 << 48, Configuration::entries(0x11, 0x17)),
        (0x31 | 0x13 << 32 | 3 << 48, Configuration::entries(0x10, 0x17)),
        (0x11, Configuration::entries(0, u32::MAX)),
        (0x21 | 5 << 16, Configuration::entries(0, u32::MAX)),
        (0x17 | 5 << 16, Configuration::entries(0, u32::MAX)),
        (0x12, Configuration::FLUSH),
    ] {
        let command = [word0, 0, 0, 0];
        let done = codec.rewrite(&command, Classes::NONE, HostIds { tag: 1, streams: &[], domains: &[] }, &mut []);
        assert_eq!((done.stop, codec.configuration(&command)), (Stop::CONFIGURATION, scope), "{word0:#x}");
    }
    assert_eq!(codec.configuration(&[]), Configuration::EVERYTHING);
}

#[test]
fn scopes_of_shadow_commands() {
    let codec = codec(CAP | 1 << 7, ECAP & !(1 << 43 | 1 << 47));
    let range = |domain, first, last| ShadowRange { domain, all_domains: 0, first, last };
    let all = ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX };
    for (words, scope) in [
        ([0x12, 0], all),
        ([0x22 | 5 << 16, 0], range(5, 0, u64::MAX)),
        ([0x32 | 5 << 16, 0x7000], range(5, 0x7000, 0x7fff)),
        // Low bits of the address below the mask do not count.
        ([0x32 | 5 << 16, 0x7000 | 0x40 | 9], range(5, 0, 0x1f_ffff)),
        ([0x32 | 0xffff << 16, !0xfff | 9], range(0xffff, 0xffff_ffff_ffe0_0000, u64::MAX)),
        ([0x32, 63], range(0, 0, u64::MAX)),
        ([0x05, 0], all),
    ] {
        assert_eq!(codec.shadow_range(&[words[0], words[1], 0, 0]), scope, "{words:#x?}");
    }
    assert_eq!(codec.shadow_range(&[]), all);
}

#[test]
fn descriptions_name_the_fields() {
    let codec = nested(true, true);
    for (words, text) in [
        ([7 << 16 | 0x36, 0x5000 | 0x42], "PIOTLB did 0x7 pasid 0x0 addr 0x5000 x 2^2 ih"),
        ([0x12, 0], "IOTLB global"),
        ([0x31 | 0x18 << 32 | 3 << 48 | 5 << 16, 0], "CONTEXT sid 0x18 fm 3 did 0x5"),
        ([0x03 | 0x10 << 32, 0x7fff_ffff_ffff_f001], "DEV_TLB sid 0x10 everything"),
        ([0x03 | 0x10 << 32, 0x2001], "DEV_TLB sid 0x10 addr 0x2000 size 2^13"),
        ([5 << 32 | 0x25, 0x1004], "WAIT status 0x5 at 0x1004"),
        ([0x0f, 1], "type 0x0f (0x000000000000000f 0x0000000000000001)"),
    ] {
        let mut message = Message::default();
        codec.describe(&[words[0], words[1], 0, 0], &mut message);
        assert_eq!(message.text(), text);
    }
}
