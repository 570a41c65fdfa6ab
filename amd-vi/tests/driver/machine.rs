//! A machine whose IOMMU is the software AMD IOMMU.

use amd_vi::model::Iommu;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Hardware, ModelConfig, Refusal, Register};
use viommu_plugin_check::bench::Bench;

pub(crate) type Machine = Bench<Iommu>;

/// With the model's own ID registers.
pub(crate) fn plain() -> Machine {
    with(&[], false)
}

/// A machine whose IOMMU has these ID registers beside the model's own, and devices with caches of their own.
pub(crate) fn with(registers: &[Register], atc: bool) -> Machine {
    let config = ModelConfig { registers, atc, tlb_capacity: 0 };
    Bench::new(|host| Iommu::new(host, config).unwrap(), issue)
}

/// Commands issued since the last call.
pub(crate) fn take_issued(machine: &Machine) -> Vec<[u64; 2]> {
    machine.take_issued().as_chunks().0.to_vec()
}

fn issue(machine: &Machine, commands: &[u64]) -> Result<(), Refusal> {
    let base = machine.mmio_read(offset::COMMAND_BASE, 8);
    let (base, mask) = (base & 0x000f_ffff_ffff_f000, (16 << (base >> 56 & 0xf)) - 1);
    let mut tail = machine.mmio_read(offset::COMMAND_TAIL, 8);
    for &[w0, w1] in commands.as_chunks::<2>().0.iter().chain([&[1 << 60, 0]]) {
        machine.set_word(base + tail, w0);
        machine.set_word(base + tail + 8, w1);
        tail = (tail + 16) & mask;
    }
    machine.mmio_write(offset::COMMAND_TAIL, 4, tail);
    match machine.mmio_read(offset::COMMAND_HEAD, 8) == tail {
        true => Ok(()),
        false => Err(Refusal::new(Refusal::EIO, "the command buffer stopped")),
    }
}
