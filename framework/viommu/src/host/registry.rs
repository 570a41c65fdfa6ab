//! Objects alive, by ID: weak addresses and weak handles.

use crate::Cause;
use crate::metrics::OBJECTS;
use crate::objects::served::{Destroy, Restart, State};
use crate::objects::{Link, Node, ObjectInfo};
use actix::WeakRecipient;
use dashmap::DashMap;
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// One object as the registry knows it. Holding it keeps nothing alive.
pub(crate) struct Entry {
    pub(crate) node: Arc<Node>,
    pub(crate) destroy: WeakRecipient<Destroy>,
    pub(crate) restart: WeakRecipient<Restart>,
    pub(crate) handle: Weak<dyn Any + Send + Sync>,
}

/// The gauge of objects of an entry's kind.
fn alive(entry: &Entry) -> metrics::Gauge {
    metrics::gauge!(OBJECTS, "kind" => entry.node.kind.uapi_name())
}

/// The registry.
#[derive(Default)]
pub(crate) struct Registry {
    entries: DashMap<u32, (u64, Entry)>,
    published: AtomicU64,
}

impl Registry {
    pub(crate) fn publish(&self, entry: Entry) {
        let order = self.published.fetch_add(1, Ordering::Relaxed);
        alive(&entry).increment(1);
        self.entries.insert(entry.node.id, (order, entry));
    }

    pub(crate) fn remove(&self, id: u32) {
        if let Some((_, (_, entry))) = self.entries.remove(&id) {
            alive(&entry).decrement(1);
        }
    }

    /// Every object, by ID.
    pub(crate) fn infos(&self) -> Vec<ObjectInfo> {
        let mut infos: Vec<_> = self.entries.iter().map(|entry| entry.1.node.info()).collect();
        infos.sort_by_key(|info| info.id);
        infos
    }

    /// A handle by ID.
    pub(crate) fn handle<S: State>(&self, id: u32) -> Result<Arc<Link<S>>, Cause> {
        let handle = self.entries.get(&id).and_then(|entry| entry.1.handle.upgrade());
        handle.and_then(|handle| handle.downcast().ok()).ok_or(Cause::NotFound(S::KIND))
    }

    /// Handles of all objects of a kind, oldest first.
    pub(crate) fn handles<S: State>(&self) -> Vec<Arc<Link<S>>> {
        let of_kind = self.entries.iter().filter(|entry| entry.1.node.kind == S::KIND);
        let mut found: Vec<(u64, Arc<Link<S>>)> =
            of_kind.filter_map(|entry| Some((entry.0, entry.1.handle.upgrade()?.downcast().ok()?))).collect();
        found.sort_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, link)| link).collect()
    }

    /// The youngest first: who may be destroyed before whom.
    pub(crate) fn youngest_first(&self) -> Vec<(Arc<Node>, WeakRecipient<Destroy>)> {
        let mut all: Vec<_> =
            self.entries.iter().map(|entry| (entry.0, entry.1.node.clone(), entry.1.destroy.clone())).collect();
        all.sort_by_key(|(order, ..)| std::cmp::Reverse(*order));
        all.into_iter().map(|(_, node, destroy)| (node, destroy)).collect()
    }

    /// OTP's rest_for_one: the object, then what was made on it and after it, oldest first.
    pub(crate) fn rest_for_one(&self, id: u32) -> Vec<(Arc<Node>, WeakRecipient<Restart>)> {
        let mut all: Vec<_> =
            self.entries.iter().map(|entry| (entry.0, entry.1.node.clone(), entry.1.restart.clone())).collect();
        all.sort_by_key(|(order, ..)| *order);
        let mut ids = BTreeSet::from([id]);
        let mut rest = Vec::new();
        for (_, node, restart) in all {
            if node.id == id || node.parents.iter().any(|parent| ids.contains(&parent.id)) {
                ids.insert(node.id);
                rest.push((node, restart));
            }
        }
        rest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Objects that outlive their host are nobody's any more.
        self.entries.iter().for_each(|entry| alive(&entry.1).decrement(1));
    }
}
