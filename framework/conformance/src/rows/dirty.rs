//! C8: dirty tracking.

use crate::row::Row;
use crate::session::{Device, Failed, Session};
use viommu::uapi::flags::{
    HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_PASID, HWPT_GET_DIRTY_BITMAP_NO_CLEAR, OPTION_HUGE_PAGES, OPTION_OP_SET,
};
use viommu::uapi::layout::{HwptAlloc, HwptGetDirtyBitmap, HwptSetDirtyTracking};
use viommu::uapi::selftest::{self, DEVICE_NO_DIRTY, DEVICE_PASID, TestCommand, op};
use viommu::uapi::{Command, layout::HwInfo};
use zerocopy::IntoBytes;

/// What is mapped at once when huge pages are off: two of the mock's own.
const PAGE: u64 = 4096;
const IOVA: u64 = selftest::APERTURE_START;
/// Where in the session's memory bitmaps are: behind what is mapped.
const BITMAP: u64 = 128 << 20;

fn dirty(s: &Session<'_>) -> Result<(u32, Device, u32), Failed> {
    let ioas = s.ioas()?;
    s.option(OPTION_HUGE_PAGES, OPTION_OP_SET, ioas, 0)?;
    let device = s.device(ioas)?;
    Ok((ioas, device, s.hwpt(device.idev, ioas, HWPT_ALLOC_DIRTY_TRACKING)?))
}

/// Has the mock mark the pages whose bits are set: how many it marked.
fn mark(s: &Session<'_>, hwpt: u32, length: u64, page_size: u64, bits: &mut [u8]) -> Result<u64, Failed> {
    mark_at(s, hwpt, IOVA, length, page_size, bits)
}

/// The same from another IOVA.
fn mark_at(s: &Session<'_>, hwpt: u32, iova: u64, length: u64, page_size: u64, bits: &mut [u8]) -> Result<u64, Failed> {
    let mut command = TestCommand { op: op::DIRTY, id: hwpt, ..Default::default() };
    command.set_u64_at(24, iova);
    command.set_u64_at(32, length);
    command.set_u64_at(40, page_size);
    s.call(Command::Test, &mut command, &mut [(48, bits)])?;
    Ok(command.u64_at(56))
}

/// Reads dirty bits into a cleared bitmap at this misalignment.
fn read(s: &Session<'_>, asked: HwptGetDirtyBitmap, misaligned: u64) -> Result<Vec<u8>, Failed> {
    let bytes = (asked.length / asked.page_size.max(1)).div_ceil(8);
    let mut bits = vec![0; usize::try_from(bytes).unwrap_or(0)];
    s.memory().store(BITMAP + misaligned, &bits);
    s.get_dirty(asked, s.memory().address(BITMAP + misaligned))?;
    s.memory().load(BITMAP + misaligned, &mut bits);
    Ok(bits)
}

