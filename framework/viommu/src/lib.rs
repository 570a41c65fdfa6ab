//! viommu keeps the nested-translation objects of Linux iommufd as supervised actors and moves guest invalidations from
//! a VM's command queue to the hardware queue in batches.

#![deny(unsafe_code)]

pub mod backend;
pub mod blocking;
mod error;
mod host;
pub mod metrics;
pub mod objects;
pub mod pipeline;
pub mod proposal;
pub mod seams;

pub use error::{Cause, Error};
pub use host::{Host, HostBuilder, HostEvent, Leftovers};
pub use viommu_plugin as plugin;
pub use vm_memory;
