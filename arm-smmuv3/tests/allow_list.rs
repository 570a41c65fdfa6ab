//! Every bit of every opcode, one at a time, against a table written from the manual's figures and not from the codec.

use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Classes, Codec, GuestFault, HostIds, Register, Stop};

/// What a guest is shown.
#[derive(Debug, Clone, Copy)]
struct Shown {
    ats: bool,
    asid16: bool,
    ril: bool,
    ds: bool,
    substreams: bool,
}

impl Shown {
    fn codec(self) -> ArmCodec {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        let register = |offset, value| Register { offset, value };
        ArmCodec::new(&[
            register(offset::IDR0, 0x0d44_000a | bit(self.ats, 10) | bit(self.asid16, 12)),
            register(offset::IDR1, 0x0273_0010 | if self.substreams { 20 << 6 } else { 0 }),
            register(offset::IDR3, bit(self.ril, 10)),
            register(offset::IDR5, 0x74 | bit(self.ds, 7)),
        ])
        .unwrap()
    }
}

/// `(opcode, a legal command, (first, last, whether allowed) of bits that may be set on top)`. Bits 0..8 are the opcode;
/// bits 64.. are the second word. A bit in no row is reserved.
type Row = (u8, [u64; 2], Vec<(u32, u32, bool)>);

fn table(shown: Shown) -> Vec<Row> {
    let Shown { asid16, ril, ds, substreams, .. } = shown;
    // By address: a range of 4 KiB granules with a level, so that no added bit makes a reserved combination.
    let ranged = if ril { [1 << 12 | 1 << 20, 1 << 8 | 1 << 10] } else { [0, 0] };
    let vaa = vec![
        (12, 16, ril),
        (20, 24, ril),
        (25, 25, ril && ds),
        (32, 47, true),
        (64, 64, true),
        (72, 75, ril),
        (76, 127, true),
    ];
    let asid = [(48, 55, true), (56, 63, asid16)];
    let va = vaa.iter().copied().chain(asid).collect();
    let stream = (32, 63, true);
    let ssid = (12, 31, substreams);
    let mut rows: Vec<Row> = vec![
        (0x01, [0, 0], vec![(11, 11, substreams), ssid, stream, (64, 73, true), (76, 127, true)]),
        (0x02, [0, 0], vec![(11, 11, substreams), ssid, stream, (64, 73, true), (76, 127, true)]),
        (0x03, [0, 0], vec![stream, (64, 64, true)]),
        (0x04, [0, 0], vec![stream, (64, 68, true)]),
        (0x05, [0, 0], vec![ssid, stream, (64, 64, true)]),
        (0x06, [0, 0], vec![stream]),
        (0x10, [0, 0], vec![(32, 47, true)]),
        (0x11, [0, 0], [(32, 47, true)].into_iter().chain(asid).collect()),
        (0x12, ranged, va),
        (0x13, ranged, vaa),
        (0x30, [0, 0], vec![]),
        (0x46, [0, 0], vec![(12, 13, true), (22, 27, true), (32, 63, true), (66, 115, true)]),
    ];
    if shown.ats {
        // Size 52 is the largest: bits 0, 1 and 3 on top of 32 stay below.
        let size = [(64, 65, true), (67, 67, true), (69, 69, true)];
        let atc = [(9, 9, substreams), (11, 11, substreams), ssid, stream, (76, 127, true)];
        rows.push((0x40, [0, 32], atc.into_iter().chain(size).collect()));
    }
    rows
}

fn verdict(codec: &ArmCodec, command: [u64; 2]) -> GuestFault {
    // Every stream below 16 is there, so that nothing is local that should be looked at.
    let ids = HostIds { tag: 1, streams: &[9; 16] };
    let done = codec.rewrite(&command, Classes::NONE, ids, &mut [0; 2]);
    assert_eq!(done.stop == Stop::FAULT, done.fault != GuestFault::NONE);
    done.fault
}

