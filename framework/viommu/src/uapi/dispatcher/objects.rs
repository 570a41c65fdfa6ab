//! The objects of one iommufd: one namespace of IDs, lowest free first, and who uses whom.
//!
//! An ID is reserved before the object is built and published after everything succeeded, so that nobody ever sees half
//! of one. An object that holds others is a user of each until it is destroyed; an object with users stays (EBUSY).

use super::{
    access::Access, devices::Device, fault::Fault, hw_queue::HwQueue, hwpt::Nested, hwpt::Paging, ioas::Ioas,
    selftest::Selftest, vdevice::Vdevice, veventq::Veventq, viommu::Viommu,
};
use crate::uapi::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// An object.
#[derive(Debug)]
pub(super) enum Object {
    Ioas(Ioas),
    Paging(Paging),
    Nested(Nested),
    Device(Device),
    Viommu(Viommu),
    Vdevice(Vdevice),
    Veventq(Veventq),
    Fault(Fault),
    HwQueue(HwQueue),
    Access(Access),
    Selftest(Selftest),
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ioas,
    Paging,
    Nested,
    Device,
    Viommu,
    Vdevice,
    Veventq,
    Fault,
    HwQueue,
    Access,
    Selftest,
}

impl Object {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Ioas(_) => Kind::Ioas,
            Self::Paging(_) => Kind::Paging,
            Self::Nested(_) => Kind::Nested,
            Self::Device(_) => Kind::Device,
            Self::Viommu(_) => Kind::Viommu,
            Self::Vdevice(_) => Kind::Vdevice,
            Self::Veventq(_) => Kind::Veventq,
            Self::Fault(_) => Kind::Fault,
            Self::HwQueue(_) => Kind::HwQueue,
            Self::Access(_) => Kind::Access,
            Self::Selftest(_) => Kind::Selftest,
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// `None`: reserved, or the tombstone of a vDEVICE.
    object: Option<Object>,
    /// Who uses it; it can be destroyed at zero.
    users: u32,
    /// What it uses.
    holds: Vec<u32>,
}

/// All objects.
#[derive(Debug)]
pub(super) struct Table {
    slots: BTreeMap<u32, Slot>,
    /// IDs below `next` that are free.
    free: BTreeSet<u32>,
    next: u32,
    /// Objects there may be.
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: BTreeMap::new(), free: BTreeSet::new(), next: 1, limit }
    }

    /// The lowest free ID, for an object to be.
    pub(super) fn reserve(&mut self) -> Result<u32, Errno> {
        if self.slots.len() >= self.limit || self.next > i32::MAX as u32 {
            return Err(Errno::NOMEM);
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.slots.insert(id, Slot { object: None, users: 0, holds: Vec::new() });
        Ok(id)
    }

    /// Gives a reserved ID back.
    pub(super) fn abort(&mut self, id: u32) {
        if self.slots.remove(&id).is_some() {
            self.free.insert(id);
        }
    }

    /// Makes the object visible under its reserved ID, as a user of `holds`.
    pub(super) fn publish(&mut self, id: u32, object: Object, holds: &[u32]) {
        for held in holds {
            self.hold(*held);
        }
        if let Some(slot) = self.slots.get_mut(&id) {
            *slot = Slot { object: Some(object), users: 0, holds: holds.to_vec() };
        }
    }

    /// One user more.
    pub(super) fn hold(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.users += 1;
        }
    }

    /// One user less.
    pub(super) fn release(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.users = slot.users.saturating_sub(1);
        }
    }

    /// Makes a published object a user of one more.
    pub(super) fn also_hold(&mut self, id: u32, held: u32) {
        self.hold(held);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.holds.push(held);
        }
    }

    /// The opposite.
    pub(super) fn stop_holding(&mut self, id: u32, held: u32) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Some(at) = slot.holds.iter().position(|other| *other == held)
        {
            slot.holds.remove(at);
            self.release(held);
        }
    }

    /// Whether the object can be destroyed: ENOENT if it is not there, EBUSY while it has users.
    pub(super) fn removable(&self, id: u32) -> Result<(), Errno> {
        match self.slots.get(&id) {
            Some(Slot { object: Some(_), users: 0, .. }) => Ok(()),
            Some(Slot { object: Some(_), .. }) => Err(Errno::BUSY),
            _ => Err(Errno::NOENT),
        }
    }

    /// Takes the object out and lets go of what it held. A tombstone keeps its ID from ever being used again.
    pub(super) fn remove(&mut self, id: u32, tombstone: bool) -> Option<Object> {
        let slot = self.slots.get_mut(&id)?;
        let object = slot.object.take();
        let holds = std::mem::take(&mut slot.holds);
        if !tombstone {
            self.abort(id);
        }
        for held in holds {
            self.release(held);
        }
        object
    }

    pub(super) fn object(&self, id: u32) -> Option<&Object> {
        self.slots.get(&id)?.object.as_ref()
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.object(id).map(Object::kind)
    }

    /// Live objects, ascending: ID, users, object.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, &Object)> {
        self.slots.iter().filter_map(|(id, slot)| Some((*id, slot.users, slot.object.as_ref()?)))
    }

    /// Whether not even a reserved ID or a tombstone is there.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

