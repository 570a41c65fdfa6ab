//! C6: vIOMMUs, vDEVICEs, their events, their invalidation, mmap.

use crate::caller::{Caller, Mock, address};
use viommu::uapi::{
    Command, Errno,
    dispatcher::MapFlags,
    flags::{HWPT_ALLOC_NEST_PARENT, HWPT_FAULT_ID_VALID},
    layout,
    selftest::{
        INVALIDATE_ALL, VEVENTQ_TYPE, VIOMMU_INVALIDATE_DATA, VIOMMU_TYPE, ViommuInvalidateSelftest, ViommuSelftest, op,
    },
};

struct Fixture {
    caller: Caller,
    ioas: u32,
    mock: Mock,
    parent: u32,
    viommu: u32,
    nested: u32,
}

fn fixture() -> Fixture {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let viommu = caller.viommu(mock.device, parent, VIOMMU_TYPE).unwrap();
    let nested = caller.nested(mock.device, viommu, 0, 0).unwrap();
    Fixture { caller, ioas, mock, parent, viommu, nested }
}

#[test]
fn c6_1_to_7_allocation() {
    let Fixture { caller, ioas, mock, parent, viommu, .. } = fixture();
    let device = mock.device;
    assert_eq!(caller.viommu(device, 0, VIOMMU_TYPE), Err(Errno::NOENT));
    assert_eq!(caller.viommu(device, ioas, VIOMMU_TYPE), Err(Errno::NOENT), "of another kind");
    let plain = caller.hwpt(device, ioas, 0).unwrap();
    assert_eq!(caller.viommu(device, plain, VIOMMU_TYPE), Err(Errno::INVAL));
    assert_eq!([0xdead, 0].map(|of| caller.viommu(device, parent, of)), [Err(Errno::OPNOTSUPP); 2]);
    assert_eq!(caller.viommu(99, parent, VIOMMU_TYPE), Err(Errno::NOENT));
    assert_eq!([caller.destroy(parent), caller.destroy(viommu)], [Err(Errno::BUSY); 2]);
    assert_eq!(caller.nested(device, viommu, HWPT_FAULT_ID_VALID, u32::MAX), Err(Errno::NOENT));
    assert_eq!(caller.nested(device, viommu, HWPT_FAULT_ID_VALID | 1 << 31, 0), Err(Errno::OPNOTSUPP));
    caller.close();
}

#[test]
fn c6_8_and_9_attaching_needs_the_devices_name() {
    let Fixture { caller, mock, viommu, nested, .. } = fixture();
    assert_eq!(caller.replace(mock.stdev, nested), Err(Errno::NOENT));
    caller.vdevice(viommu, mock.device, 0x99).unwrap();
    assert_eq!(caller.replace(mock.stdev, nested), Ok(nested));
    assert_eq!(caller.destroy(nested), Err(Errno::BUSY));
    let (fault, fd) = caller.fault_queue();
    let faulting = caller.nested(mock.device, viommu, HWPT_FAULT_ID_VALID, fault).unwrap();
    caller.replace(mock.stdev, faulting).unwrap();
    // The guest owns the PASIDs of a nested device: their requests come to the same queue.
    for pasid in [0, 5] {
        caller.test(op::TRIGGER_IOPF, 0, &[(16, mock.device.into()), (20, pasid)]).unwrap();
    }
    assert_eq!(caller.fd.read(fd, &mut [0; 120]), Ok(80));
    caller.close();
}

#[test]
fn c6_10_to_13_data_and_mmap() {
    let Fixture { caller, mock, parent, .. } = fixture();
    let mut data = ViommuSelftest { in_data: 0xabc, ..Default::default() };
    let mut own = layout::ViommuAlloc {
        r#type: VIOMMU_TYPE,
        dev_id: mock.device,
        hwpt_id: parent,
        data_len: size_of_val(&data) as u32,
        data_uptr: std::ptr::from_mut(&mut data) as u64,
        ..Default::default()
    };
    caller.call(Command::ViommuAlloc, &mut own).unwrap();
    let data = std::hint::black_box(data);
    assert_eq!((data.out_data, data.out_mmap_offset, data.out_mmap_length), (0xabc, 0x1000, 0x2000));
    for (offset, length) in [(0x2000, 0x2000), (0x3000, 0x2000), (0x1000, 0x1000), (0x1000, 0x4000)] {
        assert_eq!(caller.fd.mmap(offset, length).map(|_| ()), Err(Errno::NXIO));
    }
    let private = MapFlags { shared: false, executable: false };
    assert_eq!(caller.fd.mmap_with(0x1000, 0x2000, private).map(|_| ()), Err(Errno::INVAL));
    let mapping = caller.fd.mmap(data.out_mmap_offset, data.out_mmap_length).unwrap();
    assert_eq!((mapping.read(0), mapping.read(0x2000)), (Some(0xabc), None));
    let fork = mapping.clone();
    fork.write(4, 7).unwrap();
    assert_eq!(mapping.read(4), Some(7));
    caller.fd.munmap(mapping);
    assert_eq!(caller.destroy(own.out_viommu_id), Err(Errno::BUSY), "the copy is there");
    drop(fork);
    assert_eq!(caller.destroy(own.out_viommu_id), Ok(()));
    assert_eq!(caller.fd.mmap(0x1000, 0x2000).map(|_| ()), Err(Errno::NXIO));
    caller.close();
}

