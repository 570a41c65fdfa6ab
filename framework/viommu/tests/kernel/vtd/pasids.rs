//! PASIDs of a device, attached one by one by the VFIO device's ioctls: each has a table of its own.

use super::unit::{Dma, Unit};
use super::{P0, P1, VA};
use crate::guest::{RAM, RAM_SIZE};
use crate::rig::{FIRST_STREAM, Rig};
use std::sync::Arc;
use viommu::backend::kernel::{
    Calls, HwptRequest, Iommufd, KernelOptions, MapRequest, Owned, SoftwareDevice, SoftwareIommufd, VfioDevice,
};
use viommu::backend::{ObjectKind, Objects};
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

#[test]
fn a_vmm_attaches_pasids_beside_what_the_guest_says_of_the_device() {
    let memory = crate::guest::memory();
    let unit = Unit::new(&memory);
    let pasids = |options| KernelOptions { pasids: true, ..options };
    let rig = Rig::new(super::plugin, &memory, vec![unit.device(FIRST_STREAM)], pasids);
    let guest = super::translating(&rig);
    guest.map(1, VA, Some(P1));
    let parent = rig.backend.live().into_iter().find(|(_, kind)| *kind == ObjectKind::NestParent).unwrap().0;
    let on = rig.backend.kernel_id(parent).unwrap();
    let device = rig.backend.vfio_device(FIRST_STREAM).unwrap();
    assert_eq!(rig.backend.vfio_device(9).unwrap_err().errno(), 2);
    let data = HwptVtdS1 { flags: 0, pgtbl_addr: guest.tables(1), addr_width: 48, __reserved: 0 };
    let request = HwptRequest {
        flags: HWPT_ALLOC_PASID,
        device: device.id(),
        on,
        data_type: HWPT_DATA_VTD_S1,
        data: data.as_bytes(),
        ..HwptRequest::default()
    };
    let iommufd = rig.backend.iommufd();
    let hwpt = Owned::new(iommufd, iommufd.hwpt_alloc(request).unwrap());
    device.attach(hwpt.id(), Some(5)).unwrap();
    let seen = |pasid| unit.dma(FIRST_STREAM, pasid, VA);
    assert_eq!([0, 5].map(seen), [Dma::At(P0), Dma::At(P1)]);
    // Not translated any more, blocked, translated: the PASID's affair it is not.
    for (entry, at) in [([1 | 2 << 2 | 4 << 6, 7, 0], Dma::At(VA)), ([0; 3], Dma::Blocked)] {
        guest.entry(0, entry);
        assert!(guest.announce(0, 1));
        assert_eq!([0, 5].map(seen), [at, Dma::At(P1)]);
    }
    guest.translated(0, 0, 1);
    assert!(guest.announce(0, 1));
    assert_eq!([0, 5].map(seen), [Dma::At(P0), Dma::At(P1)]);
    device.detach(Some(5)).unwrap();
    assert_eq!([0, 5].map(seen), [Dma::At(P0), Dma::Blocked]);
    drop((hwpt, device, guest));
    rig.down();
}
