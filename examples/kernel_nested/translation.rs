//! What the guest's table entries make of its devices' DMA.

use crate::bench::{Bench, IOVA, Machine, Page, STREAMS};
use crate::checks::Checks;
use crate::guest::CFGI_ALL;
use crate::tables::{ABORT, BYPASS, INVALID, translate};
use viommu_examples::Story;

/// Stage 2 only, bypass, abort, nested, and the ways between them.
pub(crate) fn entries(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = Bench::new(machine)?;
    let (guest, cd) = (&bench.guest, bench.descriptor.gpa);
    let gpa = |page| bench.page(page);

    // The guest's IOMMU is off.
    checks.same(
        "stage 2 only: the first device reads and writes by guest address",
        bench.lands(0, gpa(Page::A))?,
        Some(Page::A),
    );
    checks.same("stage 2 only: the second device too", bench.lands(1, gpa(Page::B))?, Some(Page::B));
    checks.same(
        "stage 2 only: an address outside the guest's memory is out of reach",
        bench.lands(0, 0x7f_f000_0000)?,
        None,
    );
    guest.disable(true)?;
    checks.same("IOMMU off with GBPA.ABORT: DMA aborts", bench.lands(0, gpa(Page::A))?, None);
    guest.disable(false)?;
    checks.same("IOMMU off again without: DMA passes", bench.lands(0, gpa(Page::A))?, Some(Page::A));

    // On, and no entry is valid yet.
    guest.enable()?;
    checks.same("an entry with V clear: DMA aborts", bench.lands(0, gpa(Page::A))?, None);
    guest.set_entry(STREAMS[0], BYPASS)?;
    checks.same("a bypass entry: DMA by guest address", bench.lands(0, gpa(Page::B))?, Some(Page::B));
    checks.same("the other device's entry is still invalid", bench.lands(1, gpa(Page::B))?, None);
    guest.set_entry(STREAMS[0], ABORT)?;
    checks.same("an abort entry: DMA aborts", bench.lands(0, gpa(Page::B))?, None);

    // Nested.
    guest.set_entry(STREAMS[0], translate(cd))?;
    checks.same("nested: DMA through stage 1 and stage 2", bench.lands(0, IOVA)?, Some(Page::A));
    checks.same("nested: a guest address is none of stage 1's", bench.lands(0, gpa(Page::A))?, None);
    checks.same("one nested HWPT", bench.viommu.counters().live, 1);
    guest.store_entry(STREAMS[0], BYPASS)?;
    checks.same("an entry changed in memory and not announced changes nothing", bench.lands(0, IOVA)?, Some(Page::A));
    guest.finish(&[CFGI_ALL])?;
    checks.same("CFGI_ALL announces it", bench.lands(0, gpa(Page::C))?, Some(Page::C));
    checks.same("and the nested HWPT is gone", bench.viommu.counters().live, 0);
    for (name, entry, iova, lands) in [
        ("nested again", translate(cd), IOVA, Some(Page::A)),
        ("nested to V clear", INVALID, IOVA, None),
        ("V clear to nested", translate(cd), IOVA, Some(Page::A)),
        ("nested to abort", ABORT, IOVA, None),
        ("abort to bypass", BYPASS, gpa(Page::B), Some(Page::B)),
        ("bypass to nested", translate(cd), IOVA, Some(Page::A)),
    ] {
        guest.set_entry(STREAMS[0], entry)?;
        checks.same(name, bench.lands(0, iova)?, lands);
    }

    // Entries that no guest may have are abort, and only for their device.
    guest.set_entry(STREAMS[1], translate(cd))?;
    for (name, entry) in [
        ("an entry that asks for stage 2", [1 | 6 << 1 | cd, 0]),
        ("an entry that asks for both stages", [1 | 7 << 1 | cd, 0]),
    ] {
        guest.set_entry(STREAMS[0], entry)?;
        checks.same(format_args!("{name}: DMA aborts"), bench.lands(0, IOVA)?, None);
    }
    checks.same("the other device goes on", bench.lands(1, IOVA)?, Some(Page::A));

    // The guest's IOMMU goes off and on under its devices.
    guest.set_entry(STREAMS[0], translate(cd))?;
    guest.disable(false)?;
    checks.same("IOMMU off under a nested device: stage 2 only", bench.lands(0, gpa(Page::B))?, Some(Page::B));
    guest.enable()?;
    checks.same("and on: nested, with no command", bench.lands(0, IOVA)?, Some(Page::A));
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}
