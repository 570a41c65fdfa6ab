//! Random guest operating systems, one driver a vendor, each written from the manual and not from the vendor's crate
//! here: an encoding that is wrong in both would have to be misread twice.

pub(crate) mod arm_smmuv3;
mod machine;

pub(crate) use machine::{Lines, Loans, Machine, Stopped, retry};

use crate::plan::Action;

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
}
