//! The translation cache of the IOMMU: entries of host tables alone, and combined ones of guest and host tables.

use viommu_cache::{Hint, Range, Spaces, Translation};

/// Tag of entries of the host's table alone; PASIDs have 20 bits.
pub(crate) const NO_PASID: u32 = u32::MAX;

/// The TLB: one cache a DomainID.
pub(crate) struct Tlb(Spaces);

impl Tlb {
    /// A TLB of `capacity` entries for each domain.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Spaces::new(capacity))
    }

    /// The entry that translates `input` for `tag` (a PASID or [`NO_PASID`]) of `domain`.
    #[inline]
    pub(crate) fn find(&self, domain: u16, tag: u32, hint: &Hint, input: u64) -> Option<&Translation> {
        self.0.find(domain, tag, hint, input)
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, domain: u16, tag: u32, input: u64, translation: Translation) {
        self.0.insert(domain, tag, input, translation);
    }

    /// Entries thrown out for lack of room, ever.
    pub(crate) fn evictions(&self) -> u64 {
        self.0.evictions()
    }

    /// INVALIDATE_IOMMU_PAGES with GN: entries of a PASID.
    pub(crate) fn guest_pages(&mut self, domain: u16, pasid: u32, range: Range) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.remove(pasid, range);
        }
    }

    /// INVALIDATE_IOMMU_PAGES without GN: entries of the host's table. Combined entries have no guest physical address
    /// to find them by, so all of the domain go.
    pub(crate) fn host_pages(&mut self, domain: u16, range: Range) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.remove(NO_PASID, range);
            cache.clear_where(|tag| tag != NO_PASID);
        }
    }

    /// INVALIDATE_IOMMU_ALL, and power-on: everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
