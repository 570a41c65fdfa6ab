//! Translations of any number of tags under one bound.

use crate::table::{Entry, Table};
use crate::{Range, Translation};
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::collections::VecDeque;

/// Where an entry was put, to find the oldest.
struct Place {
    born: u64,
    tag: u32,
    log2: u8,
    index: u64,
}

/// A table's place in its cache.
#[derive(Default)]
struct Slot {
    /// `None`: free.
    tag: Option<u32>,
    table: Table,
}

/// Translations of any number of tags under one bound.
#[derive(Default)]
pub struct Cache {
    slots: Vec<Slot>,
    /// Where the table of a tag is.
    places: FxHashMap<u32, usize>,
    free: Vec<usize>,
    live: usize,
    births: u64,
    /// The oldest entries, in order of birth; gathered only when one has to go, so that a cache which never fills
    /// never pays. Names entries that may be gone by now.
    oldest: VecDeque<Place>,
}

impl Cache {
    /// Empty tables kept for their memory beside the live ones.
    const SPARE_TABLES: usize = 64;

    /// The entry of `tag` that covers `input`. `hint` is where the caller's tag was the last time.
    #[inline]
    pub fn find(&self, tag: u32, hint: &Cell<usize>, input: u64) -> Option<&Translation> {
        let slot = match self.slots.get(hint.get()) {
            Some(slot) if slot.tag == Some(tag) => slot,
            _ => {
                hint.set(*self.places.get(&tag)?);
                self.slots.get(hint.get())?
            }
        };
        slot.table.find(input)
    }

