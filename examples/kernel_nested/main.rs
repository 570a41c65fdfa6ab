//! DMA through nested translation on a real kernel: every claim that viommu makes of its kernel backend, seen from a
//! device. Runs in the lab's VM (`ci/kernel-lab`, docs/kernel-lab.md), as root, with two `edu` devices on vfio-pci.
//! `kernel_nested model` makes the same checks on a software IOMMU, as far as it has what they need.
//!
//! Each line is `ok NAME` or `FAILED NAME: why`.
#![forbid(unsafe_code)]

mod adoption;
mod batches;
mod bench;
mod checks;
mod commands;
mod edu;
mod estate;
mod faults;
mod guest;
mod interrupts;
mod invalidation;
mod kernel;
mod late;
mod lives;
mod model;
mod tables;
mod teardown;
mod translation;

use bench::Machine;
use checks::Checks;
use kernel::{Kernel, Trust};
use std::path::Path;
use viommu_examples::Story;

fn main() -> Story {
    let mut checks = Checks::default();
    match std::env::args().nth(1).as_deref() {
        None => on_the_kernel(&mut checks)?,
        Some("model") => everywhere(&model::Model::new()?, &mut checks),
        Some("commands") => commands(&mut checks)?,
        // The processes that are to be killed.
        Some("hold") => return lives::hold(),
        Some("proof") => everywhere(&Kernel::new(Trust::Checked)?, &mut checks),
        Some("give") => return adoption::give(Path::new(&std::env::args().nth(2).ok_or("give SOCKET")?)),
        _ => return Err("usage: kernel_nested [model | commands VIOMMU SEQUENCES SEED]".into()),
    }
    println!("# {} ok, {} failed", checks.ok, checks.failed.len());
    if checks.failed.is_empty() { Ok(()) } else { Err("not every check held".into()) }
}

/// The parts of the proof that any machine can be asked for.
fn everywhere(machine: &dyn Machine, checks: &mut Checks) {
    checks.part("stage 2 only, bypass, abort, nested", |checks| translation::entries(machine, checks));
    checks.part("a PTE that is changed, and each kind of TLBI", |checks| invalidation::translations(machine, checks));
    checks.part("a CD that is rewritten, and CFGI_CD", |checks| invalidation::descriptors(machine, checks));
    checks.part("host-side unmap", |checks| invalidation::host_unmaps(machine, checks));
    checks.part("faults, and two devices that share a nested HWPT", |checks| faults::kinds(machine, checks));
    checks.part("the guest's event queue overflows", |checks| faults::overflow(machine, checks));
    checks.part("teardown from every state", |checks| teardown::states(machine, checks));
    checks.part("batches", |checks| batches::plain(machine, checks));
    checks
        .part("batches with an illegal command, refused before the kernel", |checks| batches::checked(machine, checks));
}

/// All of it.
fn on_the_kernel(checks: &mut Checks) -> Story {
    let machine = Kernel::new(Trust::Checked)?;
    checks.part("kill -9, and again in one boot", |checks| lives::killed(&machine, checks));
    everywhere(&machine, checks);
    checks.part("MSI", |checks| interrupts::messages(&machine, checks));
    drop(machine);
    checks.part("the kernel's event queue overflows", faults::kernel_overflow);
    checks.part("adoption by a second process", adoption::whole);
    checks.part("adoption by a second process that was not given everything", adoption::parts);
    let unchecked = Kernel::new(Trust::Unchecked)?;
    checks.part("batches with an illegal command, refused by the kernel: replay and bisect", |checks| {
        batches::unchecked(&unchecked, checks)
    });
    drop(unchecked);
    let believing = Kernel::new(Trust::EntryNum)?;
    checks.part("a sink that trusts entry_num", |checks| batches::believed(&believing, checks));
    Ok(())
}

/// `commands VIOMMU SEQUENCES SEED`: the command of that path, on this kernel.
fn commands(checks: &mut Checks) -> Story {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    let [viommu, sequences, seed] = &arguments[..] else { return Err("commands: VIOMMU SEQUENCES SEED".into()) };
    let (viommu, sequences, seed) = (Path::new(viommu), sequences.parse()?, seed.parse()?);
    let nodes: Vec<_> = kernel::found()?.into_iter().map(|(_, node)| node.display().to_string()).collect();
    let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
    checks.part("viommu probe", |checks| commands::probe(viommu, &nodes, checks));
    checks.part("viommu conformance", |checks| commands::rows(viommu, checks));
    checks.part("random sequences", |checks| commands::sequences(viommu, sequences, seed, checks));
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
