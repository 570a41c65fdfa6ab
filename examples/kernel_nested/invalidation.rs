//! A table changes, nothing is said: the old translation must still be seen. Then the guest says so in its command queue.

use crate::bench::{ASID, IOVA, Machine, Page, STREAMS, nested};
use crate::checks::Checks;
use crate::guest::{
    Command, TLBI_NH_ALL, TLBI_NSNH_ALL, cfgi_cd, cfgi_cd_all, tlbi_nh_asid, tlbi_nh_va, tlbi_nh_va_range, tlbi_nh_vaa,
};
use crate::tables::{Access, TAIL, TAIL_BYTES, Tables};
use viommu_examples::Story;

/// Every TLB invalidation that a guest has, each after a change that was seen to be stale.
pub(crate) fn translations(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let ranges = bench.guest.has_ranges()?;
    let foreign = |command: Command| [command[0] | 0x5a << 32, command[1]];
    let mut kinds = vec![
        ("TLBI_NH_VA", tlbi_nh_va(ASID, IOVA), true),
        ("TLBI_NH_VAA", tlbi_nh_vaa(IOVA), true),
        ("TLBI_NH_ASID", tlbi_nh_asid(ASID), true),
        ("TLBI_NH_ALL", TLBI_NH_ALL, true),
        ("TLBI_NSNH_ALL", TLBI_NSNH_ALL, true),
        ("TLBI_NH_VA of a VMID that is not ours", foreign(tlbi_nh_va(ASID, IOVA)), true),
        ("TLBI_NH_VA of another ASID", tlbi_nh_va(ASID + 9, IOVA), false),
        ("TLBI_NH_VA of another address", tlbi_nh_va(ASID, IOVA + 0x40_0000), false),
        ("TLBI_NH_ASID of another ASID", tlbi_nh_asid(ASID + 9), false),
    ];
    if ranges {
        kinds.push(("TLBI_NH_VA of a range", tlbi_nh_va_range(ASID, IOVA - 0x1000, 4), true));
        kinds.push(("TLBI_NH_VA of a range beside it", tlbi_nh_va_range(ASID, IOVA + 0x1000, 4), false));
    } else {
        println!("# this guest was shown no range invalidation");
    }
    for (name, command, reaches) in kinds {
        bench.map(IOVA, Page::A)?;
        bench.guest.finish(&[TLBI_NH_ALL])?;
        checks.same(format_args!("{name}: before"), bench.lands(0, IOVA)?, Some(Page::A));
        bench.map(IOVA, Page::B)?;
        checks.same(format_args!("{name}: changed and not said, stale"), bench.lands(0, IOVA)?, Some(Page::A));
        bench.guest.finish(&[command])?;
        let after = if reaches { ("fresh", Page::B) } else { ("as stale as before", Page::A) };
        checks.same(format_args!("{name}: then {}", after.0), bench.lands(0, IOVA)?, Some(after.1));
    }
    bench.tables.unmap(&bench.guest.memory, IOVA)?;
    bench.guest.finish(&[tlbi_nh_va(ASID, IOVA)])?;
    checks.same("an unmapped page is out of reach", bench.lands(0, IOVA)?, None);
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// The context descriptor leads elsewhere.
pub(crate) fn descriptors(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let memory = &bench.guest.memory;
    let other = Tables::new(memory);
    other.map(memory, IOVA, bench.page(Page::C), Access::Write)?;
    for (name, command) in [("CFGI_CD", cfgi_cd(STREAMS[0])), ("CFGI_CD_ALL", cfgi_cd_all(STREAMS[0]))] {
        bench.descriptor.write(memory, &bench.tables, ASID)?;
        bench.guest.finish(&[cfgi_cd(STREAMS[0]), cfgi_cd(STREAMS[1]), TLBI_NH_ALL])?;
        checks.same(format_args!("{name}: before"), bench.lands(0, IOVA)?, Some(Page::A));
        bench.descriptor.write(memory, &other, ASID + 1)?;
        checks.same(format_args!("{name}: rewritten and not said, stale"), bench.lands(0, IOVA)?, Some(Page::A));
        bench.guest.finish(&[TLBI_NH_ALL])?;
        checks.same(
            format_args!("{name}: a TLB invalidation alone does not reach it"),
            bench.lands(0, IOVA)?,
            Some(Page::A),
        );
        bench.guest.finish(&[command])?;
        checks.same(format_args!("{name}: then the other tables"), bench.lands(0, IOVA)?, Some(Page::C));
    }
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// The host takes memory away under a running guest, which is told nothing and does nothing.
pub(crate) fn host_unmaps(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let beside = IOVA + 0x1000;
    bench.map(beside, Page::A)?;
    bench.tables.map(&bench.guest.memory, IOVA, TAIL, Access::Write)?;
    bench.guest.finish(&[tlbi_nh_va(ASID, IOVA)])?;
    checks.same("the page is reached", bench.reaches(0, IOVA, TAIL)?, true);
    checks.same("the host unmaps all of it", bench.ioas.unmap(TAIL, TAIL_BYTES)?, TAIL_BYTES);
    checks.same("the device is cut off, with no invalidation of the guest's", bench.reaches(0, IOVA, TAIL)?, false);
    checks.same("the rest of the guest's memory is reached", bench.reaches(1, beside, bench.page(Page::A))?, true);
    checks.same("the guest hears nothing of it", bench.guest.events()?.len(), 0);
    machine.map(&bench.ioas, bench.guest.memory.shared(), TAIL, TAIL_BYTES)?;
    checks.same("mapped again, it is reached again", bench.reaches(0, IOVA, TAIL)?, true);
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}
