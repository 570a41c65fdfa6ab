//! C6, third part: HWPT_INVALIDATE on a vIOMMU, which empties devices' caches.

use super::viommu::nesting;
use crate::row::Row;
use crate::session::{Device, Failed, Session};
use viommu::uapi::layout::HwptInvalidate;
use viommu::uapi::selftest::{INVALIDATE_ALL, VIOMMU_INVALIDATE_DATA as TYPE, ViommuInvalidateSelftest};

const VDEV: u32 = 0x99;

const fn slot(cache_id: u32) -> ViommuInvalidateSelftest {
    ViommuInvalidateSelftest { flags: 0, vdev_id: VDEV, cache_id }
}
const BAD_FLAG: ViommuInvalidateSelftest = ViommuInvalidateSelftest { flags: 2, vdev_id: VDEV, cache_id: 0 };

fn with_vdevice(s: &Session<'_>) -> Result<(u32, Device), Failed> {
    let nesting = nesting(s)?;
    s.vdevice(nesting.viommu, nesting.at.device.idev, u64::from(VDEV))?;
    Ok((nesting.viommu, nesting.at.device))
}

/// One HWPT_INVALIDATE with this shape on a fresh vIOMMU.
fn shape(s: &mut Session<'_>, argument: HwptInvalidate, data: Option<&mut [u8]>) -> Result<(), Failed> {
    let (hwpt_id, device) = with_vdevice(s)?;
    s.see_invalidate(s.invalidate_raw(HwptInvalidate { hwpt_id, ..argument }, data));
    s.note(s.cache(device));
    Ok(())
}

/// HWPT_INVALIDATE of these entries, and the slots.
fn entries(s: &mut Session<'_>, entries: &[ViommuInvalidateSelftest]) -> Result<(), Failed> {
    let (viommu, device) = with_vdevice(s)?;
    s.see_invalidate(s.invalidate(viommu, TYPE, entries));
    s.note(s.cache(device));
    Ok(())
}

const ONE: HwptInvalidate =
    HwptInvalidate { size: 0, hwpt_id: 0, data_uptr: 0, data_type: TYPE, entry_len: 12, entry_num: 1, __reserved: 0 };

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C6.28",
        stimulus: "entry_num 0, the right type; the wrong type",
        expected: "ok, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            shape(s, HwptInvalidate { entry_num: 0, ..ONE }, None)?;
            shape(s, HwptInvalidate { entry_num: 0, data_type: 0xdad_beef, ..ONE }, None)
        },
    },
    Row {
        id: "C6.29",
        stimulus: "the wrong type; entry_len 13; entry_len 1; pointer NULL; entry_len 0",
        expected: "EINVAL, num 0; ffff; E2BIG, num 0; ffff; EINVAL, num 0; ffff; EINVAL, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            let mut entry = [0; 13];
            entry[4] = 0x99;
            entry[12] = 1;
            shape(s, HwptInvalidate { data_type: 0xdad_beef, ..ONE }, Some(&mut entry))?;
            shape(s, HwptInvalidate { entry_len: 13, ..ONE }, Some(&mut entry))?;
            shape(s, HwptInvalidate { entry_len: 1, ..ONE }, Some(&mut entry))?;
            shape(s, ONE, None)?;
            shape(s, HwptInvalidate { entry_len: 0, ..ONE }, Some(&mut entry))
        },
    },
    Row {
        id: "C6.30",
        stimulus: "an unknown flag",
        expected: "EOPNOTSUPP, num 0; ffff",
        run: |s| entries(s, &[BAD_FLAG, slot(1)]),
    },
    Row {
        id: "C6.31",
        stimulus: "slot 4; slot 4 with ALL",
        expected: "EINVAL, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            entries(s, &[slot(4)])?;
            entries(s, &[ViommuInvalidateSelftest { flags: INVALIDATE_ALL, ..slot(4) }])
        },
    },
    Row {
        id: "C6.32",
        stimulus: "a number that no vdevice has; 0",
        expected: "EINVAL, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            entries(s, &[ViommuInvalidateSelftest { vdev_id: 0x98, ..slot(0) }])?;
            entries(s, &[ViommuInvalidateSelftest { vdev_id: 0, ..slot(0) }])
        },
    },
    Row {
        id: "C6.33",
        stimulus: "{slot 0, bad flag}; {slot 0, slot 4}; {slot 0, unknown number}",
        expected: "EOPNOTSUPP, num 1; 0fff; EINVAL, num 1; 0fff; EINVAL, num 1; 0fff",
        run: |s| {
            entries(s, &[slot(0), BAD_FLAG])?;
            entries(s, &[slot(0), slot(4)])?;
            entries(s, &[slot(0), ViommuInvalidateSelftest { vdev_id: 0x98, ..slot(1) }])
        },
    },
    Row {
        id: "C6.34",
        stimulus: "{slot 1}; {slot 2, slot 3}; {ALL}",
        expected: "ok, num 1; f0ff; ok, num 2; ff00; ok, num 1; 0000",
        run: |s| {
            entries(s, &[slot(1)])?;
            entries(s, &[slot(2), slot(3)])?;
            entries(s, &[ViommuInvalidateSelftest { flags: INVALIDATE_ALL, ..slot(0) }])
        },
    },
    Row {
        id: "C6.53",
        stimulus: "entry_len 16 with a zero tail; entry_len 8, which leaves slot 0; a pointer that leads nowhere; the vdevice destroyed",
        expected: "ok, num 1; 0fff; ok, num 1; 0fff; EFAULT, num 0; ffff; EINVAL, num 0",
        run: |s| {
            let mut entry = [0; 16];
            entry[4] = 0x99;
            shape(s, HwptInvalidate { entry_len: 16, ..ONE }, Some(&mut entry))?;
            shape(s, HwptInvalidate { entry_len: 8, ..ONE }, Some(&mut entry))?;
            shape(s, HwptInvalidate { data_uptr: 1 << 63, ..ONE }, None)?;
            let nesting = nesting(s)?;
            let vdevice = s.vdevice(nesting.viommu, nesting.at.device.idev, u64::from(VDEV))?;
            s.destroy(vdevice)?;
            s.see_invalidate(s.invalidate(nesting.viommu, TYPE, &[slot(0)]));
            Ok(())
        },
    },
];
