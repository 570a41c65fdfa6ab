//! IOAS: mapping, copying, unmapping, ranges, accesses.

use crate::caller::{Caller, Pages};
use viommu::uapi::{
    Command, Errno,
    flags::{IOAS_MAP_FIXED_IOVA, IOAS_MAP_READABLE, IOAS_MAP_WRITEABLE},
    layout::{self, IovaRange},
    selftest::{APERTURE_LAST, APERTURE_START, op},
};

const RW: u32 = IOAS_MAP_READABLE | IOAS_MAP_WRITEABLE;

fn map(caller: &Caller, ioas_id: u32, flags: u32, user_va: u64, length: u64, iova: u64) -> Result<u64, Errno> {
    let mut own = layout::IoasMap { flags, ioas_id, user_va, length, iova, ..Default::default() };
    caller.call(Command::IoasMap, &mut own).map(|()| own.iova)
}

#[test]
fn mapping_answers_in_the_kernels_order() {
    let caller = Caller::new();
    let memory = Pages::new(2);
    let at = memory.as_ptr() as u64;
    let ioas = caller.ioas();
    let fixed = RW | IOAS_MAP_FIXED_IOVA;
    assert_eq!(map(&caller, 99, RW | 8, at, u64::MAX, 0), Err(Errno::OPNOTSUPP));
    assert_eq!(map(&caller, 99, 0, at, u64::MAX, 0), Err(Errno::OVERFLOW));
    assert_eq!(map(&caller, 99, 0, at, 4096, 0), Err(Errno::INVAL));
    assert_eq!(map(&caller, 99, RW, at, 0, 0), Err(Errno::NOENT));
    assert_eq!(map(&caller, ioas, RW, at, 0, 0), Err(Errno::INVAL));
    assert_eq!(map(&caller, ioas, RW, u64::MAX, 2, 0), Err(Errno::OVERFLOW));
    assert_eq!(map(&caller, ioas, fixed, at, 4096, u64::MAX - 1), Err(Errno::OVERFLOW));
    assert_eq!(map(&caller, ioas, fixed, 8, 4096, 0x1000), Ok(0x1000), "nothing is pinned yet");
    assert_eq!(map(&caller, ioas, fixed, at, 4096, 0x1800), Err(Errno::EXIST));
    assert_eq!(map(&caller, ioas, RW, at, 4096, 0), Ok(0x2000));
    assert_eq!(caller.mock(ioas, 0).map(|_| ()), Err(Errno::ADDRINUSE), "mapped outside of what it can translate");
    assert_eq!(caller.unmap(ioas, 0, u64::MAX), Ok(8192));
    let mock = caller.mock(ioas, 0).unwrap();
    assert_eq!(map(&caller, ioas, fixed, at, 4096, 0x1000), Err(Errno::INVAL));
    assert_eq!(map(&caller, ioas, fixed, at, 4095, APERTURE_START), Err(Errno::INVAL));
    assert_eq!(map(&caller, ioas, fixed, 8, 4096, APERTURE_START), Err(Errno::INVAL), "half of a page of its own");
    assert_eq!(map(&caller, ioas, fixed, 4096, 4096, APERTURE_START), Err(Errno::FAULT), "pinned now");
    assert_eq!(map(&caller, ioas, RW, at, 8192, 0), Ok(APERTURE_START));
    caller.test(op::MD_CHECK_MAP, mock.hwpt, &[(116, APERTURE_START), (124, 8192), (132, at)]).unwrap();
    let wrong = caller.test(op::MD_CHECK_MAP, mock.hwpt, &[(116, APERTURE_START), (124, 4096), (132, at + 4096)]);
    assert_eq!(wrong.map(|_| ()), Err(Errno::INVAL));
    caller.close();
}

#[test]
fn unmapping_takes_whole_mappings() {
    let caller = Caller::new();
    let memory = Pages::new(4);
    let ioas = caller.ioas();
    caller.map_fixed(ioas, &memory[..8192], 0x1000).unwrap();
    caller.map_fixed(ioas, &memory[8192..], 0x3000).unwrap();
    assert_eq!(caller.unmap(ioas, 0x1000, 0), Err(Errno::INVAL));
    assert_eq!(caller.unmap(ioas, 0x2000, u64::MAX - 1), Err(Errno::OVERFLOW));
    assert_eq!(caller.unmap(ioas, 0x1000, u64::MAX), Err(Errno::OVERFLOW));
    assert_eq!(caller.unmap(ioas, 0x8000, 4096), Err(Errno::NOENT));
    assert_eq!(caller.unmap(ioas, 0x2000, 4096), Err(Errno::NOENT));
    assert_eq!(caller.unmap(ioas, 0x1000, 0x3000), Err(Errno::NOENT), "the first went, the second stays");
    assert_eq!(caller.unmap(ioas, 0, 0x10000), Ok(8192));
    assert_eq!(caller.unmap(ioas, 0, u64::MAX), Ok(0));
    assert_eq!(caller.unmap(99, 0, u64::MAX), Err(Errno::NOENT));
}

