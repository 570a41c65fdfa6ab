//! A VT-d unit behind Linux's driver that forgets nothing by itself: what it has seen of a guest's tables it goes on using
//! until it is told, as hardware may. Then a test asks where DMA goes.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use viommu::uapi::Errno;
use viommu::uapi::dispatcher::driver::{
    BoundDevice, DeviceConfig, Driver, Entries, HwInformation, NestedHwpt, PagingDomain, Target, UserData,
};
use viommu::uapi::dispatcher::drivers::IntelVtd;
use viommu::uapi::flags::{HWPT_DATA_VTD_S1, HWPT_INVALIDATE_DATA_VTD_S1, VTD_INV_FLAGS_LEAF};
use viommu::uapi::payload::{HwptVtdS1, HwptVtdS1Invalidate};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where DMA goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dma {
    /// To this address of the guest's.
    At(u64),
    /// The guest's tables have nothing there.
    Fault,
    /// Nothing of the device passes.
    Blocked,
}

/// The unit and its driver.
#[derive(Clone)]
pub(crate) struct Unit {
    rules: IntelVtd,
    memory: Arc<GuestMemoryMmap>,
    attached: Arc<Mutex<BTreeMap<(u32, u32), Attached>>>,
    /// Invalidations are lost: what a test of the tests needs.
    pub(crate) deaf: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Attached {
    Nothing,
    Parent,
    Nested(Arc<Walker>),
}

/// One nested HWPT's caches: the kernel gives each a domain-id of its own.
struct Walker {
    root: u64,
    memory: Arc<GuestMemoryMmap>,
    caches: Mutex<Caches>,
}

#[derive(Default)]
struct Caches {
    /// Pages by page number.
    leaves: BTreeMap<u64, u64>,
    /// Tables of the lowest level, by what they are for: the paging-structure cache.
    tables: BTreeMap<u64, u64>,
}

struct Nested {
    rules: Box<dyn NestedHwpt>,
    walker: Arc<Walker>,
    deaf: Arc<AtomicBool>,
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rules.fmt(f)
    }
}

impl std::fmt::Debug for Nested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "first stage at {:#x}", self.walker.root)
    }
}

impl Unit {
    pub(crate) fn new(memory: &Arc<GuestMemoryMmap>) -> Self {
        let own = intel_vtd::features::Features::default();
        let rules = IntelVtd { cap: own.cap.into_bits(), ecap: own.ecap.with_nested(true).into_bits() };
        Self { rules, memory: memory.clone(), attached: Arc::default(), deaf: Arc::default() }
    }

    /// The same without nesting.
    pub(crate) fn without_nesting(mut self) -> Self {
        self.rules.ecap &= !(1 << 26);
        self
    }

    pub(crate) fn device(&self, stream: u32) -> DeviceConfig {
        DeviceConfig { pasid_log2: 20, ..DeviceConfig::new(Arc::new(self.clone()), stream) }
    }

    /// A read of a device, with a PASID or (0) without.
    pub(crate) fn dma(&self, stream: u32, pasid: u32, iova: u64) -> Dma {
        let attached = self.attached.lock().unwrap().get(&(stream, pasid)).cloned();
        match attached {
            None | Some(Attached::Nothing) => Dma::Blocked,
            Some(Attached::Parent) => Dma::At(iova),
            Some(Attached::Nested(walker)) => walker.translate(iova),
        }
    }
}

impl Walker {
    fn entry(&self, table: u64, index: u64) -> u64 {
        u64::from_le(self.memory.read_obj(GuestAddress(table + 8 * (index & 511))).unwrap_or(0))
    }

    fn translate(&self, iova: u64) -> Dma {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let mut caches = self.caches.lock().unwrap();
        let (page, within) = (iova >> 12, iova & 0xfff);
        if let Some(leaf) = caches.leaves.get(&page) {
            return Dma::At(leaf | within);
        }
        let table = match caches.tables.get(&(iova >> 21)) {
            Some(table) => *table,
            None => {
                let mut table = self.root;
                for shift in [39, 30, 21] {
                    let entry = self.entry(table, iova >> shift);
                    if entry & 1 == 0 {
                        return Dma::Fault;
                    }
                    table = entry & ADDRESS;
                }
                caches.tables.insert(iova >> 21, table);
                table
            }
        };
        let entry = self.entry(table, page);
        if entry & 1 == 0 {
            return Dma::Fault;
        }
        caches.leaves.insert(page, entry & ADDRESS);
        Dma::At(entry & ADDRESS | within)
    }
}

impl Driver for Unit {
    fn hw_info(&self, device: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        self.rules.hw_info(device, data_type)
    }

    fn paging(&self, device: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        self.rules.paging(device, flags, data)
    }

    fn nests_on_parent(&self) -> bool {
        true
    }

    fn nested(&self, device: &DeviceConfig, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        let rules = self.rules.nested(device, flags, data)?;
        let payload: HwptVtdS1 = data.read(HWPT_DATA_VTD_S1, size_of::<HwptVtdS1>())?;
        let walker = Walker { root: payload.pgtbl_addr, memory: self.memory.clone(), caches: Mutex::default() };
        Ok(Box::new(Nested { rules, walker: Arc::new(walker), deaf: self.deaf.clone() }))
    }

    fn attach(&self, device: &BoundDevice, pasid: u32, target: &Target<'_>) -> Result<(), Errno> {
        let attached = match target {
            Target::Nested { hwpt, iommu, virt_id } => {
                let own = hwpt.as_any().downcast_ref::<Nested>().ok_or(Errno::INVAL)?;
                let as_linux = Target::Nested { hwpt: &*own.rules, iommu: *iommu, virt_id: *virt_id };
                self.rules.attach(device, pasid, &as_linux)?;
                Attached::Nested(own.walker.clone())
            }
            Target::Paging { .. } => Attached::Parent,
            Target::Blocked => Attached::Nothing,
        };
        self.attached.lock().unwrap().insert((device.config.streams[0], pasid), attached);
        Ok(())
    }
}

impl NestedHwpt for Nested {
    fn invalidate(&mut self, entries: &mut Entries<'_>) -> Result<(), Errno> {
        let done = self.rules.invalidate(entries);
        if self.deaf.load(Ordering::Relaxed) {
            return done;
        }
        let mut caches = self.walker.caches.lock().unwrap();
        for index in 0..entries.handled {
            let entry: HwptVtdS1Invalidate = entries.one(HWPT_INVALIDATE_DATA_VTD_S1, 24, index)?;
            if entry.npages == u64::MAX {
                *caches = Caches::default();
                continue;
            }
            let (first, last) = (entry.addr >> 12, (entry.addr >> 12) + entry.npages - 1);
            caches.leaves.retain(|page, _| !(first..=last).contains(page));
            if entry.flags & VTD_INV_FLAGS_LEAF == 0 {
                caches.tables.retain(|table, _| !(first >> 9..=last >> 9).contains(table));
            }
        }
        done
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
