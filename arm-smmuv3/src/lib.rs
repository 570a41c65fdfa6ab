//! The Arm SMMUv3 as a viommu vendor.
#![forbid(unsafe_code)]

pub mod codec;
pub mod features;
pub mod frontend;
pub mod model;
pub mod spec;
