//! The kernel's mock driver (CONFIG_IOMMUFD_TEST): caches that are words, and rules that exercise every other rule.

use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PAGE_SIZE,
        PagingDomain, Parent, Registers, Target, UserData, ViommuDriver,
    },
    flags::{HW_INFO_TYPE_NONE, HWPT_ALLOC_PASID, HWPT_DATA_NONE},
    selftest as uapi,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use zerocopy::IntoBytes;

/// Bytes of the page that a vIOMMU offers for mmap.
const VIOMMU_PAGE: u64 = 2 * PAGE_SIZE;

/// The mock driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mock;

/// What it keeps of a device.
#[derive(Debug)]
pub(in crate::uapi::dispatcher) struct MockDevice {
    pub cache: [AtomicU32; uapi::CACHE_SLOTS],
    /// Whether the next attachment of the trap PASID fails.
    trap: AtomicBool,
}

/// Its nested HWPT.
#[derive(Debug)]
pub(in crate::uapi::dispatcher) struct MockNested {
    pub iotlb: [u32; uapi::CACHE_SLOTS],
}

/// Its vIOMMU.
#[derive(Debug, Default)]
struct MockViommu {
    queues: [bool; uapi::HW_QUEUES as usize],
}

impl MockNested {
    fn build(data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if data.data_type != uapi::HWPT_DATA {
            return Err(Errno::OPNOTSUPP);
        }
        let config: uapi::HwptSelftest = data.read(uapi::HWPT_DATA, 4)?;
        Ok(Box::new(Self { iotlb: [config.iotlb; uapi::CACHE_SLOTS] }))
    }
}

impl Driver for Mock {
    fn device(&self) -> Arc<dyn Any + Send + Sync> {
        let cache = [const { AtomicU32::new(uapi::DEVICE_CACHE) }; uapi::CACHE_SLOTS];
        Arc::new(MockDevice { cache, trap: AtomicBool::new(false) })
    }

