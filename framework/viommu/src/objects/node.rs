//! What the registry knows of an object: kind, ID, state, who uses it.

use crate::Cause;
use crate::backend::ObjectKind;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Life of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// In service.
    Running,
    /// Its actor panicked; the change was rolled back. Invalidations flow; the next configuration change attaches the
    /// abort HWPT, then the object is restarted.
    Degraded,
    /// Panicked too often, or its guest broke the hardware queue: abort attached, operations answer so.
    Quarantined,
    /// Destroyed: operations answer ENOENT.
    Destroyed,
}

/// One line of [`crate::Host::objects`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its ID.
    pub id: u32,
    /// Its kind.
    pub kind: ObjectKind,
    /// Its state.
    pub state: ObjectState,
    /// The object it was made on; a vdevice's vIOMMU.
    pub parent: Option<u32>,
    /// Who uses it, in words; empty if nobody.
    pub users: String,
}

#[derive(Debug)]
struct Inner {
    state: ObjectState,
    reason: String,
    destroying: bool,
    users: BTreeMap<ObjectKind, u32>,
    panics: Vec<Duration>,
}

/// OTP's intensity: so many restarts in so long; one more, and the object is quarantined.
const RESTARTS: (usize, Duration) = (3, Duration::from_secs(5));

/// An object's record, shared by its actor, its handles, its children and the registry.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) kind: ObjectKind,
    pub(crate) parents: Vec<Arc<Node>>,
    inner: Mutex<Inner>,
}

impl Node {
    pub(crate) fn new(kind: ObjectKind, id: u32, parents: Vec<Arc<Node>>) -> Arc<Self> {
        let inner = Inner {
            state: ObjectState::Running,
            reason: String::new(),
            destroying: false,
            users: BTreeMap::new(),
            panics: Vec::new(),
        };
        Arc::new(Self { id, kind, parents, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> ObjectState {
        self.inner().state
    }

    /// Why it is not running.
    pub(crate) fn reason(&self) -> String {
        self.inner().reason.clone()
    }

    pub(crate) fn set(&self, state: ObjectState, reason: &str) {
        let mut inner = self.inner();
        if inner.state != ObjectState::Destroyed {
            inner.state = state;
            inner.reason = reason.to_owned();
        }
    }

    /// Notes a panic; whether that makes too many.
    pub(crate) fn too_many_panics(&self, now: Duration) -> bool {
        let mut inner = self.inner();
        inner.panics.retain(|then| now.saturating_sub(*then) < RESTARTS.1);
        inner.panics.push(now);
        inner.panics.len() > RESTARTS.0
    }

    /// Counts a user, unless the object is going or gone.
    pub(crate) fn acquire(&self, user: ObjectKind) -> Result<(), Cause> {
        let mut inner = self.inner();
        if inner.destroying || inner.state == ObjectState::Destroyed {
            return Err(Cause::NotFound(self.kind));
        }
        *inner.users.entry(user).or_default() += 1;
        Ok(())
    }

    /// As [`Node::acquire`], for a kind of user of which there may be one.
    pub(crate) fn acquire_only(&self, user: ObjectKind, already: impl FnOnce() -> String) -> Result<(), Cause> {
        let mut inner = self.inner();
        if inner.destroying || inner.state == ObjectState::Destroyed {
            return Err(Cause::NotFound(self.kind));
        }
        if inner.users.contains_key(&user) {
            return Err(Cause::Exists(already()));
        }
        inner.users.insert(user, 1);
        Ok(())
    }

    pub(crate) fn release(&self, user: ObjectKind) {
        let mut inner = self.inner();
        if let Some(count) = inner.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                inner.users.remove(&user);
            }
        }
    }

    /// First step of a destroy: refused while somebody uses the object; no new user from here on.
    pub(crate) fn begin_destroy(&self) -> Result<(), Cause> {
        let mut inner = self.inner();
        if inner.destroying || inner.state == ObjectState::Destroyed {
            return Err(Cause::NotFound(self.kind));
        }
        if !inner.users.is_empty() {
            return Err(Cause::Busy { users: words(&inner.users) });
        }
        inner.destroying = true;
        Ok(())
    }

    /// The destroy failed: the object is as before.
    pub(crate) fn cancel_destroy(&self) {
        self.inner().destroying = false;
    }

    /// The object is gone; its parents lose a user. Only the first call counts.
    pub(crate) fn gone(&self) {
        let before = std::mem::replace(&mut self.inner().state, ObjectState::Destroyed);
        if before != ObjectState::Destroyed {
            for parent in &self.parents {
                parent.release(self.kind);
            }
        }
    }

    pub(crate) fn info(&self) -> ObjectInfo {
        let inner = self.inner();
        ObjectInfo {
            id: self.id,
            kind: self.kind,
            state: inner.state,
            parent: self.parents.first().filter(|parent| parent.kind != ObjectKind::Host).map(|parent| parent.id),
            users: words(&inner.users),
        }
    }
}

/// "2 vdevices, 1 nested HWPT".
fn words(users: &BTreeMap<ObjectKind, u32>) -> String {
    let each = users.iter().map(|(kind, count)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" }));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destroy_is_refused_while_used_and_names_the_users() {
        let node = Node::new(ObjectKind::Viommu, 3, Vec::new());
        node.acquire(ObjectKind::Vdevice).unwrap();
        node.acquire(ObjectKind::Vdevice).unwrap();
        node.acquire(ObjectKind::EventQueue).unwrap();
        let busy = node.begin_destroy().unwrap_err();
        assert_eq!(busy.to_string(), "busy: used by 2 vdevices, 1 event queue");
        assert_eq!(busy.errno(), 16);
        node.release(ObjectKind::Vdevice);
        node.release(ObjectKind::Vdevice);
        node.release(ObjectKind::EventQueue);
        node.begin_destroy().unwrap();
        assert_eq!(node.acquire(ObjectKind::Vdevice).unwrap_err().errno(), 2);
        node.cancel_destroy();
        node.acquire(ObjectKind::Vdevice).unwrap();
    }
}
