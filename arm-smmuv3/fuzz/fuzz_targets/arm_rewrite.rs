//! Any commands in any batch for any guest: rewritten as the table of `tests/proof` says, and naming nobody else.
//!
//! Input: features, before, room, streams, tag (2), seed, unused; then commands of 16 bytes.

#![no_main]

#[path = "../../tests/proof/command_table.rs"]
mod command_table;
#[path = "../../tests/proof/shown.rs"]
mod shown;

use arm_smmuv3::codec::ArmCodec;
use command_table::commands;
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::sync::LazyLock;
use viommu_plugin::{Classes, Codec, HostIds, Message, NO_STREAM, Stop};
use viommu_plugin_check::proof::{CommandTable, same};

static SETS: LazyLock<Vec<(ArmCodec, CommandTable)>> = LazyLock::new(|| {
    let set = |number| (Shown::of_commands(number).codec(), commands(Shown::of_commands(number)));
    (0..32).map(set).collect()
});

/// Streams of a guest: some there, some not, some big.
fn streams(count: u8, seed: u8) -> Vec<u32> {
    let hash = |id: u32| (id + 1).wrapping_mul(0x9e37_79b1).rotate_left(seed.into());
    (0..count.into()).map(|id| if hash(id) & 3 == 0 { NO_STREAM } else { hash(id) >> (hash(id) & 15) }).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[set, before, room, count, low, high, seed, _], rest)) = input.split_first_chunk::<8>() else { return };
    let (codec, table) = &SETS[usize::from(set) % 32];
    let guest: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let guest = &guest[..guest.len() & !1];
    let streams = streams(count, seed);
    let ids = HostIds { tag: u16::from_le_bytes([low, high]).into(), streams: &streams, domains: &[] };
    let (before, room) = (Classes((before & 7).into()), usize::from(room) % 65);
    if let Err(wrong) = same(codec, table, guest, before, ids, room) {
        panic!("{wrong}");
    }

    // And without the table, by the manual's opcodes alone: whose are the host's words?
    let mut out = vec![0; 2 * room];
    let done = codec.rewrite(guest, before, ids, &mut out);
    for &[w0, w1] in out[..2 * done.written as usize].as_chunks::<2>().0 {
        match w0 as u8 {
            0x10..=0x13 => assert_eq!(u32::from((w0 >> 32) as u16), ids.tag, "VMID in {w0:#x} {w1:#x}"),
            0x05 | 0x06 | 0x40 => {
                let stream = (w0 >> 32) as u32;
                assert!(stream != NO_STREAM && streams.contains(&stream), "stream in {w0:#x} {w1:#x}");
            }
            opcode => panic!("opcode {opcode:#x} reached the hardware: {w0:#x} {w1:#x}"),
        }
    }
    if let Some(next) = guest.get(2 * done.taken as usize..).and_then(|rest| rest.first_chunk::<2>()) {
        let mut text = Message::default();
        codec.describe(next, &mut text);
        assert!(!text.text().is_empty());
        if done.stop == Stop::CONFIGURATION {
            let scope = codec.configuration(next);
            let stream = (next[0] >> 32) as u32;
            let all = next[0] as u8 == 4 && next[1] & 31 == 31;
            assert!(scope.first <= scope.last && (all || (scope.first..=scope.last).contains(&stream)), "{scope:?}");
        }
    }
});
