//! Any DTE: its key is what the table of `tests/proof` says, the DTE that hardware sees is the host's where it is the
//! host's to decide, and the walk of a v1 table behind it is bounded, in order, and never hangs.
//!
//! Input: features; then 8 bytes that make up the guest's memory; then DTEs of 32 bytes.

#![no_main]

#[path = "../../tests/proof/entry_table.rs"]
mod entry_table;
#[path = "../../tests/proof/physical.rs"]
mod physical;
#[path = "../../tests/proof/shown.rs"]
mod shown;

use amd_vi::codec::AmdCodec;
use amd_vi::tables::{ABORT, HostTable, Step, physical_dte, plan};
use entry_table::entries;
use libfuzzer_sys::fuzz_target;
use physical::Owned;
use shown::Shown;
use std::cell::Cell;
use std::sync::LazyLock;
use viommu_plugin::{Codec, EntryKey, GuestMapping, GuestMemory, Unreadable, WALK_READS};
use viommu_plugin_check::proof::EntryTable;

const OWNED: Owned = Owned { hats: 1, root: 0x8_7654_3000, tag: 0x5a3c, ats: true };

static SETS: LazyLock<Vec<(AmdCodec, EntryTable)>> = LazyLock::new(|| {
    let set = |number: u32| {
        let levels = u64::from(number / 8 % 3);
        let base = Shown::of_commands(number & 1);
        Shown { five: number & 2 != 0, ats: number & 4 != 0, glx: levels, host_levels: 4 + levels, ..base }
    };
    (0..24).map(|number| (set(number).codec(), entries(set(number)))).collect()
});
static MADE: LazyLock<HostTable> = LazyLock::new(|| OWNED.make());

/// Memory in which every word follows from its address; an eighth is not there.
struct Noise {
    seed: u64,
    reads: Cell<u32>,
}

impl GuestMemory for Noise {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        let mut word = (gpa ^ self.seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        if word & 7 == 0 {
            return Err(Unreadable);
        }
        // Mostly present, allowing both, and leading down.
        let word = if word & 8 == 0 { word } else { word & !(7 << 9) | (word >> 3 & 1) << 9 | 3 << 61 | 1 };
        for (byte, value) in bytes.iter_mut().zip(word.to_le_bytes()) {
            *byte = value;
        }
        Ok(())
    }
}

fn walk(codec: &AmdCodec, key: &EntryKey, seed: u64) {
    let memory = Noise { seed, reads: Cell::new(0) };
    let (mut at, last, mut free) = (seed << 12, u64::MAX, 0u64);
    for _ in 0..4 {
        memory.reads.set(0);
        let mut out = [GuestMapping::default(); 16];
        let walked = codec.walk(key, &memory, at, last, &mut out);
        assert!(memory.reads.get() <= WALK_READS, "{} reads", memory.reads.get());
        for leaf in &out[..walked.written as usize] {
            let end = leaf.iova.checked_add(leaf.length - 1).expect("inside the address space");
            assert!(leaf.length.is_power_of_two() && leaf.iova % leaf.length == 0 && leaf.gpa % leaf.length == 0);
            assert!((1..=3).contains(&leaf.permissions) && leaf.iova >= free && end >= at, "{leaf:x?}");
            free = end.saturating_add(1);
        }
        if walked.done == 1 {
            return;
        }
        assert!(walked.next > at && walked.next >= free, "it goes on: {walked:x?}");
        at = walked.next;
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&set, rest)) = input.split_first() else { return };
    let Some((seed, rest)) = rest.split_first_chunk::<8>() else { return };
    let (codec, table) = &SETS[usize::from(set) % 24];
    let words: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let mut before = ABORT;
    // A sequence of entries: each one's key, the DTE made of it, and the way there from the one before.
    for entry in words.as_chunks::<4>().0 {
        let key = table.same(codec, entry).unwrap_or_else(|wrong| panic!("{wrong}"));
        let dte = physical_dte(&key, &MADE, OWNED.tag, OWNED.ats);
        OWNED.check(&key, &dte).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut memory = before;
        let steps = plan(&before, &dte);
        for step in &steps {
            if let Step::Write { word, value } = *step {
                memory[word] = value;
            }
            // Whatever hardware reads in between stops, or is the entry before or after; it is always valid.
            let stops = memory[0] == ABORT[0];
            assert!(memory[0] & 1 == 1 && (stops || memory == before || memory == dte), "on the way: {steps:x?}");
        }
        assert_eq!(memory, dte, "the way leads elsewhere: {steps:x?}");
        before = dte;
        walk(codec, &key, u64::from_le_bytes(*seed));
    }
    // A short entry is no entry.
    assert_eq!(codec.entry_key(&words[..words.len().min(2)]).kind.0, 0, "an entry of two words lets DMA pass");
});
