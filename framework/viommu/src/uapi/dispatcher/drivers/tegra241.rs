//! NVIDIA's Tegra241: Arm's SMMUv3 with command queues (vCMDQ) for guests.

use super::arm_smmuv3::{ArmSmmuv3, ArmViommu};
use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PagingDomain,
        Parent, Registers, Target, UserData, ViommuDriver,
    },
    flags::{HW_INFO_TYPE_TEGRA241_CMDQV, HW_QUEUE_TYPE_TEGRA241_CMDQV, VIOMMU_TYPE_TEGRA241_CMDQV},
    payload::{HwInfoTegra241Cmdqv, ViommuTegra241Cmdqv},
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::IntoBytes;

/// Bytes of a virtual interface's page 0.
const PAGE0: u64 = 0x1_0000;
/// vSIDs have 20 bits.
const VSID_MAX: u64 = 0xf_ffff;

/// The driver of an SMMUv3 with a CMDQV.
#[derive(Debug, Clone)]
pub struct Tegra241 {
    /// The SMMU.
    pub arm: ArmSmmuv3,
    /// Virtual interfaces, the host's own among them, as a power of two.
    pub log2_vintfs: u8,
    /// Queues a virtual interface, as a power of two.
    pub log2_queues: u8,
    /// Streams a virtual interface, as a power of two.
    pub log2_streams: u8,
    /// Virtual interfaces in use.
    used: Arc<Mutex<BTreeSet<u32>>>,
}

impl Tegra241 {
    /// A CMDQV as silicon has it: two queues and 16 streams a virtual interface.
    pub fn new(arm: ArmSmmuv3, log2_vintfs: u8) -> Self {
        Self { arm, log2_vintfs: log2_vintfs.min(6), log2_queues: 1, log2_streams: 4, used: Arc::default() }
    }
}

/// A vIOMMU with a virtual interface.
#[derive(Debug)]
struct TegraViommu {
    arm: ArmViommu,
    interface: u32,
    used: Arc<Mutex<BTreeSet<u32>>>,
    queues: Vec<bool>,
    streams: usize,
    slots: BTreeSet<u64>,
    /// Bytes of the longest queue.
    longest: u64,
}

impl Drop for TegraViommu {
    fn drop(&mut self) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.interface);
    }
}

impl Driver for Tegra241 {
    fn hw_info(&self, device: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if data_type != HW_INFO_TYPE_TEGRA241_CMDQV {
            return self.arm.hw_info(device, data_type);
        }
        let info = HwInfoTegra241Cmdqv {
            version: 1,
            log2vcmdqs: self.log2_queues,
            log2vsids: self.log2_streams,
            ..Default::default()
        };
        Ok(HwInformation { data_type, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, device: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        self.arm.paging(device, flags, data)
    }

    fn has_viommu(&self, device: &DeviceConfig, viommu_type: u32) -> bool {
        self.arm.has_viommu(device, viommu_type) || (self.arm.nesting && viommu_type == VIOMMU_TYPE_TEGRA241_CMDQV)
    }

    fn viommu(
        &self,
        device: &BoundDevice,
        parent: Parent,
        viommu_type: u32,
        data: Option<UserData<'_>>,
        map: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        if viommu_type != VIOMMU_TYPE_TEGRA241_CMDQV {
            return self.arm.viommu(device, parent, viommu_type, data, map);
        }
        let arm = ArmViommu::new(&self.arm, device, parent)?;
        let data = data.ok_or(Errno::INVAL)?;
        let mut payload: ViommuTegra241Cmdqv = data.read(viommu_type, size_of::<ViommuTegra241Cmdqv>())?;
        let interface = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let free = (1..1 << self.log2_vintfs).find(|interface| !used.contains(interface)).ok_or(Errno::NOSPC)?;
            used.insert(free);
            free
        };
        let viommu = TegraViommu {
            arm,
            interface,
            used: self.used.clone(),
            queues: vec![false; 1 << self.log2_queues],
            streams: 1 << self.log2_streams,
            slots: BTreeSet::new(),
            longest: 16 << (self.arm.idr[1] >> 21 & 0x1f),
        };
        payload.out_vintf_mmap_length = PAGE0;
        payload.out_vintf_mmap_offset = map(Registers { length: PAGE0, first_word: 0 })?;
        data.write(&payload)?;
        Ok(Box::new(viommu))
    }

    fn attach(&self, device: &BoundDevice, pasid: u32, target: &Target<'_>) -> Result<(), Errno> {
        self.arm.attach(device, pasid, target)
    }
}

impl ViommuDriver for TegraViommu {
    fn nested(&mut self, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        self.arm.nested(flags, data)
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, find: &FindDevice<'_>) -> Result<(), Errno> {
        self.arm.invalidate(entries, find)
    }

    fn vdevice(&mut self, device: &BoundDevice, virt_id: u64) -> Result<(), Errno> {
        self.arm.vdevice(device, virt_id)?;
        if virt_id > VSID_MAX {
            return Err(Errno::INVAL);
        }
        if self.slots.len() >= self.streams {
            return Err(Errno::NOSPC);
        }
        self.slots.insert(virt_id);
        Ok(())
    }

    fn vdevice_destroy(&mut self, virt_id: u64) {
        self.slots.remove(&virt_id);
    }

    fn has_hw_queue(&self, queue_type: u32) -> bool {
        queue_type == HW_QUEUE_TYPE_TEGRA241_CMDQV
    }

    fn hw_queue(&mut self, index: u32, physical: u64, length: u64) -> Result<Option<u32>, Errno> {
        let previous = index.checked_sub(1);
        if *self.queues.get(index as usize).ok_or(Errno::INVAL)? {
            return Err(Errno::EXIST);
        }
        if previous.is_some_and(|previous| !self.queues[previous as usize]) {
            return Err(Errno::IO);
        }
        let fits = length.is_power_of_two() && (32..=self.longest).contains(&length);
        if !fits || !physical.is_multiple_of(length) {
            return Err(Errno::INVAL);
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
