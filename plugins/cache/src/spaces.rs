//! One cache an owner: a TLB.

use crate::{Cache, Translation};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// Where a stream found its entries the last time: saves looking up owner and tag again. Checked at every use.
#[derive(Debug, Clone, Default)]
pub struct Hint {
    /// Its owner's place.
    pub owner: Cell<usize>,
    /// Its tag's place within.
    pub tag: Cell<usize>,
}

/// One [`Cache`] an owner (VMID, DomainID, domain-id), so that an owner's entries are bounded, evicted and flushed without
/// looking at another's.
pub struct Spaces {
    spaces: Vec<(u16, Cache)>,
    /// Where the cache of an owner is.
    places: FxHashMap<u16, usize>,
    capacity: usize,
    evictions: u64,
}

impl Spaces {
    /// Room for `capacity` entries of each owner.
    pub fn new(capacity: usize) -> Self {
        Self { spaces: Vec::new(), places: FxHashMap::default(), capacity, evictions: 0 }
    }

    /// The cache of `owner`. `hint` is where it was the last time.
    #[inline]
    pub fn get(&self, owner: u16, hint: &Cell<usize>) -> Option<&Cache> {
        match self.spaces.get(hint.get()) {
            Some((found, cache)) if *found == owner => Some(cache),
            _ => {
                hint.set(*self.places.get(&owner)?);
                self.spaces.get(hint.get()).map(|(_, cache)| cache)
            }
        }
    }

    /// The cache of `owner`, to remove entries from.
    pub fn get_mut(&mut self, owner: u16) -> Option<&mut Cache> {
        let place = *self.places.get(&owner)?;
        self.spaces.get_mut(place).map(|(_, cache)| cache)
    }

    /// The entry of `owner` and `tag` that covers `input`.
    #[inline]
    pub fn find(&self, owner: u16, tag: u32, hint: &Hint, input: u64) -> Option<&Translation> {
        self.get(owner, &hint.owner)?.find(tag, &hint.tag, input)
    }

    /// Remembers `translation` of `input`.
    pub fn insert(&mut self, owner: u16, tag: u32, input: u64, translation: Translation) {
        let place = *self.places.entry(owner).or_insert_with(|| {
            self.spaces.push((owner, Cache::default()));
            self.spaces.len() - 1
        });
        let evicted = self.spaces[place].1.insert(tag, input, translation, self.capacity);
        self.evictions += u64::from(evicted);
    }

    /// Entries thrown out for lack of room, ever.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Removes everything of everybody.
    pub fn clear(&mut self) {
        self.spaces.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Translation = Translation { output: 0x1000, log2: 12, leaf_log2: 12, permissions: 3 };

    #[test]
    fn an_owner_is_bounded_and_flushed_without_the_others() {
        let mut spaces = Spaces::new(2);
        spaces.insert(7, 0, 0, PAGE);
        (0..3).for_each(|page| spaces.insert(9, 0, page << 12, PAGE));
        assert_eq!(spaces.evictions(), 1, "of owner 9");
        spaces.get_mut(9).unwrap().clear_where(|_| true);
        assert!(spaces.find(9, 0, &Hint::default(), 0x1000).is_none());
        assert!(spaces.find(7, 0, &Hint::default(), 0).is_some());
        spaces.clear();
        assert!(spaces.find(7, 0, &Hint::default(), 0).is_none() && spaces.get_mut(7).is_none());
    }

    #[test]
    fn a_hint_never_finds_another_owners_entry() {
        let (mut spaces, hint) = (Spaces::new(2), Hint::default());
        spaces.insert(1, 0, 0, PAGE);
        assert!(spaces.find(1, 0, &hint, 0).is_some());
        spaces.clear();
        spaces.insert(2, 0, 0, PAGE);
        assert!(spaces.find(1, 0, &hint, 0).is_none(), "the place is another owner's now");
        spaces.insert(1, 0, 0, PAGE);
        assert!(spaces.find(1, 0, &hint, 0).is_some(), "and the owner has another place");
    }
}