#[test]
fn copies_share_their_pages_and_their_rights() {
    let caller = Caller::new();
    let memory = Pages::new(2);
    let at = memory.as_ptr() as u64;
    let [from, to] = [0; 2].map(|_| caller.ioas());
    let read_only = map(&caller, from, IOAS_MAP_READABLE, at, 8192, 0).unwrap();
    let copy = |flags, length, src_iova, dst_iova| {
        let (src_ioas_id, dst_ioas_id) = (from, to);
        let mut own =
            layout::IoasCopy { flags, dst_ioas_id, src_ioas_id, length, dst_iova, src_iova, ..Default::default() };
        caller.call(Command::IoasCopy, &mut own).map(|()| own.dst_iova)
    };
    assert_eq!(copy(RW, 4096, read_only, 0), Err(Errno::PERM));
    assert_eq!(copy(IOAS_MAP_READABLE, 0, read_only, 0), Err(Errno::INVAL));
    assert_eq!(copy(IOAS_MAP_READABLE, 8193, read_only, 0), Err(Errno::NOENT));
    let fixed = IOAS_MAP_READABLE | IOAS_MAP_FIXED_IOVA;
    assert_eq!(copy(fixed, 4096, read_only + 4096, APERTURE_START), Ok(APERTURE_START));
    let mock = caller.mock(to, 0).unwrap();
    caller.test(op::MD_CHECK_MAP, mock.hwpt, &[(116, APERTURE_START), (124, 4096), (132, at + 4096)]).unwrap();
    let refs = |page: u64, refs| caller.test(op::MD_CHECK_REFS, 0, &[(116, 4096), (124, page), (32, refs)]).map(|_| ());
    assert_eq!([refs(at + 4096, 1), refs(at, 0), refs(at, 1)], [Ok(()), Ok(()), Err(Errno::IO)]);
    caller.close();
}

#[test]
fn ranges_are_told_and_narrowed() {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mut ranges = [IovaRange::default(); 2];
    let allowed_iovas = ranges.as_mut_ptr() as u64;
    let ask = |num_iovas| {
        let mut own = layout::IoasIovaRanges { ioas_id: ioas, num_iovas, allowed_iovas, ..Default::default() };
        (caller.call(Command::IoasIovaRanges, &mut own), own.num_iovas, own.out_iova_alignment)
    };
    assert_eq!(ask(0), (Err(Errno::MSGSIZE), 1, 1));
    assert_eq!(ask(2), (Ok(()), 1, 1));
    assert_eq!(std::hint::black_box(ranges)[0], IovaRange { start: 0, last: u64::MAX });
    let mock = caller.mock(ioas, 0).unwrap();
    caller.test(op::ADD_RESERVED, ioas, &[(116, 0x200_0000), (124, 0x1000)]).unwrap();
    assert_eq!(ask(1), (Err(Errno::MSGSIZE), 2, 2048));
    assert_eq!(ask(2), (Ok(()), 2, 2048));
    let expected =
        [IovaRange { start: APERTURE_START, last: 0x1ff_ffff }, IovaRange { start: 0x200_1000, last: APERTURE_LAST }];
    assert_eq!(std::hint::black_box(ranges), expected);
    let allow = |ranges: &[IovaRange]| {
        let (num_iovas, allowed_iovas) = (ranges.len() as u32, ranges.as_ptr() as u64);
        let mut own = layout::IoasAllowIovas { ioas_id: ioas, num_iovas, allowed_iovas, ..Default::default() };
        caller.call(Command::IoasAllowIovas, &mut own)
    };
    let range = |start, last| IovaRange { start, last };
    assert_eq!(allow(&[range(5, 5)]), Err(Errno::INVAL));
    assert_eq!(allow(&[range(0x300_0000, 0x3ff_ffff), range(0x3ff_ffff, 0x400_0000)]), Err(Errno::INVAL));
    assert_eq!(allow(&[range(0, 0x300_0000)]), Err(Errno::ADDRINUSE));
    assert_eq!(allow(&[range(0x500_0000, 0x5ff_ffff), range(0x300_0000, 0x3ff_ffff)]), Ok(()));
    assert_eq!(
        caller.test(op::ADD_RESERVED, ioas, &[(116, 0x3ff_f000), (124, 0x1000)]).map(|_| ()),
        Err(Errno::ADDRINUSE)
    );
    let memory = Pages::new(1);
    assert_eq!(map(&caller, ioas, RW, memory.as_ptr() as u64, 4096, 0), Ok(0x300_0000));
    caller.destroy(mock.stdev).unwrap();
    assert_eq!(ask(2), (Ok(()), 2, 1), "the test's reservation stays");
    caller.close();
}

