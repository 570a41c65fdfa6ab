//! The AMD-Vi IOMMU as a viommu vendor.
#![forbid(unsafe_code)]

pub mod model;
pub mod spec;
