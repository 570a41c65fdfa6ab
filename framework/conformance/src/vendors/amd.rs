//! C12: AMD's. Linux 7.3 can nest nothing; the rules of its nesting code, which it offers nobody, are in rows of their own.

use super::bench::Bench;
use crate::row::Row;
use crate::session::{Failed, Said, Session};
use viommu::uapi::dispatcher::Options;
use viommu::uapi::dispatcher::drivers::{AmdNested, AmdVi};
use viommu::uapi::flags::{
    HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_DATA_AMD_GUEST, HWPT_DATA_VTD_S1,
};
use viommu::uapi::payload::HwptAmdGuest;

const HOST: AmdVi = AmdVi { efr: 5, efr2: 6, nesting: true };
/// V, GV, and a GCR3 in bits 30:15 of it.
const VALID: [u64; 4] = [1 | 1 << 55, 1 << 16, 0, 0];
/// Any type: the driver looks at none.
const VIOMMU: u32 = 77;

/// A guest's DTE with the domain number `guest`, on this vIOMMU.
fn dte(bench: &Bench<'_>, viommu: u32, dte: [u64; 4], guest: u64) -> Result<u32, Failed> {
    let [first, second, third, fourth] = dte;
    let payload = HwptAmdGuest { dte: [first, second | guest, third, fourth] };
    bench.nested(viommu, 0, HWPT_DATA_AMD_GUEST, &payload)
}

/// Linux's code within reach, with the host's domain numbers up to `last`.
fn machine<'a>(s: &Session<'a>, driver: &AmdNested) -> Result<Bench<'a>, Failed> {
    Bench::new(driver.clone(), Options::default(), s.memory())
}

/// DTEs that differ from a valid one in these bits of these words.
fn with(s: &mut Session<'_>, five_levels: bool, changed: &[(usize, u64)]) -> Said {
    let mut driver = AmdNested::new(HOST, u16::MAX);
    driver.five_levels = five_levels;
    let bench = machine(s, &driver)?;
    let viommu = bench.viommu(VIOMMU)?;
    for (word, bits) in changed {
        let mut entry = VALID;
        entry[*word] |= bits;
        s.see(dte(&bench, viommu, entry, 1));
    }
    Ok(())
}

