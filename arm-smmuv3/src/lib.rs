//! The Arm SMMUv3 as a viommu vendor.
#![forbid(unsafe_code)]

pub mod spec;
