//! C13: Intel's VT-d, which nests on the parent and has no vIOMMU.

use super::bench::Bench;
use crate::row::Row;
use crate::session::{Failed, Said, Session};
use viommu::uapi::Command;
use viommu::uapi::dispatcher::Options;
use viommu::uapi::dispatcher::drivers::IntelVtd;
use viommu::uapi::flags::{
    HWPT_ALLOC_NEST_PARENT, HWPT_DATA_ARM_SMMUV3, HWPT_DATA_VTD_S1, HWPT_INVALIDATE_DATA_VTD_S1, IOAS_MAP_READABLE,
    VTD_INV_FLAGS_LEAF, VTD_S1_EAFE, VTD_S1_SRE,
};
use viommu::uapi::layout::{HwptInvalidate, IoasMap};
use viommu::uapi::payload::{HwptVtdS1, HwptVtdS1Invalidate};
use zerocopy::IntoBytes;

/// CAP.FL5LP; ECAP.NEST and SMTS; SRS and EAFS.
const FL5LP: u64 = 1 << 60;
const NESTS: u64 = 1 << 26 | 1 << 43;
const SRS_EAFS: u64 = 1 << 31 | 1 << 34;
const GOOD: HwptVtdS1Invalidate = entry(0x1000, 4, VTD_INV_FLAGS_LEAF, 0);

const fn entry(addr: u64, npages: u64, flags: u32, reserved: u32) -> HwptVtdS1Invalidate {
    HwptVtdS1Invalidate { addr, npages, flags, __reserved: reserved }
}

fn machine<'a>(s: &Session<'a>, cap: u64, ecap: u64) -> Result<Bench<'a>, Failed> {
    Bench::new(IntelVtd { cap, ecap }, Options::default(), s.memory())
}

fn nested(bench: &Bench<'_>, flags: u64, addr_width: u32) -> Result<u32, Failed> {
    let payload = HwptVtdS1 { flags, pgtbl_addr: 0x1000, addr_width, __reserved: 0 };
    bench.nested(bench.parent, 0, HWPT_DATA_VTD_S1, &payload)
}

/// Nested HWPTs of these flags and widths: allocated, and attached to.
fn attached(s: &mut Session<'_>, cap: u64, ecap: u64, shapes: &[(u64, u32)]) -> Said {
    let bench = machine(s, cap, ecap)?;
    for (flags, width) in shapes {
        let hwpt = nested(&bench, *flags, *width);
        s.see(hwpt);
        s.see(bench.attach(hwpt?));
    }
    Ok(())
}

/// HWPT_INVALIDATE of these entries on a nested HWPT.
fn invalidated(s: &mut Session<'_>, entries: &[HwptVtdS1Invalidate]) -> Said {
    let bench = machine(s, 0, NESTS)?;
    let hwpt = nested(&bench, 0, 48)?;
    s.see_invalidate(bench.session.invalidate(hwpt, HWPT_INVALIDATE_DATA_VTD_S1, entries));
    Ok(())
}

fn map_read_only(bench: &Bench<'_>) -> Result<(), Failed> {
    let user_va = bench.session.memory().address(0);
    let mut own =
        IoasMap { flags: IOAS_MAP_READABLE, ioas_id: bench.ioas, user_va, length: 4096, ..Default::default() };
    bench.session.call(Command::IoasMap, &mut own, &mut [])
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C13.1",
        stimulus: "width 39; 57 without five levels; 57 with; 48: HWPT_ALLOC, attach",
        expected: "ok; EINVAL; ok; EINVAL; ok; ok; ok; ok",
        run: |s| {
            attached(s, 0, NESTS, &[(0, 39), (0, 57)])?;
            attached(s, FL5LP, NESTS, &[(0, 57), (0, 48)])
        },
    },
    Row {
        id: "C13.2",
        stimulus: "SRE, EAFE without the capability; with: HWPT_ALLOC, attach",
        expected: "ok; EINVAL; ok; EINVAL; ok; ok; ok; ok",
        run: |s| {
            let shapes = [(VTD_S1_SRE, 48), (VTD_S1_EAFE, 48)];
            attached(s, 0, NESTS, &shapes)?;
            attached(s, 0, NESTS | SRS_EAFS, &shapes)
        },
    },
    Row {
        id: "C13.3",
        stimulus: "invalidation: flag LEAF; another flag; the reserved word",
        expected: "ok, num 1; EOPNOTSUPP, num 1; EOPNOTSUPP, num 0",
        run: |s| {
            invalidated(s, &[GOOD])?;
            invalidated(s, &[GOOD, entry(0x1000, 1, 2, 0)])?;
            invalidated(s, &[entry(0x1000, 1, 0, 1)])
        },
    },
    Row {
        id: "C13.4",
        stimulus: "two good ones and an unaligned address",
        expected: "EINVAL, num 2",
        run: |s| invalidated(s, &[GOOD, GOOD, entry(0x800, 1, 0, 0)]),
    },
    Row {
        id: "C13.5",
        stimulus: "npages 2^64 - 1 with address 0; with another",
        expected: "ok, num 1; EINVAL, num 1",
        run: |s| {
            invalidated(s, &[entry(0, u64::MAX, 0, 0)])?;
            invalidated(s, &[GOOD, entry(0x1000, u64::MAX, 0, 0)])
        },
    },
    Row {
        id: "C13.6",
        stimulus: "entry_len 23; 25; entry_num 0; another type",
        expected: "EINVAL, num 0; EINVAL, num 0; ok, num 0; EINVAL, num 0",
        run: |s| {
            let bench = machine(s, 0, NESTS)?;
            let hwpt_id = nested(&bench, 0, 48)?;
            let data_type = HWPT_INVALIDATE_DATA_VTD_S1;
            let one = HwptInvalidate { hwpt_id, data_type, entry_len: 24, entry_num: 1, ..Default::default() };
            let mut bytes = [GOOD.as_bytes(), &[0; 8]].concat();
            for asked in [
                HwptInvalidate { entry_len: 23, ..one },
                HwptInvalidate { entry_len: 25, ..one },
                HwptInvalidate { entry_num: 0, ..one },
                HwptInvalidate { data_type: 1, ..one },
            ] {
                s.see_invalidate(bench.session.invalidate_raw(asked, Some(&mut bytes)));
            }
            Ok(())
        },
    },
    Row {
        id: "C13.7",
        stimulus: "a read-only mapping in a nesting parent; without the parent; a parent over it; an HWPT that is none",
        expected: "EINVAL; ok; EINVAL; ok",
        run: |s| {
            let bench = machine(s, 0, NESTS)?;
            s.see(map_read_only(&bench));
            bench.session.destroy(bench.parent)?;
            s.see(map_read_only(&bench));
            s.see(bench.session.hwpt(bench.device.id, bench.ioas, HWPT_ALLOC_NEST_PARENT));
            s.see(bench.session.hwpt(bench.device.id, bench.ioas, 0));
            Ok(())
        },
    },
    Row {
        id: "C13.8",
        stimulus: "VIOMMU_ALLOC of type 1; 2; 99; another vendor's data; data of 16 bytes",
        expected: "EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP; EINVAL",
        run: |s| {
            let bench = machine(s, 0, NESTS)?;
            [1, 2, 99].iter().for_each(|r#type| s.see(bench.viommu(*r#type)));
            s.see(bench.nested(bench.parent, 0, HWPT_DATA_ARM_SMMUV3, &[0u64; 3]));
            s.see(bench.nested(bench.parent, 0, HWPT_DATA_VTD_S1, &[0u64; 2]));
            Ok(())
        },
    },
];
