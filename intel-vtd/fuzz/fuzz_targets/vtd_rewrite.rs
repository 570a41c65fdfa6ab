//! Any commands in any batch for any guest: rewritten as the table of `tests/proof` says, and naming nobody else; any
//! entry read as its table says.
//!
//! Input: features, before, room, streams, domains, seed, two unused; then commands of 32 bytes.

#![no_main]

#[path = "../../tests/proof/command_table.rs"]
mod command_table;
#[path = "../../tests/proof/entry_table.rs"]
mod entry_table;
#[path = "../../tests/proof/shown.rs"]
mod shown;

use command_table::commands;
use entry_table::entries;
use intel_vtd::codec::{ENTRY_WORDS, VtdCodec};
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::sync::LazyLock;
use viommu_plugin::{Classes, Codec, HostIds, Message, Stop};
use viommu_plugin_check::proof::{CommandTable, EntryTable, same};

static COMMANDS: LazyLock<Vec<(VtdCodec, CommandTable)>> = LazyLock::new(|| {
    let set = |number| (Shown::of_commands(number).codec(), commands(Shown::of_commands(number)));
    (0..48).map(set).collect()
});
static ENTRIES: LazyLock<Vec<(VtdCodec, EntryTable)>> = LazyLock::new(|| {
    let set = |number| (Shown::of_entries(number).codec(), entries(Shown::of_entries(number)));
    (0..24).map(set).collect()
});

/// Host numbers by a guest's: some there, some not.
fn given(count: u8, seed: u8) -> Vec<u32> {
    let hash = |id: u32| (id + 1).wrapping_mul(0x9e37_79b1).rotate_left(seed.into());
    (0..count.into()).map(|id| if hash(id) & 3 == 0 { u32::MAX } else { hash(id) >> 16 }).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[set, before, room, streams, domains, seed, _, _], rest)) = input.split_first_chunk::<8>() else {
        return;
    };
    let guest: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let (codec, table) = &ENTRIES[usize::from(set) % 24];
    if let Some(entry) = guest.get(..ENTRY_WORDS)
        && let Err(wrong) = table.same(codec, entry)
    {
        panic!("{wrong}");
    }

    let (codec, table) = &COMMANDS[usize::from(set) % 48];
    let guest = &guest[..guest.len() & !3];
    let (streams, domains) = (given(streams, seed), given(domains, !seed));
    let ids = HostIds { tag: 7, streams: &streams, domains: &domains };
    let (before, room) = (Classes((before & 7).into()), usize::from(room) % 65);
    if let Err(wrong) = same(codec, table, guest, before, ids, room) {
        panic!("{wrong}");
    }

    // And without the table, by the manual's types alone: whose are the host's words?
    let mut out = vec![0; 4 * room];
    let done = codec.rewrite(guest, before, ids, &mut out);
    for &[w0, w1, w2, w3] in out[..4 * done.written as usize].as_chunks::<4>().0 {
        assert_eq!([w2, w3], [0; 2], "{w0:#x} {w1:#x}");
        let number = |at: u32| (w0 >> at) as u32 & 0xffff;
        match w0 & 0xe0f {
            2 | 6 => assert!(domains.contains(&number(16)), "domain-id in {w0:#x} {w1:#x}"),
            3 => assert!(streams.contains(&number(32)), "source-id in {w0:#x} {w1:#x}"),
            8 => assert!(streams.contains(&number(16)), "source-id in {w0:#x} {w1:#x}"),
            kind => panic!("type {kind:#x} reached the hardware: {w0:#x} {w1:#x}"),
        }
    }
    if let Some(next) = guest.get(4 * done.taken as usize..).and_then(|rest| rest.first_chunk::<4>()) {
        let mut text = Message::default();
        codec.describe(next, &mut text);
        assert!(!text.text().is_empty());
        match done.stop {
            Stop::CONFIGURATION => {
                let scope = codec.configuration(next);
                let source = (next[0] >> 32) as u32 & 0xffff;
                let device = next[0] & 0x3f == 0x31;
                assert!(!device || (scope.first..=scope.last).contains(&source), "{scope:?}");
            }
            Stop::SHADOW => {
                let range = codec.shadow_range(next);
                let pages = next[0] & 0x3f == 0x32;
                assert!(!pages || (range.first..=range.last).contains(&(next[1] & !0xfff)), "{range:?}");
            }
            _ => {}
        }
    }
});