macro_rules! typed {
    ($($get:ident: $variant:ident;)*) => {
        impl Table {
            $(
                pub(super) fn $get(&self, id: u32) -> Result<&$variant, Errno> {
                    match self.object(id) {
                        Some(Object::$variant(object)) => Ok(object),
                        _ => Err(Errno::NOENT),
                    }
                }
            )*
        }
    };
    (mut $($get:ident: $variant:ident;)*) => {
        impl Table {
            $(
                pub(super) fn $get(&mut self, id: u32) -> Result<&mut $variant, Errno> {
                    match self.slots.get_mut(&id).and_then(|slot| slot.object.as_mut()) {
                        Some(Object::$variant(object)) => Ok(object),
                        _ => Err(Errno::NOENT),
                    }
                }
            )*
        }
    };
}

typed! {
    ioas: Ioas;
    paging: Paging;
    nested: Nested;
    device: Device;
    viommu: Viommu;
    access: Access;
    selftest: Selftest;
}

typed! {
    mut
    ioas_mut: Ioas;
    paging_mut: Paging;
    nested_mut: Nested;
    device_mut: Device;
    viommu_mut: Viommu;
    veventq_mut: Veventq;
    fault_mut: Fault;
    access_mut: Access;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Object {
        Object::Fault(Fault::default())
    }

    #[test]
    fn ids_are_lowest_free_first_and_users_keep_an_object() {
        let mut table = Table::new(8);
        let ids: Vec<u32> = (0..3).map(|_| table.reserve().unwrap()).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(table.removable(1), Err(Errno::NOENT), "reserved is not there yet");
        table.publish(1, fault(), &[]);
        table.publish(2, fault(), &[1]);
        table.abort(3);
        assert_eq!((table.removable(1), table.removable(2)), (Err(Errno::BUSY), Ok(())));
        assert!(table.remove(2, false).is_some());
        assert_eq!(table.removable(1), Ok(()));
        assert_eq!(table.reserve().unwrap(), 2, "a freed ID is used again at once");
    }

    #[test]
    fn c6_27_a_tombstone_keeps_its_id() {
        let mut table = Table::new(8);
        let id = table.reserve().unwrap();
        table.publish(id, fault(), &[]);
        assert!(table.remove(id, true).is_some());
        assert_eq!((table.removable(id), table.reserve()), (Err(Errno::NOENT), Ok(2)));
        assert!(!table.is_empty());
    }

    #[test]
    fn objects_are_bounded() {
        let mut table = Table::new(2);
        assert_eq!([table.reserve(), table.reserve(), table.reserve()], [Ok(1), Ok(2), Err(Errno::NOMEM)]);
    }
}
