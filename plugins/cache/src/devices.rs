//! The caches of devices (ATCs, device-TLBs).

use crate::{Cache, Translation};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// One [`Cache`] a device, by its stream. A device knows what the IOMMU told it: one size, and invalidations by that size.
#[derive(Default)]
pub struct Devices {
    caches: FxHashMap<u32, Cache>,
}

impl Devices {
    /// Entries a device keeps.
    const CAPACITY: usize = 1 << 16;

    /// The entry of `stream`'s device and `tag` that translates `input`.
    #[inline]
    pub fn find(&self, stream: u32, tag: u32, input: u64) -> Option<&Translation> {
        self.caches.get(&stream)?.find(tag, &Cell::new(0), input)
    }

    /// Tells `stream`'s device a translation of `input`.
    pub fn insert(&mut self, stream: u32, tag: u32, input: u64, translation: Translation) {
        let told = Translation { leaf_log2: translation.log2, ..translation };
        self.caches.entry(stream).or_default().insert(tag, input, told, Self::CAPACITY);
    }

    /// The cache of `stream`'s device, to remove entries from; `None` if it was never told anything.
    pub fn get_mut(&mut self, stream: u32) -> Option<&mut Cache> {
        self.caches.get_mut(&stream)
    }

    /// Power-on: all devices forget all.
    pub fn clear(&mut self) {
        self.caches.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Range;

    #[test]
    fn a_device_forgets_the_size_it_was_told_and_no_other_device_does() {
        let mut devices = Devices::default();
        let cut = Translation { output: 0x5000, log2: 12, leaf_log2: 21, permissions: 3 };
        for stream in [1, 2] {
            devices.insert(stream, 0, 0x1000, cut);
            devices.insert(stream, 0, 0x2000, cut);
        }
        devices.get_mut(1).unwrap().remove(0, Range::block(0x1000, 12));
        assert!(devices.find(1, 0, 0x1000).is_none());
        assert!(devices.find(1, 0, 0x2000).is_some(), "cut from the same leaf, of which a device knows nothing");
        assert!(devices.find(2, 0, 0x1000).is_some() && devices.get_mut(3).is_none());
    }
}
