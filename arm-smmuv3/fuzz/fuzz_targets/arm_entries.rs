//! Any STE: its key is what the table of `tests/proof` says, and the STE that hardware sees is the host's where it is the
//! host's to decide.
//!
//! Input: features, host, then the STE's 64 bytes.

#![no_main]

#[path = "../../tests/proof/entry_table.rs"]
mod entry_table;
#[path = "../../tests/proof/physical.rs"]
mod physical;
#[path = "../../tests/proof/shown.rs"]
mod shown;

use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::tables::{HostSte, Stage2, Step, physical_ste, plan};
use entry_table::entries;
use libfuzzer_sys::fuzz_target;
use physical::{Owned, STAGE2};
use shown::Shown;
use std::sync::LazyLock;
use viommu_plugin_check::proof::EntryTable;

static SETS: LazyLock<Vec<(ArmCodec, EntryTable)>> = LazyLock::new(|| {
    let set =
        |number: u32| Shown { ssidsize: (number >> 2) as u8, cd2l: number & 2 != 0, ..Shown::of_commands(number & 1) };
    (0..128).map(|number| (set(number).codec(), entries(set(number)))).collect()
});
static MADE: LazyLock<Stage2> = LazyLock::new(|| STAGE2.make());

fuzz_target!(|input: &[u8]| {
    let Some((&[set, host], rest)) = input.split_first_chunk::<2>() else { return };
    let (codec, table) = &SETS[usize::from(set) % 128];
    let bit = |at: u8| host >> at & 1 != 0;
    let host = HostSte { ats: bit(0), fwb: bit(1), stalls: bit(2), attr_types_ovr: bit(3) };
    let owned = Owned { stage2: STAGE2, host };
    let words: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let mut before = arm_smmuv3::tables::ABORT;
    // A sequence of entries: each one's key, the STE made of it, and the way there from the one before.
    for entry in words.as_chunks::<8>().0 {
        let key = table.same(codec, entry).unwrap_or_else(|wrong| panic!("{wrong}"));
        let ste = physical_ste(&key, &MADE, host);
        owned.check(&key, &ste).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut memory = before;
        let steps = plan(&before, &ste);
        for step in &steps {
            if let Step::Write { word, value } = *step {
                memory[word] = value;
            }
            // Whatever hardware reads in between is invalid, or on this guest's stage 2, or aborts.
            let (valid, config) = (memory[0] & 1 != 0, memory[0] >> 1 & 7);
            assert!(!valid || config == 0 || config >= 6, "Config {config} on the way: {steps:x?}");
            let on_stage2 = valid && config >= 6;
            assert!(!on_stage2 || (memory[3] == ste[3] || memory[3] == before[3]) && memory[3] != 0, "{steps:x?}");
            assert!(!on_stage2 || memory[2] as u16 != 0, "VMID 0 on the way: {steps:x?}");
        }
        assert_eq!(memory, ste, "the way leads elsewhere: {steps:x?}");
        before = ste;
    }
    // A short entry is no entry.
    let short = &words[..words.len().min(1)];
    assert_eq!(codec_key_kind(codec, short), 0, "an entry of one word lets DMA pass");
});

fn codec_key_kind(codec: &ArmCodec, entry: &[u64]) -> u32 {
    use viommu_plugin::Codec;
    codec.entry_key(entry).kind.0
}
