//! Arm's SMMUv3 driver: nesting through a vIOMMU alone, invalidation by the guest's own commands.

use super::arm_commands::{Command, Features, convert};
use crate::uapi::{
    Errno,
    dispatcher::driver::{
        BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PAGE_SIZE,
        PagingDomain, Parent, Target, UserData, ViommuDriver,
    },
    flags::{
        HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI, HW_INFO_TYPE_ARM_SMMUV3, HW_INFO_TYPE_NONE,
        HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_ARM_SMMUV3,
        VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, VIOMMU_TYPE_ARM_SMMUV3,
    },
    payload::{HwInfoArmSmmuv3, HwptArmSmmuv3, ViommuArmSmmuv3Invalidate},
};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Commands that go to the queue at once, with a SYNC behind them.
const BLOCK: usize = 63;
/// What a guest may set of its STE: V, Config, S1Fmt, S1ContextPtr, S1CDMax; S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS.
const STE: [u64; 2] = [0xf80f_ffff_ffff_ffff, 0x3800_00ff];

/// The hardware's command queue.
pub trait CommandQueue: Debug + Send + Sync {
    /// Takes commands with the host's numbers and waits for them. False: the SYNC never came back.
    fn issue(&self, commands: &[[u64; 2]]) -> bool;
}

/// A queue that takes everything and forgets it.
#[derive(Debug)]
struct Taken;

impl CommandQueue for Taken {
    fn issue(&self, _: &[[u64; 2]]) -> bool {
        true
    }
}

/// What the driver says it handled of an array that it did not finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// As Linux 7.3.4: commands that were converted and not yet issued count, though they never ran.
    #[default]
    Converted,
    /// Exactly those that ran: what a caller would like, for tests that show the difference.
    Issued,
}

/// The driver of one kind of SMMUv3.
#[derive(Debug, Clone)]
pub struct ArmSmmuv3 {
    /// SMMU_IDR0 to 5.
    pub idr: [u32; 6],
    /// SMMU_IIDR and SMMU_AIDR.
    pub implementation: [u32; 2],
    /// Whether it can nest: both stages, coherent or with S2FWB, and no erratum in the way.
    pub nesting: bool,
    /// Whether every TLBI and CFGI has to be issued twice.
    pub repeats: bool,
    /// How it counts.
    pub counting: Counting,
    /// Where commands go.
    pub queue: Arc<dyn CommandQueue>,
}

impl ArmSmmuv3 {
    /// An SMMU with these ID registers, which can nest.
    pub fn new(idr: [u32; 6]) -> Self {
        Self {
            idr,
            implementation: [0; 2],
            nesting: true,
            repeats: false,
            counting: Counting::default(),
            queue: Arc::new(Taken),
        }
    }
}

/// A nested HWPT: the guest's STE.
#[derive(Debug)]
struct Nested {
    /// Whether it leads to the guest's tables.
    translates: bool,
}

/// A vIOMMU.
#[derive(Debug)]
pub(super) struct ArmViommu {
    features: Features,
    vmid: u16,
    counting: Counting,
    queue: Arc<dyn CommandQueue>,
}

impl ArmViommu {
    pub(super) fn new(driver: &ArmSmmuv3, device: &BoundDevice, parent: Parent) -> Result<Self, Errno> {
        if parent.iommu != device.config.iommu {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            features: Features::of(&driver.idr),
            // One a parent: here, its ID.
            vmid: parent.hwpt as u16,
            counting: driver.counting,
            queue: driver.queue.clone(),
        })
    }

    fn convert(&self, command: Command, find: &FindDevice<'_>) -> Result<Command, Errno> {
        let stream = |stream| find(u64::from(stream)).and_then(|device| device.config.streams.first().copied());
        convert(command.map(u64::from_le), self.features, self.vmid, stream)
    }
}

