//! C2, C3, C4, C5: HWPTs, nesting on a parent, its invalidation, hardware information.

use crate::caller::{Caller, Mock, address};
use viommu::uapi::{
    Command, Errno,
    flags::{self, HWPT_ALLOC_NEST_PARENT, HWPT_FAULT_ID_VALID},
    layout,
    payload::HwptPgfault,
    selftest::{self, HWPT_INVALIDATE_DATA, HwptInvalidateSelftest, INVALIDATE_ALL, op},
};
use zerocopy::{FromBytes, IntoBytes};

fn fixture() -> (Caller, u32, Mock) {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    (caller, ioas, mock)
}

#[test]
fn c2_hwpts_are_attached_replaced_and_busy() {
    let (caller, ioas, mock) = fixture();
    assert_eq!(caller.destroy(ioas), Err(Errno::BUSY));
    assert_eq!(caller.destroy(mock.device), Err(Errno::BUSY), "a device goes with whoever bound it");
    assert_eq!(caller.hwpt(mock.device, ioas, !HWPT_ALLOC_NEST_PARENT), Err(Errno::OPNOTSUPP));
    let hwpt = caller.hwpt(mock.device, ioas, 0).unwrap();
    assert_eq!(caller.replace(mock.stdev, hwpt), Ok(hwpt));
    assert_eq!(caller.destroy(mock.hwpt), Err(Errno::NOENT), "the automatic one went with its last device");
    assert_eq!(caller.destroy(hwpt), Err(Errno::BUSY));
    let other = caller.ioas();
    let automatic = caller.replace(mock.stdev, other).unwrap();
    assert_eq!((caller.destroy(hwpt), caller.destroy(ioas)), (Ok(()), Ok(())));
    assert_eq!(caller.mock(automatic, 0).unwrap().hwpt, automatic, "an HWPT can be attached to as well");
    caller.close();
}

#[test]
fn c2_ids_are_given_lowest_first_as_the_kernel_gives_them() {
    let (caller, ioas, mock) = fixture();
    assert_eq!((ioas, mock.stdev, mock.device, mock.hwpt), (1, 2, 3, 4));
    let second = caller.mock(ioas, 0).unwrap();
    assert_eq!((second.stdev, second.device, second.hwpt), (5, 6, 4), "automatic HWPTs are shared");
    assert_eq!(caller.destroy(mock.stdev), Ok(()));
    assert_eq!(caller.ioas(), 2);
}