/// The numbers in use, as vIOMMU: guest's -> host's.
fn see_domains(s: &mut Session<'_>, driver: &AmdNested) {
    let words = driver.domains().into_iter().map(|(viommu, guest, host)| format!("{viommu}: {guest} -> {host}"));
    let words: Vec<_> = words.collect();
    s.note(if words.is_empty() { "none".into() } else { words.join(", ") });
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C12.1",
        stimulus: "Linux 7.3: VIOMMU_ALLOC of type 77; a nested HWPT on it; on the parent; HWPT_INVALIDATE",
        expected: "ok; EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP, num 0",
        run: |s| {
            let bench = Bench::new(HOST, Options::default(), s.memory())?;
            let viommu = bench.viommu(VIOMMU);
            s.see(viommu);
            s.see(dte(&bench, viommu?, VALID, 1));
            s.see(dte(&bench, bench.parent, VALID, 1));
            s.see_invalidate(bench.session.invalidate(viommu?, 0, &[[0u64; 2]]));
            Ok(())
        },
    },
    Row {
        id: "C12.2",
        stimulus: "HWPT_ALLOC: PASID; NEST_PARENT with DIRTY_TRACKING; PASID with NEST_PARENT; PASID with DIRTY_TRACKING",
        expected: "ok; ok; EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let bench = Bench::new(HOST, Options::default(), s.memory())?;
            let (pasid, parent, dirty) = (HWPT_ALLOC_PASID, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_DIRTY_TRACKING);
            for flags in [pasid, parent | dirty, pasid | parent, pasid | dirty] {
                s.see(bench.session.hwpt(bench.device.id, bench.ioas, flags));
            }
            Ok(())
        },
    },
    Row {
        id: "C12.3",
        stimulus: "the nesting code: a guest's DTE with Mode 1; Mode 4; HostTRP",
        expected: "EINVAL; EINVAL; EINVAL",
        run: |s| with(s, true, &[(0, 1 << 9), (0, 4 << 9), (0, 1 << 12)]),
    },
    Row {
        id: "C12.4",
        stimulus: "V and GV without a GCR3; with its lowest bits alone; with its highest alone; V without GV; neither",
        expected: "EINVAL; ok; ok; ok; ok",
        run: |s| {
            let bench = machine(s, &AmdNested::new(HOST, u16::MAX))?;
            let viommu = bench.viommu(VIOMMU)?;
            let on = VALID[0];
            for entry in [[on, 0], [on | 1 << 58, 0], [on, 1 << 63], [1, 0], [0, 0]] {
                s.see(dte(&bench, viommu, [entry[0], entry[1], 0, 0], 1));
            }
            Ok(())
        },
    },
    Row {
        id: "C12.5",
        stimulus: "GuestPagingMode 2; 3; GLX 3; GLX 2",
        expected: "EINVAL; EINVAL; EINVAL; ok",
        run: |s| with(s, true, &[(2, 2 << 54), (2, 3 << 54), (0, 3 << 56), (0, 2 << 56)]),
    },
    Row {
        id: "C12.6",
        stimulus: "five levels where there are four; where there are five",
        expected: "EOPNOTSUPP; ok",
        run: |s| {
            with(s, false, &[(2, 1 << 54)])?;
            with(s, true, &[(2, 1 << 54)])
        },
    },
    Row {
        id: "C12.7",
        stimulus: "two DTEs of guest domain 5 on one vIOMMU, one on another; of 6; one of the first is destroyed; the other",
        expected: "1: 5 -> 1; 1: 5 -> 1, 2: 5 -> 2; 1: 5 -> 1, 1: 6 -> 3, 2: 5 -> 2; 1: 5 -> 1, 1: 6 -> 3, 2: 5 -> 2; 1: 6 -> 3, 2: 5 -> 2",
        run: |s| {
            let driver = AmdNested::new(HOST, u16::MAX);
            let bench = machine(s, &driver)?;
            let (one, other) = (bench.viommu(VIOMMU)?, bench.viommu(VIOMMU)?);
            let made = [dte(&bench, one, VALID, 5)?, dte(&bench, one, VALID, 5)?];
            see_domains(s, &driver);
            dte(&bench, other, VALID, 5)?;
            see_domains(s, &driver);
            dte(&bench, one, VALID, 6)?;
            see_domains(s, &driver);
            for hwpt in made {
                bench.session.destroy(hwpt)?;
                see_domains(s, &driver);
            }
            Ok(())
        },
    },
    Row {
        id: "C12.8",
        stimulus: "two numbers in all: domains 5, 6, 7; 5 again; 5's two are destroyed; 7",
        expected: "ok; ok; ENOSPC; ok; ok; ok; ok",
        run: |s| {
            let bench = machine(s, &AmdNested::new(HOST, 2))?;
            let viommu = bench.viommu(VIOMMU)?;
            let made: Vec<_> = [5, 6, 7, 5].iter().map(|guest| dte(&bench, viommu, VALID, *guest)).collect();
            made.iter().for_each(|made| s.see(*made));
            for hwpt in [made[0]?, made[3]?] {
                s.see(bench.session.destroy(hwpt));
            }
            s.see(dte(&bench, viommu, VALID, 7));
            Ok(())
        },
    },
    Row {
        id: "C12.9",
        stimulus: "another vendor's data; data of 24 bytes; a DTE that is refused takes no number",
        expected: "EOPNOTSUPP; EINVAL; none",
        run: |s| {
            let driver = AmdNested::new(HOST, u16::MAX);
            let bench = machine(s, &driver)?;
            let viommu = bench.viommu(VIOMMU)?;
            s.see(bench.nested(viommu, 0, HWPT_DATA_VTD_S1, &[0u64; 4]));
            s.see(bench.nested(viommu, 0, HWPT_DATA_AMD_GUEST, &[0u64; 3]));
            dte(&bench, viommu, [1 << 9, 0, 0, 0], 5).err();
            see_domains(s, &driver);
            Ok(())
        },
    },
];
