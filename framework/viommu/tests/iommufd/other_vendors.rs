//! C11, C13 and AMD: the rules of the other vendors' drivers.

use crate::{
    caller::{Caller, Pages},
    vendor::{Vendor, bind},
};
use std::sync::Arc;
use viommu::uapi::{
    Command, Errno,
    dispatcher::{
        Limits, Options,
        driver::DeviceConfig,
        drivers::{AmdVi, ArmSmmuv3, IntelVtd, Tegra241},
    },
    flags::{
        HW_INFO_TYPE_TEGRA241_CMDQV, HW_QUEUE_TYPE_TEGRA241_CMDQV, HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT,
        HWPT_ALLOC_PASID, HWPT_DATA_AMD_GUEST, HWPT_DATA_VTD_S1, HWPT_INVALIDATE_DATA_VTD_S1, IOAS_MAP_READABLE,
        VIOMMU_TYPE_ARM_SMMUV3, VIOMMU_TYPE_TEGRA241_CMDQV,
    },
    layout,
    payload::{HwptAmdGuest, HwptVtdS1, HwptVtdS1Invalidate, ViommuTegra241Cmdqv},
};

fn tegra_viommu(vendor: &Vendor, data_len: u32) -> Result<(u32, ViommuTegra241Cmdqv), Errno> {
    let mut data = ViommuTegra241Cmdqv::default();
    let mut own = layout::ViommuAlloc {
        r#type: VIOMMU_TYPE_TEGRA241_CMDQV,
        dev_id: vendor.device,
        hwpt_id: vendor.parent,
        data_len,
        data_uptr: std::ptr::from_mut(&mut data) as u64,
        ..Default::default()
    };
    vendor.caller.call(Command::ViommuAlloc, &mut own)?;
    Ok((own.out_viommu_id, std::hint::black_box(data)))
}

fn tegra(contiguous_bytes: u64) -> Vendor {
    // IDR1.CMDQS 8: at most 4096 bytes a queue.
    let arm = ArmSmmuv3::new([0, 8 << 21, 0, 0, 0, 0]);
    let limits = Limits { contiguous_bytes, ..Limits::default() };
    Vendor::new(Tegra241::new(arm, 2), Options { limits, ..Options::default() })
}

#[test]
fn c11_1_2_and_9_virtual_interfaces() {
    let vendor = tegra(4096);
    assert_eq!([0, 8, 24].map(|length| tegra_viommu(&vendor, length).map(|_| ())), [Err(Errno::INVAL); 3]);
    let made: Vec<_> = (0..3).map(|_| tegra_viommu(&vendor, 16).unwrap()).collect();
    assert_eq!(tegra_viommu(&vendor, 16).map(|_| ()), Err(Errno::NOSPC), "four, of which one is the host's");
    vendor.caller.destroy(made[1].0).unwrap();
    let (viommu, data) = tegra_viommu(&vendor, 16).unwrap();
    assert_eq!(data.out_vintf_mmap_length, 0x10000);
    let map = |offset, length| vendor.caller.fd.mmap(offset, length).map(|_| ());
    assert_eq!(
        [map(data.out_vintf_mmap_offset, 4096), map(data.out_vintf_mmap_offset + 4096, 0x10000)],
        [Err(Errno::NXIO); 2]
    );
    let page0 = vendor.caller.fd.mmap(data.out_vintf_mmap_offset, 0x10000).unwrap();
    assert_eq!(vendor.caller.destroy(viommu), Err(Errno::BUSY));
    drop(page0);
    assert!(vendor.caller.viommu(vendor.device, vendor.parent, VIOMMU_TYPE_ARM_SMMUV3).is_ok(), "Arm's are there too");
    let info = |data_type| {
        let mut own = layout::HwInfo { flags: 1, dev_id: vendor.device, data_type, ..Default::default() };
        vendor.caller.call(Command::GetHwInfo, &mut own).map(|()| (own.data_type, own.data_len))
    };
    assert_eq!([info(HW_INFO_TYPE_TEGRA241_CMDQV), info(0)], [Ok((3, 8)), Ok((2, 40))]);
    vendor.close();
}

