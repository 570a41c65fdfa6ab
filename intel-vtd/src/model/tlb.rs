//! The IOTLB (§6.2.4): entries of the first stage and of both stages combined, tagged with domain-id and PASID, and
//! entries of the second stage alone, tagged with the domain-id.

use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

/// Whose an entry is within its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    /// Entries of the second stage alone.
    pub(crate) const SECOND_STAGE: Self = Self(1 << 20);
    /// Entries of a PASID's first stage, nested or not. PASIDs have 20 bits.
    pub(crate) const fn pasid(pasid: u32) -> Self {
        Self(pasid & 0xf_ffff)
    }
    /// Whether the entries are of a first stage, nested or not.
    #[inline]
    pub(crate) fn is_first_stage(self) -> bool {
        self.0 < Self::SECOND_STAGE.0
    }
}

/// Addresses that an invalidation names, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    /// The naturally aligned block of 2^`log2` bytes (64 or more: everything) that holds `address`.
    pub(crate) fn block(address: u64, log2: u32) -> Self {
        let offset = 1u64.checked_shl(log2).map_or(u64::MAX, |size| size - 1);
        Self { first: address & !offset, last: address | offset }
    }
}

/// Where a context found its entries the last time: saves looking up domain and tag again. Checked at every use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hint {
    domain: Cell<usize>,
    own: Cell<usize>,
}

/// The IOTLB. One [`Cache`] a domain-id, so that a domain's entries are bounded, evicted and flushed without looking at
/// another's.
pub(crate) struct Tlb {
    domains: Vec<(u16, Cache)>,
    places: FxHashMap<u16, usize>,
    capacity: usize,
    evictions: u64,
}

impl Tlb {
    /// An IOTLB of `capacity` entries for each domain-id.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { domains: Vec::new(), places: FxHashMap::default(), capacity, evictions: 0 }
    }

    /// The entry that translates `input` for `tag` of `domain`.
    #[inline]
    pub(crate) fn find(&self, domain: u16, tag: Tag, hint: &Hint, input: u64) -> Option<&Translation> {
        let cache = match self.domains.get(hint.domain.get()) {
            Some((owner, cache)) if *owner == domain => cache,
            _ => {
                hint.domain.set(*self.places.get(&domain)?);
                &self.domains.get(hint.domain.get())?.1
            }
        };
        cache.find(tag.0, &hint.own, input)
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, domain: u16, tag: Tag, input: u64, translation: Translation) {
        let place = *self.places.entry(domain).or_insert_with(|| {
            self.domains.push((domain, Cache::default()));
            self.domains.len() - 1
        });
        let evicted = self.domains[place].1.insert(tag.0, input, translation, self.capacity);
        self.evictions += u64::from(evicted);
    }

    fn domain(&mut self, domain: u16) -> Option<&mut Cache> {
        let place = *self.places.get(&domain)?;
        self.domains.get_mut(place).map(|(_, cache)| cache)
    }

    /// Entries thrown out for lack of room, ever.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Everything: global IOTLB invalidation, and reset.
    pub(crate) fn clear(&mut self) {
        self.domains.clear();
        self.places.clear();
    }

    /// Domain-selective IOTLB invalidation (§6.5.2.3): everything of a domain-id.
    pub(crate) fn clear_domain(&mut self, domain: u16) {
        if let Some(cache) = self.domain(domain) {
            cache.clear_where(|_| true);
        }
    }

    /// Page-selective IOTLB invalidation (§6.5.2.3): second-stage entries of the range. First-stage and nested entries
    /// do not know the second stage's input: all of the domain-id go.
    pub(crate) fn second_stage_pages(&mut self, domain: u16, range: Range) {
        if let Some(cache) = self.domain(domain) {
            cache.remove(Tag::SECOND_STAGE.0, range.first, range.last);
            cache.clear_where(|tag| Tag(tag).is_first_stage());
        }
    }

    /// PASID-selective PASID-based IOTLB invalidation (§6.5.2.4): first-stage and nested entries of a PASID.
    pub(crate) fn clear_pasid(&mut self, domain: u16, pasid: u32) {
        if let Some(cache) = self.domain(domain) {
            cache.clear(Tag::pasid(pasid).0);
        }
    }

    /// Page-selective PASID-based IOTLB invalidation (§6.5.2.4): of those, the entries of the range.
    pub(crate) fn pasid_pages(&mut self, domain: u16, pasid: u32, range: Range) {
        if let Some(cache) = self.domain(domain) {
            cache.remove(Tag::pasid(pasid).0, range.first, range.last);
        }
    }
}
