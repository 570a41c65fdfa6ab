//! DMA through nested translation on a real kernel: every claim that viommu makes of its kernel backend, seen from a
//! device. Runs in the lab's VM (`ci/kernel-lab`, docs/kernel-lab.md), as root, with two `edu` devices on vfio-pci.
//! `kernel_nested model` makes the same checks on a software IOMMU, as far as it has what they need.
//!
//! Each line is `ok NAME` or `FAILED NAME: why`.
#![forbid(unsafe_code)]

mod batches;
mod bench;
mod checks;
mod edu;
mod faults;
mod guest;
mod interrupts;
mod invalidation;
mod kernel;
mod lives;
mod model;
mod tables;
mod teardown;
mod translation;

use bench::Machine;
use checks::Checks;
use kernel::{Kernel, Trust};
use viommu_examples::Story;

fn main() -> Story {
    let mut checks = Checks::default();
    match std::env::args().nth(1).as_deref() {
        None => on_the_kernel(&mut checks)?,
        Some("model") => everywhere(&model::Model::new()?, &mut checks),
        // The process that is to be killed.
        Some("hold") => return lives::hold(),
        _ => return Err("usage: kernel_nested [model]".into()),
    }
    println!("# {} ok, {} failed", checks.ok, checks.failed.len());
    if checks.failed.is_empty() { Ok(()) } else { Err("not every check held".into()) }
}

/// The parts of the proof that any machine can be asked for.
fn everywhere(machine: &dyn Machine, checks: &mut Checks) {
    checks.part("entries", |checks| translation::entries(machine, checks));
    checks.part("translations", |checks| invalidation::translations(machine, checks));
    checks.part("descriptors", |checks| invalidation::descriptors(machine, checks));
    checks.part("the host unmaps", |checks| invalidation::host_unmaps(machine, checks));
    checks.part("faults", |checks| faults::kinds(machine, checks));
    checks.part("overflow", |checks| faults::overflow(machine, checks));
    checks.part("teardown", |checks| teardown::states(machine, checks));
    checks.part("batches", |checks| batches::plain(machine, checks));
    checks.part("commands that are refused before the kernel", |checks| batches::checked(machine, checks));
}

/// All of it.
fn on_the_kernel(checks: &mut Checks) -> Story {
    let machine = Kernel::new(Trust::Checked)?;
    everywhere(&machine, checks);
    checks.part("interrupts", |checks| interrupts::messages(&machine, checks));
    checks.part("killed", |checks| lives::killed(&machine, checks));
    drop(machine);
    let unchecked = Kernel::new(Trust::Unchecked)?;
    checks.part("commands that the kernel refuses", |checks| batches::unchecked(&unchecked, checks));
    drop(unchecked);
    let believing = Kernel::new(Trust::EntryNum)?;
    checks.part("a sink that believes the kernel's count", |checks| batches::believed(&believing, checks));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_hold_on_a_model_with_caches() {
        let mut checks = Checks::default();
        everywhere(&model::Model::new().unwrap(), &mut checks);
        assert_eq!(checks.failed, Vec::<String>::new());
        assert!(checks.ok >= 98, "{} checks", checks.ok);
    }
}
