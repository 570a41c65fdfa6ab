//! C7: PASIDs.

use crate::row::Row;
use crate::session::{Device, Failed, Paging, Session};
use viommu::uapi::flags::{HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_FAULT_ID_VALID};
use viommu::uapi::selftest::{DEVICE_PASID, PASID_TRAP};

const PASID: u32 = 100;

/// A device with PASIDs, HWPTs of both kinds.
struct Pasids {
    ioas: u32,
    device: Device,
    /// A nesting parent.
    parent: u32,
    /// A paging HWPT with the PASID flag.
    paging: u32,
    /// A paging HWPT without.
    plain: u32,
    /// Nested HWPTs with the flag.
    nested: [u32; 2],
}

fn pasids(s: &Session<'_>) -> Result<Pasids, Failed> {
    let ioas = s.ioas()?;
    let device = s.device_of(ioas, DEVICE_PASID)?;
    let parent = s.hwpt(device.idev, ioas, HWPT_ALLOC_NEST_PARENT)?;
    let paging = s.hwpt(device.idev, ioas, HWPT_ALLOC_PASID)?;
    let plain = s.hwpt(device.idev, ioas, 0)?;
    let nested = || s.nested(device.idev, parent, HWPT_ALLOC_PASID);
    Ok(Pasids { ioas, device, parent, paging, plain, nested: [nested()?, nested()?] })
}

/// The same with the device's RID on the paging HWPT that has the flag.
fn ready(s: &Session<'_>) -> Result<Pasids, Failed> {
    let pasids = pasids(s)?;
    s.replace(pasids.device, pasids.paging)?;
    Ok(pasids)
}

