//! C6: hardware queues in the guest's memory.

use crate::caller::{Caller, Pages};
use viommu::uapi::{
    Errno,
    flags::HWPT_ALLOC_NEST_PARENT,
    selftest::{APERTURE_START, HW_QUEUE_TYPE, VIOMMU_TYPE},
};

#[test]
fn c6_35_to_47_hardware_queues() {
    let caller = Caller::new();
    let memory = Pages::new(2);
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let viommu = caller.viommu(mock.device, parent, VIOMMU_TYPE).unwrap();
    let at = APERTURE_START;
    let queue = |of, index, iova, length| caller.hw_queue(viommu, of, index, iova, length);
    assert_eq!(queue(0, 0, at, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!(queue(7, 0, at, 4096), Err(Errno::OPNOTSUPP));
    let queue = |index, iova, length| queue(HW_QUEUE_TYPE, index, iova, length);
    assert_eq!(queue(0, at, 0), Err(Errno::INVAL));
    assert_eq!(queue(0, u64::MAX, 4096), Err(Errno::OVERFLOW));
    assert_eq!(queue(0, 0xfff, u64::MAX - 0xfff), Err(Errno::RANGE));
    assert_eq!(queue(0, at, 1 << 50), Err(Errno::NOMEM));
    assert_eq!(queue(0, at, 4096), Err(Errno::NOENT));
    caller.map_fixed(ioas, &memory[..4096], at).unwrap();
    caller.map_fixed(ioas, &memory[4096..], at + 4096).unwrap();
    assert_eq!([queue(1, at, 2048), queue(2, at, 2048)], [Err(Errno::IO), Err(Errno::INVAL)]);
    assert_eq!(queue(0, at, 8192), Err(Errno::FAULT), "two pages are not contiguous");
    let before = caller.fd.objects();
    let first = queue(0, at, 2048).unwrap();
    assert_eq!(caller.fd.objects().len(), before.len() + 2, "the queue and the access that pins its page");
    assert_eq!(caller.destroy(first + 1), Err(Errno::BUSY), "which is nobody's to destroy");
    assert_eq!(queue(0, at, 2048), Err(Errno::EXIST));
    assert_eq!(caller.unmap(ioas, at, 4096), Err(Errno::BUSY));
    assert_eq!(caller.unmap(ioas, at + 4096, 4096), Ok(4096));
    let second = queue(1, at + 2048, 2048).unwrap();
    assert_eq!(caller.destroy(first), Err(Errno::BUSY));
    assert_eq!(caller.destroy(viommu), Err(Errno::BUSY));
    assert_eq!((caller.destroy(second), caller.unmap(ioas, at, 4096)), (Ok(()), Err(Errno::BUSY)));
    assert_eq!((caller.destroy(first), caller.unmap(ioas, at, 4096)), (Ok(()), Ok(4096)));
    assert_eq!(caller.fd.objects(), before);
    caller.close();
}

#[test]
fn a_queue_needs_readable_memory_and_whole_pages() {
    use viommu::uapi::{Command, flags, layout};
    let caller = Caller::new();
    let memory = Pages::new(1);
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let viommu = caller.viommu(mock.device, parent, VIOMMU_TYPE).unwrap();
    let flags = flags::IOAS_MAP_FIXED_IOVA | flags::IOAS_MAP_WRITEABLE;
    let user_va = memory.as_ptr() as u64;
    let mut write_only =
        layout::IoasMap { flags, ioas_id: ioas, user_va, length: 4096, iova: APERTURE_START, ..Default::default() };
    caller.call(Command::IoasMap, &mut write_only).unwrap();
    assert_eq!(caller.hw_queue(viommu, HW_QUEUE_TYPE, 0, APERTURE_START, 4096), Err(Errno::PERM));
    caller.map_fixed(ioas, &memory[2048..], APERTURE_START + 0x10_0000).unwrap();
    let half = caller.hw_queue(viommu, HW_QUEUE_TYPE, 0, APERTURE_START + 0x10_0000, 2048);
    assert_eq!(half, Err(Errno::ADDRINUSE), "a mapping of half a page keeps accesses of whole pages away");
    caller.close();
}
