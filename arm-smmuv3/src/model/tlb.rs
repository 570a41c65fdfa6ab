//! The translation cache of the SMMU: combined entries of stage 1 (and 2), and entries of stage 2 alone.

use rustc_hash::FxHashMap;
use std::cell::Cell;
use viommu_cache::{Cache, Translation};

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

/// Addresses that an invalidation names, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    /// `units` granules of 2^`log2` bytes from `address`, cut at the end of the address space.
    pub(crate) fn new(address: u64, units: u64, log2: u32) -> Self {
        let bytes = u128::from(units) << log2;
        let last = (u128::from(address) + bytes.max(1) - 1).min(u128::from(u64::MAX));
        Self { first: address, last: last as u64 }
    }
    /// The naturally aligned block of 2^`log2` bytes (64 or more: everything) that holds `address`.
    pub(crate) fn block(address: u64, log2: u32) -> Self {
        let offset = 1u64.checked_shl(log2).map_or(u64::MAX, |size| size - 1);
        Self { first: address & !offset, last: address | offset }
    }
}

/// Where a context found its entries the last time: saves looking up VMID and tag again. Checked at every use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hint {
    space: Cell<usize>,
    own: Cell<usize>,
    global: Cell<usize>,
}

/// The TLB. One [`Cache`] a VMID, so that a VM's entries are bounded, evicted and flushed without looking at another's.
pub(crate) struct Tlb {
    spaces: Vec<(u16, Cache)>,
    places: FxHashMap<u16, usize>,
    capacity: usize,
    evictions: u64,
}

impl Tlb {
    /// A TLB of `capacity` entries for each VMID.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { spaces: Vec::new(), places: FxHashMap::default(), capacity, evictions: 0 }
    }

    /// The entry that translates `input` for `tag` of `vmid`.
    #[inline]
    pub(crate) fn find(&self, vmid: u16, tag: Tag, hint: &Hint, input: u64) -> Option<&Translation> {
        let space = match self.spaces.get(hint.space.get()) {
            Some((owner, space)) if *owner == vmid => space,
            _ => {
                hint.space.set(*self.places.get(&vmid)?);
                &self.spaces.get(hint.space.get())?.1
            }
        };
        let found = space.find(tag.0, &hint.own, input);
        if found.is_none() && tag.is_stage1() { space.find(Tag::GLOBAL.0, &hint.global, input) } else { found }
    }

    /// Remembers a translation of `input`.
    pub(crate) fn insert(&mut self, vmid: u16, tag: Tag, input: u64, translation: Translation) {
        let place = *self.places.entry(vmid).or_insert_with(|| {
            self.spaces.push((vmid, Cache::default()));
            self.spaces.len() - 1
        });
        let evicted = self.spaces[place].1.insert(tag.0, input, translation, self.capacity);
        self.evictions += u64::from(evicted);
    }

    fn space(&mut self, vmid: u16) -> Option<&mut Cache> {
        let place = *self.places.get(&vmid)?;
        self.spaces.get_mut(place).map(|(_, space)| space)
    }

    /// Entries thrown out for lack of room, ever.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// CMD_TLBI_NH_VA: the ASID's and the global entries of a range.
    pub(crate) fn nh_va(&mut self, vmid: u16, asid: u16, range: Range) {
        if let Some(space) = self.space(vmid) {
            space.remove(Tag::asid(asid).0, range.first, range.last);
            space.remove(Tag::GLOBAL.0, range.first, range.last);
        }
    }

    /// CMD_TLBI_NH_VAA: every ASID's entries of a range.
    pub(crate) fn nh_vaa(&mut self, vmid: u16, range: Range) {
        if let Some(space) = self.space(vmid) {
            space.remove_where(|tag| Tag(tag).is_stage1(), range.first, range.last);
        }
    }

    /// CMD_TLBI_NH_ASID: the non-global entries of an ASID.
    pub(crate) fn nh_asid(&mut self, vmid: u16, asid: u16) {
        if let Some(space) = self.space(vmid) {
            space.clear(Tag::asid(asid).0);
        }
    }

    /// CMD_TLBI_NH_ALL: every stage-1 and combined entry of a VMID.
    pub(crate) fn nh_all(&mut self, vmid: u16) {
        if let Some(space) = self.space(vmid) {
            space.clear_where(|tag| Tag(tag).is_stage1());
        }
    }

    /// CMD_TLBI_S12_VMALL: everything of a VMID.
    pub(crate) fn s12_vmall(&mut self, vmid: u16) {
        if let Some(space) = self.space(vmid) {
            space.clear_where(|_| true);
        }
    }

    /// CMD_TLBI_S2_IPA: entries of stage 2 alone. Combined entries have no IPA to find them by (§4.4.3): whoever
    /// unmaps stage 2 under a nested stream sends NH_ALL as well.
    pub(crate) fn s2_ipa(&mut self, vmid: u16, range: Range) {
        if let Some(space) = self.space(vmid) {
            space.remove(Tag::STAGE2.0, range.first, range.last);
        }
    }

    /// CMD_TLBI_NSNH_ALL, and reset: everything.
    pub(crate) fn clear(&mut self) {
        self.spaces.clear();
        self.places.clear();
    }
}
