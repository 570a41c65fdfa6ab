//! Nested HWPT: a guest's own translation over a nesting parent. Made and freed by its vIOMMU, one for each canonical
//! key in use.

use super::served::State;
use super::{Link, Viommu};
use crate::Error;
use crate::backend::ObjectKind;
use crate::pipeline::Invalidated;
use std::sync::Arc;
use viommu_plugin::EntryKey;

/// A nested HWPT. Its vIOMMU makes it with the first device whose table entry has its key, and frees it with the last;
/// this handle only looks at it.
#[doc(alias = "nested domain")]
#[doc(alias = "HWPT_NESTED")]
#[derive(Debug, Clone)]
pub struct NestedHwpt {
    pub(crate) link: Arc<Link<NestedHwptState>>,
    pub(crate) users: u32,
    pub(crate) viommu: Viommu,
}

impl NestedHwpt {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.link.node.id
    }

    /// The table entry it stands for, in canonical form.
    pub fn key(&self) -> &EntryKey {
        &self.link.facts.key
    }

    /// Devices attached to it when this handle was made.
    pub fn users(&self) -> u32 {
        self.users
    }

    /// The vIOMMU it is on.
    pub fn viommu(&self) -> &Viommu {
        &self.viommu
    }

    /// HWPT_INVALIDATE: on a nested HWPT it goes to its vIOMMU.
    ///
    /// # Errors
    /// As [`Viommu::invalidate`].
    pub async fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Error> {
        self.viommu.invalidate(words).await
    }
}

/// What handles know of a nested HWPT.
pub(crate) struct NestedHwptFacts {
    pub(crate) viommu: u32,
    pub(crate) key: EntryKey,
}

/// What the actor remembers: nothing; its vIOMMU counts its users.
#[derive(Clone)]
pub(crate) struct NestedHwptState;

impl State for NestedHwptState {
    const KIND: ObjectKind = ObjectKind::NestedHwpt;
    type Facts = NestedHwptFacts;
    type Keeps = ();
}