#[test]
fn c3_allocation_of_nested_hwpts() {
    let (caller, ioas, mock) = fixture();
    let device = mock.device;
    assert_eq!(caller.hwpt(ioas, ioas, 0), Err(Errno::NOENT));
    assert_eq!(caller.hwpt(device, device, 0), Err(Errno::INVAL));
    assert_eq!(caller.hwpt(device, 0, 0), Err(Errno::INVAL));
    assert_eq!(caller.hwpt(device, ioas, HWPT_ALLOC_NEST_PARENT | HWPT_FAULT_ID_VALID), Err(Errno::OPNOTSUPP));
    let plain = caller.hwpt(device, ioas, 0).unwrap();
    let parent = caller.hwpt(device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let with = |data_type, data_len, data_uptr, flags| {
        let own = layout::HwptAlloc {
            dev_id: device,
            pt_id: parent,
            flags,
            data_type,
            data_len,
            data_uptr,
            ..Default::default()
        };
        caller.hwpt_with(own)
    };
    let payload = selftest::HwptSelftest::default();
    let at = address(&payload);
    assert_eq!(with(flags::HWPT_DATA_NONE, 8, at, 0), Err(Errno::INVAL));
    assert_eq!(with(selftest::HWPT_DATA, 0, at, 0), Err(Errno::INVAL));
    assert_eq!(with(u32::MAX, 8, at, 0), Err(Errno::OPNOTSUPP));
    assert_eq!(with(selftest::HWPT_DATA, 3, at, 0), Err(Errno::INVAL));
    assert_eq!(with(selftest::HWPT_DATA, 9, at, 0), Err(Errno::INVAL), "never E2BIG");
    assert_eq!(with(selftest::HWPT_DATA, 8, 0, 0), Err(Errno::FAULT));
    assert_eq!(with(selftest::HWPT_DATA, 8, at, HWPT_ALLOC_NEST_PARENT), Err(Errno::OPNOTSUPP));
    assert_eq!(caller.hwpt(device, parent, 0), Err(Errno::OPNOTSUPP), "no payload");
    assert_eq!(caller.nested(device, plain, 0, 0), Err(Errno::INVAL));
    assert_eq!(caller.nested(device, mock.hwpt, 0, 0), Err(Errno::INVAL), "an automatic one is no parent");
    let nested = [0; 2].map(|_| caller.nested(device, parent, 0, 0).unwrap());
    assert_eq!(caller.nested(device, nested[0], 0, 0), Err(Errno::INVAL));
    assert_eq!(caller.destroy(parent), Err(Errno::BUSY));
    let before = caller.fd.objects();
    assert_eq!(caller.nested(device, parent, HWPT_FAULT_ID_VALID, u32::MAX), Err(Errno::NOENT));
    assert_eq!(caller.fd.objects(), before);
    caller.iotlb(nested[0], [0xbad_beef; 4]);
    caller.close();
}

#[test]
fn c3_16_to_19_attaching_nested_hwpts_and_page_requests() {
    let (caller, ioas, mock) = fixture();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let nested = [0; 2].map(|_| caller.nested(mock.device, parent, 0, 0).unwrap());
    let (fault, fd) = caller.fault_queue();
    let faulting = caller.nested(mock.device, parent, HWPT_FAULT_ID_VALID, fault).unwrap();
    assert_eq!(caller.replace(mock.stdev, nested[0]), Ok(nested[0]));
    assert_eq!(caller.destroy(nested[0]), Err(Errno::BUSY));
    assert_eq!(caller.replace(mock.stdev, nested[1]), Ok(nested[1]));
    assert_eq!((caller.destroy(nested[0]), caller.destroy(nested[1])), (Ok(()), Err(Errno::BUSY)));

    assert_eq!(caller.replace(mock.stdev, faulting), Ok(faulting));
    let trigger =
        || caller.test(op::TRIGGER_IOPF, 0, &[(16, mock.device.into()), (24, 7), (28, 1), (132, 0xdead_0000)]);
    trigger().unwrap();
    let mut bytes = [0; 80];
    assert_eq!(caller.fd.read(fd, &mut bytes), Ok(40));
    let request = HwptPgfault::read_from_bytes(&bytes[..40]).unwrap();
    assert_eq!((request.dev_id, request.grpid, request.addr, request.cookie), (mock.device, 7, 0xdead_0000, 1));
    assert_eq!(request.flags, flags::PGFAULT_FLAGS_LAST_PAGE);
    let answer = |cookie: u32, code: u32| caller.fd.write(fd, [cookie, code].as_bytes());
    assert_eq!(
        [answer(2, 0), answer(1, 2), answer(1, 0), answer(1, 0)],
        [Err(Errno::INVAL), Err(Errno::INVAL), Ok(8), Err(Errno::INVAL)]
    );
    assert_eq!(caller.fd.page_answers().iter().map(|told| told.code).collect::<Vec<_>>(), [0]);

    trigger().unwrap();
    assert_eq!(caller.fd.read(fd, &mut bytes), Ok(40));
    trigger().unwrap();
    caller.replace(mock.stdev, parent).unwrap();
    assert_eq!(caller.fd.page_answers().iter().map(|told| told.code).collect::<Vec<_>>(), [1, 1], "told by the kernel");
    assert_eq!((answer(1, 0), caller.fd.read(fd, &mut bytes)), (Err(Errno::INVAL), Ok(0)));

    assert_eq!(caller.destroy(fault), Err(Errno::BUSY));
    assert_eq!((caller.destroy(nested[1]), caller.destroy(faulting)), (Ok(()), Ok(())));
    caller.replace(mock.stdev, ioas).unwrap();
    assert_eq!(caller.destroy(parent), Ok(()));
    assert_eq!(caller.destroy(fault), Err(Errno::BUSY), "its file is open");
    caller.fd.close(fd).unwrap();
    assert_eq!(caller.destroy(fault), Ok(()));
    caller.close();
}

#[test]
fn c4_invalidation_of_a_nested_hwpt() {
    let (caller, ioas, mock) = fixture();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let [nested, other] = [0; 2].map(|_| caller.nested(mock.device, parent, 0, 0).unwrap());
    let entry = |flags, iotlb_id| HwptInvalidateSelftest { flags, iotlb_id };
    let run = |entries: &[HwptInvalidateSelftest]| caller.invalidate(nested, HWPT_INVALIDATE_DATA, entries, 8);
    let refused = (Err(Errno::INVAL), 0);
    let ok = [entry(0, 0); 2];
    let at = address(&ok);
    assert_eq!(run(&[]), (Ok(()), 0));
    assert_eq!(caller.invalidate(nested, 0xda_dbeef, &ok[..1], 8), refused);
    assert_eq!(caller.invalidate(nested, 0xda_dbeef, &ok[..0], 8), refused);
    for length in [9, 1, 0, 4097] {
        assert_eq!(caller.invalidate(nested, HWPT_INVALIDATE_DATA, &ok[..1], length), refused, "{length}");
    }
    assert_eq!(caller.invalidate_at(nested, HWPT_INVALIDATE_DATA, at, 8, 0x80001), refused);
    assert_eq!(caller.invalidate_at(nested, HWPT_INVALIDATE_DATA, 0, 8, 1), refused);
    assert_eq!(caller.invalidate_at(parent, HWPT_INVALIDATE_DATA, at, 8, 1), refused);
    assert_eq!(caller.invalidate_at(99, HWPT_INVALIDATE_DATA, at, 8, 1), (Err(Errno::NOENT), 0));
    assert_eq!(run(&[entry(u32::MAX, 0)]), (Err(Errno::OPNOTSUPP), 0));
    assert_eq!(run(&[entry(0, 4)]), refused);
    caller.iotlb(nested, [0xbad_beef; 4]);
    assert_eq!(run(&[entry(0, 0), entry(u32::MAX, 1)]), (Err(Errno::OPNOTSUPP), 1));
    caller.iotlb(nested, [0, 0xbad_beef, 0xbad_beef, 0xbad_beef]);
    assert_eq!(run(&[entry(0, 0), entry(0, 4)]), (Err(Errno::INVAL), 1));
    assert_eq!(run(&[entry(0, 1)]), (Ok(()), 1));
    caller.iotlb(nested, [0, 0, 0xbad_beef, 0xbad_beef]);
    assert_eq!(run(&[entry(0, 2), entry(0, 3)]), (Ok(()), 2));
    caller.iotlb(nested, [0; 4]);
    caller.iotlb(other, [0xbad_beef; 4]);
    assert_eq!(caller.invalidate(other, HWPT_INVALIDATE_DATA, &[entry(INVALIDATE_ALL, 0)], 8), (Ok(()), 1));
    caller.iotlb(other, [0; 4]);
}

#[test]
fn c5_hardware_information() {
    let (caller, ioas, mock) = fixture();
    let pasid = caller.mock(ioas, selftest::DEVICE_PASID).unwrap();
    let mut room = [0xaau8; 16];
    let data_uptr = room.as_mut_ptr() as u64;
    let info = |dev_id, data_len, data_type| {
        let flags = u32::from(data_type != 0);
        let mut own = layout::HwInfo { flags, dev_id, data_len, data_uptr, data_type, ..Default::default() };
        caller.call(Command::GetHwInfo, &mut own).map(|()| own)
    };
    let none = info(mock.device, 0, 0).unwrap();
    assert_eq!((none.data_len, none.data_type, none.out_max_pasid_log2), (8, selftest::HW_INFO_TYPE, 0));
    assert_eq!(none.out_capabilities, flags::HW_CAP_DIRTY_TRACKING | flags::HW_CAP_PCI_ATS_NOT_SUPPORTED);
    assert_eq!(room, [0xaa; 16]);
    info(mock.device, 4, 0).unwrap();
    assert_eq!(room, [&[0; 4][..], &[0xaa; 12]].concat()[..]);
    info(mock.device, 16, 0).unwrap();
    assert_eq!(room, [&[0; 4][..], &0xdead_beefu32.to_ne_bytes(), &[0; 8]].concat()[..]);
    assert_eq!(info(mock.device, 8, 2).map(|_| ()), Err(Errno::OPNOTSUPP));
    assert_eq!(info(mock.device, 8, selftest::HW_INFO_TYPE).unwrap().data_len, 8);
    assert_eq!(info(pasid.device, 0, 0).unwrap().out_max_pasid_log2, 20);
    assert_eq!(info(99, 0, 0).map(|_| ()), Err(Errno::NOENT));
}
