//! The end of an iommufd.

use super::{
    Dispatcher,
    objects::{Kind, Object},
    state::State,
};

/// What closing an iommufd did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// Objects that it destroyed.
    pub destroyed: usize,
    /// Objects that somebody outside still uses: ID, kind and users. A mapping keeps its vIOMMU and what that holds.
    pub left: Vec<(u32, String, u32)>,
    /// Mappings with a pin or a lock that nobody holds any more: always none.
    pub stray_pins: usize,
}

impl State {
    fn teardown(&mut self) -> Teardown {
        let before = self.table.iter().count();
        for fd in self.fds.keys().copied().collect::<Vec<_>>() {
            // It is there: it was just listed.
            let _ = self.close_fd(fd);
        }
        self.files.clear();
        // Depth first: what nobody uses goes, until nothing more does. Devices of VFIO leave with their own file.
        loop {
            let leaves: Vec<u32> = self.table.iter().filter(|(_, users, _)| *users == 0).map(|(id, _, _)| id).collect();
            if leaves.is_empty() {
                break;
            }
            for id in leaves {
                if self.table.removable(id).is_ok() {
                    self.destroy_object(id, false);
                }
            }
        }
        let left: Vec<_> =
            self.table.iter().map(|(id, users, object)| (id, format!("{:?}", object.kind()), users)).collect();
        Teardown { destroyed: before - left.len(), stray_pins: self.stray_pins(), left }
    }

    /// Locks and pins of mappings that no queue and no access accounts for.
    pub(super) fn stray_pins(&self) -> usize {
        let queues = || self.table.iter().filter(|(_, _, object)| object.kind() == Kind::HwQueue);
        let accesses = || self.table.iter().filter(|(_, _, object)| object.kind() == Kind::Access);
        let mappings = self.table.iter().filter_map(|(id, _, object)| match object {
            Object::Ioas(ioas) => Some((id, ioas)),
            _ => None,
        });
        let mut stray = 0;
        for (id, ioas) in mappings {
            for (start, area) in ioas.space.areas() {
                let locks = queues().filter(|(_, _, object)| match object {
                    Object::HwQueue(queue) => queue.ioas == id && queue.locked.contains(&start),
                    _ => false,
                });
                let pins = accesses().filter_map(|(_, _, object)| match object {
                    Object::Access(access) if access.ioas == Some(id) => Some(access),
                    _ => None,
                });
                let pins = pins.flat_map(|access| access.pins.values());
                let pins = pins.filter(|pin| pin.iova <= area.last && pin.last >= start);
                stray += usize::from(locks.count() != area.locks as usize || pins.count() != area.pins as usize);
            }
        }
        stray
    }
}

impl Dispatcher {
    /// Closes the iommufd with every number that its commands gave, as the end of the process does, and says what is left.
    ///
    /// VFIO devices that are still open and mappings keep what they use, as in the kernel: drop them first.
    pub fn shutdown(&self) -> Teardown {
        self.lock().teardown()
    }

    /// Live objects, ascending: ID, kind and users.
    pub fn objects(&self) -> Vec<(u32, String, u32)> {
        let state = self.lock();
        state.table.iter().map(|(id, users, object)| (id, format!("{:?}", object.kind()), users)).collect()
    }
}
