//! What a vIOMMU's invalidations may be sent to, held still while some are on their way.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use viommu_plugin::{InvalidateTarget, NO_DOMAIN};

/// The kernel's objects of one vIOMMU.
#[derive(Debug, Default)]
pub(super) struct Targets(RwLock<Known>);

/// The kernel's IDs.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The vIOMMU.
    pub(super) viommu: Option<u32>,
    /// The domain of each nested HWPT, in the guest's numbers.
    pub(super) nested: BTreeMap<u32, u32>,
}

impl Targets {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The objects that entries with this target and domain go to.
    pub(super) fn of(&self, target: InvalidateTarget, domain: u32) -> Vec<u32> {
        match target {
            InvalidateTarget::VIOMMU => self.viommu.into_iter().collect(),
            InvalidateTarget::NESTED_HWPT => {
                let mine = |of: &u32| domain == NO_DOMAIN || *of == domain;
                self.nested.iter().filter(|(_, of)| mine(of)).map(|(hwpt, _)| *hwpt).collect()
            }
            _ => Vec::new(),
        }
    }
}
