//! C10: the rules of Arm's SMMUv3 driver.

use crate::vendor::{Vendor, bind};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use viommu::uapi::{
    Errno,
    dispatcher::{
        Options,
        driver::DeviceConfig,
        drivers::{ArmSmmuv3, CommandQueue, Counting, report_arm_event},
    },
    flags::{
        HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_ARM_SMMUV3, VEVENTQ_TYPE_ARM_SMMUV3,
        VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, VIOMMU_TYPE_ARM_SMMUV3,
    },
    payload::HwptArmSmmuv3,
};

/// Hardware that remembers what it was given, and whose SYNC comes back so many times.
#[derive(Debug)]
struct Hardware {
    ran: Mutex<Vec<[u64; 2]>>,
    syncs: AtomicUsize,
}

impl CommandQueue for Hardware {
    fn issue(&self, commands: &[[u64; 2]]) -> bool {
        let comes_back = self.syncs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if comes_back.is_ok() {
            self.ran.lock().unwrap().extend(commands);
        }
        comes_back.is_ok()
    }
}

/// ATS, 16-bit ASIDs, substreams, ranges.
const IDR: [u32; 6] = [1 << 10 | 1 << 12, 7 << 6, 0, 1 << 10, 0, 0];
const TLBI: [u64; 2] = [0x10, 0];
const ILLEGAL: [u64; 2] = [0x46, 0];
const TRANSLATE: [u64; 2] = [0x1000 | 5 << 1 | 1, 0];

struct Arm {
    vendor: Vendor,
    hardware: Arc<Hardware>,
    viommu: u32,
}

fn arm(counting: Counting) -> Arm {
    let hardware = Arc::new(Hardware { ran: Mutex::default(), syncs: AtomicUsize::new(usize::MAX) });
    let driver = ArmSmmuv3 { counting, queue: hardware.clone(), ..ArmSmmuv3::new(IDR) };
    let vendor = Vendor::new(driver, Options::default());
    let viommu = vendor.caller.viommu(vendor.device, vendor.parent, VIOMMU_TYPE_ARM_SMMUV3).unwrap();
    Arm { vendor, hardware, viommu }
}

impl Arm {
    fn nested(&self, ste: [u64; 2]) -> Result<u32, Errno> {
        self.vendor.nested(self.viommu, 0, HWPT_DATA_ARM_SMMUV3, &HwptArmSmmuv3 { ste: ste.map(u64::to_le) })
    }

    /// The answer, the count, and how many commands ran.
    fn invalidate(&self, commands: &[[u64; 2]]) -> (Result<(), Errno>, u32, usize) {
        self.hardware.ran.lock().unwrap().clear();
        let commands: Vec<_> = commands.iter().map(|command| command.map(u64::to_le)).collect();
        let (result, num) =
            self.vendor.caller.invalidate(self.viommu, VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, &commands, 16);
        (result, num, self.hardware.ran.lock().unwrap().len())
    }
}

#[test]
fn c10_1_to_6_nested_hwpts() {
    let arm = arm(Counting::Converted);
    let ste = HwptArmSmmuv3 { ste: TRANSLATE };
    let on = |pt_id, flags, of| arm.vendor.nested(pt_id, flags, of, &ste);
    assert_eq!(on(arm.vendor.parent, 0, HWPT_DATA_ARM_SMMUV3), Err(Errno::OPNOTSUPP), "through a vIOMMU alone");
    assert_eq!(on(arm.viommu, HWPT_ALLOC_PASID, HWPT_DATA_ARM_SMMUV3), Err(Errno::OPNOTSUPP));
    assert_eq!(on(arm.viommu, 0, 1), Err(Errno::INVAL));
    for config in [1, 2, 3, 6, 7] {
        assert_eq!(arm.nested([config << 1 | 1, 0]), Err(Errno::IO), "Config {config}");
        assert!(arm.nested([config << 1, u64::MAX]).is_ok(), "an STE that is not valid aborts");
    }
    for bit in 0..64 {
        let allowed = [0xf80f_ffff_ffff_ffffu64, 0x3800_00ff].map(|allowed| allowed >> bit & 1 != 0);
        if !allowed[0] {
            assert_eq!(arm.nested([9 | 1 << bit, 0]), Err(Errno::IO), "word 0, bit {bit}");
        }
        if !allowed[1] {
            assert_eq!(arm.nested([9, 1 << bit]), Err(Errno::IO), "word 1, bit {bit}");
        }
    }
    assert_eq!([2, 3].map(|eats| arm.nested([9, eats << 28])), [Err(Errno::IO); 2]);
    assert!(arm.nested([0xb | 1 << 59, 1 << 28]).is_ok());
    let flags = HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID;
    assert_eq!(arm.vendor.caller.hwpt(arm.vendor.device, arm.vendor.ioas, flags), Err(Errno::OPNOTSUPP));
    arm.vendor.close();
}

#[test]
fn c10_7_to_10_attaching_and_naming() {
    let arm = arm(Counting::Converted);
    let translate = arm.nested(TRANSLATE).unwrap();
    for passive in [[9, 0], [1, 0], [0, 0]] {
        let hwpt = arm.nested(passive).unwrap();
        assert_eq!(arm.vendor.attach(hwpt), Ok(hwpt), "{passive:?} needs no name");
    }
    assert_eq!(arm.vendor.attach(translate), Err(Errno::NOENT));
    arm.vendor.caller.vdevice(arm.viommu, arm.vendor.device, 3).unwrap();
    assert_eq!(arm.vendor.attach(translate), Ok(translate));

    let caller = &arm.vendor.caller;
    let smmu = DeviceConfig { iommu: 1, ..DeviceConfig::new(Arc::new(ArmSmmuv3::new(IDR)), 0x50) };
    let (other, device) = bind(caller, smmu.clone());
    assert_eq!(caller.vdevice(arm.viommu, device, 4), Err(Errno::INVAL), "behind another SMMU");
    assert_eq!(caller.viommu(device, arm.vendor.parent, VIOMMU_TYPE_ARM_SMMUV3), Err(Errno::INVAL));
    let (two, device) = bind(caller, DeviceConfig { iommu: 0, streams: vec![1, 2], ..smmu });
    assert_eq!(caller.vdevice(arm.viommu, device, 4), Err(Errno::OPNOTSUPP));
    drop((other, two));
    arm.vendor.close();
}

