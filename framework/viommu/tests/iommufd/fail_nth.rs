//! C9: every internal allocation and lookup fails once, and nothing is left.

use crate::caller::{Caller, Pages};
use viommu::uapi::{
    Command, Errno,
    flags::{HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_FAULT_ID_VALID},
    layout,
    selftest::{APERTURE_START, DEVICE_PASID, HW_QUEUE_TYPE, VEVENTQ_TYPE, VIOMMU_TYPE, op},
};

/// The kernel's "device" sequence.
fn device(caller: &Caller, memory: &Pages) -> Result<(), Errno> {
    let [ioas, second] = [caller.try_ioas()?, caller.try_ioas()?];
    caller.map_fixed(ioas, memory, APERTURE_START)?;
    let mock = caller.mock(ioas, DEVICE_PASID)?;
    caller.call(Command::GetHwInfo, &mut layout::HwInfo { dev_id: mock.device, ..Default::default() })?;
    let hwpt = caller.hwpt(mock.device, ioas, HWPT_ALLOC_PASID)?;
    caller.replace(mock.stdev, second)?;
    caller.replace(mock.stdev, hwpt)?;
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID)?;
    let viommu = caller.viommu(mock.device, parent, VIOMMU_TYPE)?;
    caller.vdevice(viommu, mock.device, 0)?;
    caller.hw_queue(viommu, HW_QUEUE_TYPE, 0, APERTURE_START, 4096)?;
    let mut fault = layout::FaultAlloc::default();
    caller.call(Command::FaultQueueAlloc, &mut fault)?;
    caller.nested(mock.device, parent, HWPT_FAULT_ID_VALID, fault.out_fault_id)?;
    caller.veventq(viommu, VEVENTQ_TYPE, 2)?;
    let pasid = caller.hwpt(mock.device, ioas, HWPT_ALLOC_PASID)?;
    caller.pasid(op::PASID_ATTACH, mock.stdev, 200, pasid)?;
    caller.pasid(op::PASID_REPLACE, mock.stdev, 200, hwpt)?;
    caller.pasid(op::PASID_DETACH, mock.stdev, 200, 0)
}

/// Mapping, copying and accesses.
fn mapping(caller: &Caller, memory: &Pages) -> Result<(), Errno> {
    let [ioas, second] = [caller.try_ioas()?, caller.try_ioas()?];
    let [first, other] = [caller.mock(ioas, 0)?, caller.mock(second, 0)?];
    caller.map_fixed(ioas, memory, APERTURE_START)?;
    let mut copy = layout::IoasCopy {
        flags: 6,
        dst_ioas_id: second,
        src_ioas_id: ioas,
        length: 4096,
        src_iova: APERTURE_START,
        ..Default::default()
    };
    caller.call(Command::IoasCopy, &mut copy)?;
    let access = caller.test(op::CREATE_ACCESS, ioas, &[(20, 1)])?.u32_at(16);
    caller.test(op::ACCESS_PAGES, access, &[(124, APERTURE_START), (132, 4096)])?;
    caller.replace(first.stdev, second)?;
    caller.test(op::MD_CHECK_MAP, other.hwpt, &[(116, copy.dst_iova), (124, 4096), (132, memory.as_ptr() as u64)])?;
    caller.unmap(ioas, APERTURE_START, 4096).map(|_| ())
}

/// Runs the sequence with each failure, until a run passes untouched. How many failures there were.
fn sweep(sequence: impl Fn(&Caller, &Pages) -> Result<(), Errno>) -> u64 {
    let memory = Pages::new(1);
    for nth in 1.. {
        let caller = Caller::new();
        caller.fd.fail_nth(nth);
        let outcome = sequence(&caller, &memory);
        let failed = caller.fd.failed();
        match outcome {
            Ok(()) if !failed => {
                caller.close();
                return nth - 1;
            }
            Ok(()) => {}
            Err(errno) => {
                assert!(failed, "{nth}: {errno} without a failure");
                assert!([Errno::NOMEM, Errno::NOENT, Errno::INVAL].contains(&errno), "{nth}: {errno}");
            }
        }
        caller.close();
    }
    unreachable!("a sequence has an end")
}

#[test]
fn c9_the_device_sequence() {
    let failures = sweep(device);
    assert!(failures > 60, "only {failures} things could fail");
}

#[test]
fn c9_mapping_copying_and_accesses() {
    let failures = sweep(mapping);
    assert!(failures > 25, "only {failures} things could fail");
}

#[test]
fn a_leak_would_be_seen() {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let parent = caller.hwpt(mock.device, ioas, HWPT_ALLOC_NEST_PARENT).unwrap();
    let mut data = viommu::uapi::selftest::ViommuSelftest::default();
    let mut own = layout::ViommuAlloc {
        r#type: VIOMMU_TYPE,
        dev_id: mock.device,
        hwpt_id: parent,
        data_len: 24,
        data_uptr: std::ptr::from_mut(&mut data) as u64,
        ..Default::default()
    };
    caller.call(Command::ViommuAlloc, &mut own).unwrap();
    let mapping = caller.fd.mmap(0x1000, 0x2000).unwrap();
    let left: Vec<_> = caller.fd.shutdown().left.into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!(left, ["Ioas", "Paging", "Viommu"], "what the mapping keeps");
    drop(mapping);
    caller.close();
}
