//! C2: plain HWPTs and attachment.

use crate::row::Row;
use viommu::uapi::flags::HWPT_ALLOC_NEST_PARENT;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C2.1",
        stimulus: "destroy an IOAS with a device on it; destroy the device; destroy the IOAS",
        expected: "EBUSY; ok; ok",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            s.see(s.destroy(ioas));
            s.see(s.destroy(device.stdev));
            s.see(s.destroy(ioas));
            Ok(())
        },
    },
    Row {
        id: "C2.2",
        stimulus: "HWPT_ALLOC with every flag but NEST_PARENT; with bit 4; with bit 31",
        expected: "EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            for flags in [!HWPT_ALLOC_NEST_PARENT, 1 << 4, 1 << 31] {
                s.see(s.hwpt(device.idev, ioas, flags));
            }
            Ok(())
        },
    },
    Row {
        id: "C2.3",
        stimulus: "attach a device to an HWPT; destroy the HWPT; replace to the IOAS; destroy the HWPT",
        expected: "ok; EBUSY; ok; ok",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            let hwpt = s.hwpt(device.idev, ioas, 0)?;
            s.see(s.replace(device, hwpt));
            s.see(s.destroy(hwpt));
            s.see(s.replace(device, ioas));
            s.see(s.destroy(hwpt));
            Ok(())
        },
    },
    Row {
        id: "C2.4",
        stimulus: "replace the only device of an IOAS to another IOAS; destroy the automatic HWPT that it had; back; the new one",
        expected: "ok; ENOENT; ok; ENOENT",
        run: |s| {
            let (a, b) = (s.ioas()?, s.ioas()?);
            let device = s.device(a)?;
            let there = s.replace(device, b);
            s.see(there);
            s.see(s.destroy(device.hwpt));
            s.see(s.replace(device, a));
            s.see(s.destroy(there?));
            Ok(())
        },
    },
    Row {
        id: "C2.5",
        stimulus: "replace to an HWPT: the ID that comes back; back to the IOAS; destroy the HWPT",
        expected: "the HWPT; ok; ok",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            let hwpt = s.hwpt(device.idev, ioas, 0)?;
            let came_to = s.replace(device, hwpt)?;
            s.note_if(came_to == hwpt, "the HWPT", "something else");
            s.see(s.replace(device, ioas));
            s.see(s.destroy(hwpt));
            Ok(())
        },
    },
    Row {
        id: "C2.6",
        stimulus: "a second device on an IOAS shares the automatic HWPT; a device made on the HWPT of another; on a device's ID",
        expected: "shared; ok; EINVAL",
        run: |s| {
            let ioas = s.ioas()?;
            let first = s.device(ioas)?;
            let second = s.device(ioas)?;
            s.note_if(first.hwpt == second.hwpt, "shared", "two");
            let hwpt = s.hwpt(first.idev, ioas, 0)?;
            s.see(s.device(hwpt));
            s.see(s.device(first.idev));
            Ok(())
        },
    },
    Row {
        id: "C2.7",
        stimulus: "DESTROY of a device object, of an automatic HWPT in use, and of the device object when the device is gone",
        expected: "EBUSY; EBUSY; ENOENT",
        run: |s| {
            let ioas = s.ioas()?;
            let device = s.device(ioas)?;
            s.see(s.destroy(device.idev));
            s.see(s.destroy(device.hwpt));
            s.destroy(device.stdev)?;
            s.see(s.destroy(device.idev));
            Ok(())
        },
    },
    Row {
        id: "C2.9",
        stimulus: "IOVA ranges and alignment of an IOAS without a device; with one; of one with a mapping that the aperture does not have, a device on it",
        expected: "0x0-0xffffffffffffffff by 1; 0x1000000-0x7fffffff by 2048; EADDRINUSE",
        run: |s| {
            let ioas = s.ioas()?;
            for attached in [false, true] {
                if attached {
                    s.device(ioas)?;
                }
                let (ranges, alignment) = s.iova_ranges(ioas)?;
                let ranges: Vec<_> =
                    ranges.iter().map(|range| format!("{:#x}-{:#x}", range.start, range.last)).collect();
                s.note(format!("{} by {alignment}", ranges.join(", ")));
            }
            let low = s.ioas()?;
            s.map(low, 0, 4096, 0)?;
            s.see(s.device(low));
            Ok(())
        },
    },
    Row {
        id: "C2.8",
        stimulus: "the IDs of an IOAS, a device's two, its HWPT; free the first IOAS's; the next IOAS",
        expected: "1 2 3 4 5; 2",
        run: |s| {
            let (kept, freed) = (s.ioas()?, s.ioas()?);
            let device = s.device(kept)?;
            let ids = [kept, freed, device.stdev, device.idev, device.hwpt].map(|id| id.to_string());
            s.note(ids.join(" "));
            s.destroy(freed)?;
            let next = s.ioas()?;
            s.note(next.to_string());
            Ok(())
        },
    },
];
