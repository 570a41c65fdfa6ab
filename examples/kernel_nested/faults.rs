//! What a guest is told of its devices' faults, and what not.

use crate::bench::{ASID, IOVA, Machine, Page, STREAMS, nested};
use crate::checks::Checks;
use crate::guest::{Guest, QUIET, TLBI_NH_ALL, cfgi_cd, tlbi_nh_va};
use crate::kernel::Kernel;
use crate::tables::{Access, translate};
use std::time::{Duration, Instant};
use viommu::HostEvent;
use viommu_examples::Story;

/// Nothing is mapped here, in the same table as [`IOVA`].
pub(crate) const HOLE: u64 = IOVA + 0x10_0000;
pub(crate) const F_TRANSLATION: u64 = 0x10;
const F_PERMISSION: u64 = 0x13;
const C_BAD_CD: u64 = 0x0a;

/// What a record says: event, guest's stream, whether the device read, page.
pub(crate) type Told = (u64, u32, bool, u64);

fn told(record: &[u64; 4]) -> Told {
    (record[0] & 0xff, (record[0] >> 32) as u32, record[1] >> 35 & 1 != 0, record[2] & !0xfff)
}

/// Every record that a DMA caused: hardware may split it, all parts say the same.
pub(crate) fn one(records: &[[u64; 4]]) -> Option<Told> {
    let first = told(records.first()?);
    records.iter().all(|record| told(record) == first).then_some(first)
}

/// Faults by kind, in the guest's own event queue, with its own numbers.
pub(crate) fn kinds(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let (guest, memory) = (&bench.guest, &bench.guest.memory);
    checks.same("no fault, no event", guest.events()?.len(), 0);
    checks.same("two devices whose entries are equal share a nested HWPT", bench.viommu.counters().live, 1);

    bench.write(0, HOLE)?;
    let write = (F_TRANSLATION, STREAMS[0], false, HOLE);
    checks.same("a write to an unmapped page: F_TRANSLATION", one(&guest.await_events()?), Some(write));
    bench.read(0, HOLE)?;
    let read = (F_TRANSLATION, STREAMS[0], true, HOLE);
    checks.same("a read of it: F_TRANSLATION, RnW", one(&guest.await_events()?), Some(read));
    bench.write(1, HOLE)?;
    let other = (F_TRANSLATION, STREAMS[1], false, HOLE);
    checks.same("the other device's fault has its own vSID", one(&guest.await_events()?), Some(other));
    bench.tables.map(memory, HOLE, bench.page(Page::A), Access::ReadOnly)?;
    checks.same("a page that is only for reading is not written", bench.lands(0, HOLE)?, None);
    let forbidden = (F_PERMISSION, STREAMS[0], false, HOLE);
    checks.same("F_PERMISSION", one(&guest.await_events()?), Some(forbidden));
    checks.same("each fault was told once", guest.events()?.len(), 0);

    // Stage 2's faults are the host's.
    bench.tables.map(memory, HOLE, 0x7f_f000_0000, Access::Write)?;
    guest.finish(&[tlbi_nh_va(ASID, HOLE)])?;
    checks.same("a guest address that the guest has not got is out of reach", bench.lands(0, HOLE)?, None);
    std::thread::sleep(QUIET);
    checks.same("a stage-2 fault is not the guest's", guest.events()?.len(), 0);

    bench.descriptor.break_it(memory)?;
    guest.finish(&[cfgi_cd(STREAMS[0]), cfgi_cd(STREAMS[1]), TLBI_NH_ALL])?;
    checks.same("a context descriptor with V clear: DMA aborts", bench.lands(0, IOVA)?, None);
    let told = one(&guest.await_events()?).map(|(event, stream, ..)| (event, stream));
    checks.same("C_BAD_CD", told, Some((C_BAD_CD, STREAMS[0])));
    bench.descriptor.write(memory, &bench.tables, ASID)?;
    guest.finish(&[cfgi_cd(STREAMS[0]), cfgi_cd(STREAMS[1])])?;
    checks.same("repaired, it works again", bench.lands(0, IOVA)?, Some(Page::A));
    checks.same("and for the other device", bench.lands(1, IOVA)?, Some(Page::A));

    // Sharing ends when the entries differ.
    let second = crate::tables::Descriptor::new(memory);
    second.write(memory, &bench.tables, ASID + 2)?;
    guest.set_entry(STREAMS[1], translate(second.gpa))?;
    checks.same("entries that differ have nested HWPTs of their own", bench.viommu.counters().live, 2);
    bench.write(1, HOLE + 0x1000)?;
    let other = (F_TRANSLATION, STREAMS[1], false, HOLE + 0x1000);
    checks.same("and faults have the right vSID still", one(&guest.await_events()?), Some(other));
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// Waits until the guest's event queue says that records were lost: whether it does.
fn await_loss(guest: &Guest) -> Story<bool> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !guest.events_lost()? && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    guest.events_lost()
}

