//! What is inside a handle: the actor's address, the object's facts, and its parents' handles.

use super::node::ObjectState;
use super::served::{Destroy, Do, Operation, Restart, Served, State};
use super::{Change, Node};
use crate::backend::ObjectKind;
use crate::host::{Entry, Reap, Shared};
use crate::{Cause, Error, simulation};
use actix::{Actor, Addr};
use std::sync::Arc;

/// The inside of a handle. Dropping the last one sends the object to the reaper, before its parents.
pub(crate) struct Link<S: State> {
    pub(crate) node: Arc<Node>,
    pub(crate) facts: Arc<S::Facts>,
    pub(crate) addr: Addr<Served<S>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeps: S::Keeps,
}

impl<S: State> Link<S> {
    /// Starts the actor of an object that the backend has made, and plans its publication. Cannot fail.
    pub(crate) fn start(
        change: &mut Change,
        id: u32,
        parents: Vec<Arc<Node>>,
        facts: Arc<S::Facts>,
        keeps: S::Keeps,
        state: S,
    ) -> Arc<Self> {
        let link = Self::unpublished(change.shared(), Node::new(S::KIND, id, parents), facts, keeps, state);
        let node = link.node.clone();
        let handle: Arc<dyn std::any::Any + Send + Sync> = link.clone();
        change.publish(Entry {
            node,
            destroy: link.addr.clone().recipient::<Destroy>().downgrade(),
            restart: link.addr.clone().recipient::<Restart>().downgrade(),
            handle: Arc::downgrade(&handle),
        });
        link
    }

    /// Starts the actor of an object that no registry shows.
    pub(crate) fn unpublished(
        shared: &Arc<Shared>,
        node: Arc<Node>,
        facts: Arc<S::Facts>,
        keeps: S::Keeps,
        state: S,
    ) -> Arc<Self> {
        let served = Served::new(node.clone(), state, shared.clone());
        let addr = Served::start_in_arbiter(&shared.arbiter, move |_| served);
        Arc::new(Self { node, facts, addr, shared: shared.clone(), keeps })
    }

    /// Sends a message and waits for its answer.
    pub(crate) async fn ask<O: Operation<State = S>>(&self, operation: O) -> Result<O::Output, Error> {
        simulation::pass(self.node.id, O::NAME).await;
        self.addr.send(Do(operation)).await.unwrap_or_else(|_| Err(self.closed(O::NAME)))
    }

    /// Destroys the object. Fails with EBUSY while others use it.
    pub(crate) async fn destroy(&self) -> Result<(), Error> {
        simulation::pass(self.node.id, "destroy").await;
        self.addr.send(Destroy).await.unwrap_or_else(|_| Err(self.closed("destroy")))
    }

    /// Refuses what the data path is asked for once the object is gone.
    pub(crate) fn alive(&self, operation: &'static str) -> Result<(), Error> {
        match self.node.state() {
            ObjectState::Destroyed => Err(self.error(operation, Cause::NotFound(S::KIND))),
            _ => Ok(()),
        }
    }

    pub(crate) fn error(&self, operation: &'static str, cause: Cause) -> Error {
        cause.of(S::KIND, (S::KIND != ObjectKind::Host).then_some(self.node.id), operation)
    }

    fn closed(&self, operation: &'static str) -> Error {
        self.error(operation, Cause::Closed)
    }

    /// Runs a blocking part of the data path on the pool.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce() -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Error> {
        self.alive(operation)?;
        let outcome = self.shared.off_thread(job).await.unwrap_or(Err(Cause::Closed));
        outcome.map_err(|cause| self.error(operation, cause))
    }
}

impl<S: State> std::fmt::Debug for Link<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?})", self.node.kind, self.node.id, self.node.state())
    }
}

impl<S: State> Drop for Link<S> {
    fn drop(&mut self) {
        if self.node.kind != ObjectKind::Host && self.node.state() != ObjectState::Destroyed {
            self.shared.reap(Reap::Object { node: self.node.clone(), object: self.addr.clone().recipient() });
        }
    }
}
