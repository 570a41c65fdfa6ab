//! One operation's effects on the backend, with what undoes them.

use super::served::Destroy;
use super::{Node, ObjectState};
use crate::backend::{ObjectKind, Objects};
use crate::host::{Entry, HostEvent, Reap, Shared};
use crate::seams::wait;
use crate::{Cause, Error};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Step = Box<dyn FnOnce(&dyn Objects) -> Result<(), Cause> + Send>;

/// What an operation has done so far. Dropping out with an error or a panic runs the undo steps, last first; success
/// publishes what was made. Runs where blocking is allowed.
pub(crate) struct Change {
    shared: Arc<Shared>,
    node: Arc<Node>,
    /// The operation, and which message of its kind it is.
    message: (&'static str, u64),
    undo: Vec<Step>,
    publish: Vec<Entry>,
    retired: Vec<Arc<Node>>,
    after: Vec<(Arc<Node>, actix::Recipient<Destroy>)>,
    events: Vec<HostEvent>,
    restarted: bool,
}

impl Change {
    pub(crate) fn new(shared: Arc<Shared>, node: Arc<Node>, operation: &'static str) -> Self {
        Self {
            shared,
            node,
            message: (operation, 0),
            undo: Vec::new(),
            publish: Vec::new(),
            retired: Vec::new(),
            after: Vec::new(),
            events: Vec::new(),
            restarted: false,
        }
    }

    /// The message is taken up: from here on it may be planned to panic.
    pub(crate) fn begin(&mut self) {
        self.message.1 = self.shared.faults.begin(self.node.kind, self.message.0);
    }

    /// The object whose operation this is.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn backend(&self) -> Arc<dyn Objects> {
        self.shared.backend.clone()
    }

    /// Allocates an object; undone by destroying it.
    pub(crate) fn create(&mut self, made: impl Future<Output = Result<u32, Cause>>) -> Result<u32, Cause> {
        let id = wait(made)?;
        self.undo_by_destroy(id);
        Ok(id)
    }

    /// Undone by destroying the object; what cannot be destroyed now is left to the reaper.
    pub(crate) fn undo_by_destroy(&mut self, id: u32) {
        let shared = self.shared.clone();
        self.undo_by(move |backend| destroy(backend, id).inspect_err(|_| shared.reap(Reap::Orphan(id))));
    }

    /// Attaches or replaces; undone by attaching `before`, or detaching.
    pub(crate) fn attach(&mut self, device: u32, hwpt: u32, before: Option<u32>) -> Result<(), Cause> {
        wait(self.backend().attach(device, hwpt))?;
        self.undo_by(move |backend| match before {
            Some(before) => wait(backend.attach(device, before)),
            None => wait(backend.detach(device)),
        });
        Ok(())
    }

    /// Destroys a backend object. Cannot be undone: the last fallible step of its operation.
    pub(crate) fn destroy(&mut self, id: u32) -> Result<(), Cause> {
        destroy(self.backend().as_ref(), id)
    }

    /// The object of this node is being destroyed: refused while it is used, and out of the registry on success.
    pub(crate) fn retire(&mut self, node: &Arc<Node>) -> Result<(), Cause> {
        node.begin_destroy()?;
        self.retired.push(node.clone());
        let node = node.clone();
        self.undo_by(move |_| {
            node.cancel_destroy();
            Ok(())
        });
        Ok(())
    }

    /// Counts a user of `node`, for an object being made on it.
    pub(crate) fn acquire(&mut self, node: &Arc<Node>, user: ObjectKind) -> Result<(), Cause> {
        node.acquire(user)?;
        self.undo_by_release(node, user);
        Ok(())
    }

    /// As [`Change::acquire`], for a kind of user of which there may be one.
    pub(crate) fn acquire_only(
        &mut self,
        node: &Arc<Node>,
        user: ObjectKind,
        already: impl FnOnce() -> String,
    ) -> Result<(), Cause> {
        node.acquire_only(user, already)?;
        self.undo_by_release(node, user);
        Ok(())
    }

    fn undo_by_release(&mut self, node: &Arc<Node>, user: ObjectKind) {
        let node = node.clone();
        self.undo_by(move |_| {
            node.release(user);
            Ok(())
        });
    }

    pub(crate) fn undo_by(&mut self, step: impl FnOnce(&dyn Objects) -> Result<(), Cause> + Send + 'static) {
        self.undo.push(Box::new(step));
        let (operation, nth) = self.message;
        if nth > 0 {
            self.shared.faults.step(self.node.kind, operation, nth, self.undo.len() as u32);
        }
    }

    /// The object becomes visible when the operation has succeeded.
    pub(crate) fn publish(&mut self, entry: Entry) {
        self.publish.push(entry);
    }

    /// The object is destroyed when the operation has succeeded, before it is answered.
    pub(crate) fn destroy_after(&mut self, node: Arc<Node>, object: actix::Recipient<Destroy>) {
        self.after.push((node, object));
    }

    /// Tells the host's subscribers when the operation has succeeded.
    pub(crate) fn tell(&mut self, event: HostEvent) {
        self.events.push(event);
    }

    /// The object is in service again when the operation has succeeded.
    pub(crate) fn restarted(&mut self) {
        self.restarted = true;
    }

    /// The operation succeeded. What is to be destroyed now.
    pub(crate) fn commit(self) -> Vec<(Arc<Node>, actix::Recipient<Destroy>)> {
        for node in self.retired {
            node.gone();
            self.shared.registry.remove(node.id);
        }
        for entry in self.publish {
            self.shared.registry.publish(entry);
        }
        if self.restarted {
            self.node.set(ObjectState::Running, "");
            self.shared.tell(HostEvent::Restarted { kind: self.node.kind, id: self.node.id });
        }
        for event in self.events {
            self.shared.tell(event);
        }
        self.after
    }

    /// The operation failed: as if nothing had happened. A step that fails is logged and the others still run.
    pub(crate) fn roll_back(mut self) {
        // Objects that were never published must not be destroyed again when their handles are dropped.
        for entry in &self.publish {
            entry.node.set(ObjectState::Destroyed, "never published");
        }
        let backend = self.backend();
        while let Some(step) = self.undo.pop() {
            match catch_unwind(AssertUnwindSafe(|| step(backend.as_ref()))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "undo step failed"),
                Err(_) => tracing::error!("undo step panicked"),
            }
        }
    }
}

/// DESTROY; an object that is gone already counts as destroyed.
pub(crate) fn destroy(backend: &dyn Objects, id: u32) -> Result<(), Cause> {
    match wait(backend.destroy(id)) {
        Err(cause) if cause.errno() == viommu_plugin::Refusal::ENOENT => Ok(()),
        other => other,
    }
}

/// The error of `operation` on a node.
pub(crate) fn error_of(node: &Node, created: Option<ObjectKind>, operation: &'static str, cause: Cause) -> Error {
    match created {
        Some(kind) => cause.of(kind, None, operation),
        None => cause.of(node.kind, (node.kind != ObjectKind::Host).then_some(node.id), operation),
    }
}