#[test]
fn c10_11_and_18_to_20_the_count_says_more_than_ran() {
    let arm = arm(Counting::Converted);
    let good = |number| vec![TLBI; number];
    let with_bad = |number| [good(number), vec![ILLEGAL], good(3)].concat();
    assert_eq!(arm.invalidate(&[]), (Err(Errno::INVAL), 0, 0));
    assert_eq!(arm.invalidate(&good(200)), (Ok(()), 200, 200));
    assert_eq!(arm.invalidate(&with_bad(64)), (Err(Errno::IO), 64, 63));
    assert_eq!(arm.invalidate(&with_bad(63)), (Err(Errno::IO), 63, 63));
    assert_eq!(arm.invalidate(&with_bad(10)), (Err(Errno::IO), 10, 0), "none of the ten ran");
    assert_eq!(arm.invalidate(&with_bad(0)), (Err(Errno::IO), 0, 0));
    arm.vendor.close();
}

#[test]
fn a_kernel_that_counts_exactly_says_what_ran() {
    let arm = arm(Counting::Issued);
    for good in [0, 1, 10, 62, 63, 64, 70] {
        let commands = [vec![TLBI; good], vec![ILLEGAL; 2]].concat();
        assert_eq!(arm.invalidate(&commands), (Err(Errno::IO), good as u32, good));
    }
    arm.vendor.close();
}

#[test]
fn c10_21_a_sync_that_never_comes_back() {
    let arm = arm(Counting::Converted);
    arm.hardware.syncs.store(1, Ordering::Relaxed);
    assert_eq!(arm.invalidate(&[TLBI; 100]), (Err(Errno::TIMEDOUT), 99, 63));
    assert_eq!(arm.invalidate(&[TLBI; 100]), (Err(Errno::TIMEDOUT), 62, 0));
    arm.vendor.close();
}

#[test]
fn c10_12_and_22_the_array() {
    let arm = arm(Counting::Converted);
    let caller = &arm.vendor.caller;
    let translate = arm.nested(TRANSLATE).unwrap();
    let run = |target, of, words: &[u64], length| caller.invalidate_at(target, of, words.as_ptr() as u64, length, 1);
    let of = VIOMMU_INVALIDATE_DATA_ARM_SMMUV3;
    assert_eq!(run(arm.viommu, of, &[0x10, 0, 0], 24), (Ok(()), 1));
    assert_eq!(run(arm.viommu, of, &[0x10, 0, 1], 24), (Err(Errno::TOOBIG), 0));
    assert_eq!(run(arm.viommu, of, &[0x10], 8), (Ok(()), 1), "what is missing is zero");
    assert_eq!(run(arm.viommu, 0, &[0x10, 0], 16), (Err(Errno::INVAL), 0));
    assert_eq!(run(translate, of, &[0x10, 0], 16), (Err(Errno::OPNOTSUPP), 0), "not on the nested HWPT");
    caller.vdevice(arm.viommu, arm.vendor.device, 3).unwrap();
    assert_eq!(arm.invalidate(&[[3 << 32 | 5, 0]]), (Ok(()), 1, 1));
    let vmid = u64::from(arm.vendor.parent) << 32;
    assert_eq!(arm.hardware.ran.lock().unwrap()[..], [[0x40 << 32 | 5, 0]]);
    assert_eq!(arm.invalidate(&[[0xffff << 32 | 0x10, 0]]), (Ok(()), 1, 1));
    assert_eq!(arm.hardware.ran.lock().unwrap()[..], [[vmid | 0x10, 0]], "whatever VMID the guest says");
    assert_eq!(arm.invalidate(&[[4 << 32 | 5, 0]]), (Err(Errno::IO), 0, 0));
    arm.vendor.close();
}

#[test]
fn c10_23_to_25_where_events_go() {
    let arm = arm(Counting::Converted);
    let caller = &arm.vendor.caller;
    let translate = arm.nested(TRANSLATE).unwrap();
    let (_, fd) = caller.veventq(arm.viommu, VEVENTQ_TYPE_ARM_SMMUV3, 8).unwrap();
    let device = arm.vendor.device;
    let fault =
        |second: u64| report_arm_event(&caller.fd, device, [0x40 << 32 | 0x10, second, 0x1000, 0].map(u64::to_le));
    assert_eq!(fault(0), Ok(false), "no name");
    caller.vdevice(arm.viommu, device, 3).unwrap();
    assert_eq!(fault(0), Ok(false), "the name is taken when the device is attached");
    arm.vendor.attach(translate).unwrap();
    assert_eq!([fault(1 << 39), fault(1 << 31), fault(0)], [Ok(false), Ok(true), Ok(true)]);
    let mut record = [0; 80];
    assert_eq!(caller.fd.read(fd, &mut record), Ok(40), "stage 2 and the stalled one are not in it");
    assert_eq!(u64::from_le_bytes(record[8..16].try_into().unwrap()), 3 << 32 | 0x10);
    assert_eq!(caller.fd.page_answers().iter().map(|told| told.code).collect::<Vec<_>>(), [1], "nobody listened");
    arm.vendor.close();
}