#[test]
fn c11_3_and_4_streams() {
    let vendor = tegra(4096);
    let (viommu, _) = tegra_viommu(&vendor, 16).unwrap();
    assert_eq!(vendor.caller.vdevice(viommu, vendor.device, 0x10_0000), Err(Errno::INVAL));
    let driver = Arc::new(Tegra241::new(ArmSmmuv3::new([0; 6]), 2));
    let devices: Vec<_> =
        (0..17).map(|stream| bind(&vendor.caller, DeviceConfig::new(driver.clone(), stream))).collect();
    for (vsid, (_, device)) in (0xf_fff0..).zip(&devices[..16]) {
        vendor.caller.vdevice(viommu, *device, vsid).unwrap();
    }
    assert_eq!(vendor.caller.vdevice(viommu, devices[16].1, 1), Err(Errno::NOSPC));
    drop(devices);
    vendor.close();
}

#[test]
fn c11_5_to_8_queues() {
    let vendor = tegra(4096);
    let (viommu, _) = tegra_viommu(&vendor, 16).unwrap();
    let memory = Pages::new(2);
    vendor.caller.map_fixed(vendor.ioas, &memory, 0x1000).unwrap();
    let queue = |index, iova, length| vendor.caller.hw_queue(viommu, HW_QUEUE_TYPE_TEGRA241_CMDQV, index, iova, length);
    assert_eq!(vendor.caller.hw_queue(viommu, 7, 0, 0x1000, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!([queue(2, 0x1000, 4096), queue(1, 0x1000, 4096)], [Err(Errno::INVAL), Err(Errno::IO)]);
    assert_eq!([16, 48, 2049].map(|length| queue(0, 0x1000, length)), [Err(Errno::INVAL); 3]);
    assert_eq!(queue(0, 0x1020, 2048), Err(Errno::INVAL), "not aligned to its length");
    assert_eq!(queue(0, 0x1000, 8192), Err(Errno::FAULT), "separate pages");
    let first = queue(0, 0x1000, 4096).unwrap();
    assert_eq!(queue(0, 0x2000, 4096), Err(Errno::EXIST));
    queue(1, 0x2000, 4096).unwrap();
    assert_eq!(vendor.caller.destroy(first), Err(Errno::BUSY));
    vendor.close();

    let huge = tegra(1 << 40);
    let (viommu, _) = tegra_viommu(&huge, 16).unwrap();
    huge.caller.map_fixed(huge.ioas, &memory, 0x1000).unwrap();
    let too_long = huge.caller.hw_queue(viommu, HW_QUEUE_TYPE_TEGRA241_CMDQV, 0, 0x1000, 8192);
    assert_eq!(too_long, Err(Errno::INVAL), "contiguous, and longer than CMDQS");
    huge.close();
}

/// NEST and SMTS, nothing else.
const ECAP: u64 = 1 << 26 | 1 << 43;

#[test]
fn c13_vtd_nests_on_the_parent_and_looks_late() {
    let vendor = Vendor::new(IntelVtd { cap: 0, ecap: ECAP }, Options::default());
    let nested = |flags, addr_width| {
        let payload = HwptVtdS1 { flags, pgtbl_addr: 0x1000, addr_width, __reserved: 0 };
        vendor.nested(vendor.parent, 0, HWPT_DATA_VTD_S1, &payload)
    };
    for type_ in [1, 2, 99] {
        assert_eq!(vendor.caller.viommu(vendor.device, vendor.parent, type_), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(vendor.nested(vendor.parent, 0, 2, &[0u64; 3]), Err(Errno::OPNOTSUPP));
    assert_eq!(vendor.nested(vendor.parent, 0, HWPT_DATA_VTD_S1, &[0u64; 2]), Err(Errno::INVAL));
    for (flags, width) in [(0, 39), (0, 57), (1, 48), (2, 48)] {
        let hwpt = nested(flags, width).unwrap();
        assert_eq!(vendor.attach(hwpt), Err(Errno::INVAL), "flags {flags}, width {width}");
    }
    let hwpt = nested(0, 48).unwrap();
    assert_eq!(vendor.attach(hwpt), Ok(hwpt));

    let entry = |addr, npages, flags, reserved| HwptVtdS1Invalidate { addr, npages, flags, __reserved: reserved };
    let run = |entries: &[HwptVtdS1Invalidate], length| {
        vendor.caller.invalidate(hwpt, HWPT_INVALIDATE_DATA_VTD_S1, entries, length)
    };
    let good = entry(0x1000, 4, 1, 0);
    assert_eq!(
        [run(&[], 24), run(&[good, entry(0, u64::MAX, 0, 0), entry(0, 0, 0, 0)], 24)],
        [(Ok(()), 0), (Ok(()), 3)]
    );
    assert_eq!(run(&[good, good, entry(0x800, 1, 0, 0)], 24), (Err(Errno::INVAL), 2));
    assert_eq!(run(&[good, entry(0x1000, u64::MAX, 0, 0)], 24), (Err(Errno::INVAL), 1));
    assert_eq!(run(&[good, entry(0x1000, 1, 2, 0)], 24), (Err(Errno::OPNOTSUPP), 1));
    assert_eq!(run(&[entry(0x1000, 1, 0, 1)], 24), (Err(Errno::OPNOTSUPP), 0));
    assert_eq!([23, 25].map(|length| run(&[good, good], length)), [(Err(Errno::INVAL), 0); 2]);
    assert_eq!(vendor.caller.invalidate(hwpt, 1, &[good], 24), (Err(Errno::INVAL), 0));
    vendor.close();
}

#[test]
fn c13_no_read_only_mappings_in_a_nesting_parent() {
    let read_only = |caller: &Caller, ioas_id, memory: &Pages| {
        let (user_va, length) = (memory.as_ptr() as u64, memory.len() as u64);
        let mut own = layout::IoasMap { flags: IOAS_MAP_READABLE, ioas_id, user_va, length, ..Default::default() };
        caller.call(Command::IoasMap, &mut own)
    };
    let vendor = Vendor::new(IntelVtd { cap: 0, ecap: ECAP }, Options::default());
    let memory = Pages::new(1);
    assert_eq!(read_only(&vendor.caller, vendor.ioas, &memory), Err(Errno::INVAL));
    vendor.caller.destroy(vendor.parent).unwrap();
    assert_eq!(read_only(&vendor.caller, vendor.ioas, &memory), Ok(()));
    let parent = vendor.caller.hwpt(vendor.device, vendor.ioas, HWPT_ALLOC_NEST_PARENT);
    assert_eq!(parent, Err(Errno::INVAL));
    assert!(vendor.caller.hwpt(vendor.device, vendor.ioas, 0).is_ok());
    vendor.close();
}

#[test]
fn c12_amd_can_be_asked_and_cannot_nest() {
    let vendor = Vendor::new(AmdVi { efr: 5, efr2: 6, nesting: true }, Options::default());
    let caller = &vendor.caller;
    let guest = HwptAmdGuest::default();
    assert_eq!(vendor.nested(vendor.parent, 0, HWPT_DATA_AMD_GUEST, &guest), Err(Errno::OPNOTSUPP));
    let viommu = caller.viommu(vendor.device, vendor.parent, 77).unwrap();
    assert_eq!(vendor.nested(viommu, 0, HWPT_DATA_AMD_GUEST, &guest), Err(Errno::OPNOTSUPP));
    assert_eq!(caller.invalidate(viommu, 0, &[0u64; 2], 16), (Err(Errno::OPNOTSUPP), 0));
    let paging = |flags| caller.hwpt(vendor.device, vendor.ioas, flags).map(|_| ());
    assert_eq!([paging(HWPT_ALLOC_PASID), paging(HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_DIRTY_TRACKING)], [Ok(()); 2]);
    assert_eq!(
        [HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_DIRTY_TRACKING].map(|flag| paging(HWPT_ALLOC_PASID | flag)),
        [Err(Errno::OPNOTSUPP); 2]
    );
    vendor.close();
}
