//! DMA through nested translation on a real kernel: every claim that viommu makes of its kernel backend, seen from a
//! device. Runs in the lab's VM (`ci/kernel-lab`, docs/kernel-lab.md), as root, with two `edu` devices on vfio-pci.
//! `kernel_nested model` makes the same checks on a software IOMMU, as far as it has what they need.
//!
//! Each line is `ok NAME` or `FAILED NAME: why`.
#![forbid(unsafe_code)]

mod batches;
mod bench;
mod checks;
mod faults;
mod guest;
mod invalidation;
mod model;
mod tables;
mod teardown;
mod translation;

use bench::Machine;
use checks::Checks;
use viommu_examples::Story;

fn main() -> Story {
    match std::env::args().nth(1).as_deref() {
        Some("model") => {}
        _ => return Err("usage: kernel_nested model".into()),
    }
    let checks = everywhere(&model::Model::new()?);
    println!("# {} ok, {} failed", checks.ok, checks.failed.len());
    if checks.failed.is_empty() { Ok(()) } else { Err("not every check held".into()) }
}

/// The parts of the proof that any machine can be asked for.
fn everywhere(machine: &dyn Machine) -> Checks {
    let mut checks = Checks::default();
    checks.part("entries", |checks| translation::entries(machine, checks));
    checks.part("translations", |checks| invalidation::translations(machine, checks));
    checks.part("descriptors", |checks| invalidation::descriptors(machine, checks));
    checks.part("faults", |checks| faults::kinds(machine, checks));
    checks.part("overflow", |checks| faults::overflow(machine, checks));
    checks.part("teardown", |checks| teardown::states(machine, checks));
    checks.part("batches", |checks| batches::plain(machine, checks));
    checks.part("refused commands", |checks| batches::checked(machine, checks));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_hold_on_a_model_with_caches() {
        let checks = everywhere(&model::Model::new().unwrap());
        assert_eq!(checks.failed, Vec::<String>::new());
        assert!(checks.ok >= 98, "{} checks", checks.ok);
    }
}
