//! The software iommufd by the rows of the kernel's own selftests (the mock driver) and by the vendors' drivers.
//!
//! Names of tests begin with their row.

mod arm_plugin;
mod arm_smmuv3;
mod bindings;
mod caller;
mod cdev;
mod constants;
mod fail_nth;
mod framing;
mod hostile;
mod ioas;
mod nested;
mod pasid_dirty;
mod vendor;
mod viommu;
mod vqueue;
