//! Where the hardware cannot nest: keeps copies of the guest's page tables equal to what the guest has said of them.
//!
//! The guest invalidates what it maps and what it unmaps. At each such command the leaves it names are read again; those
//! that differ from what the backend's shadow holds are taken out, forgotten by the hardware, and put in as they are now.
//! When the command completes, the hardware can no longer translate by anything the guest took away.

use super::{GuestView, Pipeline};
use crate::Cause;
use crate::backend::Objects;
use crate::seams::lock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use viommu_plugin::{EntryKey, GuestMapping, ShadowRange};

/// Leaves read from a guest's table at once.
const LEAVES: usize = 512;
/// Steps of a walk for one command, each of at most [`viommu_plugin::WALK_READS`] reads: more than all of a sane table,
/// and less than a second.
const STEPS: usize = 2048;
/// Leaves that one shadow holds at most.
const MOST: usize = 1 << 20;

/// The shadow of one of the guest's page tables.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// What the guest's table entry said.
    pub(crate) key: EntryKey,
    /// The HWPT that is the copy.
    pub(crate) hwpt: u32,
    /// How many leaves it holds; the lock is held while it changes.
    held: Mutex<usize>,
}

impl Shadow {
    pub(crate) fn new(key: EntryKey, hwpt: u32) -> Arc<Self> {
        Arc::new(Self { key, hwpt, held: Mutex::new(0) })
    }
}

/// A guest's shadows, as its data path knows them.
#[derive(Default)]
pub(super) struct Shadows(Mutex<Arc<[Arc<Shadow>]>>);

impl Pipeline {
    /// The shadows that this guest's commands are about.
    pub(crate) fn publish_shadows(&self, shadows: Vec<Arc<Shadow>>) {
        *lock(&self.shadows.0) = shadows.into();
    }

    /// Brings every shadow in `range` to what the guest's tables say now.
    ///
    /// # Errors
    /// If a table is larger than any shadow, the plugin failed, or the backend did: DMA of the guest must stop.
    pub(crate) fn shadow_range(&self, range: ShadowRange) -> Result<(), Cause> {
        let shadows = lock(&self.shadows.0).clone();
        let concerned = shadows.iter().filter(|shadow| range.all_domains == 1 || shadow.key.domain == range.domain);
        concerned.into_iter().try_for_each(|shadow| self.refresh_shadow(shadow, range.first, range.last))
    }

    /// Brings `first..=last` of one shadow to what the guest's table says now.
    ///
    /// # Errors
    /// As [`Pipeline::shadow_range`].
    pub(crate) fn refresh_shadow(&self, shadow: &Shadow, first: u64, last: u64) -> Result<(), Cause> {
        let backend: &dyn Objects = &*self.backend;
        let mut held = lock(&shadow.held);
        // A leaf that is in the shadow is looked at whole: of what is cut off it, the rest stays.
        let whole = backend.shadow_leaves(shadow.hwpt, first, last)?;
        let mut from = whole.first().map_or(first, |leaf| leaf.iova.min(first));
        let last = whole.last().map_or(last, |leaf| end(leaf).max(last));
        let mut leaves = [GuestMapping::default(); LEAVES];
        for _ in 0..STEPS {
            let walked = self.codec.walk(&shadow.key, &GuestView(&self.memory), from, last, &mut leaves)?;
            let now = &leaves[..walked.written as usize];
            // Up to here the table has been read.
            let read = if walked.done == 1 { last } else { walked.next - 1 };
            let low = now.first().map_or(from, |leaf| leaf.iova.min(from));
            let high = now.last().map_or(read, |leaf| end(leaf).max(read));
            let before = backend.shadow_leaves(shadow.hwpt, low, high)?;
            let (gone, new) = differences(&before, now);
            if *held + new.len() > MOST + gone.len() {
                return Err(Cause::Exhausted { pool: "leaves of a shadow table", size: MOST as u64 });
            }
            if !gone.is_empty() || !new.is_empty() {
                backend.shadow_change(shadow.hwpt, &gone, &new)?;
                self.metrics.shadow(new.len(), gone.len());
            }
            *held = (*held + new.len()).saturating_sub(gone.len());
            if walked.done == 1 {
                return Ok(());
            }
            from = walked.next;
        }
        Err(Cause::Exhausted { pool: "steps of a walk of the guest's page table", size: STEPS as u64 })
    }
}

fn end(leaf: &GuestMapping) -> u64 {
    leaf.iova + (leaf.length - 1)
}

/// What is only in `before`, and what is only in `now`.
fn differences(before: &[GuestMapping], now: &[GuestMapping]) -> (Vec<GuestMapping>, Vec<GuestMapping>) {
    if before == now {
        return (Vec::new(), Vec::new());
    }
    let key = |leaf: &GuestMapping| (leaf.iova, leaf.length, leaf.gpa, leaf.permissions);
    let keys = |leaves: &[GuestMapping]| leaves.iter().map(key).collect::<BTreeSet<_>>();
    let (was, is) = (keys(before), keys(now));
    let gone = before.iter().filter(|leaf| !is.contains(&key(leaf))).copied().collect();
    let new = now.iter().filter(|leaf| !was.contains(&key(leaf))).copied().collect();
    (gone, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(iova: u64, gpa: u64) -> GuestMapping {
        GuestMapping { iova, gpa, length: 0x1000, permissions: 3, reserved: 0 }
    }

    #[test]
    fn what_stays_is_not_touched() {
        let (stays, moved) = (leaf(0x1000, 0x5000), leaf(0x2000, 0x6000));
        let (gone, new) = differences(&[stays, moved], &[stays, leaf(0x2000, 0x7000), leaf(0x3000, 0x8000)]);
        assert_eq!(gone, [moved]);
        assert_eq!(new, [leaf(0x2000, 0x7000), leaf(0x3000, 0x8000)]);
        assert_eq!(differences(&[stays], &[stays]), (vec![], vec![]));
    }
}
