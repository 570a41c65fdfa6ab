//! C6, first part: vIOMMUs, their nested HWPTs, their mmap.

use super::nested::{Parent, parent};
use crate::row::Row;
use crate::session::{Failed, Paging, Session};
use viommu::uapi::flags::HWPT_FAULT_ID_VALID;
use viommu::uapi::layout::ViommuAlloc;
use viommu::uapi::selftest::{self, ViommuSelftest};
use zerocopy::{FromBytes, IntoBytes};

/// A device, a nesting parent, a vIOMMU and a nested HWPT on it.
pub(super) struct Nesting {
    pub(super) at: Parent,
    pub(super) viommu: u32,
    pub(super) nested: u32,
}

pub(super) fn nesting(s: &Session<'_>) -> Result<Nesting, Failed> {
    let at = parent(s)?;
    let viommu = s.viommu(at.device.idev, at.parent)?;
    let nested = s.nested(at.device.idev, viommu, 0)?;
    Ok(Nesting { at, viommu, nested })
}

/// A vIOMMU made with data: its ID and the data that came back.
fn with_data(s: &Session<'_>, in_data: u32) -> Result<(Parent, u32, ViommuSelftest), Failed> {
    let at = parent(s)?;
    let mut data = ViommuSelftest { in_data, ..Default::default() };
    let argument = ViommuAlloc {
        r#type: selftest::VIOMMU_TYPE,
        dev_id: at.device.idev,
        hwpt_id: at.parent,
        data_len: 24,
        ..Default::default()
    };
    let mut bytes = data.as_bytes().to_vec();
    let viommu = s.viommu_raw(argument, Some(&mut bytes))?;
    data = ViommuSelftest::read_from_bytes(&bytes).unwrap_or_default();
    Ok((at, viommu, data))
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C6.1",
        stimulus: "VIOMMU_ALLOC on HWPT 0; on the IOAS; on a nested HWPT",
        expected: "ENOENT; ENOENT; ENOENT",
        run: |s| {
            let Nesting { at, nested, .. } = nesting(s)?;
            for hwpt in [0, at.ioas, nested] {
                s.see(s.viommu(at.device.idev, hwpt));
            }
            Ok(())
        },
    },
    Row {
        id: "C6.2",
        stimulus: "VIOMMU_ALLOC on an HWPT that is no nesting parent; on an automatic one",
        expected: "EINVAL; EINVAL",
        run: |s| {
            let at = parent(s)?;
            let plain = s.hwpt(at.device.idev, at.ioas, 0)?;
            s.see(s.viommu(at.device.idev, plain));
            s.see(s.viommu(at.device.idev, at.device.hwpt));
            Ok(())
        },
    },
    Row {
        id: "C6.3",
        stimulus: "VIOMMU_ALLOC of type 0xdead; of type 0; with a flag",
        expected: "EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let at = parent(s)?;
            let (dev_id, hwpt_id) = (at.device.idev, at.parent);
            for (r#type, flags) in [(0xdead, 0), (0, 0), (selftest::VIOMMU_TYPE, 1)] {
                s.see(s.viommu_raw(ViommuAlloc { r#type, flags, dev_id, hwpt_id, ..Default::default() }, None));
            }
            Ok(())
        },
    },
    Row {
        id: "C6.4",
        stimulus: "a nested HWPT on the vIOMMU: destroy the parent, the vIOMMU; then the nested, the vIOMMU, the parent",
        expected: "EBUSY; EBUSY; ok; ok; ok",
        run: |s| {
            let Nesting { at, viommu, nested } = nesting(s)?;
            for id in [at.parent, viommu, nested, viommu, at.parent] {
                s.see(s.destroy(id));
            }
            Ok(())
        },
    },
    Row {
        id: "C6.5",
        stimulus: "VIOMMU_ALLOC without a device; for an IOAS",
        expected: "ENOENT; ENOENT",
        run: |s| {
            let at = parent(s)?;
            s.see(s.viommu(0, at.parent));
            s.see(s.viommu(at.ioas, at.parent));
            Ok(())
        },
    },
    Row {
        id: "C6.6",
        stimulus: "nested on the vIOMMU with a fault queue that there is not",
        expected: "ENOENT",
        run: |s| {
            let Nesting { at, viommu, .. } = nesting(s)?;
            let (dev_id, pt_id, flags) = (at.device.idev, viommu, HWPT_FAULT_ID_VALID);
            s.see(s.nested_of(Paging { dev_id, pt_id, flags, fault_id: u32::MAX }));
            Ok(())
        },
    },
    Row {
        id: "C6.7",
        stimulus: "nested on the vIOMMU with FAULT_ID_VALID and bit 31; with NEST_PARENT; without data",
        expected: "EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let Nesting { at, viommu, .. } = nesting(s)?;
            let (fault_id, _) = s.fault_queue()?;
            let (dev_id, pt_id) = (at.device.idev, viommu);
            s.see(s.nested_of(Paging { dev_id, pt_id, flags: HWPT_FAULT_ID_VALID | 1 << 31, fault_id }));
            s.see(s.nested(dev_id, pt_id, 1));
            s.see(s.hwpt(dev_id, pt_id, 0));
            Ok(())
        },
    },
    Row {
        id: "C6.8",
        stimulus: "attach to a nested on the vIOMMU before VDEVICE_ALLOC; the old HWPT is still attached",
        expected: "ENOENT; EBUSY",
        run: |s| {
            let Nesting { at, nested, .. } = nesting(s)?;
            s.see(s.replace(at.device, nested));
            s.see(s.destroy(at.device.hwpt));
            Ok(())
        },
    },
    Row {
        id: "C6.9",
        stimulus: "VDEVICE_ALLOC; attach; destroy the nested; replace to one with a fault queue; a page request",
        expected: "ok; ok; EBUSY; ok; ok; fault LAST_PAGE pasid 0 grpid 7 perm 3 addr 0xdeadb000; response 8 bytes",
        run: |s| {
            let Nesting { at, viommu, nested } = nesting(s)?;
            s.see(s.vdevice(viommu, at.device.idev, 0x99));
            s.see(s.replace(at.device, nested));
            s.see(s.destroy(nested));
            let (fault_id, file) = s.fault_queue()?;
            let (dev_id, pt_id, flags) = (at.device.idev, viommu, HWPT_FAULT_ID_VALID);
            let with_faults = s.nested_of(Paging { dev_id, pt_id, flags, fault_id })?;
            s.see(s.replace(at.device, with_faults));
            s.see(s.trigger_iopf(at.device, 0));
            s.see_fault(file);
            Ok(())
        },
    },
    Row {
        id: "C6.10",
        stimulus: "VIOMMU_ALLOC with data: out_data; length; with data shorter than that; a bad pointer",
        expected: "in_data, 8192 bytes; EINVAL; EFAULT",
        run: |s| {
            let (at, _, data) = with_data(s, 0x1234_5678)?;
            let out = if data.out_data == data.in_data { "in_data" } else { "something else" };
            s.note(format!("{out}, {} bytes", data.out_mmap_length));
            let argument = ViommuAlloc {
                r#type: selftest::VIOMMU_TYPE,
                dev_id: at.device.idev,
                hwpt_id: at.parent,
                ..Default::default()
            };
            s.see(s.viommu_raw(ViommuAlloc { data_len: 4, ..argument }, Some(&mut [0; 24])));
            s.see(s.viommu_raw(ViommuAlloc { data_len: 24, ..argument }, None));
            Ok(())
        },
    },
    Row {
        id: "C6.11",
        stimulus: "mmap at offset + 1 page; + 2 pages; half the length; double; at offset 0",
        expected: "ENXIO; ENXIO; ENXIO; ENXIO; ENXIO",
        run: |s| {
            let (_, _, data) = with_data(s, 1)?;
            let (offset, length) = (data.out_mmap_offset, data.out_mmap_length);
            let shapes = [
                (offset + 4096, length),
                (offset + 8192, length),
                (offset, length / 2),
                (offset, 2 * length),
                (0, length),
            ];
            for (offset, length) in shapes {
                let result = s.iommufd().mmap(offset, length).map(drop);
                s.see(result.map_err(|errno| Failed { command: "mmap", errno }));
            }
            Ok(())
        },
    },
    Row {
        id: "C6.12",
        stimulus: "the right mmap: its first word",
        expected: "in_data",
        run: |s| {
            let (_, _, data) = with_data(s, 0xcafe_f00d)?;
            let mapped = s.iommufd().mmap(data.out_mmap_offset, data.out_mmap_length);
            let mapped = mapped.map_err(|errno| Failed { command: "mmap", errno })?;
            s.note_if(mapped.load(0) == Some(0xcafe_f00d), "in_data", "something else");
            Ok(())
        },
    },
    Row {
        id: "C6.13",
        stimulus: "destroy the vIOMMU while it is mapped; after munmap; mmap again",
        expected: "EBUSY; ok; ENXIO",
        run: |s| {
            let (_, viommu, data) = with_data(s, 1)?;
            let mapped = s.iommufd().mmap(data.out_mmap_offset, data.out_mmap_length);
            let mapped = mapped.map_err(|errno| Failed { command: "mmap", errno })?;
            s.see(s.destroy(viommu));
            drop(mapped);
            s.see(s.destroy(viommu));
            let again = s.iommufd().mmap(data.out_mmap_offset, data.out_mmap_length).map(drop);
            s.see(again.map_err(|errno| Failed { command: "mmap", errno }));
            Ok(())
        },
    },
    Row {
        id: "C6.14",
        stimulus: "attached nested, vdevice, queues: close everything; a fresh iommufd's first ID",
        expected: "1",
        run: super::sequence::close_and_reopen,
    },
    Row {
        id: "C6.48",
        stimulus: "two vIOMMUs on one parent; destroy the parent; a vIOMMU; a nested on each of them",
        expected: "ok; EBUSY; ok; ok",
        run: |s| {
            let Nesting { at, viommu, .. } = nesting(s)?;
            let second = s.viommu(at.device.idev, at.parent);
            s.see(second);
            s.see(s.destroy(at.parent));
            s.see(s.nested(at.device.idev, viommu, 0));
            s.see(s.nested(at.device.idev, second?, 0));
            Ok(())
        },
    },
];
