//! C3: nested HWPTs on a parent.

use crate::row::Row;
use crate::session::{Device, Failed, Paging, Session};
use viommu::uapi::flags::{HWPT_ALLOC_NEST_PARENT, HWPT_FAULT_ID_VALID};
use viommu::uapi::layout::HwptAlloc;
use viommu::uapi::selftest;

/// A device on an IOAS, and a nesting parent.
pub(super) struct Parent {
    pub(super) ioas: u32,
    pub(super) device: Device,
    pub(super) parent: u32,
}

pub(super) fn parent(s: &Session<'_>) -> Result<Parent, Failed> {
    let ioas = s.ioas()?;
    let device = s.device(ioas)?;
    let parent = s.hwpt(device.idev, ioas, HWPT_ALLOC_NEST_PARENT)?;
    Ok(Parent { ioas, device, parent })
}

/// A nested HWPT's allocation with this data type and length, its data there or not.
fn with_data(
    s: &Session<'_>,
    at: &Parent,
    data_type: u32,
    data_len: u32,
    data: Option<&mut [u8]>,
) -> Result<u32, Failed> {
    let (dev_id, pt_id) = (at.device.idev, at.parent);
    s.hwpt_raw(HwptAlloc { dev_id, pt_id, data_type, data_len, ..Default::default() }, data)
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C3.1",
        stimulus: "HWPT_ALLOC with an IOAS for its device; with a number that nothing has",
        expected: "ENOENT; ENOENT",
        run: |s| {
            let at = parent(s)?;
            s.see(s.hwpt(at.ioas, at.ioas, 0));
            s.see(s.hwpt(99, at.ioas, 0));
            Ok(())
        },
    },
    Row {
        id: "C3.2",
        stimulus: "HWPT_ALLOC with a device for its pt_id; with a number that nothing has",
        expected: "EINVAL; EINVAL",
        run: |s| {
            let at = parent(s)?;
            s.see(s.hwpt(at.device.idev, at.device.idev, 0));
            s.see(s.hwpt(at.device.idev, 99, 0));
            Ok(())
        },
    },
    Row {
        id: "C3.3",
        stimulus: "HWPT_ALLOC NEST_PARENT with FAULT_ID_VALID",
        expected: "EOPNOTSUPP",
        run: |s| {
            let at = parent(s)?;
            s.see(s.hwpt(at.device.idev, at.ioas, HWPT_ALLOC_NEST_PARENT | HWPT_FAULT_ID_VALID));
            Ok(())
        },
    },
    Row {
        id: "C3.4",
        stimulus: "nested: data type NONE with a length; the mock's type without one; no data at all",
        expected: "EINVAL; EINVAL; EOPNOTSUPP",
        run: |s| {
            let at = parent(s)?;
            s.see(with_data(s, &at, 0, 8, Some(&mut [0; 8])));
            s.see(with_data(s, &at, selftest::HWPT_DATA, 0, None));
            s.see(with_data(s, &at, 0, 0, None));
            Ok(())
        },
    },
    Row {
        id: "C3.5",
        stimulus: "nested: a data type that there is not",
        expected: "EOPNOTSUPP",
        run: |s| {
            let at = parent(s)?;
            s.see(with_data(s, &at, selftest::HWPT_DATA + 1, 8, Some(&mut [0; 8])));
            Ok(())
        },
    },
    Row {
        id: "C3.6",
        stimulus: "nested: data length = minimum - 1; minimum; larger than the kernel's",
        expected: "EINVAL; ok; EINVAL",
        run: |s| {
            let at = parent(s)?;
            for length in [3, 4, 9] {
                s.see(with_data(s, &at, selftest::HWPT_DATA, length, Some(&mut [0; 16])));
            }
            Ok(())
        },
    },
    Row {
        id: "C3.7",
        stimulus: "nested: data pointer NULL with a length",
        expected: "EFAULT",
        run: |s| {
            let at = parent(s)?;
            s.see(with_data(s, &at, selftest::HWPT_DATA, 8, None));
            Ok(())
        },
    },
    Row {
        id: "C3.8",
        stimulus: "nested with NEST_PARENT",
        expected: "EOPNOTSUPP",
        run: |s| {
            let at = parent(s)?;
            s.see(s.nested(at.device.idev, at.parent, HWPT_ALLOC_NEST_PARENT));
            Ok(())
        },
    },
    Row {
        id: "C3.9",
        stimulus: "nested on an HWPT that is no nesting parent; on an automatic one",
        expected: "EINVAL; EINVAL",
        run: |s| {
            let at = parent(s)?;
            let plain = s.hwpt(at.device.idev, at.ioas, 0)?;
            s.see(s.nested(at.device.idev, plain, 0));
            s.see(s.nested(at.device.idev, at.device.hwpt, 0));
            Ok(())
        },
    },
    Row {
        id: "C3.10",
        stimulus: "two nested on one parent; forget slot 0 of the first; the slots of both",
        expected: "ok; ok; 0fff ffff",
        run: |s| {
            let at = parent(s)?;
            let (a, b) = (s.nested(at.device.idev, at.parent, 0), s.nested(at.device.idev, at.parent, 0));
            s.see(a);
            s.see(b);
            let entry = selftest::HwptInvalidateSelftest { flags: 0, iotlb_id: 0 };
            s.invalidate(a?, selftest::HWPT_INVALIDATE_DATA, &[entry]).result?;
            s.note(format!("{} {}", s.iotlb(a?), s.iotlb(b?)));
            Ok(())
        },
    },
    Row {
        id: "C3.11",
        stimulus: "nested with FAULT_ID_VALID and a fault queue that there is not; with a device for its fault queue",
        expected: "ENOENT; ENOENT",
        run: |s| {
            let at = parent(s)?;
            let (dev_id, pt_id, flags) = (at.device.idev, at.parent, HWPT_FAULT_ID_VALID);
            for fault_id in [u32::MAX, at.device.idev] {
                s.see(s.nested_of(Paging { dev_id, pt_id, flags, fault_id }));
            }
            Ok(())
        },
    },
    Row {
        id: "C3.12",
        stimulus: "nested with FAULT_ID_VALID and a live fault queue",
        expected: "ok",
        run: |s| {
            let at = parent(s)?;
            s.see(with_faults(s, &at).map(drop));
            Ok(())
        },
    },
    Row {
        id: "C3.13",
        stimulus: "nested on nested",
        expected: "EINVAL",
        run: |s| {
            let at = parent(s)?;
            let nested = s.nested(at.device.idev, at.parent, 0)?;
            s.see(s.nested(at.device.idev, nested, 0));
            Ok(())
        },
    },
    Row {
        id: "C3.14",
        stimulus: "destroy the parent while a nested exists; destroy the nested; the parent",
        expected: "EBUSY; ok; ok",
        run: |s| {
            let at = parent(s)?;
            let nested = s.nested(at.device.idev, at.parent, 0)?;
            s.see(s.destroy(at.parent));
            s.see(s.destroy(nested));
            s.see(s.destroy(at.parent));
            Ok(())
        },
    },
    Row {
        id: "C3.15",
        stimulus: "HWPT_INVALIDATE on the parent; on the IOAS; on a number that nothing has",
        expected: "EINVAL, num 0; EINVAL, num 0; ENOENT, num 0",
        run: |s| {
            let at = parent(s)?;
            let entry = selftest::HwptInvalidateSelftest { flags: 0, iotlb_id: 0 };
            for id in [at.parent, at.ioas, 99] {
                s.see_invalidate(s.invalidate(id, selftest::HWPT_INVALIDATE_DATA, &[entry]));
            }
            Ok(())
        },
    },
    Row {
        id: "C3.16",
        stimulus: "attach the device to a nested; destroy the nested",
        expected: "ok; EBUSY",
        run: |s| {
            let at = parent(s)?;
            let nested = s.nested(at.device.idev, at.parent, 0)?;
            s.see(s.replace(at.device, nested));
            s.see(s.destroy(nested));
            Ok(())
        },
    },
    Row {
        id: "C3.17",
        stimulus: "replace one nested by another; destroy the first; the second",
        expected: "ok; ok; EBUSY",
        run: |s| {
            let at = parent(s)?;
            let (a, b) = (s.nested(at.device.idev, at.parent, 0)?, s.nested(at.device.idev, at.parent, 0)?);
            s.replace(at.device, a)?;
            s.see(s.replace(at.device, b));
            s.see(s.destroy(a));
            s.see(s.destroy(b));
            Ok(())
        },
    },
    Row {
        id: "C3.18",
        stimulus: "replace to a nested with a fault queue; poll; a page request; poll; read it and answer; poll; answer again",
        expected: "ok; POLLOUT; ok; POLLIN|POLLOUT; fault LAST_PAGE pasid 0 grpid 7 perm 3 addr 0xdeadb000; response 8 bytes; POLLOUT; EINVAL",
        run: |s| {
            let at = parent(s)?;
            let nested = s.nested(at.device.idev, at.parent, 0)?;
            s.replace(at.device, nested)?;
            let (with_faults, _, file) = with_faults(s, &at)?;
            s.see(s.replace(at.device, with_faults));
            s.see_poll(file);
            s.see(s.trigger_iopf(at.device, 0));
            s.see_poll(file);
            s.see_fault(file);
            s.see_poll(file);
            let again = s.respond(file, 1, 0).map_err(|errno| Failed { command: "write", errno });
            s.see(again);
            Ok(())
        },
    },
    Row {
        id: "C3.19",
        stimulus: "teardown: replace to the parent; destroy the nested; replace to the IOAS; destroy the parent, the fault queue with its file open; close; destroy it",
        expected: "ok; ok; ok; ok; EBUSY; ok; ok",
        run: |s| {
            let at = parent(s)?;
            let (nested, fault, file) = with_faults(s, &at)?;
            s.replace(at.device, nested)?;
            s.see(s.replace(at.device, at.parent));
            s.see(s.destroy(nested));
            s.see(s.replace(at.device, at.ioas));
            s.see(s.destroy(at.parent));
            s.see(s.destroy(fault));
            s.see(s.close(file));
            s.see(s.destroy(fault));
            Ok(())
        },
    },
    Row {
        id: "C3.20",
        stimulus: "no device: HWPT_ALLOC NEST_PARENT; nested; a replace",
        expected: "ENOENT; ENOENT; ENOENT",
        run: |s| {
            let ioas = s.ioas()?;
            s.see(s.hwpt(0, ioas, HWPT_ALLOC_NEST_PARENT));
            s.see(s.nested(0, ioas, 0));
            s.see(s.replace(Device { stdev: 0, hwpt: 0, idev: 0 }, ioas));
            Ok(())
        },
    },
    Row {
        id: "C3.21",
        stimulus: "fault queue: read 40 bytes when empty; 39; write 7 bytes; write cookie 5; code 2; a request and read with too little room",
        expected: "0 bytes; ESPIPE; ESPIPE; EINVAL; EINVAL; EINVAL",
        run: |s| {
            let at = parent(s)?;
            let (nested, _, file) = with_faults(s, &at)?;
            s.replace(at.device, nested)?;
            s.see_read(file, 40);
            s.see_read(file, 39);
            let write = |errno| Failed { command: "write", errno };
            s.see(s.iommufd().write(file, &[0; 7]).map_err(write));
            s.see(s.respond(file, 5, 0).map_err(write));
            s.see(s.respond(file, 5, 2).map_err(write));
            s.trigger_iopf(at.device, 0)?;
            s.see_read(file, 0);
            Ok(())
        },
    },
    Row {
        id: "C3.22",
        stimulus: "two page requests; read both; replace to the parent, which answers them; answer one; destroy the nested",
        expected: "2 faults, cookies 1 2; ok; EINVAL; ok",
        run: |s| {
            let at = parent(s)?;
            let (nested, _, file) = with_faults(s, &at)?;
            s.replace(at.device, nested)?;
            s.trigger_iopf(at.device, 0)?;
            s.trigger_iopf(at.device, 0)?;
            let faults = s.faults(file).map_err(|errno| Failed { command: "read", errno })?;
            let cookies: Vec<_> = faults.iter().map(|fault| fault.cookie.to_string()).collect();
            s.note(format!("{} faults, cookies {}", faults.len(), cookies.join(" ")));
            s.see(s.replace(at.device, at.parent));
            s.see(s.respond(file, faults[0].cookie, 0).map_err(|errno| Failed { command: "write", errno }));
            s.see(s.destroy(nested));
            Ok(())
        },
    },
];

/// A nested HWPT with a fault queue: the HWPT, the queue and its file.
pub(super) fn with_faults(s: &Session<'_>, at: &Parent) -> Result<(u32, u32, u32), Failed> {
    let (fault_id, file) = s.fault_queue()?;
    let (dev_id, pt_id, flags) = (at.device.idev, at.parent, HWPT_FAULT_ID_VALID);
    Ok((s.nested_of(Paging { dev_id, pt_id, flags, fault_id })?, fault_id, file))
}
