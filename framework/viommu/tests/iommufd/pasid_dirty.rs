//! C7 and C8: PASIDs, dirty tracking.

use crate::caller::{Caller, Mock, Pages};
use viommu::uapi::{
    Command, Errno,
    flags::{self, HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_FAULT_ID_VALID},
    layout,
    payload::HwptPgfault,
    selftest::{APERTURE_START, DEVICE_NO_DIRTY, DEVICE_PASID, PASID_TRAP, VIOMMU_TYPE, op},
};
use zerocopy::FromBytes;

struct Fixture {
    caller: Caller,
    ioas: u32,
    mock: Mock,
    /// Without and with the flag; nested ones with it, on the parent and on a vIOMMU.
    plain: u32,
    pasid: u32,
    nested: [u32; 2],
}

fn fixture() -> Fixture {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, DEVICE_PASID).unwrap();
    let plain = caller.hwpt(mock.device, ioas, 0).unwrap();
    let pasid = caller.hwpt(mock.device, ioas, HWPT_ALLOC_PASID).unwrap();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID).unwrap();
    let viommu = caller.viommu(mock.device, parent, VIOMMU_TYPE).unwrap();
    caller.vdevice(viommu, mock.device, 0x99).unwrap();
    let nested = [parent, viommu].map(|on| caller.nested(mock.device, on, HWPT_ALLOC_PASID, 0).unwrap());
    Fixture { caller, ioas, mock, plain, pasid, nested }
}

#[test]
fn c7_1_to_11_pasids() {
    let Fixture { caller, ioas, mock, plain, pasid, nested } = fixture();
    let Mock { stdev, .. } = mock;
    let attach = |number, hwpt| caller.pasid(op::PASID_ATTACH, stdev, number, hwpt);
    let replace = |number, hwpt| caller.pasid(op::PASID_REPLACE, stdev, number, hwpt);
    let check = |number, hwpt| caller.pasid(op::PASID_CHECK_HWPT, stdev, number, hwpt);
    caller.pasid(op::PASID_DETACH, stdev, 100, 0).unwrap();
    assert_eq!(attach(100, pasid), Err(Errno::INVAL), "the device itself is on an HWPT without the flag");
    caller.replace(stdev, pasid).unwrap();
    assert_eq!(attach(100, nested[0]), Ok(()));
    assert_eq!([caller.replace(stdev, plain), caller.replace(stdev, ioas)], [Err(Errno::INVAL); 2]);
    assert_eq!([attach(101, plain), attach(101, ioas)], [Err(Errno::INVAL); 2]);
    assert_eq!((check(101, 0), check(100, nested[0]), check(100, 0)), (Ok(()), Ok(()), Err(Errno::INVAL)));
    assert_eq!([attach(100, nested[0]), attach(100, pasid)], [Err(Errno::BUSY), Err(Errno::BUSY)]);
    assert_eq!([replace(101, pasid), replace(100, ioas), attach(1 << 20, pasid)], [Err(Errno::INVAL); 3]);
    assert_eq!((replace(100, nested[1]), check(100, nested[1])), (Ok(()), Ok(())));
    assert_eq!(caller.destroy(nested[1]), Err(Errno::BUSY));
    caller.pasid(op::PASID_DETACH, stdev, 100, 0).unwrap();
    assert_eq!((check(100, 0), caller.destroy(nested[1])), (Ok(()), Ok(())));

    let other = caller.mock(ioas, 0).unwrap();
    caller.replace(other.stdev, pasid).unwrap();
    for hwpt in [pasid, nested[0]] {
        assert_eq!(caller.pasid(op::PASID_ATTACH, other.stdev, 100, hwpt), Err(Errno::INVAL), "it has no PASIDs");
    }
    caller.close();
}

#[test]
fn c7_13_a_driver_that_fails_changes_nothing() {
    let Fixture { caller, mock, pasid, nested, .. } = fixture();
    caller.replace(mock.stdev, pasid).unwrap();
    caller.pasid(op::PASID_ATTACH, mock.stdev, PASID_TRAP, pasid).unwrap();
    assert_eq!(caller.pasid(op::PASID_REPLACE, mock.stdev, PASID_TRAP, nested[0]), Err(Errno::NOMEM));
    caller.pasid(op::PASID_CHECK_HWPT, mock.stdev, PASID_TRAP, pasid).unwrap();
    assert_eq!(caller.destroy(nested[0]), Ok(()));
    caller.pasid(op::PASID_DETACH, mock.stdev, PASID_TRAP, 0).unwrap();
    caller.close();
}

#[test]
fn c7_14_page_requests_of_pasids() {
    let Fixture { caller, ioas, mock, pasid, nested, .. } = fixture();
    let (fault, fd) = caller.fault_queue();
    assert_eq!(caller.hwpt(mock.device, ioas, HWPT_FAULT_ID_VALID), Err(Errno::NOENT), "fault queue 0");
    let own = layout::HwptAlloc {
        dev_id: mock.device,
        pt_id: ioas,
        flags: HWPT_ALLOC_PASID | HWPT_FAULT_ID_VALID,
        fault_id: fault,
        ..Default::default()
    };
    let faulting = caller.hwpt_with(own).unwrap();
    caller.replace(mock.stdev, pasid).unwrap();
    caller.pasid(op::PASID_ATTACH, mock.stdev, 2048, faulting).unwrap();
    caller.test(op::TRIGGER_IOPF, 0, &[(16, mock.device.into()), (20, 2048)]).unwrap();
    let mut bytes = [0; 40];
    assert_eq!(caller.fd.read(fd, &mut bytes), Ok(40));
    let request = HwptPgfault::read_from_bytes(&bytes).unwrap();
    assert_eq!(request.pasid, 2048);
    assert_eq!(request.flags, flags::PGFAULT_FLAGS_PASID_VALID | flags::PGFAULT_FLAGS_LAST_PAGE);
    caller.pasid(op::PASID_REPLACE, mock.stdev, 2048, nested[0]).unwrap();
    caller.close();
}