/// More faults than the guest's queue has room for.
pub(crate) fn overflow(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let guest = &bench.guest;
    guest.event_queue(2)?;
    for _ in 0..3 {
        // Hardware may make two records of one DMA, never less than one.
        bench.write(0, HOLE)?;
        bench.write(1, HOLE)?;
    }
    checks.same("a full event queue says that records were lost", await_loss(guest)?, true);
    std::thread::sleep(QUIET);
    let kept = guest.events()?;
    checks.same("it keeps the oldest four", kept.len(), 4);
    checks.same("the first of them is the first fault", told(&kept[0]).1, STREAMS[0]);
    checks.same("reading acknowledges the loss", guest.events_lost()?, false);
    bench.write(1, HOLE + 0x1000)?;
    let next = (F_TRANSLATION, STREAMS[1], false, HOLE + 0x1000);
    checks.same("and the next fault arrives", one(&guest.await_events()?), Some(next));
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// Records that the kernel keeps while nobody reads them.
const DEPTH: u32 = 4;

/// More faults than the kernel's queue has room for, while nobody reads it.
pub(crate) fn kernel_overflow(checks: &mut Checks) -> Story {
    let machine = Kernel::with_depth(DEPTH)?;
    let bench = nested(&machine)?;
    let (guest, told_host) = (&bench.guest, bench.host.events());
    bench.write(0, HOLE)?;
    // Hardware may make several records of one DMA.
    let each = guest.await_events()?.len();
    checks.holds("on time, a fault is told", each > 0, "it is not");
    let losses = || {
        told_host.try_iter().filter_map(|event| match event {
            HostEvent::GuestEventsLost { viommu, records } => Some((viommu, records)),
            _ => None,
        })
    };
    checks.same("and nothing is lost", (losses().count(), guest.events_lost()?), (0, false));

    machine.late(true)?;
    let burst = 2 * DEPTH as usize;
    for n in 0..burst {
        bench.write(n % 2, HOLE)?;
    }
    std::thread::sleep(QUIET);
    checks.same("nobody reads: the guest is told nothing", guest.events()?.len(), 0);
    machine.late(false)?;
    checks.same("read again: the guest's event queue says that records were lost", await_loss(guest)?, true);
    let kept = guest.await_events()?;
    checks.same("the oldest are told, as many as the queue is deep", kept.len(), DEPTH as usize);
    let of: Vec<_> = (0..).map(|n| STREAMS[n / each % 2]).take(kept.len()).collect();
    checks.same("in the order of the faults", kept.iter().map(|record| told(record).1).collect(), of);
    let (viommus, records): (Vec<_>, Vec<_>) = losses().unzip();
    let all = u64::try_from(burst * each)?;
    checks.same("the host is told how many: every one is counted", records.iter().sum::<u64>() + u64::from(DEPTH), all);
    checks.holds("and whose", viommus.iter().all(|viommu| *viommu == bench.viommu.id()), format_args!("{viommus:?}"));

    bench.write(1, HOLE + 0x1000)?;
    let next = (F_TRANSLATION, STREAMS[1], false, HOLE + 0x1000);
    checks.same("the next fault is told as before", one(&guest.await_events()?), Some(next));
    checks.same("with no further loss", (losses().count(), guest.events_lost()?), (0, false));
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}
