//! A machine whose IOMMU is the software SMMU.

use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Hardware, ModelConfig, Refusal, Register};
use viommu_plugin_check::bench::Bench;

pub(crate) type Machine = Bench<Smmu>;

/// With the model's own ID registers.
pub(crate) fn plain() -> Machine {
    with(&[], false)
}

/// A machine whose SMMU has these ID registers, and devices with caches of their own.
pub(crate) fn with(registers: &[Register], atc: bool) -> Machine {
    let config = ModelConfig { registers, atc, tlb_capacity: 0 };
    Bench::new(|host| Smmu::new(host, config).unwrap(), issue)
}

/// Commands issued since the last call.
pub(crate) fn take_issued(machine: &Machine) -> Vec<[u64; 2]> {
    machine.take_issued().as_chunks().0.to_vec()
}

fn issue(machine: &Machine, commands: &[u64]) -> Result<(), Refusal> {
    let base = machine.mmio_read(offset::CMDQ_BASE, 8);
    let (base, log2) = (base & 0x000f_ffff_ffff_ffe0, base & 0x1f);
    let mut prod = machine.mmio_read(offset::CMDQ_PROD, 4);
    for &[w0, w1] in commands.as_chunks::<2>().0.iter().chain([&[0x46, 0]]) {
        let slot = base + (prod & ((1 << log2) - 1)) * 16;
        machine.set_word(slot, w0);
        machine.set_word(slot + 8, w1);
        prod = (prod + 1) & ((2 << log2) - 1);
    }
    machine.mmio_write(offset::CMDQ_PROD, 4, prod);
    let errors = machine.mmio_read(offset::GERROR, 4) ^ machine.mmio_read(offset::GERRORN, 4);
    match errors & 1 {
        0 => Ok(()),
        _ => Err(Refusal::new(Refusal::EIO, "the physical queue stopped")),
    }
}
