//! A machine with the software VT-d as its IOMMU.

use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::registers::{QueueAddress, offset};
use viommu_plugin::{Hardware, ModelConfig, Refusal, Register};
use viommu_plugin_check::bench::Bench;

pub(crate) type Machine = Bench<RemappingUnit>;

/// A wait descriptor without status.
const WAIT: [u64; 4] = [0x45, 0, 0, 0];

pub(crate) fn machine() -> Machine {
    with(&[], false)
}

/// A machine whose VT-d has these ID registers, and devices with caches of their own.
pub(crate) fn with(registers: &[Register], atc: bool) -> Machine {
    let config = ModelConfig { registers, atc, tlb_capacity: 0 };
    Bench::new(|host| RemappingUnit::new(host, config).unwrap(), issue)
}

/// Puts 256-bit descriptors and a wait at the tail.
fn issue(machine: &Machine, commands: &[u64]) -> Result<(), Refusal> {
    let address = QueueAddress::from_bits(machine.mmio_read(offset::IQA, 8));
    let mut tail = machine.mmio_read(offset::IQT, 4);
    for words in commands.as_chunks::<4>().0.iter().chain([&WAIT]) {
        for (at, word) in (address.address() + tail..).step_by(8).zip(words) {
            machine.set_word(at, *word);
        }
        tail = (tail + 32) % address.bytes();
    }
    machine.mmio_write(offset::IQT, 4, tail);
    match machine.mmio_read(offset::FSTS, 4) & 0x70 {
        0 => Ok(()),
        _ => Err(Refusal::new(Refusal::EIO, "the physical queue stopped")),
    }
}