impl Driver for ArmSmmuv3 {
    fn hw_info(&self, _: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if ![HW_INFO_TYPE_NONE, HW_INFO_TYPE_ARM_SMMUV3].contains(&data_type) {
            return Err(Errno::OPNOTSUPP);
        }
        let flags = if self.repeats { HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI } else { 0 };
        let [iidr, aidr] = self.implementation;
        let info = HwInfoArmSmmuv3 { flags, __reserved: 0, idr: self.idr, iidr, aidr };
        Ok(HwInformation { data_type: HW_INFO_TYPE_ARM_SMMUV3, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, _: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        let taken = match flags {
            HWPT_ALLOC_NEST_PARENT => self.nesting,
            _ => flags & !(HWPT_ALLOC_DIRTY_TRACKING | HWPT_ALLOC_PASID) == 0,
        };
        if data.is_some() || !taken {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(PagingDomain { page_size: PAGE_SIZE, aperture: 0..=(1 << 48) - 1, refuses_read_only: false })
    }

    fn has_viommu(&self, _: &DeviceConfig, viommu_type: u32) -> bool {
        self.nesting && viommu_type == VIOMMU_TYPE_ARM_SMMUV3
    }

    fn viommu(
        &self,
        device: &BoundDevice,
        parent: Parent,
        _: u32,
        _: Option<UserData<'_>>,
        _: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        Ok(Box::new(ArmViommu::new(self, device, parent)?))
    }

    fn attach(&self, device: &BoundDevice, _: u32, target: &Target<'_>) -> Result<(), Errno> {
        match target {
            Target::Paging { iommu, .. } | Target::Nested { iommu, .. } if *iommu != device.config.iommu => {
                Err(Errno::INVAL)
            }
            Target::Nested { hwpt, virt_id, .. } => {
                let translates = hwpt.as_any().downcast_ref::<Nested>().is_some_and(|nested| nested.translates);
                if translates && virt_id.flatten().is_none() { Err(Errno::NOENT) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn guest_owns_pasids(&self) -> bool {
        true
    }
}

impl NestedHwpt for Nested {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ViommuDriver for ArmViommu {
    fn nested(&mut self, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if flags != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let payload: HwptArmSmmuv3 = data.read(HWPT_DATA_ARM_SMMUV3, size_of::<HwptArmSmmuv3>())?;
        let ste = payload.ste.map(u64::from_le);
        let (valid, config, eats) = (ste[0] & 1 != 0, ste[0] >> 1 & 7, ste[1] >> 28 & 3);
        // An STE that is not valid aborts, whatever else is in it.
        if valid && (ste[0] & !STE[0] != 0 || ste[1] & !STE[1] != 0 || ![0, 4, 5].contains(&config) || eats > 1) {
            return Err(Errno::IO);
        }
        Ok(Box::new(Nested { translates: valid && config == 5 }))
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, find: &FindDevice<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        let all: Vec<ViommuArmSmmuv3Invalidate> = entries.all(VIOMMU_INVALIDATE_DATA_ARM_SMMUV3)?;
        for (number, block) in all.chunks(BLOCK).enumerate() {
            let mut converted = Vec::with_capacity(BLOCK);
            let failed = block.iter().find_map(|entry| match self.convert(entry.cmd, find) {
                Ok(command) => {
                    converted.push(command);
                    None
                }
                Err(errno) => Some(errno),
            });
            let before = (number * BLOCK) as u32;
            let counted = before + converted.len() as u32;
            if let Some(errno) = failed {
                entries.handled = counted;
                if self.counting == Counting::Issued && !self.queue.issue(&converted) {
                    entries.handled = before;
                }
                return Err(errno);
            }
            if !self.queue.issue(&converted) {
                entries.handled = if self.counting == Counting::Issued { before } else { counted - 1 };
                return Err(Errno::TIMEDOUT);
            }
            entries.handled = counted;
        }
        Ok(())
    }

    fn vdevice(&mut self, device: &BoundDevice, _: u64) -> Result<(), Errno> {
        if device.config.streams.len() == 1 { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }
}
