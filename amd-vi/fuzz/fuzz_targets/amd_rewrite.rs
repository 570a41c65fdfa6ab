//! Any commands in any batch for any guest: rewritten as the table of `tests/proof` says, and naming nobody else.
//!
//! Input: features, before, room, devices, domains, tag (2), seed; then commands of 16 bytes.

#![no_main]

#[path = "../../tests/proof/command_table.rs"]
mod command_table;
#[path = "../../tests/proof/shown.rs"]
mod shown;

use amd_vi::codec::AmdCodec;
use command_table::commands;
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::sync::LazyLock;
use viommu_plugin::{Classes, Codec, HostIds, Message, NO_STREAM, Stop};
use viommu_plugin_check::proof::{CommandTable, same};

static SETS: LazyLock<Vec<(AmdCodec, CommandTable)>> = LazyLock::new(|| {
    let set = |number| (Shown::of_commands(number).codec(), commands(Shown::of_commands(number)));
    (0..32).map(set).collect()
});

/// Host numbers of 16 bits by guest number: some there, some not.
fn table(count: u8, seed: u8) -> Vec<u32> {
    let hash = |id: u32| (id + 1).wrapping_mul(0x9e37_79b1).rotate_left(seed.into());
    (0..count.into()).map(|id| if hash(id) & 3 == 0 { NO_STREAM } else { hash(id) >> 16 }).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[set, before, room, devices, domains, low, high, seed], rest)) = input.split_first_chunk::<8>() else {
        return;
    };
    let (codec, judge) = &SETS[usize::from(set) % 32];
    let guest: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let guest = &guest[..guest.len() & !1];
    let (streams, domains) = (table(devices, seed), table(domains, seed ^ 0x5a));
    let ids = HostIds { tag: u16::from_le_bytes([low, high]).into(), streams: &streams, domains: &domains };
    let (before, room) = (Classes((before & 7).into()), usize::from(room) % 65);
    if let Err(wrong) = same(codec, judge, guest, before, ids, room) {
        panic!("{wrong}");
    }

    // And without the table, by opcodes alone: whose are the host's words?
    let mut out = vec![0; 2 * room];
    let done = codec.rewrite(guest, before, ids, &mut out);
    for &[w0, w1] in out[..2 * done.written as usize].as_chunks::<2>().0 {
        let (first, second) = (w0 as u32 & 0xffff, (w0 >> 32) as u32 & 0xffff);
        match w0 >> 60 {
            3 => assert!(domains.contains(&second), "domain in {w0:#x} {w1:#x}"),
            4 => assert!(streams.contains(&first) && first == second, "device in {w0:#x} {w1:#x}"),
            opcode => panic!("opcode {opcode:#x} reached the hardware: {w0:#x} {w1:#x}"),
        }
    }
    if let Some(next) = guest.get(2 * done.taken as usize..).and_then(|rest| rest.first_chunk::<2>()) {
        let mut text = Message::default();
        codec.describe(next, &mut text);
        assert!(!text.text().is_empty());
        if done.stop == Stop::CONFIGURATION {
            let scope = codec.configuration(next);
            let device = u32::from(next[0] as u16);
            assert!((scope.first..=scope.last).contains(&device), "{scope:?}");
        }
        if done.stop == Stop::SHADOW {
            let range = codec.shadow_range(next);
            let at = if next[1] & 4 == 0 { next[1] & !0xfff } else { 0 };
            assert_eq!((range.all_domains, range.domain), (0, (next[0] >> 32) as u32 & 0xffff));
            assert!((range.first..=range.last).contains(&at) || next[1] & 1 == 1, "{range:x?}");
        }
    }
});
