//! The Intel VT-d IOMMU as a viommu vendor.
#![forbid(unsafe_code)]

pub mod model;
pub mod spec;
