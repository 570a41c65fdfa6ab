//! The translation cache of the IOMMU: entries of host tables alone, and combined ones of guest and host tables.

use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation, low_bits};

/// Tag of entries of the host's table alone; PASIDs have 20 bits.
pub(crate) const NO_PASID: u32 = u32::MAX;

/// Addresses that an invalidation names, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    /// 2^`log2` bytes from `first`, which is aligned to that.
    pub(crate) fn new((first, log2): (u64, u8)) -> Self {
        Self { first, last: first | low_bits(log2) }
    }
}

/// Where a device found its entries the last time: saves looking up domain and PASID again. Checked at every use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hint {
    domain: Cell<usize>,
    own: Cell<usize>,
}

/// One [`Cache`] a DomainID, so that a domain's entries are bounded, evicted and flushed without looking at another's.
pub(crate) struct Tlb {
    domains: Vec<(u16, Cache)>,
    places: FxHashMap<u16, usize>,
    capacity: usize,
    evictions: u64,
}

impl Tlb {
    /// A TLB of `capacity` entries for each domain.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { domains: Vec::new(), places: FxHashMap::default(), capacity, evictions: 0 }
    }

    /// The entry that translates `input` for `tag` (a PASID or [`NO_PASID`]) of `domain`.
    #[inline]
    pub(crate) fn find(&self, domain: u16, tag: u32, hint: &Hint, input: u64) -> Option<&Translation> {
        let cache = match self.domains.get(hint.domain.get()) {
            Some((owner, cache)) if *owner == domain => cache,
            _ => {
                hint.domain.set(*self.places.get(&domain)?);
                &self.domains.get(hint.domain.get())?.1
            }
        };
        cache.find(tag, &hint.own, input)
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, domain: u16, tag: u32, input: u64, translation: Translation) {
        let place = *self.places.entry(domain).or_insert_with(|| {
            self.domains.push((domain, Cache::default()));
            self.domains.len() - 1
        });
        let evicted = self.domains[place].1.insert(tag, input, translation, self.capacity);
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

    /// INVALIDATE_IOMMU_PAGES with GN: entries of a PASID.
    pub(crate) fn guest_pages(&mut self, domain: u16, pasid: u32, range: Range) {
        if let Some(cache) = self.domain(domain) {
            cache.remove(pasid, range.first, range.last);
        }
    }

    /// INVALIDATE_IOMMU_PAGES without GN: entries of the host's table. Combined entries have no guest physical address
    /// to find them by, so all of the domain go.
    pub(crate) fn host_pages(&mut self, domain: u16, range: Range) {
        if let Some(cache) = self.domain(domain) {
            cache.remove(NO_PASID, range.first, range.last);
            cache.clear_where(|tag| tag != NO_PASID);
        }
    }

    /// INVALIDATE_IOMMU_ALL, and power-on: everything.
    pub(crate) fn clear(&mut self) {
        self.domains.clear();
        self.places.clear();
    }
}
