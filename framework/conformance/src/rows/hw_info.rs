//! C5: GET_HW_INFO.

use crate::row::Row;
use crate::session::{Failed, Session, word};
use viommu::uapi::flags::{HW_CAP_DIRTY_TRACKING, HW_INFO_FLAG_INPUT_TYPE};
use viommu::uapi::layout::HwInfo;
use viommu::uapi::selftest::{DEVICE_NO_DIRTY, DEVICE_PASID, HW_INFO_TYPE};

/// GET_HW_INFO of a plain device, the room before the call filled with 0xa5.
fn info(s: &Session<'_>, flags: u32, data_type: u32, room: usize) -> Result<(HwInfo, Vec<u8>), Failed> {
    let ioas = s.ioas()?;
    let device = s.device(ioas)?;
    let mut bytes = vec![0xa5; room];
    let data_len = u32::try_from(room).unwrap_or(0);
    let asked = HwInfo { flags, dev_id: device.idev, data_len, data_type, ..Default::default() };
    Ok((s.hw_info(asked, &mut bytes)?, bytes))
}

fn see_info(s: &mut Session<'_>, flags: u32, data_type: u32, room: usize) {
    let told = info(s, flags, data_type, room);
    match told {
        Ok((info, bytes)) => {
            let words: Vec<_> =
                bytes.chunks(4).map(|word| word.iter().rev().map(|b| format!("{b:02x}")).collect::<String>()).collect();
            s.note(format!("type {:#x} len {} [{}]", info.data_type, info.data_len, words.join(" ")));
        }
        Err(failed) => s.note(word::<()>(&Err(failed))),
    }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C5.1",
        stimulus: "no room",
        expected: "type 0xfeedbeef len 8 []",
        run: |s| {
            see_info(s, 0, 0, 0);
            Ok(())
        },
    },
    Row {
        id: "C5.2",
        stimulus: "room for exactly what there is",
        expected: "type 0xfeedbeef len 8 [00000000 deadbeef]",
        run: |s| {
            see_info(s, 0, 0, 8);
            Ok(())
        },
    },
    Row {
        id: "C5.3",
        stimulus: "INPUT_TYPE with a type that there is not; without the flag, the type is not looked at",
        expected: "EOPNOTSUPP; type 0xfeedbeef len 8 [00000000 deadbeef]",
        run: |s| {
            see_info(s, HW_INFO_FLAG_INPUT_TYPE, HW_INFO_TYPE + 1, 8);
            see_info(s, 0, HW_INFO_TYPE + 1, 8);
            Ok(())
        },
    },
    Row {
        id: "C5.4",
        stimulus: "INPUT_TYPE with the mock's type; with 0",
        expected: "type 0xfeedbeef len 8 [00000000 deadbeef]; type 0xfeedbeef len 8 [00000000 deadbeef]",
        run: |s| {
            see_info(s, HW_INFO_FLAG_INPUT_TYPE, HW_INFO_TYPE, 8);
            see_info(s, HW_INFO_FLAG_INPUT_TYPE, 0, 8);
            Ok(())
        },
    },
    Row {
        id: "C5.5",
        stimulus: "more room: the rest is zeroed",
        expected: "type 0xfeedbeef len 8 [00000000 deadbeef 00000000 00000000]",
        run: |s| {
            see_info(s, 0, 0, 16);
            Ok(())
        },
    },
    Row {
        id: "C5.6",
        stimulus: "room for 4 bytes",
        expected: "type 0xfeedbeef len 8 [00000000]",
        run: |s| {
            see_info(s, 0, 0, 4);
            Ok(())
        },
    },
    Row {
        id: "C5.7",
        stimulus: "out_max_pasid_log2 of a plain device; of one with PASIDs; dirty tracking of one without it",
        expected: "0 dirty; 20 dirty; 0 no dirty",
        run: |s| {
            let ioas = s.ioas()?;
            for flags in [0, DEVICE_PASID, DEVICE_NO_DIRTY] {
                let device = s.device_of(ioas, flags)?;
                let info = s.hw_info(HwInfo { dev_id: device.idev, ..Default::default() }, &mut [])?;
                let dirty = if info.out_capabilities & HW_CAP_DIRTY_TRACKING == 0 { "no dirty" } else { "dirty" };
                s.note(format!("{} {dirty}", info.out_max_pasid_log2));
            }
            Ok(())
        },
    },
    Row {
        id: "C5.8",
        stimulus: "a device that there is not; an IOAS for a device; an unknown flag; reserved bytes not zero; a bad pointer",
        expected: "ENOENT; ENOENT; EOPNOTSUPP; EOPNOTSUPP; EFAULT",
        run: |s| {
            let ioas = s.ioas()?;
            let dev_id = s.device(ioas)?.idev;
            s.see(s.hw_info(HwInfo { dev_id: 99, ..Default::default() }, &mut []));
            s.see(s.hw_info(HwInfo { dev_id: ioas, ..Default::default() }, &mut []));
            s.see(s.hw_info(HwInfo { dev_id, flags: 2, ..Default::default() }, &mut []));
            s.see(s.hw_info(HwInfo { dev_id, __reserved: [0, 1, 0], ..Default::default() }, &mut []));
            s.see(s.hw_info(HwInfo { dev_id, data_len: 8, data_uptr: 8, ..Default::default() }, &mut []));
            Ok(())
        },
    },
];
