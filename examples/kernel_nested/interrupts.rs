//! A device's MSI is a write like any other: it needs the guest's stage 1 on its way to the interrupt controller.

use crate::bench::nested;
use crate::checks::Checks;
use crate::kernel::Kernel;
use crate::tables::Access;
use std::time::Duration;
use viommu_examples::Story;

/// Where Linux puts the interrupt controller's page into a nesting parent (its window for MSIs begins here).
const DOORBELL: u64 = 0x800_0000;
const F_TRANSLATION: u64 = 0x10;

/// An MSI with and without a translation.
pub(crate) fn messages(machine: &Kernel, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    let (guest, memory) = (&bench.guest, &bench.guest.memory);
    let message = machine.message(0)?;
    let arrived = || message.within(Duration::from_millis(300));

    bench.engines[0].interrupt()?;
    checks.same("an MSI that stage 1 does not map is lost", arrived()?, 0);
    let event = guest.await_events()?.first().map(|event| (event[0] & 0xff, event[2] & !0xfff));
    checks.same("and the guest is told: F_TRANSLATION at the doorbell", event, Some((F_TRANSLATION, DOORBELL)));
    bench.tables.map(memory, DOORBELL, DOORBELL, Access::Write)?;
    bench.engines[0].interrupt()?;
    checks.same("mapped, it arrives", arrived()?, 1);
    bench.engines[0].interrupt()?;
    checks.same("and once more", arrived()?, 1);
    checks.same("no further event", guest.events()?.len(), 0);
    drop(message);
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}
