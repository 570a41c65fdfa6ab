//! Linux 7.3.4's SMMUv3 driver under a software iommufd, as far as a vIOMMU's invalidations go: with its bug.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use viommu::uapi::dispatcher::driver::{
    BoundDevice, DeviceConfig, Driver, Entries, FindDevice, HwInformation, MapRegisters, NestedHwpt, PagingDomain,
    Parent, Target, UserData, ViommuDriver,
};
use viommu::uapi::payload::{HwptArmSmmuv3, ViommuArmSmmuv3Invalidate};
use viommu::uapi::{Errno, flags};
use zerocopy::IntoBytes;

/// QEMU's SMMUv3 with both stages, and ATS: flags, reserved, IDR0 to 5, IIDR, AIDR.
const HW_INFO: [u32; 10] = [0, 0, 0x0d44_141b, 0x0273_0010, 0, 0x1404, 0, 0x74, 0, 0];

/// What reached the hardware.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Commands executed, in order, as the guest numbers them; an empty one for each SYNC.
    pub(crate) executed: Vec<[u64; 2]>,
    /// First word of the entry that each attachment installed, or 0 for none.
    pub(crate) attached: Vec<u64>,
    /// Commands that the kernel refuses beside those it knows not.
    pub(crate) illegal: BTreeSet<[u64; 2]>,
    /// Calls that find no memory, from now on.
    pub(crate) starved: u32,
}

/// The driver, and what it saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Smmu {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) erratum: bool,
    /// IDR1.SSIDSIZE.
    pub(crate) ssid_bits: u32,
}

impl Smmu {
    pub(crate) fn device(&self, stream: u32) -> DeviceConfig {
        DeviceConfig { dirty_tracking: false, ..DeviceConfig::new(Arc::new(self.clone()), stream) }
    }

    /// Commands executed since the last time, without SYNCs.
    pub(crate) fn take(&self) -> Vec<[u64; 2]> {
        let executed = std::mem::take(&mut self.seen.lock().unwrap().executed);
        executed.into_iter().filter(|command| *command != [0, 0]).collect()
    }
}

#[derive(Debug)]
struct Ste(u64);

impl NestedHwpt for Ste {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct Vsmmu(Smmu);

impl ViommuDriver for Vsmmu {
    fn nested(&mut self, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        if flags != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let ste: HwptArmSmmuv3 = data.read(flags::HWPT_DATA_ARM_SMMUV3, 16)?;
        Ok(Box::new(Ste(u64::from_le(ste.ste[0]))))
    }

    fn invalidate(&mut self, entries: &mut Entries<'_>, find: &FindDevice<'_>) -> Result<(), Errno> {
        let mut seen = self.0.seen.lock().unwrap();
        if seen.starved > 0 {
            seen.starved -= 1;
            return Err(Errno::NOMEM);
        }
        entries.handled = 0;
        let commands = {
            let handled = entries.handled;
            let all = entries.all::<ViommuArmSmmuv3Invalidate>(flags::VIOMMU_INVALIDATE_DATA_ARM_SMMUV3);
            entries.handled = handled;
            all?
        };
        let mut issued = 0;
        for (index, command) in commands.iter().enumerate() {
            let words = command.cmd.map(u64::from_le);
            let known = match words[0] as u8 {
                0x10..=0x13 | 0x30 => true,
                0x05 | 0x06 | 0x40 => find(words[0] >> 32).is_some(),
                _ => false,
            };
            if !known || seen.illegal.contains(&words) {
                // What was converted counts as handled, issued or not.
                entries.handled = index as u32;
                return Err(Errno::IO);
            }
            if index + 1 == commands.len() || index + 1 - issued == 63 {
                let block = commands[issued..=index].iter().map(|command| command.cmd.map(u64::from_le));
                seen.executed.extend(block.chain([[0, 0]]));
                issued = index + 1;
            }
        }
        entries.handled = commands.len() as u32;
        Ok(())
    }
}

impl Driver for Smmu {
    fn hw_info(&self, _: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno> {
        if data_type != 0 && data_type != flags::HW_INFO_TYPE_ARM_SMMUV3 {
            return Err(Errno::OPNOTSUPP);
        }
        let mut info = HW_INFO;
        info[0] = u32::from(self.erratum);
        info[3] |= self.ssid_bits << 6;
        Ok(HwInformation { data_type: flags::HW_INFO_TYPE_ARM_SMMUV3, bytes: info.as_bytes().to_vec() })
    }

    fn paging(&self, _: &DeviceConfig, flags: u32, _: Option<UserData<'_>>) -> Result<PagingDomain, Errno> {
        if flags & !flags::HWPT_ALLOC_NEST_PARENT != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(PagingDomain { page_size: 4096, aperture: 0..=(1 << 48) - 1, refuses_read_only: false })
    }

    fn has_viommu(&self, _: &DeviceConfig, viommu_type: u32) -> bool {
        viommu_type == flags::VIOMMU_TYPE_ARM_SMMUV3
    }

    fn viommu(
        &self,
        _: &BoundDevice,
        _: Parent,
        _: u32,
        _: Option<UserData<'_>>,
        _: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        Ok(Box::new(Vsmmu(self.clone())))
    }

    fn attach(&self, _: &BoundDevice, _: u32, target: &Target<'_>) -> Result<(), Errno> {
        let word = match target {
            Target::Nested { hwpt, virt_id, .. } => {
                let word = hwpt.as_any().downcast_ref::<Ste>().map_or(0, |ste| ste.0);
                // A translating entry needs the guest's name for the device.
                if word >> 1 & 7 == 5 && virt_id.flatten().is_none() {
                    return Err(Errno::NOENT);
                }
                word
            }
            _ => 0,
        };
        self.seen.lock().unwrap().attached.push(word);
        Ok(())
    }
}
