//! IOAS: an I/O address space, here a guest's physical addresses.

use super::served::{Operation, State};
use super::{Change, Link, NestParent, NestParentState};
use crate::backend::{Mapping, ObjectKind};
use crate::host::HostState;
use crate::seams::wait;
use crate::{Cause, Error};
use std::sync::Arc;

/// An I/O address space: what a guest's physical addresses are backed by.
///
/// Dropping the last handle destroys the object, after everything that was made on it.
#[derive(Debug, Clone)]
pub struct Ioas(pub(crate) Arc<Link<IoasState>>);

impl Ioas {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// IOAS_MAP: reaches every nesting parent on it.
    ///
    /// # Errors
    /// If part of the range is mapped (EEXIST), misaligned or out of reach (EINVAL).
    pub async fn map(&self, mapping: Mapping) -> Result<(), Error> {
        self.0.ask(Map(mapping)).await
    }

    /// IOAS_UNMAP; bytes unmapped. Returns after the hardware forgot them, device caches included.
    ///
    /// # Errors
    /// If the range cuts a mapping (EINVAL) or nothing is mapped there (ENOENT).
    pub async fn unmap(&self, iova: u64, length: u64) -> Result<u64, Error> {
        self.0.ask(Unmap { iova, length }).await
    }

    /// HWPT_ALLOC with NEST_PARENT: the stage-2 tables that guests' tables nest in. On Arm one for each vIOMMU.
    ///
    /// # Errors
    /// If the tags (VMIDs) are exhausted (ENOSPC).
    pub async fn nest_parent(&self) -> Result<NestParent, Error> {
        self.0.ask(AllocNestParent(self.clone())).await.map(NestParent)
    }

    /// Destroys it.
    ///
    /// # Errors
    /// EBUSY while a nesting parent uses it.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What the actor remembers: nothing, the backend has the mappings.
#[derive(Clone)]
pub(crate) struct IoasState;

impl State for IoasState {
    const KIND: ObjectKind = ObjectKind::Ioas;
    type Facts = ();
    type Keeps = ();
}

/// IOAS_ALLOC.
pub(crate) struct AllocIoas;

impl Operation for AllocIoas {
    type State = HostState;
    type Output = Arc<Link<IoasState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::Ioas);

    fn run(self, _: &mut HostState, change: &mut Change) -> Result<Self::Output, Cause> {
        let backend = change.backend();
        let id = change.create(backend.ioas_alloc())?;
        Ok(Link::start(change, id, Vec::new(), Arc::new(()), (), IoasState))
    }
}

struct Map(Mapping);

impl Operation for Map {
    type State = IoasState;
    type Output = ();
    const NAME: &'static str = "map";

    fn run(self, _: &mut IoasState, change: &mut Change) -> Result<(), Cause> {
        let Mapping { iova, length, .. } = self.0;
        if length == 0 || iova.checked_add(length - 1).is_none() {
            return Err(Cause::Invalid(format!("{length} bytes from {iova:#x} are not a range")));
        }
        let id = change.node().id;
        wait(change.backend().ioas_map(id, self.0))
    }
}

struct Unmap {
    iova: u64,
    length: u64,
}

impl Operation for Unmap {
    type State = IoasState;
    type Output = u64;
    const NAME: &'static str = "unmap";

    fn run(self, _: &mut IoasState, change: &mut Change) -> Result<u64, Cause> {
        let id = change.node().id;
        wait(change.backend().ioas_unmap(id, self.iova, self.length))
    }
}

struct AllocNestParent(Ioas);

impl Operation for AllocNestParent {
    type State = IoasState;
    type Output = Arc<Link<NestParentState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::NestParent);

    fn run(self, _: &mut IoasState, change: &mut Change) -> Result<Self::Output, Cause> {
        let ioas = change.node().clone();
        change.acquire(&ioas, ObjectKind::NestParent)?;
        let backend = change.backend();
        let id = change.create(backend.nest_parent_alloc(ioas.id))?;
        Ok(Link::start(change, id, vec![ioas], Arc::new(()), self.0, NestParentState))
    }
}
