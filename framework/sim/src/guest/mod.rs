//! Random guest operating systems, one driver a vendor, each written from the manual and not from the vendor's crate
//! here: an encoding that is wrong in both would have to be misread twice.
//!
//! What every guest does (maps, unmaps, waits, recycles) is in [`system`], what a vendor's IOMMU wants for it behind
//! [`iommu::Iommu`].

mod amd_vi;
mod arm_smmuv3;
mod format;
mod intel_vtd;
mod iommu;
mod layout;
mod machine;
mod space;
mod system;

pub(crate) use layout::{DATA_OFFSET, GROUPS, LOAN, LOAN_SIZE, RAM, RAM_SIZE, SLOTS, slot};
pub(crate) use machine::{Lines, Loans, Machine, Stopped, machine_of, registers_for, retry};

use crate::oracle::Language;
use crate::plan::{Action, Vendor};
use system::System;
use viommu_plugin::Register;

/// A guest operating system's driver of its IOMMU.
pub(crate) trait GuestDriver {
    /// Brings the IOMMU up.
    ///
    /// # Errors
    /// If the machine does not go on.
    fn boot(&mut self) -> Result<(), Stopped>;
    /// Does what the plan says, as far as it makes sense now.
    ///
    /// # Errors
    /// As [`GuestDriver::boot`].
    fn act(&mut self, action: &Action) -> Result<(), Stopped>;
    /// Waits until nothing of it is under way.
    ///
    /// # Errors
    /// As [`GuestDriver::boot`].
    fn finish(&mut self) -> Result<(), Stopped>;
    /// The machine, when the guest is done with it.
    fn into_machine(self: Box<Self>) -> Machine;
}

/// The guest for a machine.
pub(crate) fn driver(vendor: Vendor, machine: Machine) -> Box<dyn GuestDriver> {
    match vendor {
        Vendor::ArmSmmuv3 => Box::new(System::<arm_smmuv3::Smmu>::new(machine)),
        Vendor::AmdVi => Box::new(System::<amd_vi::AmdIommu>::new(machine)),
        Vendor::IntelVtd => Box::new(System::<intel_vtd::Vtd>::new(machine)),
    }
}

/// Its commands, as far as the oracle must know them.
pub(crate) fn language(vendor: Vendor) -> Language {
    match vendor {
        Vendor::ArmSmmuv3 => arm_smmuv3::LANGUAGE,
        Vendor::AmdVi => amd_vi::LANGUAGE,
        Vendor::IntelVtd => intel_vtd::LANGUAGE,
    }
}

/// Registers of the physical IOMMU that are not the model's own: small queues and few streams.
pub(crate) fn physical(vendor: Vendor, own: impl Fn(u64) -> u64, ring_log2: u8) -> Vec<Register> {
    match vendor {
        Vendor::ArmSmmuv3 => arm_smmuv3::physical(own, ring_log2),
        Vendor::AmdVi | Vendor::IntelVtd => Vec::new(),
    }
}