    /// Remembers `translation` of `input`; whether another entry had to go for it.
    pub fn insert(&mut self, tag: u32, input: u64, translation: Translation, capacity: usize) -> bool {
        if self.places.len() > self.live + Self::SPARE_TABLES {
            self.free_where(|_, table| table.len() == 0);
        }
        self.births += 1;
        let entry = Entry { translation, born: self.births };
        let place = *self.places.entry(tag).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            })
        });
        let slot = &mut self.slots[place];
        slot.tag = Some(tag);
        self.live += usize::from(slot.table.insert(input, entry));
        self.live > capacity && self.evict()
    }

    /// Removes the entries of `tag` that share a byte with `range`.
    pub fn remove(&mut self, tag: u32, range: Range) {
        if let Some(&place) = self.places.get(&tag) {
            self.live -= self.slots[place].table.remove(range);
        }
    }

    /// Removes the entries of every tag that is `doomed` and share a byte with `range`.
    pub fn remove_where(&mut self, doomed: impl Fn(u32) -> bool, range: Range) {
        for slot in self.slots.iter_mut().filter(|slot| slot.tag.is_some_and(&doomed)) {
            self.live -= slot.table.remove(range);
        }
    }

    /// Removes all entries of the tags that are `doomed`.
    pub fn clear_where(&mut self, doomed: impl Fn(u32) -> bool) {
        self.free_where(|tag, _| doomed(tag));
    }

    /// Removes all entries of `tag`.
    pub fn clear(&mut self, tag: u32) {
        if let Some(place) = self.places.remove(&tag) {
            self.live -= self.slots[place].table.len();
            self.slots[place] = Slot::default();
            self.free.push(place);
        }
    }

    fn free_where(&mut self, doomed: impl Fn(u32, &Table) -> bool) {
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if let Some(tag) = slot.tag.filter(|&tag| doomed(tag, &slot.table)) {
                self.live -= slot.table.len();
                *slot = Slot::default();
                self.places.remove(&tag);
                self.free.push(place);
            }
        }
    }

    fn evict(&mut self) -> bool {
        loop {
            let Some(place) = self.oldest.pop_front() else {
                if self.live == 0 {
                    return false;
                }
                self.gather();
                continue;
            };
            let Some(&slot) = self.places.get(&place.tag) else { continue };
            let classes = &mut self.slots[slot].table.classes;
            let Some(class) = classes.iter_mut().find(|class| class.log2 == place.log2) else { continue };
            if class.entries.get(&place.index).is_some_and(|entry| entry.born == place.born) {
                class.entries.remove(&place.index);
                self.live -= 1;
                return true;
            }
        }
    }

    fn gather(&mut self) {
        let mut places: Vec<Place> = Vec::with_capacity(self.live);
        for (&tag, &slot) in &self.places {
            for class in &self.slots[slot].table.classes {
                let log2 = class.log2;
                places.extend(class.entries.iter().map(|(&index, entry)| Place { born: entry.born, tag, log2, index }));
            }
        }
        places.sort_unstable_by_key(|place| place.born);
        self.oldest = places.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_bits;

    fn page(input: u64, log2: u8, leaf_log2: u8) -> Translation {
        Translation { output: input & !low_bits(log2), log2, leaf_log2, permissions: 3 }
    }

    fn find(cache: &Cache, tag: u32, input: u64) -> Option<&Translation> {
        cache.find(tag, &Cell::new(usize::MAX), input)
    }

    #[test]
    fn oldest_goes_first_and_only_when_full() {
        let mut cache = Cache::default();
        for n in 0..4u64 {
            assert!(!cache.insert(0, n << 12, page(n << 12, 12, 12), 4));
        }
        cache.remove(0, Range { first: 0x1000, last: 0x1fff });
        assert!(!cache.insert(7, 0x9000, page(0x9000, 12, 12), 4));
        assert!(cache.insert(7, 0xa000, page(0xa000, 12, 12), 4), "five live entries do not fit in four");
        let present: Vec<bool> = (0..4u64).map(|n| find(&cache, 0, n << 12).is_some()).collect();
        assert_eq!(present, [false, false, true, true], "entry 1 was invalidated, entry 0 was the oldest");
        // A renewed entry counts as young: the next to go is 3, not 2.
        assert!(!cache.insert(0, 0x2000, page(0x2000, 12, 12), 4));
        assert!(cache.insert(7, 0xb000, page(0xb000, 12, 12), 4));
        assert!(find(&cache, 0, 0x2000).is_some() && find(&cache, 0, 0x3000).is_none());
    }

    #[test]
    fn an_entry_goes_with_the_leaf_it_was_cut_from() {
        let mut cache = Cache::default();
        cache.insert(0, 0x20_0000, page(0x20_0000, 12, 21), 100);
        cache.insert(0, 0x20_5000, page(0x20_5000, 12, 12), 100);
        cache.insert(0, 0x40_0000, page(0x40_0000, 12, 21), 100);
        cache.remove(0, Range { first: 0x3f_f000, last: 0x3f_ffff });
        assert!(find(&cache, 0, 0x20_0000).is_none(), "another page of its 2 MiB leaf was named");
        assert!(find(&cache, 0, 0x20_5000).is_some(), "a page leaf of its own was not");
        assert!(find(&cache, 0, 0x40_0000).is_some(), "the neighbouring leaf was not");
    }

    #[test]
    fn tables_of_tags_without_entries_do_not_pile_up() {
        let mut cache = Cache::default();
        for tag in 0..10_000 {
            cache.insert(tag, 0, page(0, 12, 12), 100);
            cache.remove(tag, Range { first: 0, last: u64::MAX });
        }
        assert!(cache.slots.len() <= Cache::SPARE_TABLES + 2, "{} tables", cache.slots.len());
        assert_eq!(cache.live, 0);
    }

    #[test]
    fn a_hint_never_finds_another_tags_entry() {
        let mut cache = Cache::default();
        let hint = Cell::new(0);
        cache.insert(1, 0, page(0, 12, 12), 100);
        assert!(cache.find(1, &hint, 0).is_some());
        cache.clear_where(|tag| tag == 1);
        cache.insert(2, 0, page(0, 12, 12), 100);
        assert!(cache.find(1, &hint, 0).is_none(), "the slot is another tag's now");
        cache.insert(1, 0, page(0, 12, 12), 100);
        assert!(cache.find(1, &hint, 0).is_some(), "and the tag has another slot");
    }
}
