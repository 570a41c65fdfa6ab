//! The translation cache of the SMMU: combined entries of stage 1 (and 2), and entries of stage 2 alone.

use std::cell::Cell;
use viommu_cache::{Range, Spaces, Translation};

/// Whose an entry is within its VMID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    /// Stage-1 entries with nG = 0: any ASID of the VMID.
    pub(crate) const GLOBAL: Self = Self(1 << 16);
    /// Entries of streams that translate in stage 2 only.
    pub(crate) const STAGE2: Self = Self(1 << 17);

    /// Non-global stage-1 entries of `asid`.
    pub(crate) const fn asid(asid: u16) -> Self {
        Self(asid as u32)
    }
    /// Whether the entries are stage 1's, or combined.
    #[inline]
    pub(crate) fn is_stage1(self) -> bool {
        self.0 < Self::STAGE2.0
    }
}

/// Where a context found its entries the last time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hint {
    own: viommu_cache::Hint,
    global: Cell<usize>,
}

/// The TLB: one cache a VMID.
pub(crate) struct Tlb(Spaces);

impl Tlb {
    /// A TLB of `capacity` entries for each VMID.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Spaces::new(capacity))
    }

    /// The entry that translates `input` for `tag` of `vmid`.
    #[inline]
    pub(crate) fn find(&self, vmid: u16, tag: Tag, hint: &Hint, input: u64) -> Option<&Translation> {
        let space = self.0.get(vmid, &hint.own.owner)?;
        let found = space.find(tag.0, &hint.own.tag, input);
        if found.is_none() && tag.is_stage1() { space.find(Tag::GLOBAL.0, &hint.global, input) } else { found }
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, vmid: u16, tag: Tag, input: u64, translation: Translation) {
        self.0.insert(vmid, tag.0, input, translation);
    }

    /// Entries thrown out for lack of room, ever.
    pub(crate) fn evictions(&self) -> u64 {
        self.0.evictions()
    }

    /// CMD_TLBI_NH_VA: the ASID's and the global entries of a range.
    pub(crate) fn nh_va(&mut self, vmid: u16, asid: u16, range: Range) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.remove(Tag::asid(asid).0, range);
            space.remove(Tag::GLOBAL.0, range);
        }
    }

    /// CMD_TLBI_NH_VAA: every ASID's entries of a range.
    pub(crate) fn nh_vaa(&mut self, vmid: u16, range: Range) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.remove_where(|tag| Tag(tag).is_stage1(), range);
        }
    }

    /// CMD_TLBI_NH_ASID: the non-global entries of an ASID.
    pub(crate) fn nh_asid(&mut self, vmid: u16, asid: u16) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.clear(Tag::asid(asid).0);
        }
    }

    /// CMD_TLBI_NH_ALL: every stage-1 and combined entry of a VMID.
    pub(crate) fn nh_all(&mut self, vmid: u16) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.clear_where(|tag| Tag(tag).is_stage1());
        }
    }

    /// CMD_TLBI_S12_VMALL: everything of a VMID.
    pub(crate) fn s12_vmall(&mut self, vmid: u16) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.clear_where(|_| true);
        }
    }

    /// CMD_TLBI_S2_IPA: entries of stage 2 alone. Combined entries have no IPA to find them by (§4.4.3): whoever
    /// unmaps stage 2 under a nested stream sends NH_ALL as well.
    pub(crate) fn s2_ipa(&mut self, vmid: u16, range: Range) {
        if let Some(space) = self.0.get_mut(vmid) {
            space.remove(Tag::STAGE2.0, range);
        }
    }

    /// CMD_TLBI_NSNH_ALL, and reset: everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
