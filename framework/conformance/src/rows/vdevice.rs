//! C6, second part: vdevices and vEVENTQs.

use super::viommu::{Nesting, nesting};
use crate::row::Row;
use crate::session::{Failed, Session};
use viommu::uapi::layout::VeventqAlloc;
use viommu::uapi::{Command, selftest};

/// A device attached to a nested HWPT as number 0x99, and a vEVENTQ: its file.
fn with_events(s: &Session<'_>, depth: u32) -> Result<(Nesting, u32, u32, u32), Failed> {
    let nesting = nesting(s)?;
    let (queue, file) = s.veventq(nesting.viommu, depth)?;
    let vdevice = s.vdevice(nesting.viommu, nesting.at.device.idev, 0x99)?;
    s.replace(nesting.at.device, nesting.nested)?;
    Ok((nesting, vdevice, queue, file))
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C6.15",
        stimulus: "VEVENTQ of depth 0; of depth 524289",
        expected: "EINVAL; EINVAL",
        run: |s| {
            let Nesting { viommu, .. } = nesting(s)?;
            s.see(s.veventq(viommu, 0));
            s.see(s.veventq(viommu, (1 << 19) + 1));
            Ok(())
        },
    },
    Row {
        id: "C6.16",
        stimulus: "VEVENTQ of depth 524288; of type 0; of a type that the driver never reports; on a vIOMMU that there is not; with a flag",
        expected: "ok; EOPNOTSUPP; ok; ENOENT; EOPNOTSUPP",
        run: |s| {
            let Nesting { viommu, .. } = nesting(s)?;
            s.see(s.veventq(viommu, 1 << 19));
            s.see(s.veventq_of(viommu, 0, 1));
            s.see(s.veventq_of(viommu, 77, 1));
            s.see(s.veventq(99, 1));
            let mut argument =
                VeventqAlloc { flags: 1, viommu_id: viommu, r#type: 78, veventq_depth: 1, ..Default::default() };
            s.see(s.call(Command::VeventqAlloc, &mut argument, &mut []));
            Ok(())
        },
    },
    Row {
        id: "C6.17",
        stimulus: "a second VEVENTQ of the same type",
        expected: "ok; EEXIST",
        run: |s| {
            let Nesting { viommu, .. } = nesting(s)?;
            s.see(s.veventq(viommu, 2));
            s.see(s.veventq(viommu, 2));
            Ok(())
        },
    },
    Row {
        id: "C6.18",
        stimulus: "an empty queue: read 0 bytes; 7; 12; poll",
        expected: "EINVAL; EINVAL; 0 bytes; none",
        run: |s| {
            let Nesting { viommu, .. } = nesting(s)?;
            let (_, file) = s.veventq(viommu, 2)?;
            for bytes in [0, 7, 12] {
                s.see_read(file, bytes);
            }
            s.see_poll(file);
            Ok(())
        },
    },
    Row {
        id: "C6.19",
        stimulus: "VDEVICE_ALLOC virt_id 0x99; attach; an event; poll; read; poll",
        expected: "ok; POLLIN; seq 0 virt_id 0x99; none",
        run: |s| {
            let (nesting, _, _, file) = with_events(s, 2)?;
            s.see(s.trigger_vevent(nesting.at.device));
            s.see_poll(file);
            s.see_events(file);
            s.see_poll(file);
            Ok(())
        },
    },
    Row {
        id: "C6.20",
        stimulus: "a queue that is not empty: read 0 bytes; 8 bytes; the event is still there",
        expected: "EINVAL; EINVAL; seq 0 virt_id 0x99",
        run: |s| {
            let (nesting, _, _, file) = with_events(s, 2)?;
            s.trigger_vevent(nesting.at.device)?;
            s.see_read(file, 0);
            s.see_read(file, 8);
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.21",
        stimulus: "a second vdevice for the device; on another vIOMMU; the same number for another device; another number",
        expected: "EEXIST; EEXIST; EEXIST; ok",
        run: |s| {
            let (nesting, ..) = with_events(s, 2)?;
            let Nesting { at, viommu, .. } = nesting;
            s.see(s.vdevice(viommu, at.device.idev, 0xaa));
            let other = s.viommu(at.device.idev, at.parent)?;
            s.see(s.vdevice(other, at.device.idev, 0xaa));
            let device = s.device(at.ioas)?;
            s.see(s.vdevice(viommu, device.idev, 0x99));
            s.see(s.vdevice(viommu, device.idev, 0xaa));
            Ok(())
        },
    },
    Row {
        id: "C6.22",
        stimulus: "replace to the IOAS; destroy the vdevice; a vdevice with 0x88; attach; an event",
        expected: "ok; ok; ok; ok; ok; seq 0 virt_id 0x88",
        run: |s| {
            let (nesting, vdevice, _, file) = with_events(s, 2)?;
            let Nesting { at, viommu, nested } = nesting;
            s.see(s.replace(at.device, at.ioas));
            s.see(s.destroy(vdevice));
            s.see(s.vdevice(viommu, at.device.idev, 0x88));
            s.see(s.replace(at.device, nested));
            s.see(s.trigger_vevent(at.device));
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.23",
        stimulus: "depth 2, 3 events; read",
        expected: "ok; ok; ok; seq 0 virt_id 0x99, seq 1 virt_id 0x99, seq 2 LOST_EVENTS",
        run: |s| {
            let (nesting, _, _, file) = with_events(s, 2)?;
            for _ in 0..3 {
                s.see(s.trigger_vevent(nesting.at.device));
            }
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.24",
        stimulus: "depth 2, 5 events; read; an event; read",
        expected: "seq 0 virt_id 0x99, seq 1 virt_id 0x99, seq 4 LOST_EVENTS; seq 5 virt_id 0x99",
        run: |s| {
            let (nesting, _, _, file) = with_events(s, 2)?;
            for _ in 0..5 {
                s.trigger_vevent(nesting.at.device)?;
            }
            s.see_events(file);
            s.trigger_vevent(nesting.at.device)?;
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.25",
        stimulus: "destroy the queue with its file open; close; replace to the IOAS; destroy the vdevice; the queue",
        expected: "EBUSY; ok; ok; ok; ok",
        run: |s| {
            let (nesting, vdevice, queue, file) = with_events(s, 2)?;
            s.see(s.destroy(queue));
            s.see(s.close(file));
            s.see(s.replace(nesting.at.device, nesting.at.ioas));
            s.see(s.destroy(vdevice));
            s.see(s.destroy(queue));
            Ok(())
        },
    },
    Row {
        id: "C6.26",
        stimulus: "VDEVICE_ALLOC without a vIOMMU; on an HWPT; for an IOAS; for a device that there is not",
        expected: "ENOENT; ENOENT; ENOENT; ENOENT",
        run: |s| {
            let Nesting { at, viommu, .. } = nesting(s)?;
            s.see(s.vdevice(0, at.device.idev, 1));
            s.see(s.vdevice(at.parent, at.device.idev, 1));
            s.see(s.vdevice(viommu, at.ioas, 1));
            s.see(s.vdevice(viommu, 99, 1));
            Ok(())
        },
    },
    Row {
        id: "C6.27",
        stimulus: "destroy the device while its vdevice is alive; destroy the vdevice; the next ID is another",
        expected: "ok; ENOENT; not reused",
        run: |s| {
            let Nesting { at, viommu, .. } = nesting(s)?;
            let vdevice = s.vdevice(viommu, at.device.idev, 0x99)?;
            s.see(s.destroy(at.device.stdev));
            s.see(s.destroy(vdevice));
            let mut reused = false;
            for _ in 0..8 {
                reused |= s.ioas()? == vdevice;
            }
            s.note_if(reused, "reused", "not reused");
            Ok(())
        },
    },
    Row {
        id: "C6.49",
        stimulus: "events without a vIOMMU below: device on its IOAS; with a vdevice and not attached; virt_id 0 attached; no queue",
        expected: "ENOENT; ENOENT; ENOENT; EOPNOTSUPP",
        run: |s| {
            let Nesting { at, viommu, nested } = nesting(s)?;
            s.see(s.trigger_vevent(at.device));
            let vdevice = s.vdevice(viommu, at.device.idev, 0)?;
            s.see(s.trigger_vevent(at.device));
            s.replace(at.device, nested)?;
            s.see(s.trigger_vevent(at.device));
            s.replace(at.device, at.ioas)?;
            s.destroy(vdevice)?;
            s.vdevice(viommu, at.device.idev, 5)?;
            s.replace(at.device, nested)?;
            s.see(s.trigger_vevent(at.device));
            Ok(())
        },
    },
    Row {
        id: "C6.50",
        stimulus: "destroy the vdevice while its device stays attached; an event carries the number of the attachment",
        expected: "ok; ok; seq 0 virt_id 0x99",
        run: |s| {
            let (nesting, vdevice, _, file) = with_events(s, 2)?;
            s.see(s.destroy(vdevice));
            s.see(s.trigger_vevent(nesting.at.device));
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.51",
        stimulus: "3 events, room for two; the rest",
        expected: "seq 0 virt_id 0x99, seq 1 virt_id 0x99; seq 2 virt_id 0x99",
        run: |s| {
            let (nesting, _, _, file) = with_events(s, 4)?;
            for _ in 0..3 {
                s.trigger_vevent(nesting.at.device)?;
            }
            let first = s.events(file, 2).map_err(|errno| Failed { command: "read", errno })?;
            s.note(first.join(", "));
            s.see_events(file);
            Ok(())
        },
    },
    Row {
        id: "C6.52",
        stimulus: "destroy the vIOMMU with a queue; with a vdevice; without either",
        expected: "EBUSY; EBUSY; ok",
        run: |s| {
            let at = super::nested::parent(s)?;
            let viommu = s.viommu(at.device.idev, at.parent)?;
            let (queue, file) = s.veventq_of(viommu, selftest::VEVENTQ_TYPE, 1)?;
            s.see(s.destroy(viommu));
            s.close(file)?;
            s.destroy(queue)?;
            let vdevice = s.vdevice(viommu, at.device.idev, 1)?;
            s.see(s.destroy(viommu));
            s.destroy(vdevice)?;
            s.see(s.destroy(viommu));
            Ok(())
        },
    },
];
