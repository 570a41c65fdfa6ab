//! A VMM that is killed, and the next one in the same boot.

use crate::bench::{ASID, Bench, IOVA, Page, nested};
use crate::checks::Checks;
use crate::guest::tlbi_nh_va;
use crate::kernel::{Kernel, Trust};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
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

fn works(bench: &Bench) -> Story<bool> {
    for page in [Page::A, Page::B] {
        bench.map(IOVA, page)?;
        bench.guest.finish(&[tlbi_nh_va(ASID, IOVA)])?;
        if bench.lands(0, IOVA)? != Some(page) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Kills a VMM with everything live, and makes a VM again.
pub(crate) fn killed(machine: &Kernel, checks: &mut Checks) -> Story {
    for round in 1..=3 {
        machine.release();
        let mut doomed = Command::new(std::env::current_exe()?).arg("hold").stdout(Stdio::piped()).spawn()?;
        let at_work = says(&mut doomed, AT_WORK)?;
        checks.holds(format_args!("kill {round}: a VMM whose devices are at work"), at_work, "it did not get there");
        // Not always at the same place of its work.
        std::thread::sleep(std::time::Duration::from_millis(37 * round));
        doomed.kill()?;
        doomed.wait()?;
        let bench = nested(machine)?;
        checks.same(format_args!("kill {round}: the next VMM's devices do what its guest says"), works(&bench)?, true);
        checks.same(format_args!("kill {round}: nothing is left over of the next"), bench.close()?.as_str(), "nothing");
    }
    Ok(())
}

fn says(child: &mut Child, what: &str) -> Story<bool> {
    let output = child.stdout.take().ok_or("no output")?;
    for line in BufReader::new(output).lines() {
        if line? == what {
            return Ok(true);
        }
    }
    Ok(false)
}
