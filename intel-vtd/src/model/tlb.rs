//! The IOTLB (§6.2.4): entries of the first stage and of both stages combined, tagged with domain-id and PASID, and
//! entries of the second stage alone, tagged with the domain-id.

use viommu_cache::{Hint, Range, Spaces, Translation};

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

/// The IOTLB: one cache a domain-id.
pub(crate) struct Tlb(Spaces);

impl Tlb {
    /// An IOTLB of `capacity` entries for each domain-id.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Spaces::new(capacity))
    }

    /// The entry that translates `input` for `tag` of `domain`.
    #[inline]
    pub(crate) fn find(&self, domain: u16, tag: Tag, hint: &Hint, input: u64) -> Option<&Translation> {
        self.0.find(domain, tag.0, hint, input)
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, domain: u16, tag: Tag, input: u64, translation: Translation) {
        self.0.insert(domain, tag.0, input, translation);
    }

    /// Entries thrown out for lack of room, ever.
    pub(crate) fn evictions(&self) -> u64 {
        self.0.evictions()
    }

    /// Everything: global IOTLB invalidation, and reset.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Domain-selective IOTLB invalidation (§6.5.2.3): everything of a domain-id.
    pub(crate) fn clear_domain(&mut self, domain: u16) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.clear_where(|_| true);
        }
    }

    /// Page-selective IOTLB invalidation (§6.5.2.3): second-stage entries of the range. First-stage and nested entries
    /// do not know the second stage's input: all of the domain-id go.
    pub(crate) fn second_stage_pages(&mut self, domain: u16, range: Range) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.remove(Tag::SECOND_STAGE.0, range);
            cache.clear_where(|tag| Tag(tag).is_first_stage());
        }
    }

    /// PASID-selective PASID-based IOTLB invalidation (§6.5.2.4): first-stage and nested entries of a PASID.
    pub(crate) fn clear_pasid(&mut self, domain: u16, pasid: u32) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.clear(Tag::pasid(pasid).0);
        }
    }

    /// Page-selective PASID-based IOTLB invalidation (§6.5.2.4): of those, the entries of the range.
    pub(crate) fn pasid_pages(&mut self, domain: u16, pasid: u32, range: Range) {
        if let Some(cache) = self.0.get_mut(domain) {
            cache.remove(Tag::pasid(pasid).0, range);
        }
    }
}