/// Marks every other page of an area of this size, reads the bits twice into bitmaps at these misalignments.
fn marks_and_reads(s: &mut Session<'_>, length: u64, huge: bool) -> Result<(), Failed> {
    let ioas = s.ioas()?;
    s.option(OPTION_HUGE_PAGES, OPTION_OP_SET, ioas, u64::from(huge))?;
    let device = s.device(ioas)?;
    let data = selftest::HwptSelftest { iotlb: 0, pagetable_type: 1 };
    let argument =
        HwptAlloc { flags: HWPT_ALLOC_DIRTY_TRACKING, dev_id: device.idev, pt_id: ioas, ..Default::default() };
    let hwpt = if huge {
        let argument = HwptAlloc { data_type: selftest::HWPT_DATA, data_len: 8, ..argument };
        s.hwpt_raw(argument, Some(&mut data.as_bytes().to_vec()))?
    } else {
        s.hwpt_raw(argument, None)?
    };
    s.map(ioas, 0, length, IOVA)?;
    s.set_dirty(hwpt, true)?;
    let page_size = if huge { selftest::HUGE_PAGE_SIZE } else { PAGE };
    let pages = length / page_size;
    let mut wanted = vec![0; usize::try_from((pages + 1).div_ceil(64) * 8).unwrap_or(0)];
    for page in (0..pages).step_by(2) {
        wanted[page as usize / 8] |= 1 << (page % 8);
    }
    let asked = HwptGetDirtyBitmap { hwpt_id: hwpt, iova: IOVA, length, page_size, ..Default::default() };
    let mut words = Vec::new();
    for misaligned in [0, 2048, 0xff1] {
        let marked = mark(s, hwpt, length, page_size, &mut wanted.clone())?;
        let (first, second) = (read(s, asked, misaligned)?, read(s, asked, misaligned)?);
        let exact = marked == pages.div_ceil(2) && wanted.starts_with(&first) && second.iter().all(|byte| *byte == 0);
        words.push(if exact { "exact" } else { "wrong" });
    }
    s.note(words.join(" "));
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C8.1",
        stimulus: "a device without dirty tracking attaches to an HWPT with it",
        expected: "EINVAL",
        run: |s| {
            let (ioas, _, hwpt) = dirty(s)?;
            let without = s.device_of(ioas, DEVICE_NO_DIRTY)?;
            s.see(s.replace(without, hwpt));
            Ok(())
        },
    },
    Row {
        id: "C8.2",
        stimulus: "HWPT_ALLOC DIRTY_TRACKING for a device without it; SET_DIRTY_TRACKING on an HWPT without it",
        expected: "EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device_of(ioas, DEVICE_NO_DIRTY)?;
            s.see(s.hwpt(device.idev, ioas, HWPT_ALLOC_DIRTY_TRACKING));
            let plain = s.hwpt(device.idev, ioas, 0)?;
            s.see(s.set_dirty(plain, true));
            Ok(())
        },
    },
    Row {
        id: "C8.3",
        stimulus: "SET_DIRTY_TRACKING on; off; with a PASID attached on; off; an unknown flag; an HWPT that there is not",
        expected: "ok; ok; ok; ok; EOPNOTSUPP; ENOENT",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device_of(ioas, DEVICE_PASID)?;
            let hwpt = s.hwpt(device.idev, ioas, HWPT_ALLOC_DIRTY_TRACKING | HWPT_ALLOC_PASID)?;
            s.see(s.set_dirty(hwpt, true));
            s.see(s.set_dirty(hwpt, false));
            s.replace(device, hwpt)?;
            s.pasid_attach(device, 5, hwpt)?;
            s.see(s.set_dirty(hwpt, true));
            s.see(s.set_dirty(hwpt, false));
            let mut argument = HwptSetDirtyTracking { flags: 2, hwpt_id: hwpt, ..Default::default() };
            s.see(s.call(Command::HwptSetDirtyTracking, &mut argument, &mut []));
            s.see(s.set_dirty(99, true));
            Ok(())
        },
    },
    Row {
        id: "C8.4",
        stimulus: "out_capabilities of a device with dirty tracking (bit 0), without ATS (bit 3)",
        expected: "0x9",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            let info = s.hw_info(HwInfo { dev_id: device.idev, ..Default::default() }, &mut [])?;
            s.note(format!("{:#x}", info.out_capabilities));
            Ok(())
        },
    },
    Row {
        id: "C8.5",
        stimulus: "every other page marked, read twice; bitmaps page-aligned, + 2048 bytes, + 0xff1; areas of 8K, 16K, 64K, 128K, 320K, 64M, 128M; of 64M and 128M in huge pages",
        expected: "exact exact exact; exact exact exact; exact exact exact; exact exact exact; exact exact exact; exact exact exact; exact exact exact; exact exact exact; exact exact exact",
        run: |s| {
            for length in [8 << 10, 16 << 10, 64 << 10, 128 << 10, 320 << 10, 64 << 20, 128 << 20] {
                marks_and_reads(s, length, false)?;
            }
            marks_and_reads(s, 64 << 20, true)?;
            marks_and_reads(s, 128 << 20, true)
        },
    },
    Row {
        id: "C8.6",
        stimulus: "of 8 of the mock's pages the first and sixth marked, which marks the page that each is half of: NO_CLEAR twice; then a plain read; another",
        expected: "33 33 33 00",
        run: |s| {
            let (ioas, _, hwpt_id) = dirty(s)?;
            s.map(ioas, 0, 16 << 10, IOVA)?;
            s.set_dirty(hwpt_id, true)?;
            mark(s, hwpt_id, 16 << 10, 2048, &mut [0x21; 8])?;
            let asked =
                HwptGetDirtyBitmap { hwpt_id, iova: IOVA, length: 16 << 10, page_size: 2048, ..Default::default() };
            let mut words = Vec::new();
            for flags in [HWPT_GET_DIRTY_BITMAP_NO_CLEAR, HWPT_GET_DIRTY_BITMAP_NO_CLEAR, 0, 0] {
                let bits = read(s, HwptGetDirtyBitmap { flags, ..asked }, 0)?;
                words.push(format!("{:02x}", bits[0]));
            }
            s.note(words.join(" "));
            Ok(())
        },
    },
    Row {
        id: "C8.7",
        stimulus: "GET_DIRTY_BITMAP: an unknown flag; length 0; page_size 0; misaligned IOVA; a wrap; a bad pointer; nothing mapped there; tracking off; an HWPT without it",
        expected: "EOPNOTSUPP; EINVAL; EINVAL; EINVAL; EOVERFLOW; ok; ok; ok; EOPNOTSUPP",
        run: |s| {
            let (ioas, device, hwpt_id) = dirty(s)?;
            s.map(ioas, 0, 16 << 10, IOVA)?;
            s.set_dirty(hwpt_id, true)?;
            let asked =
                HwptGetDirtyBitmap { hwpt_id, iova: IOVA, length: 16 << 10, page_size: 2048, ..Default::default() };
            let at = s.memory().address(BITMAP);
            s.see(s.get_dirty(HwptGetDirtyBitmap { flags: 2, ..asked }, at));
            s.see(s.get_dirty(HwptGetDirtyBitmap { length: 0, ..asked }, at));
            s.see(s.get_dirty(HwptGetDirtyBitmap { page_size: 0, ..asked }, at));
            s.see(s.get_dirty(HwptGetDirtyBitmap { iova: IOVA + 64, ..asked }, at));
            s.see(s.get_dirty(HwptGetDirtyBitmap { iova: u64::MAX - 2047, length: 4096, ..asked }, at));
            s.see(s.get_dirty(asked, 8));
            s.see(s.get_dirty(HwptGetDirtyBitmap { iova: IOVA + (1 << 20), ..asked }, at));
            s.set_dirty(hwpt_id, false)?;
            s.see(s.get_dirty(asked, at));
            let plain = s.hwpt(device.idev, ioas, 0)?;
            s.see(s.get_dirty(HwptGetDirtyBitmap { hwpt_id: plain, ..asked }, at));
            Ok(())
        },
    },
    Row {
        id: "C8.8",
        stimulus: "turning tracking on forgets old bits; the bitmap's own bits are kept",
        expected: "00; ff",
        run: |s| {
            let (ioas, _, hwpt_id) = dirty(s)?;
            s.map(ioas, 0, 16 << 10, IOVA)?;
            s.set_dirty(hwpt_id, true)?;
            mark(s, hwpt_id, 16 << 10, 2048, &mut [0xff; 8])?;
            s.set_dirty(hwpt_id, false)?;
            s.set_dirty(hwpt_id, true)?;
            let asked =
                HwptGetDirtyBitmap { hwpt_id, iova: IOVA, length: 16 << 10, page_size: 2048, ..Default::default() };
            let bits = read(s, asked, 0)?;
            s.note(format!("{:02x}", bits[0]));
            s.memory().store(BITMAP, &[0xf0]);
            mark(s, hwpt_id, 16 << 10, 2048, &mut [0x0f; 8])?;
            s.get_dirty(asked, s.memory().address(BITMAP))?;
            let mut bits = [0];
            s.memory().load(BITMAP, &mut bits);
            s.note(format!("{:02x}", bits[0]));
            Ok(())
        },
    },
    Row {
        id: "C8.9",
        stimulus: "a PASID of a device without dirty tracking attaches to an HWPT with it, which nobody checks",
        expected: "ok; attached",
        run: |s| {
            let ioas = s.ioas()?;
            let tracks = s.device_of(ioas, DEVICE_PASID)?;
            let dirty = s.hwpt(tracks.idev, ioas, HWPT_ALLOC_DIRTY_TRACKING | HWPT_ALLOC_PASID)?;
            let device = s.device_of(ioas, DEVICE_PASID | DEVICE_NO_DIRTY)?;
            let plain = s.hwpt(device.idev, ioas, HWPT_ALLOC_PASID)?;
            s.replace(device, plain)?;
            s.see(s.pasid_attach(device, 5, dirty));
            s.note_if(s.pasid_has(device, 5, dirty), "attached", "not so");
            Ok(())
        },
    },
    Row {
        id: "C8.10",
        stimulus: "two dirty pages with a hole between: read over all three, which ends at the hole; the last alone",
        expected: "03; 03",
        run: |s| {
            let (ioas, _, hwpt_id) = dirty(s)?;
            for page in [0, 2] {
                s.map(ioas, page * PAGE, PAGE, IOVA + page * PAGE)?;
            }
            s.set_dirty(hwpt_id, true)?;
            for page in [0, 2] {
                mark_at(s, hwpt_id, IOVA + page * PAGE, PAGE, 2048, &mut [0x03; 8])?;
            }
            for (page, pages) in [(0, 3), (2, 1)] {
                let (iova, length) = (IOVA + page * PAGE, pages * PAGE);
                let asked = HwptGetDirtyBitmap { hwpt_id, iova, length, page_size: 2048, ..Default::default() };
                s.note(format!("{:02x}", read(s, asked, 0)?[0]));
            }
            Ok(())
        },
    },
];
