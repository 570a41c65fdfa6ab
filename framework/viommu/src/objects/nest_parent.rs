//! Nesting parent: an HWPT_PAGING with NEST_PARENT, the stage 2 under a guest's own tables.

use super::served::State;
use super::viommu::AllocViommu;
use super::{Ioas, Link, Viommu, ViommuConfig, ViommuState};
use crate::Error;
use crate::backend::ObjectKind;
use std::sync::Arc;

/// A nesting parent: stage-2 tables over an IOAS, with a tag (VMID) of their own.
#[doc(alias = "HWPT_PAGING")]
#[doc(alias = "S2 domain")]
#[derive(Debug, Clone)]
pub struct NestParent(pub(crate) Arc<Link<NestParentState>>);

impl NestParent {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// The IOAS it is on.
    pub fn ioas(&self) -> &Ioas {
        &self.0.keeps
    }

    /// VIOMMU_ALLOC: welds a vIOMMU to this parent.
    ///
    /// # Errors
    /// If the parent carries a vIOMMU already: both would share its VMID, so equal ASIDs of two guests would alias
    /// (EEXIST). If the ID registers promise what a vIOMMU cannot be (the plugin's errno).
    pub async fn viommu(&self, config: ViommuConfig) -> Result<Viommu, Error> {
        self.0.ask(AllocViommu { parent: self.clone(), config, state: None }).await.map(Viommu)
    }

    /// The vIOMMU that is welded to it, if it lives.
    pub fn welded(&self) -> Option<Viommu> {
        let links = self.0.shared.registry.handles::<ViommuState>();
        links.into_iter().map(Viommu).find(|viommu| viommu.parent().id() == self.id())
    }

    /// Destroys it.
    ///
    /// # Errors
    /// EBUSY while a vIOMMU uses it.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What the actor remembers: nothing; who uses it is in its node.
#[derive(Clone)]
pub(crate) struct NestParentState;

impl State for NestParentState {
    const KIND: ObjectKind = ObjectKind::NestParent;
    type Facts = ();
    type Keeps = Ioas;
}
