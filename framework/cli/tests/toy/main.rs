//! The examples of plugins, one in C from the header alone and one in Rust outside the workspace, as their authors would
//! use viommu: built, checked, compared with each other, and carrying a guest through the framework.

#![forbid(unsafe_code)]

mod conformance;
mod plugins;
mod replay;
mod same;
