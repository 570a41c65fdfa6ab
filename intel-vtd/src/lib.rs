//! The Intel VT-d IOMMU as a viommu vendor.
#![forbid(unsafe_code)]

pub mod spec;
