//! C10, first part: an SMMUv3's nested HWPTs, and attaching to them.

use super::bench::Bench;
use crate::row::Row;
use crate::session::{Failed, Session};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use viommu::uapi::dispatcher::Options;
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::drivers::{ArmSmmuv3, CommandQueue};
use viommu::uapi::flags::{
    HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_ARM_SMMUV3, HWPT_DATA_VTD_S1,
    VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, VIOMMU_TYPE_ARM_SMMUV3,
};
use viommu::uapi::layout::ViommuAlloc;
use viommu::uapi::payload::HwptArmSmmuv3;

/// ATS, 16-bit ASIDs; substreams; ranges.
pub(super) const IDR: [u32; 6] = [1 << 10 | 1 << 12, 7 << 6, 0, 1 << 10, 0, 0];
/// V, and Config: stage 1 translates; bypass; abort.
pub(super) const TRANSLATE: [u64; 2] = [0x1000 | 5 << 1 | 1, 0];
const BYPASS: [u64; 2] = [4 << 1 | 1, 0];
const ABORT: [u64; 2] = [1, 0];
/// What of an STE is the guest's, EATS left out.
const GUESTS: [u64; 2] = [0xf80f_ffff_ffff_ffff, 0x0800_00ff];
const EATS: u32 = 28;

/// Hardware that keeps what it was given, and whose SYNC comes back so many times.
#[derive(Debug)]
pub(super) struct Hardware {
    ran: Mutex<Vec<[u64; 2]>>,
    pub(super) syncs: AtomicUsize,
}

impl CommandQueue for Hardware {
    fn issue(&self, commands: &[[u64; 2]]) -> bool {
        let back = self.syncs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if back {
            self.ran.lock().unwrap_or_else(PoisonError::into_inner).extend(commands);
        }
        back
    }
}

impl Hardware {
    /// What ran since the last call.
    pub(super) fn take(&self) -> Vec<[u64; 2]> {
        std::mem::take(&mut *self.ran.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An SMMU with a vIOMMU.
pub(super) struct Arm<'a> {
    pub(super) bench: Bench<'a>,
    pub(super) hardware: Arc<Hardware>,
    pub(super) viommu: u32,
}

/// With these ID registers.
pub(super) fn with<'a>(s: &Session<'a>, idr: [u32; 6]) -> Result<Arm<'a>, Failed> {
    let hardware = Arc::new(Hardware { ran: Mutex::default(), syncs: AtomicUsize::new(usize::MAX) });
    let driver = ArmSmmuv3 { queue: hardware.clone(), ..ArmSmmuv3::new(idr) };
    let bench = Bench::new(driver, Options::default(), s.memory())?;
    let viommu = bench.viommu(VIOMMU_TYPE_ARM_SMMUV3)?;
    Ok(Arm { bench, hardware, viommu })
}

/// With everything that commands depend on.
pub(super) fn arm<'a>(s: &Session<'a>) -> Result<Arm<'a>, Failed> {
    with(s, IDR)
}

