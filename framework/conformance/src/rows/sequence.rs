//! The whole sequence of a device's life, and what closing leaves.

use crate::session::{Failed, Paging, Said, Session};
use viommu::uapi::flags::{HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_FAULT_ID_VALID};
use viommu::uapi::layout::{HwInfo, ViommuAlloc};
use viommu::uapi::selftest::{self, DEVICE_PASID};

const PAGE: u64 = 4096;

/// A device with PASIDs from its IOAS to a PASID on a nested HWPT, with every object kind on the way.
pub(super) fn life(s: &Session<'_>) -> Result<(), Failed> {
    let (first, second) = (s.ioas()?, s.ioas()?);
    s.map(first, 0, PAGE, selftest::APERTURE_START)?;
    let device = s.device_of(first, DEVICE_PASID)?;
    s.hw_info(HwInfo { dev_id: device.idev, ..Default::default() }, &mut [])?;
    let hwpt = s.hwpt(device.idev, first, HWPT_ALLOC_PASID)?;
    s.replace(device, second)?;
    s.replace(device, hwpt)?;
    let parent = s.hwpt(device.idev, first, HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID)?;
    let viommu = s.viommu(device.idev, parent)?;
    s.vdevice(viommu, device.idev, 0)?;
    s.hw_queue(viommu, 0, selftest::APERTURE_START, PAGE)?;
    let (fault_id, _) = s.fault_queue()?;
    let flags = HWPT_FAULT_ID_VALID | HWPT_ALLOC_PASID;
    s.nested_of(Paging { dev_id: device.idev, pt_id: parent, flags, fault_id })?;
    s.veventq(viommu, 2)?;
    let other = s.hwpt(device.idev, first, HWPT_ALLOC_PASID)?;
    s.pasid_attach(device, 200, hwpt)?;
    s.pasid_replace(device, 200, other)?;
    s.pasid_detach(device, 200)
}

/// C1.9: what is pinned while everything is there, and after everything is closed.
pub(super) fn everything_then_close(s: &mut Session<'_>) -> Said {
    s.memory().store(0, &[1]);
    life(s)?;
    // A second device attached to a nested HWPT on a vIOMMU with an mmap, an event waiting in its queue.
    let ioas = s.ioas()?;
    let device = s.device(ioas)?;
    let parent = s.hwpt(device.idev, ioas, HWPT_ALLOC_NEST_PARENT)?;
    let (r#type, dev_id, hwpt_id) = (selftest::VIOMMU_TYPE, device.idev, parent);
    let argument = ViommuAlloc { r#type, dev_id, hwpt_id, data_len: 24, ..Default::default() };
    let mut data = [0; 24];
    let viommu = s.viommu_raw(argument, Some(&mut data))?;
    let [.., offset, length] = [0, 8, 16].map(|at| u64::from_ne_bytes(data[at..at + 8].try_into().unwrap_or_default()));
    let mapped = s.iommufd().mmap(offset, length).map_err(|errno| Failed { command: "mmap", errno })?;
    s.vdevice(viommu, device.idev, 9)?;
    s.veventq(viommu, 1)?;
    let nested = s.nested(device.idev, viommu, 0)?;
    s.replace(device, nested)?;
    s.trigger_vevent(device)?;
    s.note_if(s.pins(1).is_ok(), "1 pin", "not 1 pin");
    drop(mapped);
    s.reopen()?;
    s.note_if(s.pins(0).is_ok(), "0 pins", "pins are left");
    Ok(())
}

/// C6.14: everything of a vIOMMU is closed at once.
pub(super) fn close_and_reopen(s: &mut Session<'_>) -> Said {
    let super::viommu::Nesting { at, viommu, nested } = super::viommu::nesting(s)?;
    s.vdevice(viommu, at.device.idev, 0x99)?;
    s.veventq(viommu, 4)?;
    s.replace(at.device, nested)?;
    s.trigger_vevent(at.device)?;
    s.reopen()?;
    let first = s.ioas()?;
    s.note(first.to_string());
    Ok(())
}
