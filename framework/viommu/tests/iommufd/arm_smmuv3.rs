//! Arm's driver with a kernel's count of handled commands as it should be. Linux's own is in the rows C10
//! (`viommu-conformance`).

use crate::vendor::Vendor;
use std::sync::{Arc, Mutex};
use viommu::uapi::{
    Errno,
    dispatcher::{
        Options,
        drivers::{ArmSmmuv3, CommandQueue, Counting},
    },
    flags::{VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, VIOMMU_TYPE_ARM_SMMUV3},
};

/// Hardware that counts.
#[derive(Debug, Default)]
struct Hardware(Mutex<usize>);

impl CommandQueue for Hardware {
    fn issue(&self, commands: &[[u64; 2]]) -> bool {
        *self.0.lock().unwrap() += commands.len();
        true
    }
}

#[test]
fn a_kernel_that_counts_exactly_says_what_ran() {
    for good in [0, 1, 10, 62, 63, 64, 70] {
        let hardware = Arc::new(Hardware::default());
        let driver = ArmSmmuv3 { counting: Counting::Issued, queue: hardware.clone(), ..ArmSmmuv3::new([0; 6]) };
        let vendor = Vendor::new(driver, Options::default());
        let viommu = vendor.caller.viommu(vendor.device, vendor.parent, VIOMMU_TYPE_ARM_SMMUV3).unwrap();
        let commands = [vec![[0x10u64.to_le(), 0]; good], vec![[0x46u64.to_le(), 0]; 2]].concat();
        let (result, num) = vendor.caller.invalidate(viommu, VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, &commands, 16);
        assert_eq!((result, num, *hardware.0.lock().unwrap()), (Err(Errno::IO), good as u32, good));
        vendor.close();
    }
}