impl Arm<'_> {
    pub(super) fn nested(&self, ste: [u64; 2]) -> Result<u32, Failed> {
        self.bench.nested(self.viommu, 0, HWPT_DATA_ARM_SMMUV3, &HwptArmSmmuv3 { ste: ste.map(u64::to_le) })
    }

    /// Commands in one call: the answer, the count, and how many ran.
    pub(super) fn invalidate(&self, commands: &[[u64; 2]]) -> String {
        self.hardware.take();
        let entries: Vec<_> = commands.iter().map(|command| command.map(u64::to_le)).collect();
        let done = self.bench.session.invalidate(self.viommu, VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, &entries);
        let ran = self.hardware.ran.lock().unwrap_or_else(PoisonError::into_inner).len();
        format!("{}, num {}, {ran} ran", crate::session::word(&done.result), done.entry_num)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C10.1",
        stimulus: "a nested HWPT on the parent itself; on the vIOMMU; with another vendor's data",
        expected: "EOPNOTSUPP; ok; EINVAL",
        run: |s| {
            let arm = arm(s)?;
            let ste = HwptArmSmmuv3 { ste: TRANSLATE.map(u64::to_le) };
            s.see(arm.bench.nested(arm.bench.parent, 0, HWPT_DATA_ARM_SMMUV3, &ste));
            s.see(arm.bench.nested(arm.viommu, 0, HWPT_DATA_ARM_SMMUV3, &ste));
            s.see(arm.bench.nested(arm.viommu, 0, HWPT_DATA_VTD_S1, &ste));
            Ok(())
        },
    },
    Row {
        id: "C10.2",
        stimulus: "a valid STE of Config 0 to 7",
        expected: "ok; EIO; EIO; EIO; ok; ok; EIO; EIO",
        run: |s| {
            let arm = arm(s)?;
            (0..8).for_each(|config| s.see(arm.nested([config << 1 | 1, 0])));
            Ok(())
        },
    },
    Row {
        id: "C10.3",
        stimulus: "a valid STE with one bit more: bits that are not the guest's; the guest's own",
        expected: "7 and 54 EIO, no other",
        run: |s| {
            let arm = arm(s)?;
            let mut refused = [0, 0];
            for (word, bit) in
                (0..2).flat_map(|word| (4..64).map(move |bit| (word, bit))).chain((0..4).map(|bit| (1, bit)))
            {
                let mut ste = BYPASS;
                ste[word] |= 1 << bit;
                let is_refused = arm.nested(ste).is_err();
                let is_guests = GUESTS[word] >> bit & 1 != 0 || (word == 1 && bit == EATS);
                refused[word] += usize::from(is_refused);
                if is_refused == is_guests {
                    s.note(format!("word {word}, bit {bit}: {}", if is_refused { "refused" } else { "taken" }));
                }
            }
            s.note(format!("{} and {} EIO, no other", refused[0], refused[1]));
            Ok(())
        },
    },
    Row {
        id: "C10.4",
        stimulus: "EATS 0; 1; 2; 3",
        expected: "ok; ok; EIO; EIO",
        run: |s| {
            let arm = arm(s)?;
            (0..4).for_each(|eats| s.see(arm.nested([BYPASS[0], eats << EATS])));
            Ok(())
        },
    },
    Row {
        id: "C10.5",
        stimulus: "an STE that is not valid, of any Config, all other bits set; attach to it",
        expected: "8 ok; 8 ok",
        run: |s| {
            let arm = arm(s)?;
            let made: Result<Vec<_>, _> = (0..8).map(|config| arm.nested([!0xf | config << 1, u64::MAX])).collect();
            let made = made?;
            s.note(format!("{} ok", made.len()));
            s.note(format!("{} ok", made.iter().filter(|hwpt| arm.bench.attach(**hwpt).is_ok()).count()));
            Ok(())
        },
    },
    Row {
        id: "C10.6",
        stimulus: "a nested HWPT with the PASID flag; a nesting parent with it",
        expected: "EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let arm = arm(s)?;
            let ste = HwptArmSmmuv3 { ste: TRANSLATE.map(u64::to_le) };
            s.see(arm.bench.nested(arm.viommu, HWPT_ALLOC_PASID, HWPT_DATA_ARM_SMMUV3, &ste));
            let flags = HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID;
            s.see(arm.bench.session.hwpt(arm.bench.device.id, arm.bench.ioas, flags));
            Ok(())
        },
    },
    Row {
        id: "C10.7",
        stimulus: "attach to an STE that translates without a vdevice; with one",
        expected: "ENOENT; ok",
        run: |s| {
            let arm = arm(s)?;
            let translate = arm.nested(TRANSLATE)?;
            s.see(arm.bench.attach(translate));
            arm.bench.session.vdevice(arm.viommu, arm.bench.device.id, 3)?;
            s.see(arm.bench.attach(translate));
            Ok(())
        },
    },
    Row {
        id: "C10.8",
        stimulus: "attach to a bypass STE, to an abort one without a vdevice",
        expected: "ok; ok",
        run: |s| {
            let arm = arm(s)?;
            for ste in [BYPASS, ABORT] {
                s.see(arm.bench.attach(arm.nested(ste)?));
            }
            Ok(())
        },
    },
    Row {
        id: "C10.9",
        stimulus: "a device behind another SMMU: VDEVICE_ALLOC; VIOMMU_ALLOC on the parent; attach to a nested HWPT; to the parent",
        expected: "EINVAL; EINVAL; EINVAL; EINVAL",
        run: |s| {
            let arm = arm(s)?;
            let bypass = arm.nested(BYPASS)?;
            let config = DeviceConfig { iommu: 1, ..DeviceConfig::new(Arc::new(ArmSmmuv3::new(IDR)), 0x50) };
            let other = arm.bench.bound(config)?;
            s.see(arm.bench.session.vdevice(arm.viommu, other.id, 4));
            let (r#type, dev_id, hwpt_id) = (VIOMMU_TYPE_ARM_SMMUV3, other.id, arm.bench.parent);
            s.see(arm.bench.session.viommu_raw(ViommuAlloc { r#type, dev_id, hwpt_id, ..Default::default() }, None));
            s.see(other.attach(bypass));
            s.see(other.attach(arm.bench.parent));
            Ok(())
        },
    },
    Row {
        id: "C10.10",
        stimulus: "VDEVICE_ALLOC for a device with two streams; with none",
        expected: "EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let arm = arm(s)?;
            for streams in [vec![1, 2], vec![]] {
                let config = DeviceConfig { streams, ..DeviceConfig::new(Arc::new(ArmSmmuv3::new(IDR)), 0x50) };
                let device = arm.bench.bound(config)?;
                s.see(arm.bench.session.vdevice(arm.viommu, device.id, 4));
            }
            Ok(())
        },
    },
    Row {
        id: "C10.26",
        stimulus: "HWPT_INVALIDATE on a nested HWPT; on a vIOMMU whose hardware cannot nest: VIOMMU_ALLOC",
        expected: "EOPNOTSUPP, num 0; EOPNOTSUPP",
        run: |s| {
            let arm = arm(s)?;
            let translate = arm.nested(TRANSLATE)?;
            s.see_invalidate(arm.bench.session.invalidate(
                translate,
                VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
                &[[0x10u64, 0]],
            ));
            let device = DeviceConfig::new(Arc::new(ArmSmmuv3 { nesting: false, ..ArmSmmuv3::new(IDR) }), 0x51);
            let device = arm.bench.bound(device)?;
            let (r#type, dev_id, hwpt_id) = (VIOMMU_TYPE_ARM_SMMUV3, device.id, arm.bench.parent);
            s.see(arm.bench.session.viommu_raw(ViommuAlloc { r#type, dev_id, hwpt_id, ..Default::default() }, None));
            Ok(())
        },
    },
];
