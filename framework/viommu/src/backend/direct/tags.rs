//! Translation tags: which are free.

use crate::Cause;

/// The tags of one IOMMU. A tag comes back only after the hardware forgot everything that carried it.
#[derive(Debug)]
pub(super) struct Tags {
    last: u32,
    /// Lowest that was never given, or beyond `last`.
    next: u64,
    size: u64,
    returned: Vec<u32>,
}

impl Tags {
    /// Name of the pool in messages.
    pub(super) const POOL: &'static str = "translation tags (VMIDs, domain IDs)";

    /// Tags `first..=last`, the first `limit` of them if there is one.
    pub(super) fn new(first: u32, last: u32, limit: Option<u32>) -> Self {
        let all = (u64::from(last) + 1).saturating_sub(u64::from(first));
        let size = limit.map_or(all, |limit| all.min(u64::from(limit)));
        let last = (u64::from(first) + size).saturating_sub(1) as u32;
        let next = if size == 0 { u64::from(last) + 1 } else { u64::from(first) };
        Self { last, next, size, returned: Vec::new() }
    }

    /// How many there are.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes a tag: one that was never used as long as there is one, so that a stale entry has longest to be noticed.
    pub(super) fn take(&mut self) -> Result<u32, Cause> {
        if self.next <= u64::from(self.last) {
            self.next += 1;
            return Ok((self.next - 1) as u32);
        }
        self.returned.pop().ok_or(Cause::Exhausted { pool: Self::POOL, size: self.size })
    }

    /// Gives a tag back. The caller has flushed it.
    pub(super) fn give(&mut self, tag: u32) {
        self.returned.push(tag);
    }
}
