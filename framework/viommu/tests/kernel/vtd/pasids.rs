//! PASIDs of a device, attached one by one by the VFIO device's ioctls: each has a table of its own.

use super::unit::{Dma, Unit};
use super::{P0, P1, VA};
use crate::guest::{RAM, RAM_SIZE};
use crate::rig::FIRST_STREAM;
use std::sync::Arc;
use viommu::backend::kernel::{
    Calls, HwptRequest, Iommufd, MapRequest, Owned, SoftwareDevice, SoftwareIommufd, VfioDevice,
};
use viommu::uapi::dispatcher::{Dispatcher, Options};
use viommu::uapi::flags::{HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_VTD_S1};
use viommu::uapi::payload::HwptVtdS1;
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend};
use zerocopy::IntoBytes;

/// Levels 4 to 1 of two tables.
const TABLES: [u64; 2] = [RAM + 0x4_0000, RAM + 0x5_0000];

#[test]
fn each_pasid_goes_where_it_is_attached() {
    let memory = crate::guest::memory();
    let unit = Unit::new(&memory);
    for (table, page) in TABLES.into_iter().zip([P0, P1]) {
        for level in 0..3 {
            crate::rig::put(&memory, table + 0x1000 * level, &[(table + 0x1000 * (level + 1)) | 0x27]);
        }
        crate::rig::put(&memory, table + 0x3000 + 8 * (VA >> 12), &[page | 0x67]);
    }
    let dispatcher = Dispatcher::new(Options::default());
    let calls: Arc<dyn Calls> = Arc::new(SoftwareIommufd::new(dispatcher.clone()));
    calls.lend(memory.clone());
    let iommufd = Iommufd::new(calls.clone());
    let file = Arc::new(SoftwareDevice(dispatcher.device(unit.device(FIRST_STREAM))));
    let device = VfioDevice::bind(file, &calls, None).unwrap();
    assert_eq!(iommufd.hardware_info(device.id(), None).unwrap().max_pasid_log2, 20);

    let ioas = Owned::new(&iommufd, iommufd.ioas_alloc().unwrap());
    let address = memory.find_region(GuestAddress(RAM)).unwrap().as_ptr() as u64;
    let map = MapRequest { ioas: ioas.id(), iova: Some(RAM), length: RAM_SIZE, readable: true, writable: true };
    iommufd.ioas_map(map, address).unwrap();
    let hwpt = |flags, on, root: Option<u64>| {
        let data = HwptVtdS1 { flags: 0, pgtbl_addr: root.unwrap_or(0), addr_width: 48, __reserved: 0 };
        let nested = root.is_some();
        let request = HwptRequest {
            flags,
            device: device.id(),
            on,
            data_type: if nested { HWPT_DATA_VTD_S1 } else { 0 },
            data: if nested { data.as_bytes() } else { &[] },
            ..HwptRequest::default()
        };
        Owned::new(&iommufd, iommufd.hwpt_alloc(request).unwrap())
    };
    let parent = hwpt(HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID, ioas.id(), None);
    let plain = hwpt(0, ioas.id(), None);
    let mut nested = TABLES.map(|root| hwpt(HWPT_ALLOC_PASID, parent.id(), Some(root)));
    let seen = |pasid| unit.dma(FIRST_STREAM, pasid, VA);

    assert_eq!(device.attach(parent.id(), None).unwrap(), parent.id());
    assert_eq!([0, 5].map(seen), [Dma::At(VA), Dma::Blocked]);
    device.attach(nested[0].id(), Some(5)).unwrap();
    device.attach(nested[1].id(), Some(6)).unwrap();
    assert_eq!([0, 5, 6].map(seen), [Dma::At(VA), Dma::At(P0), Dma::At(P1)]);
    // Attaching again replaces, without a moment in between.
    device.attach(nested[1].id(), Some(5)).unwrap();
    assert_eq!([5, 6].map(seen), [Dma::At(P1); 2]);

    // Invalidated through the HWPT that a PASID goes through.
    crate::rig::put(&memory, TABLES[1] + 0x3000 + 8 * (VA >> 12), &[P0 | 0x67]);
    assert_eq!([5, 6].map(seen), [Dma::At(P1); 2], "stale");
    let mut all = [[0u64, u64::MAX, 0].map(u64::to_ne_bytes).concat()].concat();
    iommufd.invalidate(nested[1].id(), 0, 24, &mut all).result.unwrap();
    assert_eq!([5, 6].map(seen), [Dma::At(P0); 2]);

    // What cannot be, and what is said of it.
    let errors = [
        (device.attach(plain.id(), Some(7)).unwrap_err(), 22, "PASID 7"),
        (device.attach(ioas.id(), Some(5)).unwrap_err(), 22, "PASID 5"),
        (device.attach(plain.id(), None).unwrap_err(), 22, "VFIO_DEVICE_ATTACH_IOMMUFD_PT"),
        (device.attach(nested[0].id(), Some(1 << 20)).unwrap_err(), 22, "PASID 1048576"),
        (device.attach(99, Some(5)).unwrap_err(), 2, "to 99"),
        (nested[1].destroy().unwrap_err(), 16, "DESTROY"),
    ];
    for (error, errno, text) in errors {
        assert_eq!(error.errno(), errno, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!([0, 5, 6].map(seen), [Dma::At(VA), Dma::At(P0), Dma::At(P0)], "nothing has changed");

    device.detach(Some(5)).unwrap();
    device.detach(Some(5)).unwrap();
    assert_eq!([0, 5, 6].map(seen), [Dma::At(VA), Dma::Blocked, Dma::At(P0)]);
    // Closing the device takes its PASIDs along.
    drop(device);
    assert_eq!([0, 5, 6].map(seen), [Dma::Blocked; 3]);
    nested[1].destroy().unwrap();
}