#[test]
fn files_change_hands_and_memory_does_not() {
    let caller = Caller::new();
    let memory = Pages::new(1);
    let ioas = caller.ioas();
    let file = caller.fd.memory_file(8192).unwrap();
    let map_file = |fd, start, length| {
        let mut own = layout::IoasMapFile { flags: RW, ioas_id: ioas, fd, start, length, ..Default::default() };
        caller.call(Command::IoasMapFile, &mut own).map(|()| own.iova)
    };
    assert_eq!([map_file(-1, 0, 4096), map_file(file, 4096, 8192)], [Err(Errno::BADF), Err(Errno::INVAL)]);
    assert_eq!(map_file(file, 4096, 4096), Ok(0x1000));
    let change = || caller.call(Command::IoasChangeProcess, &mut layout::IoasChangeProcess::default());
    assert_eq!(change(), Ok(()));
    map(&caller, ioas, RW, memory.as_ptr() as u64, 4096, 0).unwrap();
    assert_eq!(change(), Err(Errno::INVAL));
    caller.close();
}

#[test]
fn accesses_pin_and_copy_and_give_way_to_unmapping() {
    let caller = Caller::new();
    let memory = Pages::new(2);
    let at = memory.as_ptr() as u64;
    let ioas = caller.ioas();
    let iova = map(&caller, ioas, RW, at, 8192, 0).unwrap();
    let access = caller.test(op::CREATE_ACCESS, ioas, &[(20, 1)]).unwrap().u32_at(16);
    assert_eq!(caller.destroy(ioas), Err(Errno::BUSY));
    let pin = |iova, length, uptr| {
        let pinned = caller.test(op::ACCESS_PAGES, access, &[(124, iova), (132, length), (140, uptr)]);
        pinned.map(|own| own.u32_at(20))
    };
    assert_eq!([pin(iova, 4096, at), pin(iova + 4096, 4096, at + 4096)], [Ok(0), Ok(1)]);
    assert_eq!([pin(iova, 4096, at + 4096), pin(iova, 16384, 0)], [Err(Errno::BADE), Err(Errno::NOENT)]);
    caller.test(op::MD_CHECK_REFS, 0, &[(116, 4096), (124, at), (32, 1)]).unwrap();
    let unpin = |number| caller.test(op::DESTROY_ACCESS_PAGES, access, &[(16, number)]).map(|_| ());
    assert_eq!([unpin(0), unpin(0)], [Ok(()), Err(Errno::NOENT)]);
    assert_eq!(caller.unmap(ioas, iova, 8192), Ok(8192));
    assert_eq!(unpin(1), Err(Errno::NOENT), "the access let go");

    let iova = map(&caller, ioas, RW, at, 8192, 0).unwrap();
    let mut bytes = [7u8; 16];
    let copy = |flags, bytes: &mut [u8]| {
        let (length, uptr) = (bytes.len() as u64, bytes.as_mut_ptr() as u64);
        caller.test(op::ACCESS_RW, access, &[(116, iova + 4090), (124, length), (132, uptr), (40, flags)]).map(|_| ())
    };
    copy(1, &mut bytes).unwrap();
    assert_eq!(std::hint::black_box(&memory)[4089..4107], [&[0x5a][..], &[7; 16], &[0x5a]].concat());
    bytes.fill(0);
    copy(0, &mut bytes).unwrap();
    assert_eq!(std::hint::black_box(bytes), [7; 16]);
    assert_eq!(caller.test(op::ACCESS_RW, 99, &[]).map(|_| ()), Err(Errno::BADFD));

    let other = caller.ioas();
    caller.test(op::ACCESS_REPLACE_IOAS, access, &[(16, other.into())]).unwrap();
    assert_eq!([caller.destroy(other), caller.destroy(ioas)], [Err(Errno::BUSY), Ok(())]);
    caller.fd.close(access as i32).unwrap();
    assert_eq!(caller.destroy(other), Ok(()));
    caller.close();
}

#[test]
fn the_container_knows_one_ioas() {
    let caller = Caller::new();
    let call = |op, ioas_id| {
        let mut own = layout::VfioIoas { op, ioas_id, ..Default::default() };
        caller.call(Command::VfioIoas, &mut own).map(|()| own.ioas_id)
    };
    assert_eq!([call(0, 0), call(1, 99), call(3, 0)], [Err(Errno::NODEV), Err(Errno::NOENT), Err(Errno::OPNOTSUPP)]);
    let ioas = caller.ioas();
    assert_eq!([call(1, ioas), call(0, 0)], [Ok(ioas); 2]);
    caller.destroy(ioas).unwrap();
    assert_eq!(call(0, 0), Err(Errno::NODEV));
}
