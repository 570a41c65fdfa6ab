//! The kernel backend on a software iommufd, with a guest on top: what reaches the hardware after the guest's SYNC.
//! Letter M: the kernel is a model here; `ci/kernel-lab` has a real one.

mod adoption;
mod amd;
mod batches;
mod dirty;
mod events;
mod faults;
#[path = "../objects/guest.rs"]
#[allow(dead_code)] // shared with another test program
mod guest;
mod lifetimes;
mod pasids;
mod rig;
mod smmu;
mod tegra;
mod typed;
mod vtd;
mod world;

pub(crate) use world::{Machine, STREAM, VIRT_ID, World, options, plugin};
