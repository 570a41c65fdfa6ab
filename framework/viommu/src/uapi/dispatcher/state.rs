//! Everything that one iommufd is, behind its lock.

use super::{
    Options,
    devices::Group,
    drivers::Mock,
    fault::PageAnswer,
    inject::Inject,
    mmap::Mmaps,
    objects::{Kind, Object, Table},
    space::Owner,
};
use crate::uapi::{Errno, flags::PAGE_RESP_INVALID};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What nobody may ask more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects; one more is ENOMEM.
    pub objects: usize,
    /// Mappings, reserved and allowed ranges of one IOAS, each; one more is ENOMEM.
    pub areas: usize,
    /// Bytes of one mapping that is pinned; more is ENOMEM, like RLIMIT_MEMLOCK.
    pub pinned_bytes: u64,
    /// Aligned blocks of this many bytes of the caller's memory count as physically contiguous: a power of two, at least
    /// one page. It decides whether a hardware queue of several pages is accepted.
    pub contiguous_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { objects: 1 << 20, areas: 1 << 20, pinned_bytes: 1 << 32, contiguous_bytes: super::driver::PAGE_SIZE }
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub table: Table,
    pub inject: Inject,
    pub limits: Limits,
    pub groups: BTreeMap<u64, Group>,
    /// Memory files by number: their bytes.
    pub files: BTreeMap<i32, u64>,
    /// Event queues and accesses by number: their object.
    pub fds: BTreeMap<i32, u32>,
    pub mmaps: Mmaps,
    pub vfio_ioas: Option<u32>,
    /// OPTION_RLIMIT_MODE: whether pinned memory counts by process.
    pub by_process: bool,
    pub privileged: bool,
    /// Mappings made so far.
    pub identity: u64,
    /// Attachments made so far.
    pub serial: u64,
    /// Groups made so far.
    pub group_serial: u64,
    /// What devices were told about their page requests, newest last.
    pub answers: VecDeque<PageAnswer>,
    /// The mock driver, if its commands are there.
    pub mock: Option<Arc<Mock>>,
    pub first_fd: i32,
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            table: Table::new(options.limits.objects),
            inject: Inject::default(),
            limits: options.limits,
            groups: BTreeMap::new(),
            files: BTreeMap::new(),
            fds: BTreeMap::new(),
            mmaps: Mmaps::default(),
            vfio_ioas: None,
            by_process: false,
            privileged: options.privileged,
            identity: 0,
            serial: 0,
            group_serial: 0,
            answers: VecDeque::new(),
            mock: options.selftest.then(|| Arc::new(Mock)),
            first_fd: options.fd,
        }
    }

    /// ENOENT unless there is an object of this kind.
    pub(super) fn seek(&self, id: u32, kind: Kind) -> Result<(), Errno> {
        self.inject.lookup()?;
        if self.table.kind(id) == Some(kind) { Ok(()) } else { Err(Errno::NOENT) }
    }

    /// The kind of an object of any kind; ENOENT without.
    pub(super) fn seek_any(&self, id: u32) -> Result<Kind, Errno> {
        self.inject.lookup()?;
        self.table.kind(id).ok_or(Errno::NOENT)
    }

    /// An ID for an object to be.
    pub(super) fn reserve(&mut self) -> Result<u32, Errno> {
        self.inject.allocation()?;
        self.table.reserve()
    }

    /// Carries `build` out with a reserved ID, which it publishes or which is given back.
    pub(super) fn with_reserved<T>(
        &mut self,
        build: impl FnOnce(&mut Self, u32) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let id = self.reserve()?;
        let built = build(self, id);
        if built.is_err() {
            self.table.abort(id);
        }
        built
    }

    /// The lowest number that is no file yet; the iommufd's own is the first.
    pub(super) fn new_fd(&self) -> Result<i32, Errno> {
        self.inject.allocation()?;
        (self.first_fd + 1..i32::MAX)
            .find(|fd| !self.fds.contains_key(fd) && !self.files.contains_key(fd))
            .ok_or(Errno::MFILE)
    }

    /// DESTROY.
    pub(super) fn destroy(&mut self, id: u32) -> Result<(), Errno> {
        self.table.removable(id)?;
        self.destroy_object(id, false);
        Ok(())
    }

    /// Destroys an object without users, and what only it kept.
    pub(super) fn destroy_object(&mut self, id: u32, tombstone: bool) {
        let Some(object) = self.table.remove(id, tombstone) else { return };
        match object {
            Object::Ioas(_) => self.vfio_ioas = self.vfio_ioas.filter(|ioas| *ioas != id),
            Object::Paging(paging) => self.remove_hwpt(paging.ioas, id),
            Object::Nested(_) => {}
            Object::Device(device) => self.leave_group(device.group),
            Object::Viommu(_) => self.mmaps.remove(id),
            Object::Vdevice(vdevice) => self.vdevice_gone(&vdevice),
            Object::Veventq(queue) => {
                if let Ok(viommu) = self.table.viommu_mut(queue.viommu) {
                    viommu.veventqs.remove(&queue.event_type);
                }
            }
            Object::Fault(fault) => fault.all().for_each(|group| self.answer(group, PAGE_RESP_INVALID)),
            Object::HwQueue(queue) => self.hw_queue_gone(&queue),
            Object::Access(access) => {
                if let Some(Ok(ioas)) = access.ioas.map(|ioas| self.table.ioas_mut(ioas)) {
                    ioas.space.accesses.remove(&id);
                    // With one access less the alignment can only become smaller.
                    let _ = ioas.space.realign();
                }
            }
            Object::Selftest(selftest) => {
                self.detach_all(selftest.device);
                self.unbind(selftest.device);
            }
        }
    }

    /// Lets go of an HWPT that a device was attached to; the automatic ones go with their last device.
    pub(super) fn put_hwpt(&mut self, hwpt: u32) {
        self.table.release(hwpt);
        let automatic = self.table.paging(hwpt).is_ok_and(|paging| paging.automatic);
        if automatic && self.table.removable(hwpt).is_ok() {
            self.destroy_object(hwpt, false);
        }
    }

    /// Keeps the IOVAs that a device needs free in an IOAS.
    pub(super) fn reserve_for(&mut self, ioas: u32, device: u32) -> Result<(), Errno> {
        let ranges = self.table.device(device)?.bound.config.reserved.clone();
        for (first, last) in ranges {
            let outcome = self
                .inject
                .allocation()
                .and_then(|()| self.table.ioas_mut(ioas)?.space.reserve(first, last, Owner::Device(device)));
            if outcome.is_err() {
                self.unreserve_for(ioas, device);
                return outcome;
            }
        }
        Ok(())
    }

    pub(super) fn unreserve_for(&mut self, ioas: u32, device: u32) {
        if let Ok(ioas) = self.table.ioas_mut(ioas) {
            ioas.space.unreserve(Owner::Device(device));
        }
    }
}
