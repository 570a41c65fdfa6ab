//! A VMM that is killed, and the next one in the same boot.

use crate::bench::{ASID, Bench, IOVA, Page, nested};
use crate::checks::Checks;
use crate::guest::tlbi_nh_va;
use crate::kernel::{Kernel, Trust};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use viommu_examples::Story;

/// What the doomed process says when its devices are at work.
const AT_WORK: &str = "at work";

/// The process to be killed: devices behind nested translation, DMA and invalidations without an end.
pub(crate) fn hold() -> Story {
    let bench = nested(&Kernel::new(Trust::Checked)?)?;
    println!("{AT_WORK}");
    loop {
        works(&bench)?;
    }
}

/// Whether what its guest changes and says is what the first device does.
pub(crate) fn works(bench: &Bench) -> Story<bool> {
    for page in [Page::A, Page::B] {
        bench.map(IOVA, page)?;
        bench.guest.finish(&[tlbi_nh_va(ASID, IOVA)])?;
        if bench.lands(0, IOVA)? != Some(page) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the proof itself says in its middle.
const IN_ITS_MIDDLE: &str = "ok TLBI_NH_ASID: changed and not said, stale";

/// Kills a VMM with everything live, and makes a VM again. The last to be killed is this proof; the rest of it comes
/// afterwards, in the same boot.
pub(crate) fn killed(machine: &Kernel, checks: &mut Checks) -> Story {
    for (round, (argument, until)) in (1..).zip([("hold", AT_WORK), ("hold", AT_WORK), ("proof", IN_ITS_MIDDLE)]) {
        machine.release();
        let mut doomed = Command::new(std::env::current_exe()?).arg(argument).stdout(Stdio::piped()).spawn()?;
        // Kept open: who cannot write to it would end by itself.
        let mut output = BufReader::new(doomed.stdout.take().ok_or("no output")?);
        let at_work = says(&mut output, until)?;
        checks.holds(format_args!("kill {round}: a VMM whose devices are at work"), at_work, "it did not get there");
        // Not always at the same place of its work.
        std::thread::sleep(Duration::from_millis(37 * round));
        doomed.kill()?;
        doomed.wait()?;
        let bench = nested(machine)?;
        checks.same(format_args!("kill {round}: the next VMM's devices do what its guest says"), works(&bench)?, true);
        checks.same(format_args!("kill {round}: nothing is left over of the next"), bench.close()?.as_str(), "nothing");
    }
    Ok(())
}

fn says(output: &mut impl BufRead, what: &str) -> Story<bool> {
    for line in output.lines() {
        if line? == what {
            return Ok(true);
        }
    }
    Ok(false)
}