    fn hw_info(&self, _: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if ![HW_INFO_TYPE_NONE, uapi::HW_INFO_TYPE].contains(&data_type) {
            return Err(Errno::OPNOTSUPP);
        }
        let info = uapi::HwInfoSelftest { flags: 0, test_reg: uapi::HW_INFO_REGISTER };
        Ok(HwInformation { data_type: uapi::HW_INFO_TYPE, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, _: &DeviceConfig, _: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        let config = match data {
            Some(data) if ![uapi::HWPT_DATA, HWPT_DATA_NONE].contains(&data.data_type) => return Err(Errno::OPNOTSUPP),
            Some(data) => data.read(uapi::HWPT_DATA, 4)?,
            None => uapi::HwptSelftest::default(),
        };
        let (page_size, aperture) = match config.pagetable_type {
            0 => (uapi::PAGE_SIZE, uapi::APERTURE_START..=uapi::APERTURE_LAST),
            // Huge pages alone, and the page that iommufd cannot do without.
            1 => (PAGE_SIZE, 0..=(1 << 56) - 1),
            _ => return Err(Errno::OPNOTSUPP),
        };
        Ok(PagingDomain { page_size, aperture, refuses_read_only: false })
    }

    fn nests_on_parent(&self) -> bool {
        true
    }

    fn nested(&self, _: &DeviceConfig, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if flags & !HWPT_ALLOC_PASID != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        MockNested::build(data)
    }

    fn has_viommu(&self, _: &DeviceConfig, viommu_type: u32) -> bool {
        viommu_type == uapi::VIOMMU_TYPE
    }

    fn viommu(
        &self,
        _: &BoundDevice,
        _: Parent,
        _: u32,
        data: Option<UserData<'_>>,
        map: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        if let Some(data) = data {
            let mut payload: uapi::ViommuSelftest = data.read(uapi::VIOMMU_TYPE, 8)?;
            payload.out_data = payload.in_data;
            payload.out_mmap_length = VIOMMU_PAGE;
            payload.out_mmap_offset = map(Registers { length: VIOMMU_PAGE, first_word: payload.in_data })?;
            data.write(&payload)?;
        }
        Ok(Box::new(MockViommu::default()))
    }

    fn attach(&self, device: &BoundDevice, pasid: u32, target: &Target<'_>) -> Result<(), Errno> {
        // Nobody looks when a PASID is attached.
        let tracks = pasid == 0 && matches!(target, Target::Paging { dirty_tracking: true, .. });
        if tracks && !device.config.dirty_tracking {
            return Err(Errno::INVAL);
        }
        if pasid == 0 && matches!(target, Target::Nested { virt_id: Some(None), .. }) {
            return Err(Errno::NOENT);
        }
        if pasid == uapi::PASID_TRAP
            && let Some(own) = device.private.downcast_ref::<MockDevice>()
        {
            if matches!(target, Target::Blocked) {
                own.trap.store(false, Ordering::Relaxed);
            } else if own.trap.fetch_xor(true, Ordering::Relaxed) {
                return Err(Errno::NOMEM);
            }
        }
        Ok(())
    }

    fn names_again(&self) -> bool {
        false
    }
}

impl NestedHwpt for MockNested {
    fn invalidate(&mut self, entries: &mut Entries<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        if entries.data_type != uapi::HWPT_INVALIDATE_DATA {
            return Err(Errno::INVAL);
        }
        for index in 0..entries.count {
            let entry: uapi::HwptInvalidateSelftest = entries.one(uapi::HWPT_INVALIDATE_DATA, 8, index)?;
            if entry.flags & !uapi::INVALIDATE_ALL != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            let slot = self.iotlb.get_mut(entry.iotlb_id as usize).ok_or(Errno::INVAL)?;
            *slot = 0;
            if entry.flags & uapi::INVALIDATE_ALL != 0 {
                self.iotlb.fill(0);
            }
            entries.handled += 1;
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ViommuDriver for MockViommu {
    fn nested(&mut self, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if flags & !HWPT_ALLOC_PASID != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        MockNested::build(data)
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, find: &FindDevice<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        if entries.count == 0 && entries.data_type == uapi::VIOMMU_INVALIDATE_DATA {
            return Ok(());
        }
        let all: Vec<uapi::ViommuInvalidateSelftest> = entries.all(uapi::VIOMMU_INVALIDATE_DATA)?;
        for entry in all {
            if entry.flags & !uapi::INVALIDATE_ALL != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            let slot = entry.cache_id as usize;
            if slot >= uapi::CACHE_SLOTS {
                return Err(Errno::INVAL);
            }
            let device = find(u64::from(entry.vdev_id)).ok_or(Errno::INVAL)?;
            let own = device.private.downcast_ref::<MockDevice>().ok_or(Errno::INVAL)?;
            let whole = entry.flags & uapi::INVALIDATE_ALL != 0;
            for slot in if whole { &own.cache[..] } else { &own.cache[slot..=slot] } {
                slot.store(0, Ordering::Relaxed);
            }
            entries.handled += 1;
        }
        Ok(())
    }

    fn has_hw_queue(&self, queue_type: u32) -> bool {
        queue_type == uapi::HW_QUEUE_TYPE
    }

    fn hw_queue(&mut self, index: u32, _: u64, _: u64) -> Result<Option<u32>, Errno> {
        let previous = index.checked_sub(1);
        if *self.queues.get(index as usize).ok_or(Errno::INVAL)? {
            return Err(Errno::EXIST);
        }
        if previous.is_some_and(|previous| !self.queues[previous as usize]) {
            return Err(Errno::IO);
        }
        self.queues[index as usize] = true;
        Ok(previous)
    }

    fn hw_queue_destroy(&mut self, index: u32) {
        if let Some(queue) = self.queues.get_mut(index as usize) {
            *queue = false;
        }
    }
}