#[test]
fn c8_1_to_4_who_can_track() {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, DEVICE_PASID).unwrap();
    let other = caller.mock(ioas, DEVICE_NO_DIRTY).unwrap();
    let hwpt = caller.hwpt(mock.device, ioas, HWPT_ALLOC_DIRTY_TRACKING).unwrap();
    assert_eq!(caller.replace(other.stdev, hwpt), Err(Errno::INVAL));
    assert_eq!(caller.mock(hwpt, DEVICE_NO_DIRTY).map(|_| ()), Err(Errno::INVAL));
    assert_eq!(caller.hwpt(other.device, ioas, HWPT_ALLOC_DIRTY_TRACKING), Err(Errno::OPNOTSUPP));
    let set = |hwpt_id, flags| {
        let mut own = layout::HwptSetDirtyTracking { hwpt_id, flags, ..Default::default() };
        caller.call(Command::HwptSetDirtyTracking, &mut own)
    };
    assert_eq!([set(hwpt, 1), set(hwpt, 0), set(hwpt, 2)], [Ok(()), Ok(()), Err(Errno::OPNOTSUPP)]);
    assert_eq!([set(mock.hwpt, 1), set(ioas, 1)], [Err(Errno::OPNOTSUPP), Err(Errno::NOENT)]);
    caller.close();
}

#[test]
fn c8_5_and_6_exactly_the_dirty_pages_are_told() {
    let caller = Caller::new();
    let memory = Pages::new(16);
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let hwpt = caller.hwpt(mock.device, ioas, HWPT_ALLOC_DIRTY_TRACKING).unwrap();
    caller.replace(mock.stdev, hwpt).unwrap();
    caller.map_fixed(ioas, &memory, APERTURE_START).unwrap();
    let mut own = layout::HwptSetDirtyTracking { hwpt_id: hwpt, flags: 1, ..Default::default() };
    caller.call(Command::HwptSetDirtyTracking, &mut own).unwrap();
    let length = memory.len() as u64;
    let wrote: [u8; 4] = [0b1010_0101, 0, 0b1000_0000, 0xff];
    let dirtied = caller.test(
        op::DIRTY,
        hwpt,
        &[(124, APERTURE_START), (132, length), (140, 2048), (148, wrote.as_ptr() as u64)],
    );
    assert_eq!(dirtied.unwrap().u64_at(56), 13);
    let read = |flags, data: &mut [u8], page_size| {
        let (iova, data) = (APERTURE_START, data.as_mut_ptr() as u64);
        let hwpt_id = hwpt;
        let mut own =
            layout::HwptGetDirtyBitmap { hwpt_id, flags, iova, length, page_size, data, ..Default::default() };
        caller.call(Command::HwptGetDirtyBitmap, &mut own)
    };
    // A bitmap that begins anywhere, with bits of the caller's in it, which stay.
    let mut room = [0u8; 32];
    room[4] = 0b10;
    for _ in 0..2 {
        read(flags::HWPT_GET_DIRTY_BITMAP_NO_CLEAR, &mut room[3..], 2048).unwrap();
        assert_eq!(std::hint::black_box(room)[3..7], [0xff, 0b10, 0b1100_0000, 0xff]);
    }
    let mut coarse = [0u8; 8];
    read(flags::HWPT_GET_DIRTY_BITMAP_NO_CLEAR, &mut coarse, 4096).unwrap();
    assert_eq!(std::hint::black_box(coarse)[..2], [0b0000_1111, 0b1111_1000], "half pages count");
    let mut plain = [0u8; 8];
    read(0, &mut plain, 2048).unwrap();
    assert_eq!(std::hint::black_box(plain)[..4], [0xff, 0, 0b1100_0000, 0xff], "a page is dirty as a whole");
    let mut second = [0u8; 8];
    read(0, &mut second, 2048).unwrap();
    assert_eq!(std::hint::black_box(second), [0; 8]);
    let marked = |at: u64| caller.fd.dma_wrote(hwpt, at, 1);
    assert_eq!([marked(APERTURE_START + length), marked(APERTURE_START)], [Ok(()); 2], "not mapped, mapped");
    caller.map_fixed(ioas, &memory[..4096], APERTURE_START + length + 4096).unwrap();
    marked(APERTURE_START + length + 4096).unwrap();
    let mut beyond = [0u8; 8];
    let mut over_a_hole = layout::HwptGetDirtyBitmap {
        hwpt_id: hwpt,
        iova: APERTURE_START,
        length: length + 8192,
        page_size: 4096,
        data: beyond.as_mut_ptr() as u64,
        ..Default::default()
    };
    caller.call(Command::HwptGetDirtyBitmap, &mut over_a_hole).unwrap();
    assert_eq!(std::hint::black_box(beyond)[..3], [1, 0, 0], "up to the hole, and that is no error");
    for page_size in [0, 1 << 20] {
        assert_eq!(read(0, &mut second, page_size), Err(Errno::INVAL), "{page_size}");
    }
    caller.close();
}