#[test]
fn a_bad_data_pointer_leaves_no_viommu() {
    let Fixture { caller, mock, parent, .. } = fixture();
    let before = caller.fd.objects();
    let with = |data_len, data_uptr| {
        let (r#type, dev_id, hwpt_id) = (VIOMMU_TYPE, mock.device, parent);
        let mut own = layout::ViommuAlloc { r#type, dev_id, hwpt_id, data_len, data_uptr, ..Default::default() };
        caller.call(Command::ViommuAlloc, &mut own)
    };
    assert_eq!([with(24, 0), with(4, 8), with(25, 8)], [Err(Errno::FAULT), Err(Errno::INVAL), Err(Errno::INVAL)]);
    assert_eq!((caller.fd.objects(), caller.fd.mmap(0x1000, 0x2000).map(|_| ())), (before, Err(Errno::NXIO)));
    caller.close();
}

fn event(caller: &Caller, fd: i32) -> [u32; 3] {
    let mut bytes = [0; 12];
    assert_eq!(caller.fd.read(fd, &mut bytes), Ok(12));
    [0, 4, 8].map(|at| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn c6_15_to_25_event_queues() {
    let Fixture { caller, ioas, mock, viommu, nested, .. } = fixture();
    assert_eq!([0, 0x80001].map(|depth| caller.veventq(viommu, VEVENTQ_TYPE, depth)), [Err(Errno::INVAL); 2]);
    assert_eq!(caller.veventq(viommu, 0, 2), Err(Errno::OPNOTSUPP));
    let (silent, _) = caller.veventq(viommu, 77, 0x80000).unwrap();
    let (queue, fd) = caller.veventq(viommu, VEVENTQ_TYPE, 2).unwrap();
    assert_ne!(silent, queue);
    assert_eq!(caller.veventq(viommu, VEVENTQ_TYPE, 2), Err(Errno::EXIST));
    assert_eq!([0, 7].map(|length| caller.fd.read(fd, &mut vec![0; length])), [Err(Errno::INVAL); 2]);
    assert_eq!((caller.fd.read(fd, &mut [0; 64]), caller.fd.poll(fd).unwrap().readable), (Ok(0), false));

    let trigger = || caller.test(op::TRIGGER_VEVENT, 0, &[(16, mock.device.into())]).map(|_| ());
    assert_eq!(trigger(), Err(Errno::NOENT), "not attached to the vIOMMU");
    let vdevice = caller.vdevice(viommu, mock.device, 0x99).unwrap();
    caller.replace(mock.stdev, nested).unwrap();
    trigger().unwrap();
    assert!(caller.fd.poll(fd).unwrap().readable && !caller.fd.poll(fd).unwrap().writable);
    assert_eq!([0, 8].map(|length| caller.fd.read(fd, &mut vec![0; length])), [Err(Errno::INVAL); 2]);
    assert_eq!(event(&caller, fd), [0, 0, 0x99]);

    assert_eq!(caller.vdevice(viommu, mock.device, 0x88), Err(Errno::EXIST));
    caller.replace(mock.stdev, ioas).unwrap();
    assert_eq!((caller.destroy(vdevice), caller.destroy(nested)), (Ok(()), Ok(())));
    let nested = caller.nested(mock.device, viommu, 0, 0).unwrap();
    let vdevice = caller.vdevice(viommu, mock.device, 0x88).unwrap();
    caller.replace(mock.stdev, nested).unwrap();
    for _ in 0..3 {
        trigger().unwrap();
    }
    assert_eq!([event(&caller, fd), event(&caller, fd)], [[0, 1, 0x88], [0, 2, 0x88]]);
    let mut lost = [0; 64];
    assert_eq!(caller.fd.read(fd, &mut lost), Ok(8));
    assert_eq!((lost[0], lost[4]), (1, 3));
    trigger().unwrap();
    assert_eq!(event(&caller, fd), [0, 4, 0x88]);

    assert_eq!(caller.fd.write(fd, &[0; 8]), Err(Errno::INVAL));
    assert_eq!(caller.destroy(queue), Err(Errno::BUSY));
    caller.fd.close(fd).unwrap();
    assert_eq!(caller.fd.read(fd, &mut lost), Err(Errno::BADF));
    caller.replace(mock.stdev, ioas).unwrap();
    assert_eq!((caller.destroy(vdevice), caller.destroy(queue)), (Ok(()), Ok(())));
    caller.close();
}

#[test]
fn c6_26_and_27_a_device_that_leaves_takes_its_vdevice_along() {
    let Fixture { caller, mock, ioas, viommu, .. } = fixture();
    assert_eq!(caller.vdevice(99, mock.device, 0), Err(Errno::NOENT));
    assert_eq!(caller.vdevice(viommu, viommu, 0), Err(Errno::NOENT));
    let second = caller.mock(ioas, 0).unwrap();
    let vdevice = caller.vdevice(viommu, mock.device, 0).unwrap();
    assert_eq!(caller.vdevice(viommu, second.device, 0), Err(Errno::EXIST), "0 is a name as good as any");
    assert_eq!(caller.destroy(mock.stdev), Ok(()));
    assert_eq!(caller.destroy(vdevice), Err(Errno::NOENT));
    caller.vdevice(viommu, second.device, 0).unwrap();
    let ids: Vec<u32> = (0..20).map(|_| caller.ioas()).collect();
    assert!(!ids.contains(&vdevice) && ids.contains(&mock.device), "{ids:?}");
    caller.close();
}

#[test]
fn c6_28_to_34_invalidation_of_device_caches() {
    let Fixture { caller, mock, viommu, .. } = fixture();
    caller.vdevice(viommu, mock.device, 0x99).unwrap();
    let entry = |flags, vdev_id, cache_id| ViommuInvalidateSelftest { flags, vdev_id, cache_id };
    let run = |entries: &[ViommuInvalidateSelftest]| caller.invalidate(viommu, VIOMMU_INVALIDATE_DATA, entries, 12);
    let refused = (Err(Errno::INVAL), 0);
    assert_eq!(run(&[]), (Ok(()), 0));
    let zeros = [entry(0, 0, 0); 2];
    assert_eq!(caller.invalidate(viommu, 7, &zeros[..1], 12), refused);
    for length in [13, 1, 0] {
        assert_eq!(caller.invalidate(viommu, VIOMMU_INVALIDATE_DATA, &zeros[..1], length), refused, "{length}");
    }
    assert_eq!(caller.invalidate_at(viommu, VIOMMU_INVALIDATE_DATA, 0, 12, 1), refused);
    assert_eq!(caller.invalidate_at(viommu, VIOMMU_INVALIDATE_DATA, 16, 12, 1), (Err(Errno::FAULT), 0));
    let tail = [entry(0, 0x99, 0), entry(1, 0, 0)];
    assert_eq!(caller.invalidate_at(viommu, VIOMMU_INVALIDATE_DATA, address(&tail), 13, 1), (Err(Errno::TOOBIG), 0));
    assert_eq!(run(&[entry(u32::MAX, 0x99, 9)]), (Err(Errno::OPNOTSUPP), 0));
    assert_eq!([run(&[entry(0, 0x99, 4)]), run(&[entry(INVALIDATE_ALL, 0x99, 4)])], [refused; 2]);
    assert_eq!(run(&[entry(0, 0x9, 0)]), refused);
    caller.cache(mock.device, [0xba_ddad; 4]);
    assert_eq!(run(&[entry(0, 0x99, 0), entry(u32::MAX, 0x99, 1)]), (Err(Errno::OPNOTSUPP), 1));
    assert_eq!(run(&[entry(0, 0x99, 0), entry(0, 0x99, 4)]), (Err(Errno::INVAL), 1));
    caller.cache(mock.device, [0, 0xba_ddad, 0xba_ddad, 0xba_ddad]);
    assert_eq!([run(&[entry(0, 0x99, 1)]), run(&[entry(0, 0x99, 2); 2])], [(Ok(()), 1), (Ok(()), 2)]);
    caller.cache(mock.device, [0, 0, 0, 0xba_ddad]);
    assert_eq!(run(&[entry(INVALIDATE_ALL, 0x99, 0)]), (Ok(()), 1));
    caller.cache(mock.device, [0; 4]);
}

#[test]
fn entry_num_is_left_as_it_came_when_there_is_no_memory_for_the_commands() {
    let Fixture { caller, mock, viommu, .. } = fixture();
    caller.vdevice(viommu, mock.device, 0x99).unwrap();
    let entries = [ViommuInvalidateSelftest { flags: 0, vdev_id: 0x99, cache_id: 0 }; 5];
    // The first thing that can fail is the lookup, the second the buffer.
    caller.fd.fail_nth(2);
    assert_eq!(caller.invalidate(viommu, VIOMMU_INVALIDATE_DATA, &entries, 12), (Err(Errno::NOMEM), 5));
    caller.cache(mock.device, [0xba_ddad; 4]);
}
