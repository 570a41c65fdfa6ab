//! viommu keeps the nested-translation objects of Linux iommufd as supervised actors and moves guest invalidations from
//! a VM's command queue to the hardware queue in batches.

#![deny(unsafe_code)]

pub mod backend;
mod error;
pub mod metrics;
pub mod pipeline;

pub use error::{Cause, Error};
pub use viommu_plugin as plugin;
pub use vm_memory;