fn see_attached(s: &mut Session<'_>, device: Device, pasid: u32, hwpt: u32) {
    s.note_if(s.pasid_has(device, pasid, hwpt), if hwpt == 0 { "nothing attached" } else { "attached" }, "not so");
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C7.1",
        stimulus: "detach a PASID that was never attached",
        expected: "ok; nothing attached",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_detach(p.device, PASID));
            see_attached(s, p.device, PASID, 0);
            Ok(())
        },
    },
    Row {
        id: "C7.2",
        stimulus: "HWPT_ALLOC with the PASID flag: paging; nested; NEST_PARENT; nested on a vIOMMU; for a device without PASIDs",
        expected: "ok; ok; ok; ok; ok",
        run: |s| {
            let p = pasids(s)?;
            s.see(s.hwpt(p.device.idev, p.ioas, HWPT_ALLOC_PASID));
            s.see(s.nested(p.device.idev, p.parent, HWPT_ALLOC_PASID));
            s.see(s.hwpt(p.device.idev, p.ioas, HWPT_ALLOC_PASID | HWPT_ALLOC_NEST_PARENT));
            let viommu = s.viommu(p.device.idev, p.parent)?;
            s.see(s.nested(p.device.idev, viommu, HWPT_ALLOC_PASID));
            let plain = s.device(p.ioas)?;
            s.see(s.hwpt(plain.idev, p.ioas, HWPT_ALLOC_PASID));
            Ok(())
        },
    },
    Row {
        id: "C7.3",
        stimulus: "the RID on an HWPT without the flag; attach a PASID to one with it",
        expected: "EINVAL; nothing attached",
        run: |s| {
            let p = pasids(s)?;
            s.replace(p.device, p.plain)?;
            s.see(s.pasid_attach(p.device, PASID, p.paging));
            see_attached(s, p.device, PASID, 0);
            Ok(())
        },
    },
    Row {
        id: "C7.4",
        stimulus: "the RID on an HWPT with the flag; attach a PASID to a nested; to a paging",
        expected: "ok; attached; ok; attached",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_attach(p.device, PASID, p.nested[0]));
            see_attached(s, p.device, PASID, p.nested[0]);
            s.see(s.pasid_attach(p.device, PASID + 1, p.paging));
            see_attached(s, p.device, PASID + 1, p.paging);
            Ok(())
        },
    },
    Row {
        id: "C7.5",
        stimulus: "a PASID is attached; replace the RID to an HWPT without the flag; to one with it; without the PASID, to one without",
        expected: "EINVAL; ok; ok",
        run: |s| {
            let p = ready(s)?;
            s.pasid_attach(p.device, PASID, p.nested[0])?;
            s.see(s.replace(p.device, p.plain));
            s.see(s.replace(p.device, p.nested[1]));
            s.pasid_detach(p.device, PASID)?;
            s.see(s.replace(p.device, p.plain));
            Ok(())
        },
    },
    Row {
        id: "C7.6",
        stimulus: "a device without PASIDs: its RID on an HWPT with the flag",
        expected: "ok",
        run: |s| {
            let p = pasids(s)?;
            let plain = s.device(p.ioas)?;
            s.see(s.replace(plain, p.paging));
            Ok(())
        },
    },
    Row {
        id: "C7.7",
        stimulus: "a device without PASIDs: attach a PASID to an HWPT with the flag; without it",
        expected: "EINVAL; EINVAL",
        run: |s| {
            let p = pasids(s)?;
            let plain = s.device(p.ioas)?;
            s.replace(plain, p.paging)?;
            s.see(s.pasid_attach(plain, PASID, p.paging));
            s.see(s.pasid_attach(plain, PASID, p.plain));
            Ok(())
        },
    },
    Row {
        id: "C7.8",
        stimulus: "attach a PASID to an HWPT without the flag; to an IOAS; to nothing",
        expected: "EINVAL; EINVAL; ENOENT; nothing attached",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_attach(p.device, PASID, p.plain));
            s.see(s.pasid_attach(p.device, PASID, p.ioas));
            s.see(s.pasid_attach(p.device, PASID, 99));
            see_attached(s, p.device, PASID, 0);
            Ok(())
        },
    },
    Row {
        id: "C7.9",
        stimulus: "attach a PASID twice, to the same; to another; destroy what it is attached to",
        expected: "ok; EBUSY; EBUSY; EBUSY",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_attach(p.device, PASID, p.nested[0]));
            s.see(s.pasid_attach(p.device, PASID, p.nested[0]));
            s.see(s.pasid_attach(p.device, PASID, p.nested[1]));
            s.see(s.destroy(p.nested[0]));
            Ok(())
        },
    },
    Row {
        id: "C7.10",
        stimulus: "replace a PASID that nothing is attached to",
        expected: "EINVAL; nothing attached",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_replace(p.device, PASID, p.nested[0]));
            see_attached(s, p.device, PASID, 0);
            Ok(())
        },
    },
    Row {
        id: "C7.11",
        stimulus: "replace a PASID to an IOAS; to an HWPT without the flag",
        expected: "EINVAL; EINVAL; attached",
        run: |s| {
            let p = ready(s)?;
            s.pasid_attach(p.device, PASID, p.nested[0])?;
            s.see(s.pasid_replace(p.device, PASID, p.ioas));
            s.see(s.pasid_replace(p.device, PASID, p.plain));
            see_attached(s, p.device, PASID, p.nested[0]);
            Ok(())
        },
    },
    Row {
        id: "C7.12",
        stimulus: "replace a PASID to another nested; the first can go; detach; the second can go",
        expected: "ok; attached; ok; ok; ok",
        run: |s| {
            let p = ready(s)?;
            s.pasid_attach(p.device, PASID, p.nested[0])?;
            s.see(s.pasid_replace(p.device, PASID, p.nested[1]));
            see_attached(s, p.device, PASID, p.nested[1]);
            s.see(s.destroy(p.nested[0]));
            s.see(s.pasid_detach(p.device, PASID));
            s.see(s.destroy(p.nested[1]));
            Ok(())
        },
    },
    Row {
        id: "C7.13",
        stimulus: "the driver fails in the middle of a replace (PASID 1024); again",
        expected: "ok; ENOMEM; attached; ok; attached",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_attach(p.device, PASID_TRAP, p.nested[0]));
            s.see(s.pasid_replace(p.device, PASID_TRAP, p.nested[1]));
            see_attached(s, p.device, PASID_TRAP, p.nested[0]);
            s.see(s.pasid_replace(p.device, PASID_TRAP, p.nested[1]));
            see_attached(s, p.device, PASID_TRAP, p.nested[1]);
            Ok(())
        },
    },
    Row {
        id: "C7.14",
        stimulus: "a nested with a fault queue on PASID 2048; a page request; replace to another",
        expected: "ok; ok; fault PASID_VALID|LAST_PAGE pasid 2048 grpid 7 perm 3 addr 0xdeadb000; response 8 bytes; ok",
        run: |s| {
            let p = ready(s)?;
            let (fault_id, file) = s.fault_queue()?;
            let (dev_id, pt_id, flags) = (p.device.idev, p.parent, HWPT_ALLOC_PASID | HWPT_FAULT_ID_VALID);
            let with_faults = s.nested_of(Paging { dev_id, pt_id, flags, fault_id })?;
            s.see(s.pasid_attach(p.device, 2048, with_faults));
            s.see(s.trigger_iopf(p.device, 2048));
            s.see_fault(file);
            s.see(s.pasid_replace(p.device, 2048, p.nested[0]));
            Ok(())
        },
    },
    Row {
        id: "C7.15",
        stimulus: "attach PASID 0, which is the RID and attached; PASID 2^20; PASID 2^20 - 1; a device that there is not",
        expected: "EBUSY; EINVAL; ok; ENOENT",
        run: |s| {
            let p = ready(s)?;
            s.see(s.pasid_attach(p.device, 0, p.nested[0]));
            s.see(s.pasid_attach(p.device, 1 << 20, p.nested[0]));
            s.see(s.pasid_attach(p.device, (1 << 20) - 1, p.nested[0]));
            s.see(s.pasid_attach(Device { stdev: 99, hwpt: 0, idev: 0 }, PASID, p.nested[0]));
            Ok(())
        },
    },
];