fn sets() -> impl Iterator<Item = Shown> {
    (0..32u32).map(|bits| Shown {
        ats: bits & 1 != 0,
        asid16: bits & 2 != 0,
        ril: bits & 4 != 0,
        ds: bits & 8 != 0,
        substreams: bits & 16 != 0,
    })
}

#[test]
fn every_bit_of_every_opcode() {
    for shown in sets() {
        let codec = shown.codec();
        for (opcode, base, allowed) in table(shown) {
            let base = [base[0] | u64::from(opcode), base[1]];
            assert_eq!(verdict(&codec, base), GuestFault::NONE, "{shown:?} {opcode:#x} itself");
            for bit in 8..128u32 {
                let mut command = base;
                command[bit as usize / 64] |= 1 << (bit % 64);
                // CMD_ATC_INV sizes above 52 are reserved though their bits are not.
                if command == base || (opcode == 0x40 && (66..=68).contains(&bit)) {
                    continue;
                }
                let legal = allowed.iter().any(|&(first, last, on)| on && (first..=last).contains(&bit));
                let expected = if legal { GuestFault::NONE } else { GuestFault::RESERVED_BITS };
                assert_eq!(verdict(&codec, command), expected, "{shown:?} {opcode:#x} bit {bit}");
            }
        }
    }
}

#[test]
fn opcodes_not_in_the_table_are_illegal() {
    for shown in sets() {
        let codec = shown.codec();
        let known: Vec<u8> = table(shown).iter().map(|row| row.0).collect();
        for opcode in (0..=255).filter(|opcode| !known.contains(opcode)) {
            assert_eq!(verdict(&codec, [opcode.into(), 0]), GuestFault::ILLEGAL_OPCODE, "{shown:?} {opcode:#x}");
        }
    }
}

#[test]
fn reserved_combinations_of_a_range() {
    let command = |num: u64, scale: u64, ttl: u64, tg: u64| [0x12 | num << 12 | scale << 20, ttl << 8 | tg << 10];
    let legal = |shown: Shown, command| verdict(&shown.codec(), command) == GuestFault::NONE;
    let ril = Shown { ats: false, asid16: true, ril: true, ds: false, substreams: false };
    let ds = Shown { ds: true, ..ril };
    let none = Shown { ril: false, ..ril };
    for (num, scale, ttl, tg, with_ril, with_ds, without) in [
        (0, 0, 0, 0, true, true, true),
        (1, 0, 0, 0, false, false, false),
        (0, 1, 0, 0, false, false, false),
        (0, 0, 1, 0, false, false, false),
        (0, 0, 0, 1, false, false, false),
        (0, 0, 0, 3, false, false, false),
        (0, 0, 3, 1, true, true, false),
        (5, 3, 0, 2, true, true, false),
        (5, 3, 1, 2, false, true, false),
        (0, 0, 1, 2, false, true, false),
        (0, 32, 0, 1, false, true, false),
    ] {
        let command = command(num, scale, ttl, tg);
        assert_eq!(
            (legal(ril, command), legal(ds, command), legal(none, command)),
            (with_ril, with_ds, without),
            "num {num} scale {scale} ttl {ttl} tg {tg}"
        );
    }
}

#[test]
fn sizes_of_a_device_cache_invalidation() {
    let shown = Shown { ats: true, asid16: true, ril: true, ds: false, substreams: false };
    for size in 0..64u64 {
        let legal = verdict(&shown.codec(), [0x40, size]) == GuestFault::NONE;
        assert_eq!(legal, size <= 52, "size {size}");
    }
}

#[test]
fn completion_signals_of_a_sync() {
    let shown = Shown { ats: false, asid16: true, ril: true, ds: false, substreams: false };
    for (cs, legal) in [(0u64, true), (1, true), (2, true), (3, false)] {
        assert_eq!(verdict(&shown.codec(), [0x46 | cs << 12, 0]) == GuestFault::NONE, legal, "CS {cs}");
    }
}
