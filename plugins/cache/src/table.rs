//! The translations of one tag, by size and address.

use crate::{Range, Translation, low_bits};
use rustc_hash::FxHashMap;

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) translation: Translation,
    /// When it was inserted, in insertions of its cache.
    pub(crate) born: u64,
}

/// The entries of one size, by input address divided by that size.
pub(crate) struct Class {
    pub(crate) log2: u8,
    pub(crate) entries: FxHashMap<u64, Entry>,
}

impl Class {
    /// Removes the entries that share a byte with `range` and are `doomed`; how many.
    fn remove(&mut self, range: Range, doomed: impl Fn(&Translation) -> bool) -> usize {
        let (low, high) = (range.first >> self.log2, range.last >> self.log2);
        let before = self.entries.len();
        if high - low < before as u64 {
            for index in low..=high {
                if self.entries.get(&index).is_some_and(|entry| doomed(&entry.translation)) {
                    self.entries.remove(&index);
                }
            }
        } else {
            self.entries.retain(|&index, entry| index < low || index > high || !doomed(&entry.translation));
        }
        before - self.entries.len()
    }
}

/// The entries of one tag, one [`Class`] a size.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) classes: Vec<Class>,
    /// Bit n: there may be entries cut from a leaf of 2^n bytes.
    cut: u64,
}

impl Table {
    #[inline]
    pub(crate) fn find(&self, input: u64) -> Option<&Translation> {
        self.classes.iter().find_map(|class| class.entries.get(&(input >> class.log2))).map(|entry| &entry.translation)
    }

    pub(crate) fn insert(&mut self, input: u64, entry: Entry) -> bool {
        let Translation { log2, leaf_log2, .. } = entry.translation;
        if leaf_log2 > log2 {
            self.cut |= 1 << leaf_log2;
        }
        let class = match self.classes.iter().position(|class| class.log2 == log2) {
            Some(found) => &mut self.classes[found],
            None => {
                let place = self.classes.partition_point(|class| class.log2 < log2);
                self.classes.insert(place, Class { log2, entries: FxHashMap::default() });
                &mut self.classes[place]
            }
        };
        class.entries.insert(input >> log2, entry).is_none()
    }

    /// An invalidation that touches any byte of a leaf removes every entry cut from that leaf, so entries smaller
    /// than their leaf are looked for in the range widened to that leaf's size.
    pub(crate) fn remove(&mut self, range: Range) -> usize {
        let mut removed = self.classes.iter_mut().map(|class| class.remove(range, |_| true)).sum();
        for leaf_log2 in (0..u64::BITS as u8).filter(|log2| self.cut >> log2 & 1 != 0) {
            let offset = low_bits(leaf_log2);
            let widened = Range { first: range.first & !offset, last: range.last | offset };
            for class in self.classes.iter_mut().filter(|class| class.log2 < leaf_log2) {
                removed += class.remove(widened, |entry| entry.leaf_log2 == leaf_log2);
            }
        }
        removed
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.entries.len()).sum()
    }
}
