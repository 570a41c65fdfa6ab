//! Any bytes as a guest's saved state: refused with the field, or a state that is written back as the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use viommu::save::{GuestEntry, SavedViommu};

fuzz_target!(|bytes: &[u8]| {
    let state = match SavedViommu::from_bytes(bytes) {
        Ok(state) => state,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("saved vIOMMU: ") && text.len() > 20, "{text}");
            return;
        }
    };
    // Nothing is larger than the bytes it came from.
    let words = |entry: &GuestEntry| if let GuestEntry::Words(words) = entry { 8 * words.len() } else { 0 };
    let listed = 16 * (state.shown.len() + state.hw_queues.len())
        + state.vdevices.iter().map(|vdevice| 5 + words(&vdevice.entry)).sum::<usize>()
        + state.frontend.as_ref().map_or(0, Vec::len);
    assert!(listed <= bytes.len(), "{listed} bytes of state from {} bytes", bytes.len());
    assert!(state.vdevices.windows(2).all(|two| two[0].virt_id < two[1].virt_id), "guest IDs ascend");
    // One state has one form: what was taken is what would have been written.
    assert!(state.to_bytes() == bytes, "{state:?} is written as other bytes");
    // And each part counts: any bit of it makes another state, or none.
    for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut other = bytes.to_vec();
        other[at] ^= 1 << (at % 8);
        assert!(!SavedViommu::from_bytes(&other).is_ok_and(|other| other == state), "byte {at} means nothing");
    }
});
