//! C4: HWPT_INVALIDATE on a nested HWPT.

use super::nested::parent;
use crate::row::Row;
use crate::session::{Failed, Session};
use viommu::uapi::layout::HwptInvalidate;
use viommu::uapi::selftest::{HWPT_INVALIDATE_DATA as TYPE, HwptInvalidateSelftest, INVALIDATE_ALL};

const fn slot(iotlb_id: u32) -> HwptInvalidateSelftest {
    HwptInvalidateSelftest { flags: 0, iotlb_id }
}
const ALL: HwptInvalidateSelftest = HwptInvalidateSelftest { flags: INVALIDATE_ALL, iotlb_id: 0 };
const BAD_FLAG: HwptInvalidateSelftest = HwptInvalidateSelftest { flags: 2, iotlb_id: 0 };

fn nested(s: &Session<'_>) -> Result<u32, Failed> {
    let at = parent(s)?;
    s.nested(at.device.idev, at.parent, 0)
}

/// One HWPT_INVALIDATE with this shape, on a fresh nested HWPT, and the slots.
fn shape(s: &mut Session<'_>, argument: HwptInvalidate, data: Option<&mut [u8]>) -> Result<(), Failed> {
    let hwpt_id = nested(s)?;
    s.see_invalidate(s.invalidate_raw(HwptInvalidate { hwpt_id, ..argument }, data));
    s.note(s.iotlb(hwpt_id));
    Ok(())
}

/// HWPT_INVALIDATE of these entries, and the slots.
fn entries(s: &mut Session<'_>, entries: &[HwptInvalidateSelftest]) -> Result<(), Failed> {
    let hwpt_id = nested(s)?;
    s.see_invalidate(s.invalidate(hwpt_id, TYPE, entries));
    s.note(s.iotlb(hwpt_id));
    Ok(())
}

/// A pointer that leads nowhere: what it names is too much to be lent.
const NOWHERE: u64 = 1 << 63;
const ONE: HwptInvalidate =
    HwptInvalidate { size: 0, hwpt_id: 0, data_uptr: 0, data_type: TYPE, entry_len: 8, entry_num: 1, __reserved: 0 };

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C4.1",
        stimulus: "entry_num 0, the right type",
        expected: "ok, num 0; ffff",
        run: |s| shape(s, HwptInvalidate { entry_num: 0, ..ONE }, None),
    },
    Row {
        id: "C4.2",
        stimulus: "the wrong type; with entry_num 0",
        expected: "EINVAL, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            shape(s, HwptInvalidate { data_type: 0xdad_beef, ..ONE }, Some(&mut [0; 8]))?;
            shape(s, HwptInvalidate { data_type: 0xdad_beef, entry_num: 0, ..ONE }, None)
        },
    },
    Row {
        id: "C4.3",
        stimulus: "entry_len one byte too large, that byte not zero; zero",
        expected: "EINVAL, num 0; ffff; EINVAL, num 0; ffff",
        run: |s| {
            shape(s, HwptInvalidate { entry_len: 9, ..ONE }, Some(&mut [0, 0, 0, 0, 0, 0, 0, 0, 1]))?;
            shape(s, HwptInvalidate { entry_len: 9, ..ONE }, Some(&mut [0; 9]))
        },
    },
    Row {
        id: "C4.4",
        stimulus: "entry_len 1",
        expected: "EINVAL, num 0; ffff",
        run: |s| shape(s, HwptInvalidate { entry_len: 1, ..ONE }, Some(&mut [0; 8])),
    },
    Row {
        id: "C4.5",
        stimulus: "entry_len a page and a byte",
        expected: "EINVAL, num 0; ffff",
        run: |s| shape(s, HwptInvalidate { entry_len: 4097, ..ONE }, Some(&mut [0; 4097])),
    },
    Row {
        id: "C4.6",
        stimulus: "entry_num 2^19 + 1",
        expected: "EINVAL, num 0; ffff",
        run: |s| shape(s, HwptInvalidate { entry_num: (1 << 19) + 1, data_uptr: NOWHERE, ..ONE }, None),
    },
    Row {
        id: "C4.7",
        stimulus: "an unknown flag in the first entry",
        expected: "EOPNOTSUPP, num 0; ffff",
        run: |s| entries(s, &[BAD_FLAG, slot(1)]),
    },
    Row {
        id: "C4.8",
        stimulus: "data pointer NULL, one entry",
        expected: "EINVAL, num 0; ffff",
        run: |s| shape(s, ONE, None),
    },
    Row {
        id: "C4.9",
        stimulus: "entry_len 0, one entry",
        expected: "EINVAL, num 0; ffff",
        run: |s| shape(s, HwptInvalidate { entry_len: 0, ..ONE }, Some(&mut [0; 8])),
    },
    Row { id: "C4.10", stimulus: "slot 4", expected: "EINVAL, num 0; ffff", run: |s| entries(s, &[slot(4)]) },
    Row {
        id: "C4.11",
        stimulus: "{slot 0, bad flags}",
        expected: "EOPNOTSUPP, num 1; 0fff",
        run: |s| entries(s, &[slot(0), BAD_FLAG]),
    },
    Row {
        id: "C4.12",
        stimulus: "{slot 0, slot 4}",
        expected: "EINVAL, num 1; 0fff",
        run: |s| entries(s, &[slot(0), slot(4)]),
    },
    Row { id: "C4.13", stimulus: "{slot 1}", expected: "ok, num 1; f0ff", run: |s| entries(s, &[slot(1)]) },
    Row {
        id: "C4.14",
        stimulus: "{slot 2, slot 3}",
        expected: "ok, num 2; ff00",
        run: |s| entries(s, &[slot(2), slot(3)]),
    },
    Row { id: "C4.15", stimulus: "{ALL}", expected: "ok, num 1; 0000", run: |s| entries(s, &[ALL]) },
    Row {
        id: "C4.16",
        stimulus: "a data pointer that leads nowhere; the reserved word not zero",
        expected: "EFAULT, num 0; ffff; EOPNOTSUPP, num 0; ffff",
        run: |s| {
            shape(s, HwptInvalidate { data_uptr: NOWHERE, ..ONE }, None)?;
            shape(s, HwptInvalidate { __reserved: 1, ..ONE }, Some(&mut [0; 8]))
        },
    },
];
